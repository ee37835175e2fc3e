//! The erasures of users and segments, as far as they affect pairs on this instance's disk.
//!
//! An instance that erases a user first writes a note to the store. Every instance reads these notes before it sends
//! anything from its spool, and once a minute. A pair that was received before its user was erased is never sent, and
//! is removed from the disk.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use parking_lot::RwLock;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::merges::Merges;
use super::spool::Spool;
use crate::erasing::Target;
use crate::live::Live;
use domain::store::{PairStore, StoreError};
use domain::{Clock, Erasure, ErasureScope, Pair, TimeFrame, Timestamp, UserId};

/// The interval at which the notes are read when nothing is sent.
pub(crate) const FOLLOW_EVERY: Duration = Duration::from_secs(60);
/// The timeout of a read of the notes, which are few.
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a start waits for the first read of the notes.
const FIRST_READ: Duration = Duration::from_secs(1);
/// The delay after a failed read while no read has succeeded yet: until then, users who were merged count twice.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// A read that is older than this was the last one that succeeded. Longer than the interval and a read.
const LATE_AFTER: Duration = FOLLOW_EVERY.saturating_add(Duration::from_secs(10));
/// How long pairs wait for a read that is late.
const LATE_READ: Duration = Duration::from_secs(1);
/// The time between two reads that pairs wait for.
const LATE_RETRY: Duration = Duration::from_secs(5);
/// The clock skew between instances that is tolerated. Each read repeats this much of the previous one, because a note may
/// become visible late.
const OVERLAP: SignedDuration = SignedDuration::from_mins(10);

/// The erasures that may affect pairs in the spool.
#[derive(Debug)]
pub struct Erasures {
    store: Arc<dyn PairStore>,
    clock: Arc<dyn Clock>,
    /// How long an erasure matters. After that no window includes a pair that was received before it.
    window: SignedDuration,
    known: RwLock<Known>,
    merges: Arc<Merges>,
    live: Option<Arc<Live>>,
    /// When pairs last waited for a read. Held while they wait.
    caught_up: tokio::sync::Mutex<Option<Instant>>,
}

#[derive(Debug, Default)]
struct Known {
    list: Vec<Learnt>,
    /// The instant up to which the notes were read.
    read_until: Option<Timestamp>,
    /// When that read ended.
    read_at: Option<Instant>,
    /// When merges that no longer matter were last forgotten.
    forgot_at: Option<Timestamp>,
    /// The number of erasures learnt since the start.
    learnt: u64,
}

/// A known erasure.
#[derive(Debug)]
struct Learnt {
    erasure: Erasure,
    /// Its instant in the note, by the clock of the instance that wrote it.
    noted_at: Timestamp,
    /// The number of erasures learnt up to this one.
    number: u64,
    /// Whether this process wrote the note, and so erases the user from the store itself.
    is_own: bool,
}

impl Erasures {
    /// Creates an empty set, which [`refresh`](Self::refresh) fills from the notes in `store`.
    pub fn new(store: Arc<dyn PairStore>, frame: &TimeFrame, clock: Arc<dyn Clock>) -> Self {
        let window = frame.full_window().seconds();
        Self {
            store,
            clock,
            window: SignedDuration::from_secs(i64::try_from(window).unwrap_or(i64::MAX)),
            known: RwLock::default(),
            merges: Arc::default(),
            live: None,
            caught_up: tokio::sync::Mutex::default(),
        }
    }

    /// The same, which also erases users again from live counts.
    pub(crate) fn with_live(mut self, live: Option<Arc<Live>>) -> Self {
        self.live = live;
        self
    }

    /// Writes a note to the store that `user` is erased as of `at`. `user` is the stored id. With a spool, `at` must
    /// come from [`Spool::erasure_at`].
    pub async fn note(&self, user: &UserId<'_>, at: Timestamp) -> Result<Erasure, StoreError> {
        self.note_erasure(Erasure::of(user, at)).await
    }

    /// The same for any erasure.
    pub(crate) async fn note_erasure(&self, erasure: Erasure) -> Result<Erasure, StoreError> {
        self.store.note_erasure(&erasure).await?;
        self.learn([erasure.clone()], true, Timestamp::MAX);
        Ok(erasure)
    }

    /// Writes the note of a merge to the store, and applies it to pairs from now on.
    pub(crate) async fn note_merge(&self, merge: Erasure) -> Result<Erasure, StoreError> {
        self.store.note_erasure(&merge).await?;
        self.merges.learn(&merge);
        Ok(merge)
    }

    /// The users who count as others.
    pub fn merges(&self) -> &Arc<Merges> {
        &self.merges
    }

    /// Reads the notes for the first time. If that takes long, [`follow`] reads them.
    pub(crate) async fn begin(&self) {
        let read = timeout(FIRST_READ, self.refresh(None)).await;
        if let Ok(Err(error)) = read {
            tracing::debug!(%error, "the notes of erased and merged users can't be read yet");
        }
    }

    /// The instant from which an erasure at `at` no longer matters.
    pub(crate) fn matters_until(&self, at: Timestamp) -> Option<Timestamp> {
        at.checked_add(self.window).ok()
    }

    /// Reads the notes since the last read. Pairs that `spool` receives from now on are dated after the erasures read.
    pub async fn refresh(&self, spool: Option<&Spool>) -> Result<(), StoreError> {
        let now = self.clock.now();
        let oldest = now.saturating_sub(self.window).unwrap_or(Timestamp::MIN);
        let since = match self.known.read().read_until {
            Some(until) => until
                .saturating_sub(OVERLAP)
                .map_or(oldest, |since| since.max(oldest)),
            None => oldest,
        };
        let noted = timeout(READ_TIMEOUT, self.store.erasures(since)).await;
        let noted = noted.map_err(|_| {
            StoreError::Timeout(format!(
                "the store did not list erasures within {READ_TIMEOUT:?}"
            ))
        })??;
        // The clock of the other instance may be far ahead. An erasure known now must not apply to pairs received much
        // later.
        let latest = spool.map_or(now, |spool| spool.latest(now));
        self.learn(
            noted,
            false,
            latest.saturating_add(OVERLAP).unwrap_or(latest),
        );
        let mut known = self.known.write();
        known.read_until = known.read_until.max(Some(now));
        known.read_at = Some(Instant::now());
        // Notes that will be read again must stay known.
        known.list.retain(|it| it.noted_at >= oldest);
        let is_due = known
            .forgot_at
            .is_none_or(|at| now.duration_since(at) >= OVERLAP);
        if is_due {
            known.forgot_at = Some(now);
        }
        drop(known);
        if is_due {
            self.merges.forget_before(oldest);
        }
        if let (Some(spool), Some(latest)) = (spool, self.latest()) {
            spool.was_erased(latest);
        }
        Ok(())
    }

    /// Whether no read has succeeded for longer than other instances expect. They move the pairs of a merged user for the last time when this
    /// instance should have read the note.
    pub(crate) fn is_late(&self) -> bool {
        let read_at = self.known.read().read_at;
        read_at.is_some_and(|at| at.elapsed() > LATE_AFTER)
    }

    /// Reads the notes before pairs are recorded, if that is late: the store may have been unavailable until now. If it can't list them,
    /// pairs do not wait for it: then users who were merged meanwhile may count twice.
    pub(crate) async fn catch_up(&self, spool: Option<&Spool>) {
        if !self.is_late() {
            return;
        }
        let mut caught_up = self.caught_up.lock().await;
        let has_tried = caught_up.is_some_and(|at| at.elapsed() < LATE_RETRY);
        if has_tried || !self.is_late() {
            return;
        }
        let read = timeout(LATE_READ, self.refresh(spool)).await;
        if !matches!(read, Ok(Ok(()))) {
            tracing::debug!("the notes of erased and merged users can't be read before pairs");
        }
        *caught_up = Some(Instant::now());
    }

    /// Adds erasures to the known ones. The instant of an erasure that is later than `latest` becomes `latest`.
    pub(super) fn learn(
        &self,
        erasures: impl IntoIterator<Item = Erasure>,
        is_own: bool,
        latest: Timestamp,
    ) {
        let mut known = self.known.write();
        for erasure in erasures {
            if erasure.is_merge() {
                self.merges.learn(&erasure);
                continue;
            }
            if known.list.iter().any(|it| it.erasure.is_same(&erasure)) {
                continue;
            }
            known.learnt += 1;
            let learnt = Learnt {
                noted_at: erasure.at(),
                erasure: erasure.no_later_than(latest),
                number: known.learnt,
                is_own,
            };
            known.list.push(learnt);
        }
    }

    /// The erasures that apply to pairs received at `received`, which must not be sent.
    pub(crate) fn since(&self, received: Timestamp) -> Vec<Erasure> {
        let known = self.known.read();
        let erasures = known.list.iter().map(|it| &it.erasure);
        erasures.filter(|it| it.at() >= received).cloned().collect()
    }

    /// The instant of the latest known erasure.
    fn latest(&self) -> Option<Timestamp> {
        let known = self.known.read();
        known.list.iter().map(|it| it.erasure.at()).max()
    }

    /// The number of erasures learnt since the start.
    pub fn learnt(&self) -> u64 {
        self.known.read().learnt
    }

    /// The erasures by other instances that any task learnt after the first `known` ones.
    pub(super) fn learnt_since(&self, known: u64) -> Vec<Erasure> {
        let all = self.known.read();
        let new = all.list.iter().filter(|it| it.number > known && !it.is_own);
        new.map(|it| it.erasure.clone()).collect()
    }

    /// Erases pairs again that reached the store after another instance had erased them, as noted in `erasure`.
    pub(super) async fn erase_again(
        &self,
        erasure: &Erasure,
        pairs: &[Pair<'_>],
    ) -> Result<(), StoreError> {
        let mut erased = HashSet::new();
        for pair in pairs {
            // Only these pairs of a segment, because others may have been received since.
            let target = match erasure.scope() {
                ErasureScope::User => Target::User(&pair.user),
                ErasureScope::Segment | ErasureScope::Pair => {
                    Target::Pair(pair.segment, &pair.user)
                }
                ErasureScope::Merge | ErasureScope::Merged => return Ok(()),
            };
            if !erased.insert((pair.segment, pair.user.as_str())) {
                continue;
            }
            let at = self.clock.now();
            target.erase_from(&*self.store, at).await?;
            if let Some(live) = &self.live
                && let Err(error) = live.erase(&target, at).await
            {
                tracing::debug!(%error, "an erasure waits on this instance for the change feed");
            }
            if erasure.scope() == ErasureScope::User {
                break;
            }
        }
        Ok(())
    }

    /// Removes refused pairs of erased users from this instance's disk. Returns whether this succeeded.
    async fn erase_refused(&self, erasures: &[Erasure]) -> bool {
        match self.store.erase_refused(erasures).await {
            Ok(0) => true,
            Ok(pairs) => {
                tracing::info!(pairs, "refused pairs of erased users were removed");
                true
            }
            Err(error) => {
                tracing::error!(%error, "refused pairs of erased users can't be removed");
                false
            }
        }
    }
}

/// Reads the notes once a minute until `stop`, and starts the removal of new erased users from this instance's disk.
pub async fn follow(erasures: Arc<Erasures>, spool: Option<Arc<Spool>>, stop: CancellationToken) {
    let mut handled = 0;
    loop {
        let followed = async {
            if let Err(error) = erasures.refresh(spool.as_deref()).await {
                tracing::debug!(%error, "can't read the notes of erased users now");
            }
            if let Some(spool) = &spool {
                spool.note_order().await;
            }
            // Delivery reads the notes too, so this compares with what any task learnt.
            let learnt = erasures.learnt();
            if let Some(spool) = spool.as_ref().filter(|_| learnt > handled) {
                spool.start_search();
                if erasures
                    .erase_refused(&erasures.since(Timestamp::MIN))
                    .await
                {
                    handled = learnt;
                }
            }
            let has_read = erasures.known.read().read_until.is_some();
            sleep(if has_read { FOLLOW_EVERY } else { FIRST_RETRY }).await;
        };
        tokio::select! {
            () = followed => {}
            () = stop.cancelled() => return,
        }
    }
}
