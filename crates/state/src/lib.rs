//! The state of the embedded store: the [`index`] and the trends, changed by records and durable on disk.
//!
//! Every change is a record of the [write-ahead log](wal). One function applies records to the state: the log's writer calls
//! it once a record is on disk, and replay calls it after a restart. Regular snapshots keep the log short.
//!
//! The directory holds `identity` (the key of the fingerprints, and the resolution), numbered `.log` files, and a few
//! `.snapshot` files. The number of a snapshot is that of the log file with which replay continues.

mod blocks;
mod durable;
mod encode;
mod flows;
mod following;
#[cfg(test)]
mod fuzz;
mod identity;
mod load;
mod questions;
mod record;
mod snapshot;
mod snapshotter;
mod state;
mod subject;
mod trends;
mod walks;

pub use durable::{DurableOptions, DurableState};
pub use encode::{check_received, no_later_than, pairs_of, received, records, stored};
pub use following::{Following, Reached};
pub use questions::Questions;
pub use record::{
    batch, covered, differing, differing_segment, drop_segment, erased, erasure, forget, forget_in,
    forget_seen, join, position, property, reset, split, trend,
};
pub use snapshotter::{AFTER_ERASURE, Snapshotter};
pub use state::State;
pub use subject::Subject;
pub use trends::{Point, Trends};
