//! The port for caches of the last known counts: the contract that every adapter implements.

#[cfg(feature = "conformance")]
pub mod conformance;

use std::time::Duration;

use async_trait::async_trait;

use crate::{Count, Segment, Window};

/// How long [`CountCache::last_run`] remembers a refresh: longer than the longest `refresh_interval`.
pub const KEEP_RUN: Duration = Duration::from_hours(48);

/// How long a segment without users stays known after it was last noted: [`CountCache::remove_segment`] keeps it until then.
/// Longer than a count takes, plus the minute for which an instance does not note a segment again: the count without users
/// then includes the pairs of every note.
pub const KEEP_NOTED: Duration = Duration::from_hours(1);

/// The last known count per (segment, window). The cache is never a source of truth: it may lose all data at any
/// time, and every reader must work without it. Only the refresher calls [`put`](Self::put).
///
/// **Cancellation and errors.** A dropped or failed call may have taken effect completely, partly or not at all. Every
/// call may be repeated.
#[async_trait]
pub trait CountCache: Send + Sync + std::fmt::Debug {
    /// The last count that was put, if the cache still has it.
    async fn get(&self, segment: &Segment, window: Window) -> Result<Option<Count>, CacheError>;

    /// Notes that these segments exist. One round trip for all of them.
    async fn note_segments(&self, segments: &[Segment]) -> Result<(), CacheError>;

    /// Stores a count, and returns the count that the cache has now: a count older than the stored one changes nothing. A
    /// segment with users becomes a known segment.
    async fn put(
        &self,
        segment: &Segment,
        window: Window,
        count: Count,
    ) -> Result<Count, CacheError>;

    /// [`get`](Self::get) for many segments in few round trips. The results are in the order of `segments`.
    async fn get_many(
        &self,
        segments: &[Segment],
        window: Window,
    ) -> Result<Vec<Option<Count>>, CacheError>;

    /// The known segments, in any order: those of the last [`complete_segments`](Self::complete_segments), and those
    /// that [`note_segments`](Self::note_segments) or a [`put`](Self::put) with users added since.
    async fn segments(&self) -> Result<KnownSegments, CacheError>;

    /// Whether [`segments`](Self::segments) would list this segment.
    async fn knows(&self, segment: &Segment) -> Result<bool, CacheError>;

    /// Adds the segments that the store listed, and marks the list as complete for `ttl`. A cache that loses the list
    /// loses the mark with it, and reports the list as incomplete.
    async fn complete_segments(&self, listed: &[Segment], ttl: Duration) -> Result<(), CacheError>;

    /// Removes a segment that has no users any more, with its counts. The segment stays unless the last
    /// [`put`](Self::put) for its widest window found no users, and if it was noted, listed, or put with users within
    /// [`KEEP_NOTED`].
    async fn remove_segment(&self, segment: &Segment) -> Result<(), CacheError>;

    /// Acquires the lock that limits refreshes to one at a time, or extends it if `token` already holds it. The lock
    /// expires after `ttl`. Returns whether `token` holds the lock; `false` means that another token does. The call is
    /// idempotent: a holder that lost the response, or the lock, calls it again.
    async fn lock(&self, token: &LockToken, ttl: Duration) -> Result<bool, CacheError>;

    /// Releases the lock. It does not release a lock that another token holds. Idempotent.
    async fn unlock(&self, token: &LockToken) -> Result<(), CacheError>;

    /// Records that a refresh of all segments started `ago` before now, unless a later start is already recorded.
    async fn note_run(&self, ago: Duration) -> Result<(), CacheError>;

    /// How long ago the latest recorded refresh started, by one clock for all instances. `None` if none started within
    /// [`KEEP_RUN`], or if the record was lost.
    async fn last_run(&self) -> Result<Option<Duration>, CacheError>;

    /// Checks with a real round trip that the cache can serve requests now.
    async fn ping(&self) -> Result<(), CacheError>;
}

/// The cache's list of segments.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KnownSegments {
    /// The segments, in any order.
    pub names: Vec<Segment>,
    /// Whether the list has every segment of the store. If not, query the store.
    pub complete: bool,
    /// How much longer `complete` is valid, as far as the cache knows; zero if the list is incomplete.
    pub complete_for: Duration,
}

/// Identifies the holder of the refresh lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockToken(pub u64);

impl LockToken {
    /// A random token, unique for practical purposes.
    pub fn random() -> Self {
        Self(fastrand::u64(..))
    }
}

/// A failed cache call. Readers fall back to the store on each variant.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CacheError {
    /// The cache can't be reached, or recently could not be reached.
    #[error("the cache is unavailable: {0}")]
    Unavailable(String),
    /// The cache did not respond in time.
    #[error("the cache did not respond in time")]
    Timeout,
    /// The cache rejects the credentials, or can't work as it is configured: an operator must act.
    #[error("the cache is misconfigured: {0}")]
    Misconfigured(String),
    /// The cache sent an invalid response.
    #[error("the cache sent an invalid response: {0}")]
    Protocol(String),
}
