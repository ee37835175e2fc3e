//! Live counts: a replica of the counts follows a [change feed](domain::feed), to which every instance appends what the
//! store has recorded.

pub use state::{AFTER_ERASURE as REMAINS, erased, received};

pub mod replica;
pub mod writer;
