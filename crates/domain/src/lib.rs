//! The domain types and the ports for stores and caches. Each value is valid once constructed. Nothing here does I/O.
//!
//! Time is UTC. A **slot** is one step of the **resolution**; a **window** is a number of slots. A user is
//! in a segment as of an instant `T` when their latest pair has a slot `s` with
//! `slot(T) - window < s <= slot(T)`.

mod batch;
pub mod cache;
mod clock;
mod collisions;
mod count;
pub mod coverage;
mod erasure;
pub mod expression;
pub mod feed;
mod fingerprint_key;
mod floor;
mod flow;
mod hidden;
pub mod overlap;
pub mod percent;
pub mod published;
mod reach;
mod secret;
mod segment;
pub mod store;
pub mod text;
mod time_frame;
mod user_id;
mod window;

pub use batch::{Batch, BatchBuilder, Pair};
pub use clock::{Clock, ManualClock, SteadyClock};
pub use collisions::hidden_at_most;
pub use count::{Count, Membership, SetCount, TrendPoint};
pub use coverage::{Coverage, Covered};
pub use erasure::{Erasure, ErasureScope};
pub use expression::{Expression, InvalidExpression};
pub use fingerprint_key::FingerprintKey;
pub use floor::Floor;
pub use flow::Flow;
pub use hidden::Hidden;
pub use hidden::shown;
pub use jiff::Timestamp;
pub use reach::{PATTERN, Reach};
pub use secret::{HIDDEN, Secret};
pub use segment::{InvalidSegment, Segment};
pub use time_frame::{
    InvalidInstant, InvalidTimeFrame, InvalidWindow, Resolution, Slot, TimeFrame,
};
pub use user_id::{InvalidUserId, UserId};
pub use window::{OwnWindows, Window};
