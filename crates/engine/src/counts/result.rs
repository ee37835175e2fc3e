//! The result of a read: a count, its source, and how current it is.

use domain::store::StoreError;
use domain::{Count, Segment, Timestamp, Window};

/// A count, its source, and how current it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CountResult {
    /// The count.
    pub count: Count,
    /// The window that was counted.
    pub window: Window,
    /// The source of the count.
    pub source: Source,
    /// Whether no source returned a current count, so that this is the last known one.
    pub stale: bool,
}

/// An answer about sets of users, its source, and how current it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer<T> {
    /// The answer.
    pub value: T,
    /// The instant for which it is exact.
    pub as_of: Timestamp,
    /// The window that was counted.
    pub window: Window,
    /// The source.
    pub source: Source,
    /// Whether no source had a current one, so that this is the last known one.
    pub stale: bool,
}

/// The source of a count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The replica of this process, which follows every new pair.
    Live,
    /// The memory of this process, which has an earlier count.
    Memory,
    /// The cache.
    Cache,
    /// The store.
    Store,
}

/// A segment in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The segment.
    pub segment: Segment,
    /// The window that was counted.
    pub window: Window,
    /// The count; `None` if counting failed and no earlier count is known, or if it is withheld.
    pub count: Option<Count>,
    /// Whether the count is withheld because of [`Floor`](domain::Floor).
    pub withheld: bool,
    /// Whether counting failed, so that the count, if there is one, is the last known one.
    pub stale: bool,
}

impl Listed {
    pub(super) fn new(segment: Segment, window: Window, count: Option<Count>, stale: bool) -> Self {
        Self {
            segment,
            window,
            count,
            withheld: false,
            stale,
        }
    }
}

/// A count for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShownCount {
    /// The number of users; `None` if it is withheld.
    pub users: Option<u64>,
    /// The instant for which it was exact.
    pub as_of: Timestamp,
}

/// Every source failed and no earlier count is known. Contains the error of the store.
#[derive(Debug, Clone, thiserror::Error)]
#[error("every source failed, and no earlier count is known: {0}")]
pub struct CountError(pub StoreError);

impl Source {
    /// The name in responses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Memory => "memory",
            Self::Cache => "cache",
            Self::Store => "store",
        }
    }
}

impl CountResult {
    /// A count of a live store. It includes every acknowledged pair.
    pub(super) fn live(count: Count, window: Window) -> Self {
        Self {
            count,
            window,
            source: Source::Store,
            stale: false,
        }
    }

    /// A count of the replica. It includes every pair that was answered with 200 before its instant.
    pub(super) fn replica(count: Count, window: Window) -> Self {
        Self {
            source: Source::Live,
            ..Self::live(count, window)
        }
    }

    pub(super) fn cached(count: Count, window: Window) -> Self {
        Self {
            count,
            window,
            source: Source::Cache,
            stale: false,
        }
    }

    /// A count from memory.
    pub(super) fn remembered(count: Count, window: Window) -> Self {
        Self {
            count,
            window,
            source: Source::Memory,
            stale: false,
        }
    }
}
