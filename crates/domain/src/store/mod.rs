//! Where pairs live: the port that every store fulfils.

#[cfg(feature = "conformance")]
pub mod conformance;
#[cfg(feature = "conformance")]
pub mod model;
mod set_up;
mod steps;

pub use set_up::{Change, IssuedToken, SetUp, Step};
pub use steps::last_of_each;

use std::ops::RangeInclusive;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;

use crate::{
    Batch, Count, Erasure, Membership, Segment, Slot, Timestamp, TrendPoint, UserId, Window,
};

/// A durable set of (user, segment) pairs, each with the latest slot in which it was seen.
///
/// Every store gives the same counts for the same pairs. Order, repetition and retries change nothing: a pair
/// counts at its latest slot, so `record` may be called again with any part of an earlier batch.
///
/// **Time.** A store owns no clock. `as_of` comes from the caller's clock, which never goes back; a store
/// that has already seen a later instant may answer for that one, and says so in [`Count::as_of`].
///
/// **Cancellation.** Dropping the future of a call leaves the store valid; a dropped `record` may or may
/// not have taken effect, as a whole or in part, and may be repeated.
#[async_trait]
pub trait PairStore: Send + Sync + std::fmt::Debug {
    /// Records pairs. When it returns `Ok`, every pair of `batch` survives a crash of this process, and every
    /// later count includes it. [`StoreError::Partly`] says the same of all pairs but those that it names. On any
    /// other error any part of the batch may have been recorded.
    ///
    /// It may take as long as the store needs. A caller with a deadline drops the future.
    async fn record(&self, batch: &Batch) -> Result<(), StoreError>;

    /// The number of distinct users of `segment` whose slot lies in
    /// [`window.slots_as_of(slot(as_of))`](Window::slots_as_of). An unknown segment has 0.
    async fn count(
        &self,
        segment: &Segment,
        window: Window,
        as_of: Timestamp,
    ) -> Result<Count, StoreError>;

    /// The same as [`count`](Self::count) for each of `segments`, in their order. An error says nothing of which of them
    /// can be counted.
    async fn count_many(
        &self,
        segments: &[Segment],
        window: Window,
        as_of: Timestamp,
    ) -> Result<Vec<Count>, StoreError> {
        let mut counts = Vec::with_capacity(segments.len());
        for segment in segments {
            counts.push(self.count(segment, window, as_of).await?);
        }
        Ok(counts)
    }

    /// How many small segments one [`count_many`](Self::count_many) should have, where that is cheaper than a call for
    /// each; 1 where it is not. The same for the life of the store.
    fn counts_at_once(&self) -> usize {
        1
    }

    /// Whether the store keeps every slot in which a pair was seen, so that a count as of a slot that has ended is
    /// still right. One that keeps the latest slot alone leaves out whoever has been seen again since. The same for
    /// the life of the store.
    fn keeps_every_slot(&self) -> bool {
        false
    }

    /// Whether [`count_now`](Self::count_now) answers; the same for the life of the store.
    fn is_live(&self) -> bool {
        false
    }

    /// The same as [`count`](Self::count), at once and without I/O, from a store that can (the embedded one).
    /// `None` from a store that is not live, always.
    fn count_now(&self, _segment: &Segment, _window: Window, _as_of: Timestamp) -> Option<Count> {
        None
    }

    /// The segments that have at least one user in the full window, each once, sorted by name.
    async fn segments(&self, as_of: Timestamp) -> Result<Vec<Segment>, StoreError>;

    /// The segments that `user` is in over the full window, sorted by name.
    async fn memberships(
        &self,
        user: &UserId<'_>,
        as_of: Timestamp,
    ) -> Result<Vec<Membership>, StoreError>;

    /// Erases `user` from every segment, durably, and returns from how many segments within the full window
    /// the user was erased. Pairs recorded later count again.
    async fn forget(&self, user: &UserId<'_>, as_of: Timestamp) -> Result<u64, StoreError>;

    /// Notes, durably and for everybody on the store, that a user is being erased. It is kept for the full window at least. A
    /// store that is live has nobody to tell.
    async fn note_erasure(&self, erasure: &Erasure) -> Result<(), StoreError>;

    /// The erasures at `since` or later that were noted, in any order, some perhaps more than once.
    async fn erasures(&self, since: Timestamp) -> Result<Vec<Erasure>, StoreError>;

    /// Removes from this machine's disk the pairs that the store refused and keeps there, of users who were erased after
    /// that; how many there were.
    async fn erase_refused(&self, _erasures: &[Erasure]) -> Result<u64, StoreError> {
        Ok(0)
    }

    /// What is left of a user whom [`forget`](Self::forget) erased at `at`.
    fn remains(&self, _at: Timestamp) -> Vec<Remains> {
        Vec::new()
    }

    /// Removes about `limit` pairs that no window as of `as_of` or later can reach, without holding up
    /// writers for longer than one such step. No count changes. Call it again until `done`.
    async fn archive(&self, as_of: Timestamp, limit: u64) -> Result<Archived, StoreError>;

    /// The pairs of `segment` whose slot lies in `slots`, in any order, to move them to another store. A store
    /// that keeps every slot of a pair may give each of them; one that keeps the latest gives that one. A store
    /// that keeps no names of users answers [`StoreError::Unsupported`], always.
    ///
    /// A pair recorded meanwhile only ever moves to a later slot, so who asks from the oldest slot to the newest
    /// misses none that was there before the first call.
    async fn export(
        &self,
        _segment: &Segment,
        _slots: RangeInclusive<Slot>,
    ) -> Result<Batch, StoreError> {
        Err(StoreError::Unsupported(
            "it keeps fingerprints of users, not their names",
        ))
    }

    /// Whether [`export_stream`](Self::export_stream) hands out ranges of any size in bounded memory. Of another store one
    /// asks for ranges that fit into memory.
    fn streams(&self) -> bool {
        false
    }

    /// The same pairs as [`export`](Self::export), in batches as they come. A pair may come more than once. After an
    /// error those that came are right, but not all; the range is asked for again.
    fn export_stream<'a>(
        &'a self,
        segment: &'a Segment,
        slots: RangeInclusive<Slot>,
    ) -> BoxStream<'a, Result<Batch, StoreError>> {
        futures::stream::once(self.export(segment, slots)).boxed()
    }

    /// Keeps trend points, durably and for longer than pairs (400 days). A point of the same segment,
    /// window and second replaces the earlier one. An old point may be thinned out to one an hour.
    async fn record_trend(&self, points: &[TrendPoint]) -> Result<(), StoreError>;

    /// The trend points of `segment` and `window` with `from <= at <= to`, oldest first.
    async fn trend(
        &self,
        segment: &Segment,
        window: Window,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<Count>, StoreError>;

    /// The same, of each step since the epoch the last point. A store that can leaves the others where they are.
    async fn trend_in_steps(
        &self,
        segment: &Segment,
        window: Window,
        from: Timestamp,
        to: Timestamp,
        step: Duration,
    ) -> Result<Vec<Count>, StoreError> {
        let points = self.trend(segment, window, from, to).await?;
        Ok(last_of_each(points, step))
    }

    /// What other programs wrote into the store so that it can't be counted, or keeps pairs from being recorded: a
    /// sentence each, with what to do about it, and never a user. A store that nobody else can write to has nothing.
    async fn strangers(&self, _as_of: Timestamp) -> Result<Vec<String>, StoreError> {
        Ok(Vec::new())
    }

    /// What [`ping`](Self::ping) or a count met lately of [`strangers`](Self::strangers), without asking again.
    fn known_strangers(&self) -> Vec<String> {
        Vec::new()
    }

    /// Whether the store can serve now, by a real round trip.
    async fn ping(&self) -> Result<(), StoreError>;

    /// Finishes what was begun and releases what is held. Later calls answer [`StoreError::Closed`].
    async fn close(&self) -> Result<(), StoreError>;
}

/// Something that is left of an erased user, for a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remains {
    /// Where: a short name for programs.
    pub place: &'static str,
    /// What it is, and what ends it, in words.
    pub what: String,
    /// When it is gone at the latest; `None` where that is not in this program's hands.
    pub until: Option<Timestamp>,
}

/// What one step of [`PairStore::archive`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Archived {
    /// Pairs removed. A store whose server removes them by itself answers 0.
    pub removed: u64,
    /// Whether nothing is left to remove as of that instant.
    pub done: bool,
}

/// What went wrong, by what the caller can do next. The text is for the log: it names the thing and never a
/// user.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// Too much is under way: try again soon.
    #[error("the store is busy: {0}")]
    Busy(String),
    /// The store asks not to be called for this time: try again after it.
    #[error("the store asks for a pause of {} s: {reason}", retry_after.as_secs())]
    Throttled {
        /// What the store said, as far as it names no user.
        reason: String,
        /// How long it asks to wait, at most a minute.
        retry_after: Duration,
    },
    /// The store can't be reached or can't work now: try again later.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// The store did not answer in time; the call may have taken effect.
    #[error("the store did not answer in time: {0}")]
    Timeout(String),
    /// There is no room: try again after somebody made some.
    #[error("the store is full: {0}")]
    Full(String),
    /// The store lacks what `headcount setup` makes.
    #[error("the store is not set up: {0}; run `headcount setup`")]
    NotSetUp(String),
    /// The store refuses this and always will.
    #[error("the store refused: {0}")]
    Rejected(String),
    /// The store recorded a part of the batch. Only [`PairStore::record`] returns it.
    #[error(transparent)]
    Partly(Box<Partly>),
    /// What the store holds can't be trusted, or is not as the settings say: somebody must act.
    #[error("the store can't be used: {0}")]
    Damaged(String),
    /// This store can't do that.
    #[error("this store can't do that: {0}")]
    Unsupported(&'static str),
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
}

/// Which pairs of a batch were not recorded. Every other pair of it is durable.
#[derive(Debug, Clone, Default, thiserror::Error)]
#[error("{} pairs refused, {} undecided: {reason}", refused.len(), open.len())]
pub struct Partly {
    /// Positions in the batch, ascending, of the pairs that the store refuses for good.
    pub refused: Vec<usize>,
    /// Whether all refused pairs are kept elsewhere, durably, for an operator to look at.
    pub kept: bool,
    /// Positions in the batch, ascending, of the pairs that may or may not be recorded: record them again.
    pub open: Vec<usize>,
    /// Why, for the log.
    pub reason: String,
}

impl StoreError {
    /// A short name for metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Busy(_) => "busy",
            Self::Throttled { .. } => "throttled",
            Self::Unavailable(_) => "unavailable",
            Self::Timeout(_) => "timeout",
            Self::Full(_) => "full",
            Self::NotSetUp(_) => "not_set_up",
            Self::Rejected(_) => "rejected",
            Self::Partly(_) => "partly",
            Self::Damaged(_) => "damaged",
            Self::Unsupported(_) => "unsupported",
            Self::Closed => "closed",
        }
    }
}
