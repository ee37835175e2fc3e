//! Counters of the Postgres store, and the use of its connections.

use std::sync::atomic::{AtomicU64, Ordering};

use super::session::PoolUse;

/// Live counters since the store was opened.
#[derive(Debug, Default)]
pub(super) struct Counters {
    retries: AtomicU64,
}

/// The state of a store for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PostgresStats {
    /// Retries of writes since the store was opened.
    pub retries: u64,
    /// The connection pool for writes.
    pub writing: PoolUse,
    /// The connection pool for reads.
    pub reading: PoolUse,
}

impl Counters {
    /// Counts a retry of a write.
    pub(super) fn retried(&self) {
        self.retries.fetch_add(1, Ordering::Relaxed);
    }

    /// The number of retries so far.
    pub(super) fn retries(&self) -> u64 {
        self.retries.load(Ordering::Relaxed)
    }
}
