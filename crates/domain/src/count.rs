//! Results of queries: counts, memberships and trend points.

use jiff::Timestamp;

use super::{Segment, Slot, Window};

/// The number of distinct users of a segment over a window, exact as of an instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    /// The number of distinct users.
    pub users: u64,
    /// The instant for which `users` is exact.
    pub as_of: Timestamp,
}

/// The number of distinct users in a set of segments, exact as of an instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SetCount {
    /// The number of distinct users; `None` if a [`Floor`](super::Floor) withholds it.
    pub users: Option<u64>,
    /// The instant for which `users` is exact.
    pub as_of: Timestamp,
}

/// A segment that a user is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// The segment.
    pub segment: Segment,
    /// The slot in which the user was last seen there.
    pub last_seen: Slot,
}

/// A past count of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrendPoint {
    /// The segment.
    pub segment: Segment,
    /// The window that was counted.
    pub window: Window,
    /// The count and its instant. Stores keep the instant in whole seconds.
    pub count: Count,
}
