//! Delivery: the oldest records first, for as long as it takes.

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

/// The delay after the first failure; it doubles with each further one.
const FIRST_DELAY: Duration = Duration::from_millis(250);
/// A store that came back waits no longer than this to be noticed.
const LONGEST_DELAY: Duration = Duration::from_secs(10);
/// Small records travel together up to this many pairs: some writes' worth for a store that groups them.
const BATCH_PAIRS: usize = 20_000;
/// How many files are read while nothing of the first one is taken. Each takes up to 16 MiB of memory.
const OPEN_FILES: usize = 2;

/// Where delivery takes what it needs from.
#[derive(Debug, Clone)]
pub struct DeliveryParts {
    /// What waits.
    pub spool: Arc<Spool>,
    /// The window, which pairs in quarantine may leave.
    pub frame: TimeFrame,
    /// Where "now" comes from.
    pub clock: Arc<dyn Clock>,
    /// Whose pairs are left out.
    pub erasures: Arc<Erasures>,
}

/// Delivers what waits in the spool, and whatever comes, to `sink` until `stop`.
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
    // Jitter adds up to as much again.
    let doubling = supervisor::doubling(FIRST_DELAY, LONGEST_DELAY / 2).with_jitter();
    let mut delays = doubling.build();
    loop {
        let step = tokio::select! {
            step = delivery.step() => step,
            () = stop.cancelled() => return,
        };
        let (pause, listens) = match step {
            Ok(Step::Went) => {
                delays = doubling.build();
                continue;
            }
            Ok(Step::NothingWaits) => (None, true),
            Ok(Step::NothingIsDue(pause)) => (Some(pause), true),
            Err(Trouble::Busy(pause)) => (Some(pause), false),
            Err(trouble) => {
                trouble.tell(&parts.spool);
                (delays.next().or(Some(LONGEST_DELAY)), false)
            }
        };
        let mut pausing = std::pin::pin!(sleep(pause.unwrap_or_default()));
        loop {
            tokio::select! {
                () = parts.spool.appended.notified(), if listens => break,
                () = parts.spool.looked.notified() => {
                    // Erased users leave the files whatever the store does: it is not asked before the pause ends.
                    delivery.cleanse_if_due().await;
                    if listens {
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
    /// Something went on, and more may wait.
    Went,
    NothingWaits,
    /// Only quarantined records wait, the first of them for this time.
    NothingIsDue(Duration),
}

/// What holds delivery up.
enum Trouble {
    /// The store took nothing: new pairs had better not try it.
    Store(StoreError),
    /// The store works, and asks for a pause.
    Busy(Duration),
    /// It is not known who was erased: no reason to keep new pairs from the store.
    Notes(StoreError),
    /// The spool's own files: no reason to keep new pairs from the store.
    Spool(StoreError),
}

impl Trouble {
    fn tell(self, spool: &Spool) {
        match self {
            // Once, and not with every try.
            Self::Store(error) => {
                if spool.note_away() {
                    tracing::warn!(%error, "the store is unavailable: pairs wait in the spool");
                }
            }
            Self::Busy(_) => {}
            Self::Notes(error) => {
                tracing::warn!(%error, "pairs wait in the spool until it is known who was erased");
            }
            Self::Spool(error) => tracing::error!(%error, "the spool can't be delivered"),
        }
    }
}

impl From<StoreError> for Trouble {
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
    /// What was sent since the notes of erasures were read, and how many erasures were known then.
    pub(super) sent: Option<(Vec<Entry>, u64)>,
    /// No file is cleansed before.
    pub(super) cleanse_from: Instant,
}

impl Delivery<'_> {
    /// Sends one batch, reads a file, or removes one whose records are all settled.
    async fn step(&mut self) -> Result<Step, Trouble> {
        self.cleanse_if_due().await;
        if self.remove_settled().await? {
            return Ok(Step::Went);
        }
        let now = self.parts.clock.now();
        if let Some(sending) = self.schedule.next(now, BATCH_PAIRS) {
            self.send(sending).await?;
            return Ok(Step::Went);
        }
        if self.read_next().await? {
            return Ok(Step::Went);
        }
        if self.schedule.has_only_suspects() {
            self.schedule.start_over();
            return Ok(Step::Went);
        }
        self.read_erasures().await?;
        Ok(match self.schedule.next_due() {
            Some(due) => Step::NothingIsDue(due.duration_since(now).unsigned_abs()),
            None => Step::NothingWaits,
        })
    }

    async fn send(&mut self, sending: Sending) -> Result<(), Trouble> {
        let spool = Arc::clone(&self.parts.spool);
        // Nobody is erased between looking who was and writing down what became of the batch.
        let _sending = spool.sending.lock().await;
        if let Err(trouble) = self.read_erasures_before_sending().await {
            self.schedule.put_back(sending);
            return Err(trouble);
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
                self.works();
                Ok(())
            }
            Err(StoreError::Partly(partly)) => self.took_partly(sending, &batch, *partly).await,
            Err(StoreError::Throttled { retry_after, .. }) => {
                self.schedule.put_back(sending);
                Err(Trouble::Busy(retry_after))
            }
            Err(StoreError::Busy(_)) => {
                self.schedule.put_back(sending);
                Err(Trouble::Busy(FIRST_DELAY))
            }
            Err(error @ StoreError::Rejected(_)) => {
                spool.ledger.rejected();
                self.quarantine(sending.entries, &error).await?;
                self.works();
                Ok(())
            }
            Err(error) => {
                let failed = self.schedule.failed(sending);
                match failed.is_empty() {
                    true => Err(Trouble::Store(error)),
                    false => Ok(self.quarantine(failed, &error).await?),
                }
            }
        }
    }

    /// Reads the notes if something was sent since they were read. Who was erased while it was on its way is erased again.
    async fn read_erasures(&mut self) -> Result<(), Trouble> {
        match self.sent {
            Some(_) => self.read_erasures_before_sending().await,
            None => Ok(()),
        }
    }

    async fn read_erasures_before_sending(&mut self) -> Result<(), Trouble> {
        let erasures = &self.parts.erasures;
        let again = async {
            erasures.refresh(&self.parts.spool).await?;
            self.erase_again().await
        };
        match again.await {
            Ok(()) => {
                self.sent = None;
                Ok(())
            }
            // What makes the notes unreadable for good must not keep what was acknowledged from the store.
            Err(error @ (StoreError::Rejected(_) | StoreError::NotSetUp(_))) => {
                tracing::error!(%error, "pairs are delivered without knowing who was erased elsewhere");
                self.sent = None;
                Ok(())
            }
            Err(StoreError::Throttled { retry_after, .. }) => Err(Trouble::Busy(retry_after)),
            Err(StoreError::Busy(_)) => Err(Trouble::Busy(FIRST_DELAY)),
            // It may well take pairs.
            Err(error @ StoreError::Timeout(_)) => Err(Trouble::Notes(error)),
            Err(error) => Err(Trouble::Store(error)),
        }
    }

    /// The store took a part, so it works. What it refuses and could not keep waits like what is undecided: it was
    /// acknowledged.
    async fn took_partly(
        &mut self,
        sending: Sending,
        batch: &Batch,
        partly: Partly,
    ) -> Result<(), Trouble> {
        let (refused, mut open) = (partly.refused.len(), partly.open);
        if refused > 0 {
            self.parts.spool.ledger.rejected();
            tracing::error!(
                pairs = refused,
                kept = partly.kept,
                reason = partly.reason,
                "the store refuses a part of what waited in the spool"
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
        self.works();
        Ok(())
    }

    async fn quarantine(
        &mut self,
        entries: Vec<Entry>,
        error: &StoreError,
    ) -> Result<(), StoreError> {
        let pairs: u64 = entries.iter().map(|entry| u64::from(entry.pairs)).sum();
        tracing::warn!(%error, pairs, "pairs that the store does not take, though it takes others, are tried again later");
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

    fn works(&mut self) {
        self.parts.spool.note_back();
        self.schedule.store_works();
    }

    fn settle(&self, entries: &[Entry], delivered: u64) {
        let mut delivered = delivered;
        for entry in entries {
            self.parts.spool.ledger.settled(entry, delivered);
            delivered = 0;
        }
    }

    /// The pairs of all entries, but for users who were erased after they came.
    fn batch_of(&self, sending: &Sending) -> Result<Batch, StoreError> {
        let mut batch = BatchBuilder::default();
        for entry in &sending.entries {
            entry.decode_into(&mut batch, &self.parts.erasures)?;
        }
        Ok(batch.finish())
    }

    /// Removes the oldest file if nothing in it is left to do; whether it did.
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
            // Nothing waits behind them that would profit.
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
            tracing::info!("everything in the spool was delivered");
        }
        Ok(())
    }

    /// Reads the next file with something in it; whether there was one.
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

    /// The records of a file, which is written no more after that.
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

/// The records of pairs in a file that is not written any more.
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
