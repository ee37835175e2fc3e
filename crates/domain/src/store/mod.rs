//! The port for pair stores: the contract that every adapter implements.

#[cfg(feature = "conformance")]
pub mod conformance;
#[cfg(feature = "conformance")]
pub mod model;
mod property;
mod set_up;
mod steps;

pub use property::{PROPERTY_NAME_BYTES, PROPERTY_VALUE_BYTES, check_property};
pub use set_up::{Change, IssuedToken, SetUp, Step};
pub use steps::last_of_each;

use std::collections::BTreeMap;
use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;

use crate::overlap::{Overlap, TopOverlaps, TopQuestion};
use crate::{
    Batch, Count, Erasure, Expression, FingerprintKey, Floor, Flow, Membership, Segment, SetCount,
    Slot, Timestamp, TrendPoint, UserId, Window,
};

/// The error of a store that can't count sets of users.
const NO_USERS: StoreError =
    StoreError::Unsupported("it does not have the users of all segments in memory");

/// A durable set of (user, segment) pairs, each with the latest slot in which it was seen.
///
/// Every store returns the same counts for the same pairs. Order, duplicates and retries change nothing: a pair
/// counts at its latest slot, so the caller may pass any part of an earlier batch to `record` again.
///
/// **Time.** A store has no clock of its own. `as_of` comes from the caller's clock, which never goes back. A
/// store that has already seen a later instant may count as of that instant; [`Count::as_of`] reports it.
///
/// **Cancellation.** Dropping the future of a call leaves the store valid. A dropped `record` may have recorded
/// all of the batch, a part of it, or nothing; the caller may retry it.
#[async_trait]
pub trait PairStore: Send + Sync + std::fmt::Debug {
    /// Records pairs. After `Ok`, every pair of `batch` survives a crash of this process, and every later count
    /// includes it. [`StoreError::Partly`] guarantees the same for all pairs except those that it lists. After any
    /// other error, any part of the batch may have been recorded.
    ///
    /// The call has no timeout of its own. A caller with a deadline drops the future.
    async fn record(&self, batch: &Batch) -> Result<(), StoreError>;

    /// Moves the time on in a store that has all users in memory. Users of pairs that are recorded later enter at this time.
    /// Other stores ignore it.
    fn advance(&self, _now: Timestamp) {}

    /// The number of distinct users of `segment` whose slot lies in
    /// [`window.slots_as_of(slot(as_of))`](Window::slots_as_of). The count of an unknown segment is 0.
    async fn count(
        &self,
        segment: &Segment,
        window: Window,
        as_of: Timestamp,
    ) -> Result<Count, StoreError>;

    /// The result of [`count`](Self::count) for each of `segments`, in the same order. An error does not show which of
    /// the segments can be counted.
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

    /// The recommended number of small segments per [`count_many`](Self::count_many) call; 1 if one call for many
    /// segments is no cheaper than one call per segment. Constant for the life of the store.
    fn counts_at_once(&self) -> usize {
        1
    }

    /// Whether the store keeps every slot in which a pair was seen. If so, a count as of a slot that has ended is
    /// still exact. A store that keeps only the latest slot omits users who have been seen again since. Constant for
    /// the life of the store.
    fn keeps_every_slot(&self) -> bool {
        false
    }

    /// Whether [`count_now`](Self::count_now) returns counts. Constant for the life of the store.
    fn is_live(&self) -> bool {
        false
    }

    /// The same as [`count`](Self::count), but synchronous and without I/O. Only a live store (the embedded one)
    /// supports it; every other store always returns `None`.
    fn count_now(&self, _segment: &Segment, _window: Window, _as_of: Timestamp) -> Option<Count> {
        None
    }

    /// The number of distinct users over `window` in the set that `expression` means, unless `floor` withholds it. A user who
    /// is written or erased meanwhile may be counted as before or as after that. A segment without users is an empty set. A
    /// store that does not have all users in memory always returns [`StoreError::Unsupported`], also for overlaps.
    async fn count_set(
        &self,
        _expression: &Expression,
        _window: Window,
        _floor: Floor,
        _as_of: Timestamp,
    ) -> Result<SetCount, StoreError> {
        Err(NO_USERS)
    }

    /// The number of users over `window` in both segments of each pair of `segments`, and the number of users of any segment.
    /// Without `fresh` it may be as of a few seconds before `as_of`. More than
    /// [`MAX_SEGMENTS`](crate::overlap::MAX_SEGMENTS) are [`StoreError::Rejected`].
    async fn overlap(
        &self,
        _segments: &[Segment],
        _window: Window,
        _fresh: bool,
        _as_of: Timestamp,
    ) -> Result<Overlap, StoreError> {
        Err(NO_USERS)
    }

    /// The pairs of all segments that have most in common over `window`. Otherwise as [`overlap`](Self::overlap).
    async fn top_overlaps(
        &self,
        _question: TopQuestion,
        _window: Window,
        _fresh: bool,
        _as_of: Timestamp,
    ) -> Result<TopOverlaps, StoreError> {
        Err(NO_USERS)
    }

    /// How many users entered and left `segment` over the full window in each of `spans`, from the start of its first slot to the
    /// start of the slot after it, as of `as_of`; see [`Flow`]. `None` for a span that is not known: it begins before the
    /// store began to count, or it is old and not of whole hours. A span in the future has zero. Synchronous and without
    /// I/O. A store that does not count it always returns [`StoreError::Unsupported`].
    fn flow(
        &self,
        _segment: &Segment,
        _spans: &[Range<Slot>],
        _as_of: Timestamp,
    ) -> Result<Vec<Option<Flow>>, StoreError> {
        Err(StoreError::Unsupported(
            "it does not count who enters and leaves",
        ))
    }

    /// The count of `segment` over the full window, and how many users entered and left it since the store has it in
    /// memory, to compare with a later total; both at the same instant. `None` for an unknown segment, and from a store that
    /// does not count it.
    fn total_flow(&self, _segment: &Segment, _as_of: Timestamp) -> Option<(Count, Flow)> {
        None
    }

    /// The segments that have at least one user in the full window, without duplicates, sorted by name.
    async fn segments(&self, as_of: Timestamp) -> Result<Vec<Segment>, StoreError>;

    /// The segments that `user` is in over the full window, sorted by name.
    async fn memberships(
        &self,
        user: &UserId<'_>,
        as_of: Timestamp,
    ) -> Result<Vec<Membership>, StoreError>;

    /// Durably erases `user` from every segment. Returns the number of segments within the full window from which the
    /// user was erased. Pairs recorded later count again.
    async fn forget(&self, user: &UserId<'_>, as_of: Timestamp) -> Result<u64, StoreError>;

    /// Durably erases `user` from one segment. Returns whether the user was in it, within the full window. A pair recorded later
    /// counts again. A store that can't do this always returns [`StoreError::Unsupported`].
    async fn forget_in(
        &self,
        _segment: &Segment,
        _user: &UserId<'_>,
        _as_of: Timestamp,
    ) -> Result<bool, StoreError> {
        Err(StoreError::Unsupported(
            "it can't erase a user from one segment",
        ))
    }

    /// Durably erases `user` from the segments of `seen`, except from one in which the user was seen later than that. Returns the number
    /// of segments from which the user was erased. A store that can't do this always returns [`StoreError::Unsupported`].
    async fn forget_seen(
        &self,
        _user: &UserId<'_>,
        _seen: &[Membership],
        _as_of: Timestamp,
    ) -> Result<u64, StoreError> {
        Err(StoreError::Unsupported("it can't merge users"))
    }

    /// Durably removes every pair of `segment`, and its trend over `windows`; a store may remove it over all windows. Returns
    /// the number of users that the segment had within the full window, which may be too low after a call that failed. Pairs
    /// recorded later count again. A store that can't do this always returns [`StoreError::Unsupported`].
    async fn drop_segment(
        &self,
        _segment: &Segment,
        _windows: &[Window],
        _as_of: Timestamp,
    ) -> Result<u64, StoreError> {
        Err(StoreError::Unsupported("it can't remove a segment"))
    }

    /// Durably records, for all instances that share the store, that a user is being erased or merged. The store keeps this note
    /// for at least the full window. A live store is not shared, so it may ignore the call, except for a merge.
    async fn note_erasure(&self, erasure: &Erasure) -> Result<(), StoreError>;

    /// The recorded erasures at `since` or later, in any order. The result may contain duplicates.
    async fn erasures(&self, since: Timestamp) -> Result<Vec<Erasure>, StoreError>;

    /// Removes refused pairs that the store keeps on the local disk, if their user was erased after the refusal. Returns
    /// the number of removed pairs.
    async fn erase_refused(&self, _erasures: &[Erasure]) -> Result<u64, StoreError> {
        Ok(0)
    }

    /// Data that outlives [`forget`](Self::forget) for a time, for a user erased at `at`: for example, deleted rows in
    /// the database's own files.
    fn remains(&self, _at: Timestamp) -> Vec<Remains> {
        Vec::new()
    }

    /// The key under which user ids become fingerprints, one for all instances on this store, created if there is none. A
    /// store without one always returns [`StoreError::Unsupported`].
    async fn fingerprint_key(&self) -> Result<FingerprintKey, StoreError> {
        Err(StoreError::Unsupported("it has no key for fingerprints"))
    }

    /// The properties of the installation whose name begins with `prefix`: small documents that all instances on this store
    /// share. A store without them always returns [`StoreError::Unsupported`].
    async fn properties(&self, _prefix: &str) -> Result<BTreeMap<String, String>, StoreError> {
        Err(StoreError::Unsupported("it keeps no properties"))
    }

    /// Durably sets a property, or removes it if `value` is `None`. It stays until it is set again, regardless of the
    /// retention of pairs. The last writer wins. [`check_property`] has the limits; beyond them, the call is
    /// [`StoreError::Rejected`].
    async fn set_property(&self, _name: &str, _value: Option<&str>) -> Result<(), StoreError> {
        Err(StoreError::Unsupported("it keeps no properties"))
    }

    /// Removes about `limit` pairs that no window as of `as_of` or later can reach. No count changes. Writers are
    /// blocked for at most one such step. Call it again until [`Archived::done`].
    async fn archive(&self, as_of: Timestamp, limit: u64) -> Result<Archived, StoreError>;

    /// The pairs of `segment` whose slot lies in `slots`, in any order, for a copy to another store. A store that
    /// keeps every slot of a pair may return the pair once per slot. A store that keeps only the latest slot returns
    /// the pair with that slot. A store that does not keep user ids always returns [`StoreError::Unsupported`].
    ///
    /// A concurrent write can only move a pair to a later slot. A caller that exports from the oldest slot to the
    /// newest therefore gets every pair that existed before the first call.
    async fn export(
        &self,
        _segment: &Segment,
        _slots: RangeInclusive<Slot>,
    ) -> Result<Batch, StoreError> {
        Err(StoreError::Unsupported(
            "it keeps fingerprints of users, not their names",
        ))
    }

    /// Whether [`export_stream`](Self::export_stream) uses bounded memory for ranges of any size. If not, the caller must
    /// request ranges that fit into memory.
    fn streams(&self) -> bool {
        false
    }

    /// The same pairs as [`export`](Self::export), as a stream of batches. A pair may appear more than once. After an
    /// error, the batches received so far are correct but incomplete; the caller requests the range again.
    fn export_stream<'a>(
        &'a self,
        segment: &'a Segment,
        slots: RangeInclusive<Slot>,
    ) -> BoxStream<'a, Result<Batch, StoreError>> {
        futures::stream::once(self.export(segment, slots)).boxed()
    }

    /// Durably stores trend points, for longer than pairs (400 days). A point of the same segment, window and second
    /// replaces the earlier one. The store may thin old points to one per hour.
    async fn record_trend(&self, points: &[TrendPoint]) -> Result<(), StoreError>;

    /// The trend points of `segment` and `window` with `from <= at <= to`, oldest first.
    async fn trend(
        &self,
        segment: &Segment,
        window: Window,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<Count>, StoreError>;

    /// The same as [`trend`](Self::trend), reduced to the last point of each step; steps are aligned to the epoch. A
    /// store that can do so filters on its server and does not transfer the other points.
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

    /// Foreign data: what other programs wrote into the store that can't be counted, or that prevents pairs from being
    /// recorded. Each string is one finding with its remedy, and never contains a user. The list is empty for a store
    /// to which no other program can write.
    async fn strangers(&self, _as_of: Timestamp) -> Result<Vec<String>, StoreError> {
        Ok(Vec::new())
    }

    /// The foreign data (see [`strangers`](Self::strangers)) that the latest [`ping`](Self::ping) or count found, without
    /// another query.
    fn known_strangers(&self) -> Vec<String> {
        Vec::new()
    }

    /// Checks with a real round trip that the store can serve requests now.
    async fn ping(&self) -> Result<(), StoreError>;

    /// Completes work in progress and releases all resources. Later calls return [`StoreError::Closed`].
    async fn close(&self) -> Result<(), StoreError>;
}

/// Data of an erased user that remains for a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remains {
    /// The location, as a short machine-readable name.
    pub place: &'static str,
    /// A description for people: what the data is, and what removes it.
    pub what: String,
    /// The latest time of its removal; `None` if this program does not control the removal.
    pub until: Option<Timestamp>,
}

/// The result of one [`PairStore::archive`] step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Archived {
    /// Pairs removed; 0 if the server expires pairs by itself.
    pub removed: u64,
    /// Whether no pairs are left to remove as of that instant.
    pub done: bool,
}

/// A failed call, classified by what the caller can do next. The message is for the log: it names the component and
/// never a user.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// Too many operations are in progress: retry soon.
    #[error("the store is busy: {0}")]
    Busy(String),
    /// The store requests a pause: retry after it.
    #[error("the store requests a pause of {} s: {reason}", retry_after.as_secs())]
    Throttled {
        /// The store's reason, without anything that may name a user.
        reason: String,
        /// The requested delay, at most one minute.
        retry_after: Duration,
    },
    /// The store can't be reached or can't work now: retry later.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// The store did not respond in time. The call may have taken effect.
    #[error("the store did not respond in time: {0}")]
    Timeout(String),
    /// The store has no capacity left: retry after an operator has freed some.
    #[error("the store is full: {0}")]
    Full(String),
    /// The store lacks something that `headcount setup` creates.
    #[error("the store is not set up: {0}; run `headcount setup`")]
    NotSetUp(String),
    /// The store refuses the request, and a retry will not help.
    #[error("the store refused: {0}")]
    Rejected(String),
    /// The store recorded only a part of the batch. Only [`PairStore::record`] returns this error.
    #[error(transparent)]
    Partly(Box<Partly>),
    /// The stored data can't be trusted or does not match the settings: an operator must act.
    #[error("the store can't be used: {0}")]
    Damaged(String),
    /// This kind of store does not support the operation.
    #[error("this store does not support the operation: {0}")]
    Unsupported(&'static str),
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
}

/// The pairs of a batch that were not recorded. All other pairs of the batch are durable.
#[derive(Debug, Clone, Default, thiserror::Error)]
#[error("{} pairs refused, {} undecided: {reason}", refused.len(), open.len())]
pub struct Partly {
    /// Ascending positions in the batch of the pairs that the store refuses permanently.
    pub refused: Vec<usize>,
    /// Whether all refused pairs are stored durably elsewhere, for an operator to inspect.
    pub kept: bool,
    /// Ascending positions in the batch of the pairs that may or may not be recorded: record them again.
    pub open: Vec<usize>,
    /// The reason, for the log.
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
