//! Merges a user into another one: every visit of the first becomes a visit of the second.
//!
//! A merge is first noted in the store, so that from then on each instance records and delivers pairs of the first user as pairs of
//! the second. Then the pairs that the store has are recorded for the second user, and after that erased from the first. A
//! crash in between leaves a user who counts twice, never a lost visit, and the call that is repeated completes it.
//!
//! A pair that was already on its way is still recorded for the first user. So the pairs are moved once more, when all
//! instances know the note. Until then such a user may count twice.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};

use crate::erasing::Target;
use crate::ingest::Recorder;
use crate::ingest::erasures::{Erasures, FOLLOW_EVERY};
use crate::ingest::spool::{Sink, Spool};
use crate::live::Live;
use domain::store::{PairStore, StoreError};
use domain::{BatchBuilder, Clock, Erasure, Membership, TimeFrame, Timestamp, UserId};
use telemetry::Metrics;

/// When the pairs are moved once more: every instance has read the note by then, and no write that began before takes this long.
const AGAIN_AFTER: Duration = FOLLOW_EVERY.saturating_add(Duration::from_secs(30));
/// The same for a store in this process, whose notes no other instance reads.
const AGAIN_AFTER_HERE: Duration = Duration::from_secs(2);
/// Less than this is the difference between the clocks of two instances.
const CLOCK_DIFFERENCE: Duration = Duration::from_millis(500);
/// The instants in the change feed are milliseconds.
const FEED_PRECISION: Duration = Duration::from_millis(2);
/// The maximum number of merges that wait for that. The oldest is given up for a new one.
const MAX_WAITING: usize = 1 << 16;
/// Merges of the same two users run one after another; of others, this many at a time.
const LOCKS: usize = 64;

/// Why users were not merged.
#[derive(Debug, Clone, thiserror::Error)]
pub enum MergeError {
    /// Both are the same user.
    #[error("both ids are the same user")]
    SameUser,
    /// Too many users were merged within the window.
    #[error("too many users were merged within the window")]
    TooMany,
    /// The store can't do it now, or at all. Repeat the call.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Merges users.
#[derive(Debug)]
pub(super) struct Merger {
    parts: MergerParts,
    locks: [tokio::sync::Mutex<()>; LOCKS],
    waiting: Mutex<VecDeque<Waiting>>,
    added: Notify,
}

/// The dependencies of [`Merger`].
#[derive(Debug)]
pub(super) struct MergerParts {
    pub(super) frame: TimeFrame,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) store: Arc<dyn PairStore>,
    pub(super) recorder: Arc<Recorder>,
    pub(super) live: Option<Arc<Live>>,
    pub(super) spool: Option<Arc<Spool>>,
    pub(super) erasures: Arc<Erasures>,
    pub(super) metrics: Arc<Metrics>,
}

/// A merge whose pairs are moved once more.
#[derive(Debug)]
struct Waiting {
    from: UserId<'static>,
    merge: Erasure,
    /// The user who got the pairs, and what they are.
    moved_to: UserId<'static>,
    moved: Vec<Membership>,
    /// When they were moved.
    moved_at: Timestamp,
    due: Instant,
}

impl Merger {
    pub(super) fn new(parts: MergerParts) -> Self {
        Self {
            parts,
            locks: std::array::from_fn(|_| tokio::sync::Mutex::default()),
            waiting: Mutex::default(),
            added: Notify::new(),
        }
    }

    /// Merges `from` into `into`, both ids as they are stored. Returns the number of segments that `from` was in.
    pub(super) async fn merge(
        &self,
        from: UserId<'static>,
        into: &UserId<'_>,
    ) -> Result<u64, MergeError> {
        if from == *into {
            return Err(MergeError::SameUser);
        }
        if self.is_complete(&from, into) {
            return Ok(0);
        }
        let _first = self.lock(&from, into, usize::min).await;
        let _second = match self.lock_of(&from) == self.lock_of(into) {
            true => None,
            false => Some(self.lock(&from, into, usize::max).await),
        };
        if self.is_complete(&from, into) {
            return Ok(0);
        }
        let merged = self.merge_locked(from, into).await;
        let result = match &merged {
            Ok(0) => "nothing_to_move",
            Ok(_) => "moved",
            Err(_) => "failed",
        };
        self.parts.metrics.ingest.merges.with([result]).inc();
        merged
    }

    async fn lock(
        &self,
        from: &UserId<'_>,
        into: &UserId<'_>,
        choose: fn(usize, usize) -> usize,
    ) -> tokio::sync::MutexGuard<'_, ()> {
        let lock = choose(self.lock_of(from), self.lock_of(into));
        self.locks[lock].lock().await
    }

    fn lock_of(&self, user: &UserId<'_>) -> usize {
        // The remainder is less than the number of locks.
        (Erasure::hash_of(0, user) % LOCKS as u128) as usize
    }

    async fn merge_locked(
        &self,
        from: UserId<'static>,
        into: &UserId<'_>,
    ) -> Result<u64, MergeError> {
        let merge = self.note(&from, into).await?;
        if let Some(spool) = &self.parts.spool {
            spool.settle().await;
        }
        let merges = self.parts.erasures.merges();
        let moved_to = merges.current(&from).unwrap_or_else(|| from.clone());
        // Merges in a circle on several instances may leave a user who is still the current one.
        let moved = match moved_to == from {
            true => Vec::new(),
            false => self.move_pairs(&from, &moved_to).await?,
        };
        merges.complete(&merge);
        let segments = moved.len() as u64;
        self.wait_for(Waiting {
            from,
            merge,
            moved_to,
            moved,
            moved_at: self.parts.clock.now(),
            due: Instant::now(),
        });
        Ok(segments)
    }

    /// Whether the merge is known, and no pair is left to move. It is renewed in time, so that it does not expire while it is repeated.
    fn is_complete(&self, from: &UserId<'_>, into: &UserId<'_>) -> bool {
        let merge = self.noted(from, into);
        merge.is_some_and(|(_, is_complete)| is_complete)
    }

    /// The recent merge of `from` into `into`, if that is the latest one of `from`.
    fn noted(&self, from: &UserId<'_>, into: &UserId<'_>) -> Option<(Erasure, bool)> {
        let window = self.parts.frame.full_window().seconds();
        let half = SignedDuration::from_secs(i64::try_from(window / 2).unwrap_or(i64::MAX));
        let (merge, is_complete) = self.parts.erasures.merges().of(from)?;
        let age = self.parts.clock.now().duration_since(merge.at());
        // Merges in a circle on several instances void one of them.
        let holds = (self.parts.erasures.merges().current(from)).is_some_and(|it| it != *from);
        let is_it = merge.merged_into(from).as_ref() == Some(into) && age < half && holds;
        is_it.then_some((merge, is_complete))
    }

    /// Notes the merge in the store.
    async fn note(&self, from: &UserId<'_>, into: &UserId<'_>) -> Result<Erasure, MergeError> {
        if let Some((merge, _)) = self.noted(from, into) {
            return Ok(merge);
        }
        let erasures = &self.parts.erasures;
        let merges = erasures.merges();
        if merges.is_full() {
            return Err(MergeError::TooMany);
        }
        let onward = merges.path(into);
        let known = onward.iter().flat_map(|path| &path.steps);
        let known = known.map(|(_, at)| *at);
        let known = known.chain(merges.of(from).map(|(merge, _)| merge.at()));
        // The latest merge holds, whatever the clock of another instance says.
        let at = known.max().map_or(self.parts.clock.now(), |latest| {
            let next = latest.saturating_add(Duration::from_micros(1));
            self.parts.clock.now().max(next.unwrap_or(latest))
        });
        let leads_back = onward.is_some_and(|path| {
            let mut steps = path.steps.iter();
            path.end == *from || steps.any(|(user, _)| user == from)
        });
        if leads_back {
            // The user was merged the other way round before. Now it is the current one again.
            let own = Erasure::of_merge(into, into, merges.key(), at);
            erasures.note_merge(own).await?;
        }
        let merge = Erasure::of_merge(from, into, merges.key(), at);
        Ok(erasures.note_merge(merge).await?)
    }

    /// Moves the pairs that the store has of `from`, and returns them.
    async fn move_pairs(
        &self,
        from: &UserId<'_>,
        into: &UserId<'_>,
    ) -> Result<Vec<Membership>, StoreError> {
        let parts = &self.parts;
        // A replica drops pairs of `from` that were received until then: the store has them, and they are moved now or the next time.
        let received_until = parts.live.as_ref().map(|live| live.now());
        let now = parts.clock.now();
        let moved = parts.store.memberships(from, now).await?;
        if !moved.is_empty() {
            self.record(into, &moved).await?;
            parts.store.forget_seen(from, &moved, now).await?;
        }
        // Also without a pair: a call that failed here is repeated.
        if let (Some(live), Some(at)) = (&parts.live, received_until) {
            live.erase(&Target::User(from), at).await?;
            // Pairs that a later merge gives back to `from` must not have the same instant.
            sleep(FEED_PRECISION).await;
        }
        Ok(moved)
    }

    async fn record<'a>(
        &self,
        user: &UserId<'_>,
        seen: impl IntoIterator<Item = &'a Membership>,
    ) -> Result<(), StoreError> {
        let mut batch = BatchBuilder::default();
        for it in seen {
            let segment = batch.admit(it.segment.clone());
            batch.push(user, segment, it.last_seen);
        }
        match batch.is_empty() {
            true => Ok(()),
            false => self.parts.recorder.take(&batch.finish()).await,
        }
    }

    fn wait_for(&self, mut again: Waiting) {
        again.due = Instant::now()
            + match self.parts.store.is_live() {
                true => AGAIN_AFTER_HERE,
                false => AGAIN_AFTER,
            };
        let mut waiting = self.waiting.lock();
        if waiting.len() >= MAX_WAITING {
            waiting.pop_front();
        }
        waiting.push_back(again);
        drop(waiting);
        self.added.notify_one();
    }

    /// Moves pairs once more that were on their way, until it is dropped.
    pub(super) async fn keep_completing(&self) {
        loop {
            let due = self.waiting.lock().front().map(|first| first.due);
            match due {
                Some(due) => sleep_until(due).await,
                None => {
                    self.added.notified().await;
                    continue;
                }
            }
            let Some(next) = self.waiting.lock().pop_front() else {
                continue;
            };
            if let Err(error) = self.complete(&next).await {
                tracing::debug!(%error, "a merge of users can't be completed now");
                self.wait_for(next);
            }
        }
    }

    async fn complete(&self, waiting: &Waiting) -> Result<(), StoreError> {
        let Waiting { from, merge, .. } = waiting;
        let erasures = &self.parts.erasures;
        if erasures.is_late() {
            // Where other instances have moved the pairs meanwhile.
            erasures.refresh(self.parts.spool.as_deref()).await?;
        }
        let merges = erasures.merges();
        if let Some(current) = merges.current(from).filter(|current| current != from) {
            self.move_pairs(from, &current).await?;
        }
        self.record_again(waiting).await?;
        let is_latest = merges
            .of(from)
            .is_some_and(|(latest, _)| latest.at() == merge.at());
        if is_latest {
            let complete = merge.completed();
            erasures.note_merge(complete).await?;
        }
        Ok(())
    }

    /// Records the pairs again for the user as whom they count by now, if another instance moved the pairs of the same user away
    /// meanwhile: it may have read them before they included these. Pairs that were erased since stay erased.
    async fn record_again(&self, waiting: &Waiting) -> Result<(), StoreError> {
        let erasures = &self.parts.erasures;
        let moved_to = &waiting.moved_to;
        let (Some((onward, _)), Some(current)) = (
            erasures.merges().of(moved_to),
            erasures.merges().current(moved_to),
        ) else {
            return Ok(());
        };
        let until = waiting.moved_at.saturating_add(CLOCK_DIFFERENCE);
        if onward.at() > until.unwrap_or(waiting.moved_at) {
            return Ok(());
        }
        let erased = erasures.since(waiting.merge.at());
        let is_left = |it: &&Membership| {
            let users = [&waiting.from, moved_to, &current];
            let is_erased = |user| {
                erased
                    .iter()
                    .any(|erasure| erasure.removes(&it.segment, user))
            };
            !users.into_iter().any(is_erased)
        };
        self.record(&current, waiting.moved.iter().filter(is_left))
            .await
    }
}

#[cfg(test)]
mod tests;
