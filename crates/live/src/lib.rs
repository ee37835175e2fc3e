//! Live counts: a replica of the counts follows a [change feed](domain::feed), to which every instance appends what the
//! store has recorded.

pub mod replica;
pub mod writer;
