//! Since when the store has every pair, as far as this process knows. Every response with a number contains it.
//!
//! The store keeps it for all instances ([`domain::coverage`]). One task reads it, and writes the facts that this process
//! adds: the store was opened, pairs were lost, the process is running. While the store is unavailable, responses contain
//! the last known state.

mod losses;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::SignedDuration;
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

use self::losses::OwnLosses;
use domain::coverage::{Loss, LossReason, PREFIX, Statement, began, is_running};
use domain::store::{PairStore, StoreError};
use domain::{Batch, Clock, Coverage, Covered, Resolution, Slot, Timestamp, Window};
use telemetry::Metrics;

/// How long the list of segments may take, which is for a warning only.
const LIST_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the end of a process waits for its last notes.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// The interval of reads: a change by another instance is known after this time.
const READ_EVERY: Duration = Duration::from_secs(10);
/// The interval before the first response of the store, and between a loss and its note.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// The interval of heartbeats, and of removing old entries.
const NOTE_EVERY: Duration = Duration::from_mins(5);
/// If the last heartbeat before a start is older than this, pairs may be missing. Clients retry requests for as long as a
/// deployment takes, and the last heartbeat of a process that was killed may be [`NOTE_EVERY`] before its end.
const LONGEST_PAUSE: SignedDuration = SignedDuration::from_mins(15);
/// How long the history is kept: as long as the points of trends.
const KEPT: SignedDuration = SignedDuration::from_hours(400 * 24);

/// The coverage of the store, as far as this process knows.
#[derive(Debug)]
pub struct KnownCoverage {
    parts: CoverageParts,
    opened: Timestamp,
    /// Whether this process records pairs.
    records: AtomicBool,
    /// Whether the store has a note since when pairs are recorded in it.
    has_begun: AtomicBool,
    /// Whether the time before this process started was checked.
    has_checked_pause: AtomicBool,
    /// What the store returned last; `None` before its first response.
    stored: Mutex<Option<Coverage>>,
    own: Mutex<OwnLosses>,
    /// What responses contain: `stored` and `own` together.
    shown: RwLock<Option<Arc<Coverage>>>,
    /// Signals that this process begins to record pairs.
    begins: Notify,
    /// Signals that there is a loss to note.
    lost: Notify,
    /// The last heartbeat of this process. Locked while the history is read or written.
    noted: tokio::sync::Mutex<Option<Instant>>,
}

/// The dependencies and settings of [`KnownCoverage`].
#[derive(Debug)]
pub struct CoverageParts {
    /// The store.
    pub store: Arc<dyn PairStore>,
    /// The source of the current time.
    pub clock: Arc<dyn Clock>,
    /// The length of a slot.
    pub resolution: Resolution,
    /// The metrics, which count lost pairs.
    pub metrics: Arc<Metrics>,
}

/// Why a statement was not recorded.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StateError {
    /// Its time is in the future.
    #[error("the store can't have every pair since a time in the future")]
    InFuture,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl KnownCoverage {
    /// Nothing is known before the first [`read`](Self::read).
    pub fn new(parts: CoverageParts) -> Self {
        Self {
            opened: whole_microseconds(parts.clock.now()),
            parts,
            stored: Mutex::default(),
            own: Mutex::default(),
            shown: RwLock::default(),
            records: AtomicBool::new(false),
            has_begun: AtomicBool::new(false),
            has_checked_pause: AtomicBool::new(false),
            begins: Notify::new(),
            lost: Notify::new(),
            noted: tokio::sync::Mutex::default(),
        }
    }

    /// Notes that this process records pairs from now on, and starts its heartbeats. If no other process was running for a
    /// while before it started, pairs may be missing.
    pub fn begin_recording(&self) {
        if self.records.swap(true, Ordering::AcqRel) {
            return;
        }
        let stored = self.stored.lock().as_mut().map(|coverage| {
            coverage.began.get_or_insert(self.opened);
            coverage.clone()
        });
        if let Some(coverage) = &stored {
            self.check_pause(coverage);
        }
        self.show();
        self.begins.notify_one();
    }

    /// The history as it is known; `None` if the store has not responded yet.
    pub fn history(&self) -> Option<Arc<Coverage>> {
        self.shown.read().clone()
    }

    /// The completeness of a count over `window` as of `as_of`.
    pub fn of(&self, window: Window, as_of: Timestamp) -> Covered {
        let shown = self.shown.read();
        shown
            .as_ref()
            .map_or_else(Covered::default, |coverage| coverage.of(window, as_of))
    }

    /// Records the statement that the store has every pair that was seen since `since`, until now. Losses that were noted
    /// before no longer matter.
    ///
    /// # Errors
    ///
    /// `since` is in the future, or the store failed. Then nothing is stated.
    pub async fn state(&self, since: Timestamp) -> Result<(), StateError> {
        let mut noted = self.noted.lock().await;
        let at = self.now();
        if since > at {
            return Err(StateError::InFuture);
        }
        self.write(Statement { at, since }.property()).await?;
        self.own.lock().close();
        tracing::info!(%since, "stated: the store has every pair since then");
        Ok(self.read_with(&mut noted).await?)
    }

    /// Notes that the store refused these pairs for good.
    pub(crate) fn refused(&self, batch: &Batch, positions: &[usize]) {
        if positions.is_empty() {
            return;
        }
        self.lost(LossReason::Refused, &batch.at(positions));
    }

    /// Notes that these pairs could not be recorded at all.
    pub(crate) fn unavailable(&self, batch: &Batch) {
        self.lost(LossReason::Unavailable, batch);
    }

    fn lost(&self, reason: LossReason, batch: &Batch) {
        let slots = || batch.indexed().map(|(_, _, slot)| slot);
        let Some((first, last)) = slots().min().zip(slots().max()) else {
            return;
        };
        let pairs = batch.len() as u64;
        let lost_pairs = self.parts.metrics.counts.lost_pairs.with([reason.as_str()]);
        lost_pairs.inc_by(pairs);
        let now = self.now();
        let from = self.parts.resolution.start_of(first).min(now);
        let end = self.parts.resolution.start_of(Slot::new(last.number() + 1));
        self.add(Loss {
            id: fastrand::u64(..),
            from,
            until: end.min(now).max(from),
            noted: now,
            pairs: Some(pairs),
            reason,
        });
    }

    fn add(&self, loss: Loss) {
        self.own.lock().add(loss);
        self.show();
        self.lost.notify_one();
    }

    fn records(&self) -> bool {
        self.records.load(Ordering::Acquire)
    }

    fn now(&self) -> Timestamp {
        whole_microseconds(self.parts.clock.now())
    }

    /// Updates the state that responses contain.
    fn show(&self) {
        let mut coverage = self.stored.lock().clone();
        if let Some(coverage) = &mut coverage {
            for loss in self.own.lock().all() {
                coverage.add(loss);
            }
        }
        *self.shown.write() = coverage.map(Arc::new);
    }

    /// Writes what this process adds to the history, and reads the history from the store.
    pub async fn read(&self) -> Result<(), StoreError> {
        self.read_with(&mut *self.noted.lock().await).await
    }

    async fn read_with(&self, noted: &mut Option<Instant>) -> Result<(), StoreError> {
        self.write_losses().await?;
        let mut coverage = match self.parts.store.properties(PREFIX).await {
            Ok(properties) => Coverage::from_properties(&properties)
                .map_err(|error| StoreError::Damaged(error.to_string()))?,
            // This store keeps no properties, so the history lasts only as long as this process.
            Err(StoreError::Unsupported(_)) => Coverage {
                began: Some(self.opened),
                ..Coverage::default()
            },
            Err(error) => return Err(error),
        };
        if coverage.began.is_none() && self.records() {
            coverage.began = Some(self.begin().await?);
        }
        if coverage.began.is_some() {
            self.has_begun.store(true, Ordering::Release);
        }
        self.check_pause(&coverage);
        *self.stored.lock() = Some(coverage.clone());
        self.show();
        let is_due = noted.is_none_or(|noted| noted.elapsed() >= NOTE_EVERY);
        if is_due && self.records() {
            self.write(is_running(self.now())).await?;
            self.shorten(&coverage).await?;
            *noted = Some(Instant::now());
        }
        Ok(())
    }

    /// Notes since when pairs are recorded in the store: from when this process opened it, or from now if it was emptied
    /// meanwhile.
    async fn begin(&self) -> Result<Timestamp, StoreError> {
        let is_emptied = self.has_begun.load(Ordering::Acquire);
        let at = match is_emptied {
            true => self.now(),
            false => self.opened,
        };
        self.write(began(at)).await?;
        // Only for the warning: a store that does not respond must not delay the end of the process.
        let segments = self.parts.store.segments(self.parts.clock.now());
        let segments = timeout(LIST_TIMEOUT, segments).await;
        let has_pairs = matches!(segments, Ok(Ok(segments)) if !segments.is_empty());
        if !is_emptied && has_pairs {
            tracing::warn!(
                "the store has pairs, but no record since when it has every pair: counts are marked incomplete for one window; if \
                 they are complete, state it with `headcount coverage --since TIME`"
            );
        }
        Ok(at)
    }

    /// Pairs may be missing from the time before this process started, if no other one was running.
    fn check_pause(&self, coverage: &Coverage) {
        if !self.records() || self.has_checked_pause.swap(true, Ordering::AcqRel) {
            return;
        }
        let Some(running) = coverage.running else {
            return;
        };
        if self.opened.duration_since(running) > LONGEST_PAUSE {
            self.add(Loss {
                id: fastrand::u64(..),
                from: running,
                until: self.opened,
                noted: self.opened,
                pairs: None,
                reason: LossReason::NotRunning,
            });
        }
    }

    async fn shorten(&self, coverage: &Coverage) -> Result<(), StoreError> {
        let now = self.parts.clock.now();
        let oldest = now.checked_sub(KEPT).unwrap_or(Timestamp::MIN);
        let (set, removed) = coverage.shortened(oldest);
        if let Some(set) = set {
            self.write(set).await?;
        }
        for name in removed {
            self.parts.store.set_property(&name, None).await?;
        }
        Ok(())
    }

    async fn write_losses(&self) -> Result<(), StoreError> {
        let unwritten = self.own.lock().unwritten();
        for loss in unwritten {
            self.write(loss.property()).await?;
            self.own.lock().written(&loss);
        }
        Ok(())
    }

    async fn write(&self, (name, value): (String, String)) -> Result<(), StoreError> {
        match self.parts.store.set_property(&name, Some(&value)).await {
            Err(StoreError::Unsupported(_)) => Ok(()),
            written => written,
        }
    }

    /// Writes what the store lacks before the process ends. What can't be written is named in the log.
    pub(crate) async fn close(&self) {
        let written = async {
            self.write_losses().await?;
            match self.records() {
                true => self.write(is_running(self.now())).await,
                false => Ok(()),
            }
        };
        let written = timeout(CLOSE_TIMEOUT, written).await;
        let written = written.unwrap_or_else(|_| {
            let reason = format!("not written within {CLOSE_TIMEOUT:?}");
            Err(StoreError::Timeout(reason))
        });
        if let Err(error) = written {
            let losses = self.own.lock().unwritten();
            match losses.is_empty() {
                true => tracing::debug!(%error, "can't note that this process was running"),
                false => {
                    tracing::error!(%error, ?losses, "lost pairs can't be noted in the store: counts will be reported as complete without them")
                }
            }
        }
    }

    /// Reads and writes, until it is dropped.
    pub(crate) async fn keep_reading(&self) {
        let mut is_failing = false;
        loop {
            match self.read().await {
                Ok(()) => is_failing = false,
                Err(error) if !std::mem::replace(&mut is_failing, true) => {
                    tracing::warn!(%error, "can't read since when the store has every pair; responses contain the last known state");
                }
                Err(error) => {
                    tracing::debug!(%error, "still can't read since when the store has every pair")
                }
            }
            let pause = match self.history() {
                Some(_) => READ_EVERY,
                None => FIRST_RETRY,
            };
            tokio::select! {
                () = sleep(pause) => {}
                () = self.begins.notified() => {}
                // What is lost during the pause is written together.
                () = self.lost.notified(), if !is_failing => sleep(FIRST_RETRY).await,
            }
        }
    }

    /// Shows the state in the metrics.
    pub(crate) fn observe(self: &Arc<Self>, metrics: &Metrics, window: Window) {
        for reason in LossReason::ALL {
            metrics.counts.lost_pairs.with([reason.as_str()]);
        }
        let observed = Arc::downgrade(self);
        metrics.before_render(move |metrics| {
            if let Some(coverage) = observed.upgrade() {
                let covered = coverage.of(window, coverage.parts.clock.now());
                let seconds = |at: Timestamp| at.as_microsecond() as f64 / 1e6;
                let since = covered.since.map_or(f64::NAN, seconds);
                metrics.counts.covered_since.set(since);
                metrics.counts.complete.set(u64::from(covered.complete));
            }
        });
    }
}

/// Stores and clocks agree on microseconds.
fn whole_microseconds(at: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(at.as_microsecond()).unwrap_or(at)
}
