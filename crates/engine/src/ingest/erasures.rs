//! Who was erased, as far as it concerns pairs that wait on this instance's disk.
//!
//! Whoever erases a user notes it in the store first. Every instance reads these notes before it sends anything out of its
//! spool, and once a minute. A pair that was received before its user was erased is never sent. It goes from the disk as well.

use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use parking_lot::RwLock;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::spool::Spool;
use domain::store::{PairStore, StoreError};
use domain::{Clock, Erasure, TimeFrame, Timestamp, UserId};

/// How often the notes are read when nothing is sent.
pub const FOLLOW_EVERY: Duration = Duration::from_secs(60);
/// How long one look at the notes may take: they are few.
const PATIENCE: Duration = Duration::from_secs(10);
/// How far apart the clocks of two instances may be: so much of the notes is read again each time, since one may be seen
/// late.
const OVERLAP: SignedDuration = SignedDuration::from_mins(10);

/// The erasures that matter.
#[derive(Debug)]
pub struct Erasures {
    store: Arc<dyn PairStore>,
    clock: Arc<dyn Clock>,
    /// For how long an erasure matters: no window reaches a pair that was received before.
    window: SignedDuration,
    known: RwLock<Known>,
}

#[derive(Debug, Default)]
struct Known {
    list: Vec<Learnt>,
    /// Up to when the notes were read.
    read_until: Option<Timestamp>,
    /// How many were ever learnt.
    learnt: u64,
}

/// An erasure that is known.
#[derive(Debug)]
struct Learnt {
    erasure: Erasure,
    /// Its instant in the store, by the clock of the instance that noted it.
    noted_at: Timestamp,
    /// How many were known with it.
    number: u64,
    /// Whether this process made the note, and so erases the user itself.
    is_own: bool,
}

impl Erasures {
    /// The erasures noted in `store`. None of them is known yet.
    pub fn new(store: Arc<dyn PairStore>, frame: &TimeFrame, clock: Arc<dyn Clock>) -> Self {
        let window = frame.full_window().seconds();
        Self {
            store,
            clock,
            window: SignedDuration::from_secs(i64::try_from(window).unwrap_or(i64::MAX)),
            known: RwLock::default(),
        }
    }

    /// Notes in the store that `user`, an id as it is stored, is erased as of `at`, which is
    /// [`Spool::erasure_at`] where there is a spool.
    pub async fn note(&self, user: &UserId<'_>, at: Timestamp) -> Result<Erasure, StoreError> {
        let erasure = Erasure::of(user, at);
        self.store.note_erasure(&erasure).await?;
        self.learn([erasure], true, Timestamp::MAX);
        Ok(erasure)
    }

    /// The instant at which an erasure at `at` no longer matters.
    pub fn matters_until(&self, at: Timestamp) -> Option<Timestamp> {
        at.checked_add(self.window).ok()
    }

    /// Reads what was noted since, of which what comes to `spool` from now on is no part.
    pub async fn refresh(&self, spool: &Spool) -> Result<(), StoreError> {
        let now = self.clock.now();
        let oldest = now.saturating_sub(self.window).unwrap_or(Timestamp::MIN);
        let since = match self.known.read().read_until {
            Some(until) => until
                .saturating_sub(OVERLAP)
                .map_or(oldest, |since| since.max(oldest)),
            None => oldest,
        };
        let noted = timeout(PATIENCE, self.store.erasures(since)).await;
        let noted = noted.map_err(|_| {
            StoreError::Timeout(format!(
                "it did not tell who was erased within {PATIENCE:?}"
            ))
        })??;
        // What is known now is about nothing that comes much later, however far ahead the clock of the other one is.
        let latest = spool.latest(now);
        self.learn(
            noted,
            false,
            latest.saturating_add(OVERLAP).unwrap_or(latest),
        );
        let mut known = self.known.write();
        known.read_until = known.read_until.max(Some(now));
        // One that is read again must be known.
        known.list.retain(|it| it.noted_at >= oldest);
        drop(known);
        if let Some(latest) = self.latest() {
            spool.was_erased(latest);
        }
        Ok(())
    }

    /// Takes erasures for known, as of `latest` if they were noted as of a later instant.
    pub(super) fn learn(
        &self,
        erasures: impl IntoIterator<Item = Erasure>,
        is_own: bool,
        latest: Timestamp,
    ) {
        let mut known = self.known.write();
        for erasure in erasures {
            if known.list.iter().any(|it| it.erasure.is_same(&erasure)) {
                continue;
            }
            known.learnt += 1;
            let learnt = Learnt {
                erasure: erasure.no_later_than(latest),
                noted_at: erasure.at(),
                number: known.learnt,
                is_own,
            };
            known.list.push(learnt);
        }
    }

    /// The erasures of users whose pairs were received at `received` and must not be sent.
    pub(super) fn since(&self, received: Timestamp) -> Vec<Erasure> {
        let known = self.known.read();
        let erasures = known.list.iter().map(|it| it.erasure);
        erasures.filter(|it| it.at() >= received).collect()
    }

    /// When the last of them was.
    fn latest(&self) -> Option<Timestamp> {
        let known = self.known.read();
        known.list.iter().map(|it| it.erasure.at()).max()
    }

    /// A number that grows with each erasure that is learnt.
    pub fn learnt(&self) -> u64 {
        self.known.read().learnt
    }

    /// The erasures by other instances that were learnt since `known` ones were, by whichever task.
    pub(super) fn learnt_since(&self, known: u64) -> Vec<Erasure> {
        let all = self.known.read();
        let new = all.list.iter().filter(|it| it.number > known && !it.is_own);
        new.map(|it| it.erasure).collect()
    }

    /// Erases a user from the store again, whose pairs may have come there after another instance had erased them.
    pub(super) async fn erase_again(&self, user: &UserId<'_>) -> Result<(), StoreError> {
        self.store.forget(user, self.clock.now()).await?;
        Ok(())
    }

    /// Removes from this disk what the store refused of users who were erased since; whether it could.
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

/// Reads the notes once a minute until `stop`, and has the disk freed of whom they are about.
pub async fn follow(erasures: Arc<Erasures>, spool: Arc<Spool>, stop: CancellationToken) {
    let mut heeded = 0;
    loop {
        let followed = async {
            if let Err(error) = erasures.refresh(&spool).await {
                tracing::debug!(%error, "the notes of erased users can't be read now");
            }
            spool.note_order().await;
            // Delivery reads them too.
            let learnt = erasures.learnt();
            if learnt > heeded {
                spool.look();
                if erasures
                    .erase_refused(&erasures.since(Timestamp::MIN))
                    .await
                {
                    heeded = learnt;
                }
            }
            sleep(FOLLOW_EVERY).await;
        };
        tokio::select! {
            () = followed => {}
            () = stop.cancelled() => return,
        }
    }
}
