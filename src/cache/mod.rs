//! Last known counts: the port that every cache fulfils.

use std::time::Duration;

use async_trait::async_trait;

use crate::domain::{Count, Segment, Window};

/// The last known count per (segment, window). Never a source of truth: it may lose everything at any time,
/// and every reader must get by without it. Only the refresher calls [`put`](Self::put).
#[async_trait]
pub trait CountCache: Send + Sync + std::fmt::Debug {
    /// The last count that was put, if it is still known, with the pairs acknowledged since.
    async fn get(&self, segment: &Segment, window: Window) -> Result<Option<Cached>, CacheError>;

    /// Notes that `pairs` pairs of each segment were acknowledged, and that the segment exists; one round
    /// trip for all. Called after the store has them and before the client is answered.
    async fn add_pending(&self, added: &[(Segment, u64)]) -> Result<(), CacheError>;

    /// Notes that pairs of these segments were acknowledged without [`add_pending`](Self::add_pending): until
    /// the next refresh their `pending` is unknown.
    async fn mark_pending_unknown(&self, segments: &[Segment]) -> Result<(), CacheError>;

    /// How many pairs of `segment` were noted so far. Taken before a count's query begins, it says what that
    /// query must have seen.
    async fn mark(&self, segment: &Segment) -> Result<PendingMark, CacheError>;

    /// Keeps a count whose query began after `mark` was taken. A count older than the one already kept
    /// changes nothing.
    async fn put(
        &self,
        segment: &Segment,
        window: Window,
        count: Count,
        mark: PendingMark,
    ) -> Result<(), CacheError>;

    /// [`get`](Self::get) for many segments in few round trips; answers in the order of `segments`.
    async fn get_many(
        &self,
        segments: &[Segment],
        window: Window,
    ) -> Result<Vec<Option<Cached>>, CacheError>;

    /// The known segments, in any order: those of the last [`complete_segments`](Self::complete_segments) and
    /// all that [`add_pending`](Self::add_pending) named since.
    async fn segments(&self) -> Result<KnownSegments, CacheError>;

    /// Adds segments as the store listed them, and notes that the list is whole for `ttl`. The note goes when
    /// the list goes, so that a cache that lost its list says so.
    async fn complete_segments(&self, listed: &[Segment], ttl: Duration) -> Result<(), CacheError>;

    /// Forgets a segment that has no users any more.
    async fn remove_segment(&self, segment: &Segment) -> Result<(), CacheError>;

    /// Takes the lock that makes refreshes single, for at most `ttl`; `None` when another holds it.
    async fn try_lock(&self, ttl: Duration) -> Result<Option<LockToken>, CacheError>;

    /// Prolongs a lock that is still held, and says whether it was.
    async fn extend_lock(&self, token: &LockToken, ttl: Duration) -> Result<bool, CacheError>;

    /// Gives the lock back; a lock that another has taken since stays theirs.
    async fn unlock(&self, token: LockToken) -> Result<(), CacheError>;

    /// Whether the cache can serve now, by a real round trip.
    async fn ping(&self) -> Result<(), CacheError>;
}

/// The cache's list of segments.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KnownSegments {
    /// The segments, in any order.
    pub names: Vec<Segment>,
    /// Whether the list holds every segment of the store; when not, ask the store.
    pub complete: bool,
}

/// A count from the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cached {
    /// The count as it was put.
    pub count: Count,
    /// Pairs acknowledged that the count need not hold; `None` when that is not known.
    pub pending: Option<u64>,
}

/// How far the pending counters of a segment had come at an instant.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PendingMark {
    /// Pairs noted by `add_pending`.
    pub noted: u64,
    /// How often `mark_pending_unknown` named the segment.
    pub gaps: u64,
}

/// Proof of holding the refresh lock.
#[derive(Debug, PartialEq, Eq)]
pub struct LockToken(pub(crate) u64);

/// What went wrong with the cache. Readers fall back to the store on each of them.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CacheError {
    /// The cache can't be reached, or lately could not.
    #[error("the cache is unavailable: {0}")]
    Unavailable(String),
    /// The cache did not answer in time.
    #[error("the cache did not answer in time")]
    Timeout,
    /// The cache answered something that is no answer.
    #[error("the cache answered nonsense: {0}")]
    Protocol(String),
}
