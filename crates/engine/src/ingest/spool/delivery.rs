//! Delivers the spool to the store, oldest records first, with retries until the store takes them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use backon::BackoffBuilder;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::codec::Record;
use super::quarantine::Move;
use super::schedule::{Entry, Schedule, Sending};
use super::{Sink, Spool};
use crate::ingest::erasures::Erasures;
use domain::store::{Partly, StoreError};
use domain::{Batch, BatchBuilder, Clock, TimeFrame, Timestamp};
use wal::read_file;

/// The backoff after the first failure. It doubles with each further one.
const FIRST_DELAY: Duration = Duration::from_millis(250);
/// The longest backoff. A store that is available again is detected within this time.
const LONGEST_DELAY: Duration = Duration::from_secs(10);
/// Small records are sent together, up to about this many pairs. A store that groups pairs makes several writes of them.
const BATCH_PAIRS: usize = 20_000;
/// The maximum number of files in memory, at up to 16 MiB each. More than one is read if the records of the first one
/// can't be settled yet.
const OPEN_FILES: usize = 2;

/// The dependencies of delivery.
#[derive(Debug, Clone)]
pub struct DeliveryParts {
    /// The spool to deliver.
    pub spool: Arc<Spool>,
    /// The window. Pairs that leave it in quarantine are dropped.
    pub frame: TimeFrame,
    /// The source of the current time.
    pub clock: Arc<dyn Clock>,
    /// The erasures, whose users' pairs are not sent.
    pub erasures: Arc<Erasures>,
}

/// Delivers the spool's backlog and everything appended to it to `sink`, until `stop`.
pub async fn deliver(parts: DeliveryParts, sink: Arc<dyn Sink>, stop: CancellationToken) {
    let mut delivery = Delivery {
        parts: &parts,
        sink: &*sink,
        files: VecDeque::new(),
        schedule: Schedule::default(),
        sent: None,
        cleanse_from: Instant::now(),
    };
    let erased = parts.spool.ledger.erased();
    parts.erasures.learn(erased, true, Timestamp::MAX);
    // Jitter adds up to the same delay again, so the longest delay is halved here.
    let doubling = supervisor::doubling(FIRST_DELAY, LONGEST_DELAY / 2).with_jitter();
    let mut delays = doubling.build();
    loop {
        let step = tokio::select! {
            step = delivery.step() => step,
            () = stop.cancelled() => return,
        };
        let (pause, wakes_on_append) = match step {
            Ok(Step::Progressed) => {
                delays = doubling.build();
                continue;
            }
            Ok(Step::NothingWaits) => (None, true),
            Ok(Step::NothingIsDue(pause)) => (Some(pause), true),
            Err(Failure::Busy(pause)) => (Some(pause), false),
            Err(failure) => {
                failure.log(&parts.spool);
                (delays.next().or(Some(LONGEST_DELAY)), false)
            }
        };
        let mut pausing = std::pin::pin!(sleep(pause.unwrap_or_default()));
        loop {
            tokio::select! {
                () = parts.spool.appended.notified(), if wakes_on_append => break,
                () = parts.spool.search_requested.notified() => {
                    // Erased users are removed from the files even while the store is unavailable. The pause before the
                    // next call of the store continues.
                    delivery.cleanse_if_due().await;
                    if wakes_on_append {
                        break;
                    }
                }
                () = &mut pausing, if pause.is_some() => break,
                () = stop.cancelled() => return,
            }
        }
    }
}

enum Step {
    /// Something was done, and more may wait.
    Progressed,
    NothingWaits,
    /// Only quarantined records wait. The first one is due after this time.
    NothingIsDue(Duration),
}

/// Why delivery can't proceed.
enum Failure {
    /// The store is unavailable. New pairs should go to the spool at once.
    Store(StoreError),
    /// The store is available but requests a pause.
    Busy(Duration),
    /// The notes of erasures can't be read. New pairs may still go to the store.
    Notes(StoreError),
    /// The spool's own files fail. New pairs may still go to the store.
    Spool(StoreError),
}

impl Failure {
    fn log(self, spool: &Spool) {
        match self {
            // Logged once per outage, not at every retry.
            Self::Store(error) => {
                if spool.note_unavailable() {
                    tracing::warn!(%error, "the store is unavailable; pairs wait in the spool");
                }
            }
            Self::Busy(_) => {}
            Self::Notes(error) => {
                tracing::warn!(%error, "can't read the notes of erased users; pairs wait in the spool");
            }
            Self::Spool(error) => tracing::error!(%error, "can't deliver the spool"),
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Spool(error)
    }
}

pub(super) struct Delivery<'a> {
    pub(super) parts: &'a DeliveryParts,
    sink: &'a dyn Sink,
    /// The files whose records are in `schedule`, oldest first.
    pub(super) files: VecDeque<u64>,
    pub(super) schedule: Schedule,
    /// The entries sent since the notes of erasures were last read, and the number of erasures known then.
    pub(super) sent: Option<(Vec<Entry>, u64)>,
    /// When cleansing may be tried next.
    pub(super) cleanse_from: Instant,
}

impl Delivery<'_> {
    /// Sends one batch, reads a file, or removes a file whose records are all settled.
    async fn step(&mut self) -> Result<Step, Failure> {
        self.cleanse_if_due().await;
        if self.remove_settled().await? {
            return Ok(Step::Progressed);
        }
        let now = self.parts.clock.now();
        if let Some(sending) = self.schedule.next(now, BATCH_PAIRS) {
            self.send(sending).await?;
            return Ok(Step::Progressed);
        }
        if self.read_next().await? {
            return Ok(Step::Progressed);
        }
        if self.schedule.has_only_suspects() {
            self.schedule.start_over();
            return Ok(Step::Progressed);
        }
        self.read_erasures().await?;
        Ok(match self.schedule.next_due() {
            Some(due) => Step::NothingIsDue(due.duration_since(now).unsigned_abs()),
            None => Step::NothingWaits,
        })
    }

    async fn send(&mut self, sending: Sending) -> Result<(), Failure> {
        let spool = Arc::clone(&self.parts.spool);
        // An erasure waits for this lock, so none begins between reading the notes and settling the batch.
        let _sending = spool.sending.lock().await;
        if let Err(failure) = self.read_erasures_before_sending().await {
            self.schedule.put_back(sending);
            return Err(failure);
        }
        let known = self.parts.erasures.learnt();
        let batch = self.batch_of(&sending)?;
        let taken = match batch.is_empty() {
            true => Ok(()),
            false => self.sink.take(&batch).await,
        };
        if !batch.is_empty() {
            self.sent = Some((sending.entries.clone(), known));
        }
        match taken {
            Ok(()) => {
                self.settle(&sending.entries, batch.len() as u64);
                self.note_store_works();
                Ok(())
            }
            Err(StoreError::Partly(partly)) => self.took_partly(sending, &batch, *partly).await,
            Err(StoreError::Throttled { retry_after, .. }) => {
                self.schedule.put_back(sending);
                Err(Failure::Busy(retry_after))
            }
            Err(StoreError::Busy(_)) => {
                self.schedule.put_back(sending);
                Err(Failure::Busy(FIRST_DELAY))
            }
            Err(error @ StoreError::Rejected(_)) => {
                spool.ledger.rejected();
                self.quarantine(sending.entries, &error).await?;
                self.note_store_works();
                Ok(())
            }
            Err(error) => {
                let failed = self.schedule.failed(sending);
                match failed.is_empty() {
                    true => Err(Failure::Store(error)),
                    false => Ok(self.quarantine(failed, &error).await?),
                }
            }
        }
    }

    /// Reads the notes if something was sent since the last read. A user who was erased while it was being sent is erased
    /// again.
    async fn read_erasures(&mut self) -> Result<(), Failure> {
        match self.sent {
            Some(_) => self.read_erasures_before_sending().await,
            None => Ok(()),
        }
    }

    async fn read_erasures_before_sending(&mut self) -> Result<(), Failure> {
        let erasures = &self.parts.erasures;
        let again = async {
            erasures.refresh(Some(&self.parts.spool)).await?;
            self.erase_again().await
        };
        match again.await {
            Ok(()) => {
                self.sent = None;
                Ok(())
            }
            // The notes can't be read until an operator acts. Acknowledged pairs must be delivered nevertheless.
            Err(error @ (StoreError::Rejected(_) | StoreError::NotSetUp(_))) => {
                tracing::error!(%error, "can't read the notes of erased users; pairs are delivered without them");
                self.sent = None;
                Ok(())
            }
            Err(StoreError::Throttled { retry_after, .. }) => Err(Failure::Busy(retry_after)),
            Err(StoreError::Busy(_)) => Err(Failure::Busy(FIRST_DELAY)),
            // The store may accept pairs nevertheless.
            Err(error @ StoreError::Timeout(_)) => Err(Failure::Notes(error)),
            Err(error) => Err(Failure::Store(error)),
        }
    }

    /// Settles a batch that the store took in part, which shows that the store works. Pairs that it refused and did not keep
    /// elsewhere stay in the spool, like undecided pairs, because they were acknowledged.
    async fn took_partly(
        &mut self,
        sending: Sending,
        batch: &Batch,
        partly: Partly,
    ) -> Result<(), Failure> {
        let (refused, mut open) = (partly.refused.len(), partly.open);
        if refused > 0 {
            self.parts.spool.ledger.rejected();
            tracing::error!(
                pairs = refused,
                kept = partly.kept,
                reason = partly.reason,
                "the store refused some of the spooled pairs"
            );
            if !partly.kept {
                open.extend(partly.refused);
                open.sort_unstable();
            }
        }
        if let Some(first) = sending.entries.first()
            && !open.is_empty()
            && let Err(error) = self.mover().keep_open(first, &batch.at(&open)).await
        {
            self.schedule.put_back(sending);
            return Err(error.into());
        }
        let delivered = batch.len().saturating_sub(open.len()) as u64;
        self.settle(&sending.entries, delivered);
        self.note_store_works();
        Ok(())
    }

    async fn quarantine(
        &mut self,
        entries: Vec<Entry>,
        error: &StoreError,
    ) -> Result<(), StoreError> {
        let pairs: u64 = entries.iter().map(|entry| u64::from(entry.pairs)).sum();
        tracing::warn!(%error, pairs, "pairs that the store does not accept, although it accepts others, are retried later");
        let mut entries = VecDeque::from(entries);
        while let Some(entry) = entries.pop_front() {
            if let Err(error) = self.mover().fail(&entry).await {
                entries.push_front(entry);
                self.schedule.put_back(Sending {
                    entries: entries.into(),
                    is_last_try: true,
                });
                return Err(error);
            }
            self.parts.spool.ledger.settled(&entry, 0);
        }
        Ok(())
    }

    pub(super) fn mover(&self) -> Move<'_> {
        Move {
            spool: &self.parts.spool,
            erasures: &self.parts.erasures,
            frame: &self.parts.frame,
            now: self.parts.clock.now(),
        }
    }

    fn note_store_works(&mut self) {
        self.parts.spool.note_available();
        self.schedule.store_works();
    }

    fn settle(&self, entries: &[Entry], delivered: u64) {
        let mut delivered = delivered;
        for entry in entries {
            self.parts.spool.ledger.settled(entry, delivered);
            delivered = 0;
        }
    }

    /// The pairs of all entries, except those of users who were erased after the pairs were received.
    fn batch_of(&self, sending: &Sending) -> Result<Batch, StoreError> {
        let mut batch = BatchBuilder::default();
        for entry in &sending.entries {
            entry.decode_into(&mut batch, &self.parts.erasures)?;
        }
        Ok(batch.finish())
    }

    /// Removes the oldest file if all its records are settled or can be moved. Returns whether it was removed.
    async fn remove_settled(&mut self) -> Result<bool, StoreError> {
        let Some(&file) = self.files.front() else {
            return Ok(false);
        };
        if !self.schedule.has_only_later(file) {
            return Ok(false);
        }
        let spool = Arc::clone(&self.parts.spool);
        let later = self.schedule.take_later(file);
        if !later.is_empty() && spool.ledger.waits_after(file).is_none() {
            // There are no newer records, so moving these would free nothing.
            later.into_iter().for_each(|entry| self.schedule.add(entry));
            return Ok(false);
        }
        let _sending = spool.sending.lock().await;
        let mut later = VecDeque::from(later);
        while let Some(entry) = later.front() {
            if let Err(error) = self.mover().carry_over(entry).await {
                later.into_iter().for_each(|entry| self.schedule.add(entry));
                return Err(error);
            }
            spool.ledger.settled(entry, 0);
            later.pop_front();
        }
        self.remove(file).await?;
        Ok(true)
    }

    pub(super) async fn remove(&mut self, number: u64) -> Result<(), StoreError> {
        let spool = Arc::clone(&self.parts.spool);
        let work = spool.file_work.clone();
        let removed = work.spawn_blocking(move || spool.log.remove_before(number + 1));
        removed.await.map_err(|_| {
            StoreError::Unavailable("removing a spooled file panicked".to_owned())
        })??;
        self.parts.spool.ledger.removed(number);
        self.files.retain(|file| *file != number);
        if self.parts.spool.ledger.oldest_file().is_none() {
            tracing::info!("all spooled pairs are delivered");
        }
        Ok(())
    }

    /// Reads the next file that has records. Returns `false` if there is none.
    async fn read_next(&mut self) -> Result<bool, StoreError> {
        let spool = Arc::clone(&self.parts.spool);
        let next = match self.files.back() {
            None => spool.ledger.oldest_file(),
            Some(_) if self.files.len() >= OPEN_FILES => None,
            Some(last) => spool.ledger.waits_after(*last),
        };
        let Some(number) = next else {
            return Ok(false);
        };
        for entry in self.entries_of(number).await? {
            self.schedule.add(entry);
        }
        self.files.push_back(number);
        Ok(true)
    }

    /// Reads the records of a file. If it is the newest one, the log first starts a new file.
    pub(super) async fn entries_of(&self, number: u64) -> Result<Vec<Entry>, StoreError> {
        let spool = Arc::clone(&self.parts.spool);
        if spool.log.newest_file() == number {
            spool.log.rotate().await?;
        }
        let work = spool.file_work.clone();
        let read = work.spawn_blocking(move || read(&spool, number)).await;
        read.map_err(|_| StoreError::Unavailable("reading the spool panicked".to_owned()))?
    }
}

/// Reads the records of pairs in a file that is no longer written to.
fn read(spool: &Spool, number: u64) -> Result<Vec<Entry>, StoreError> {
    let Some(dir) = spool.dir.lock().clone() else {
        return Err(StoreError::Closed);
    };
    let mut entries = Vec::new();
    read_file(&*spool.disk, dir.path(), number, |position, payload| {
        if let Record::Pairs(pairs) = Record::read(payload)? {
            entries.push(Entry {
                position,
                received: pairs.received,
                pairs: pairs.count,
                failures: pairs.failures,
                due: pairs.due,
                payload: payload.to_vec(),
            });
        }
        Ok(())
    })?;
    Ok(entries)
}
