//! Live counts: a replica of the counts follows a [change feed](domain::feed), to which every instance appends what the
//! store has recorded. One replica publishes its counts, and the [`view`] of each instance follows them.

pub use state::{AFTER_ERASURE as REMAINS, Subject, erased, received};

pub mod publisher;
pub mod replica;
pub mod view;
pub mod writer;

#[cfg(test)]
mod model;
#[cfg(test)]
mod testing;
