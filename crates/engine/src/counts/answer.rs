//! What readers get: a count, and how far to trust it.

use domain::cache::Cached;
use domain::store::StoreError;
use domain::{Count, Segment, Window};

/// A count with its provenance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// The count.
    pub count: Count,
    /// The window that was counted.
    pub window: Window,
    /// Where it came from.
    pub source: Source,
    /// Pairs acknowledged that the count need not hold; `None` when unknown.
    pub pending: Option<u64>,
    /// Whether every source failed and this is the last known number.
    pub stale: bool,
}

/// Where a count came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// This process's memory of an earlier answer.
    Memory,
    /// The cache.
    Cache,
    /// The store.
    Store,
}

/// A segment of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The segment.
    pub segment: Segment,
    /// Its count; `None` when it could not be counted and no earlier count is known.
    pub count: Option<Count>,
    /// Whether it could not be counted now: the count, if there is one, is the last known.
    pub stale: bool,
}

/// Why there is no count at all.
#[derive(Debug, Clone, thiserror::Error)]
#[error("no source can answer, and no earlier count is known: {0}")]
pub struct CountError(pub StoreError);

impl Source {
    /// The name that clients see.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Cache => "cache",
            Self::Store => "store",
        }
    }
}

impl Answer {
    /// From a store that counts at once.
    pub(super) fn live(count: Count, window: Window) -> Self {
        Self {
            count,
            window,
            source: Source::Store,
            pending: Some(0),
            stale: false,
        }
    }

    pub(super) fn cached(cached: Cached, window: Window) -> Self {
        Self {
            count: cached.count,
            window,
            source: Source::Cache,
            pending: cached.pending,
            stale: false,
        }
    }

    /// From memory. Other instances may have acknowledged pairs since it came there.
    pub(super) fn remembered(count: Count, window: Window) -> Self {
        Self {
            count,
            window,
            source: Source::Memory,
            pending: None,
            stale: false,
        }
    }
}
