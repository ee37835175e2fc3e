//! What a Postgres store has done so far, and what its connections do.

use std::sync::atomic::{AtomicU64, Ordering};

use super::session::PoolUse;

/// Counters since the store was opened.
#[derive(Debug, Default)]
pub(super) struct Counters {
    retries: AtomicU64,
}

/// What a store tells of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PostgresStats {
    /// Writes that were tried again since the store was opened.
    pub retries: u64,
    /// The connections that write.
    pub writing: PoolUse,
    /// The connections that read.
    pub reading: PoolUse,
}

impl Counters {
    /// A write is tried again.
    pub(super) fn retried(&self) {
        self.retries.fetch_add(1, Ordering::Relaxed);
    }

    /// How many were.
    pub(super) fn retries(&self) -> u64 {
        self.retries.load(Ordering::Relaxed)
    }
}
