//! The port for caches of the last known counts: the contract that every adapter implements.

#[cfg(feature = "conformance")]
pub mod conformance;

use std::time::Duration;

use async_trait::async_trait;

use crate::{Count, Segment, Window};

/// How long [`CountCache::last_run`] remembers a refresh: longer than the longest `refresh_interval`.
pub const KEEP_RUN: Duration = Duration::from_hours(48);

/// The last known count per (segment, window). The cache is never a source of truth: it may lose all data at any
/// time, and every reader must work without it. Only the refresher calls [`put`](Self::put).
///
/// **The guarantee of `pending`.** If the `pending` of a [`Cached`] is a number, then `users + pending` is at least
/// the current number of distinct users, as far as this cache knows: each pair is noted with
/// [`add_pending`](Self::add_pending) before its client gets a response. An event that may have lost a note makes
/// `pending` unknown until the next `mark`, count and `put`; it never makes `pending` too small. Such events are lost
/// counters, a return to an older state, and a call of [`mark_pending_unknown`](Self::mark_pending_unknown).
///
/// **Cancellation and errors.** A dropped or failed call may have taken effect completely, partly or not at all.
/// After such an `add_pending`, call [`mark_pending_unknown`](Self::mark_pending_unknown).
#[async_trait]
pub trait CountCache: Send + Sync + std::fmt::Debug {
    /// The last count that was put, if the cache still has it, with the number of pairs acknowledged since.
    async fn get(&self, segment: &Segment, window: Window) -> Result<Option<Cached>, CacheError>;

    /// Notes the number of pairs of each segment that are about to be acknowledged, and that the segment exists. One
    /// round trip for all segments. Must be called after the store has the pairs and before the client gets a response.
    async fn add_pending(&self, added: &[(Segment, u64)]) -> Result<(), CacheError>;

    /// Notes that pairs of these segments were acknowledged without [`add_pending`](Self::add_pending), and that the
    /// segments exist. Their `pending` is unknown until a `put` whose mark was taken later.
    async fn mark_pending_unknown(&self, segments: &[Segment]) -> Result<(), CacheError>;

    /// The current position of the pending counters of `segment`. A count's query sees all pairs noted before a mark
    /// that was taken before the query started.
    async fn mark(&self, segment: &Segment) -> Result<PendingMark, CacheError>;

    /// Stores a count whose query started after `mark` was taken, and returns what [`get`](Self::get) would return
    /// now. A count older than the stored one changes nothing. A segment with users becomes a known segment.
    async fn put(
        &self,
        segment: &Segment,
        window: Window,
        count: Count,
        mark: PendingMark,
    ) -> Result<Option<Cached>, CacheError>;

    /// [`get`](Self::get) for many segments in few round trips. The results are in the order of `segments`.
    async fn get_many(
        &self,
        segments: &[Segment],
        window: Window,
    ) -> Result<Vec<Option<Cached>>, CacheError>;

    /// The known segments, in any order: those of the last [`complete_segments`](Self::complete_segments), and those
    /// that [`add_pending`](Self::add_pending), [`mark_pending_unknown`](Self::mark_pending_unknown) or a
    /// [`put`](Self::put) with users added since.
    async fn segments(&self) -> Result<KnownSegments, CacheError>;

    /// Whether [`segments`](Self::segments) would list this segment.
    async fn knows(&self, segment: &Segment) -> Result<bool, CacheError>;

    /// Adds the segments that the store listed, and marks the list as complete for `ttl`. A cache that loses the list
    /// loses the mark with it, and reports the list as incomplete.
    async fn complete_segments(&self, listed: &[Segment], ttl: Duration) -> Result<(), CacheError>;

    /// Removes a segment that has no users any more. The segment stays if the last [`put`](Self::put) for its widest
    /// window found users, or if anything was noted since the mark of that put.
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

/// A count from the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cached {
    /// The count as it was put.
    pub count: Count,
    /// Acknowledged pairs that the count may not include; `None` if their number is unknown.
    pub pending: Option<u64>,
}

/// The position of a segment's pending counters at an instant.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PendingMark {
    /// Pairs noted by `add_pending`.
    pub noted: u64,
    /// Calls of `mark_pending_unknown` for the segment, in caches that count them.
    pub gaps: u64,
    /// Identifies the counters: counters that were lost or removed and then created again have another epoch.
    pub epoch: u64,
}

impl PendingMark {
    /// Pairs noted between `earlier` and this mark; `None` if their number is unknown.
    pub fn since(&self, earlier: &Self) -> Option<u64> {
        if self.epoch != earlier.epoch || self.gaps != earlier.gaps {
            return None;
        }
        self.noted.checked_sub(earlier.noted)
    }
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
