//! Last known counts: the port that every cache fulfils.

#[cfg(feature = "conformance")]
pub mod conformance;

use std::time::Duration;

use async_trait::async_trait;

use crate::{Count, Segment, Window};

/// How long it stays known when the last refresh began: longer than the longest `refresh_interval`.
pub const KEEP_RUN: Duration = Duration::from_hours(48);

/// The last known count per (segment, window). Never a source of truth: it may lose everything at any time,
/// and every reader must get by without it. Only the refresher calls [`put`](Self::put).
///
/// **The promise of `pending`.** When a [`Cached`] has a number for `pending`, then `users + pending` is at least
/// the number of distinct users now, as far as this cache was told: each pair was noted by
/// [`add_pending`](Self::add_pending) before its client was answered. Whatever may have cost a note (a cache that
/// lost its counters, went back to an older state, or was told of a gap) makes `pending` unknown until the next
/// `mark`, count and `put`; it never makes it too small.
///
/// **Cancellation and errors.** A call that was dropped or that failed may or may not have taken effect, in whole
/// or in part. After such an `add_pending` call [`mark_pending_unknown`](Self::mark_pending_unknown).
#[async_trait]
pub trait CountCache: Send + Sync + std::fmt::Debug {
    /// The last count that was put, if it is still known, with the pairs acknowledged since.
    async fn get(&self, segment: &Segment, window: Window) -> Result<Option<Cached>, CacheError>;

    /// Notes that `pairs` pairs of each segment were acknowledged, and that the segment exists; one round
    /// trip for all. Called after the store has them and before the client is answered.
    async fn add_pending(&self, added: &[(Segment, u64)]) -> Result<(), CacheError>;

    /// Notes that pairs of these segments were acknowledged without [`add_pending`](Self::add_pending), and that
    /// the segments exist: their `pending` is unknown until a `put` whose mark was taken later.
    async fn mark_pending_unknown(&self, segments: &[Segment]) -> Result<(), CacheError>;

    /// How many pairs of `segment` were noted so far. Taken before a count's query begins, it says what that
    /// query must have seen.
    async fn mark(&self, segment: &Segment) -> Result<PendingMark, CacheError>;

    /// Keeps a count whose query began after `mark` was taken, and answers what [`get`](Self::get) would now. A
    /// count older than the one already kept changes nothing. A segment with users becomes known by it.
    async fn put(
        &self,
        segment: &Segment,
        window: Window,
        count: Count,
        mark: PendingMark,
    ) -> Result<Option<Cached>, CacheError>;

    /// [`get`](Self::get) for many segments in few round trips; answers in the order of `segments`.
    async fn get_many(
        &self,
        segments: &[Segment],
        window: Window,
    ) -> Result<Vec<Option<Cached>>, CacheError>;

    /// The known segments, in any order: those of the last [`complete_segments`](Self::complete_segments) and
    /// all that [`add_pending`](Self::add_pending) named since.
    async fn segments(&self) -> Result<KnownSegments, CacheError>;

    /// Whether [`segments`](Self::segments) would name this one.
    async fn knows(&self, segment: &Segment) -> Result<bool, CacheError>;

    /// Adds segments as the store listed them, and notes that the list is whole for `ttl`. The note goes when
    /// the list goes, so that a cache that lost its list says so.
    async fn complete_segments(&self, listed: &[Segment], ttl: Duration) -> Result<(), CacheError>;

    /// Forgets a segment that has no users any more. It stays when the last [`put`](Self::put) for its widest
    /// window found users, or when anything was noted since the mark of that put.
    async fn remove_segment(&self, segment: &Segment) -> Result<(), CacheError>;

    /// Takes the lock that makes refreshes single, or prolongs it when `token` holds it already: it lasts for `ttl`
    /// from now. Returns whether `token` holds it; false means that another one does. Safe to repeat, so a holder
    /// whose answer was lost, or whose lock was, asks again.
    async fn lock(&self, token: &LockToken, ttl: Duration) -> Result<bool, CacheError>;

    /// Gives the lock back; a lock that another token holds stays theirs. Safe to repeat.
    async fn unlock(&self, token: &LockToken) -> Result<(), CacheError>;

    /// Notes that a refresh of every segment began `ago` before now. An earlier note of a later beginning stays.
    async fn note_run(&self, ago: Duration) -> Result<(), CacheError>;

    /// How long ago the latest noted refresh began, by one clock for all instances. `None` when there was none in
    /// the last two days, or when the note was lost.
    async fn last_run(&self) -> Result<Option<Duration>, CacheError>;

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
    /// For how much longer it does, as far as is known; zero when it does not.
    pub complete_for: Duration,
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
    /// How often `mark_pending_unknown` named the segment, for caches that count it.
    pub gaps: u64,
    /// Which life of the counters this is: counters that were lost or ended, and began again, have another one.
    pub epoch: u64,
}

impl PendingMark {
    /// Pairs noted from `earlier` until this mark; `None` when that can't be said.
    pub fn since(&self, earlier: &Self) -> Option<u64> {
        if self.epoch != earlier.epoch || self.gaps != earlier.gaps {
            return None;
        }
        self.noted.checked_sub(earlier.noted)
    }
}

/// Who holds the refresh lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockToken(pub u64);

impl LockToken {
    /// A token that nobody else has.
    pub fn random() -> Self {
        Self(fastrand::u64(..))
    }
}

/// What went wrong with the cache. Readers fall back to the store on each of them.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CacheError {
    /// The cache can't be reached, or lately could not.
    #[error("the cache is unavailable: {0}")]
    Unavailable(String),
    /// The cache did not answer in time.
    #[error("the cache did not answer in time")]
    Timeout,
    /// The cache refuses who asks, or can't work as it is configured: somebody must act.
    #[error("the cache is misconfigured: {0}")]
    Misconfigured(String),
    /// The cache answered something that is no answer.
    #[error("the cache answered nonsense: {0}")]
    Protocol(String),
}
