//! Delivery: the oldest file first, from its beginning to its end, for as long as it takes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::codec::Record;
use super::{Sink, Spool};
use crate::domain::{Batch, BatchBuilder};
use crate::log::{Position, read_file};
use crate::store::StoreError;

/// The delay after the first failure; it doubles with each further one.
const FIRST_DELAY: Duration = Duration::from_millis(250);
/// A store that came back waits no longer than this to be noticed.
const LONGEST_DELAY: Duration = Duration::from_secs(10);
/// Small records travel together up to this many pairs: some writes' worth for a store that groups them.
const BATCH_PAIRS: usize = 20_000;

/// Delivers what waits in `spool`, and whatever comes, to `sink` until `stop`.
pub async fn deliver(spool: Arc<Spool>, sink: Arc<dyn Sink>, stop: CancellationToken) {
    let mut delivery = Delivery {
        spool: &spool,
        sink: &*sink,
        file: None,
    };
    let mut delay = FIRST_DELAY;
    loop {
        let step = tokio::select! {
            step = delivery.step() => step,
            () = stop.cancelled() => return,
        };
        let pause = match step {
            Ok(Step::Delivered) => {
                delay = FIRST_DELAY;
                continue;
            }
            Ok(Step::NothingWaits) => None,
            Err(trouble) => {
                trouble.tell(&spool);
                let jittered = delay.mul_f64(0.75 + fastrand::f64() / 2.0);
                delay = (delay * 2).min(LONGEST_DELAY);
                Some(jittered)
            }
        };
        tokio::select! {
            () = spool.appended.notified(), if pause.is_none() => {}
            () = sleep(pause.unwrap_or_default()), if pause.is_some() => {}
            () = stop.cancelled() => return,
        }
    }
}

enum Step {
    /// Something was delivered, and more may wait.
    Delivered,
    NothingWaits,
}

/// What holds delivery up.
enum Trouble {
    /// The store took nothing: new pairs had better not try it.
    Store(StoreError),
    /// The spool's own files: no reason to keep new pairs from the store.
    Spool(StoreError),
}

impl Trouble {
    fn tell(self, spool: &Spool) {
        match self {
            // Once, and not with every try.
            Self::Store(error) => {
                if spool.note_away() {
                    tracing::warn!(%error, "the store is away: pairs wait in the spool");
                }
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

struct Delivery<'a> {
    spool: &'a Arc<Spool>,
    sink: &'a dyn Sink,
    file: Option<OpenFile>,
}

/// A file on its way, with the records that were not delivered yet.
struct OpenFile {
    number: u64,
    records: VecDeque<(Position, Vec<u8>)>,
}

/// Records that travel together.
struct Group {
    batch: Batch,
    records: usize,
    pairs: u64,
}

impl Delivery<'_> {
    /// Delivers one batch, or removes a file whose records are all delivered. After an error, or when it is
    /// dropped midway, the same is done again.
    async fn step(&mut self) -> Result<Step, Trouble> {
        let Some(file) = self.open().await? else {
            return Ok(Step::NothingWaits);
        };
        let number = file.number;
        if file.records.is_empty() {
            self.remove(number).await?;
            return Ok(Step::Delivered);
        }
        let spool = Arc::clone(self.spool);
        // Nobody is erased between looking who was and the store's answer.
        let _sending = spool.sending.lock().await;
        let Some(file) = &mut self.file else {
            return Ok(Step::NothingWaits);
        };
        let group = next_group(&spool, file)?;
        match self.sink.take(&group.batch).await {
            Ok(()) => {}
            Err(StoreError::Rejected(reason)) => {
                spool.ledger.rejected();
                tracing::error!(
                    reason,
                    "the store refuses a part of what waited in the spool"
                );
            }
            Err(error) => return Err(Trouble::Store(error)),
        }
        spool.note_back();
        spool.ledger.delivered(number, group.pairs);
        file.records.drain(..group.records);
        Ok(Step::Delivered)
    }

    /// The file on its way, or else the oldest one.
    async fn open(&mut self) -> Result<Option<&OpenFile>, StoreError> {
        if self.file.is_none() {
            let Some(number) = self.spool.ledger.oldest_file() else {
                return Ok(None);
            };
            if self.spool.log.newest_file() == number {
                self.spool.log.rotate().await?;
            }
            let records = read(self.spool, number).await?;
            self.file = Some(OpenFile { number, records });
        }
        Ok(self.file.as_ref())
    }

    async fn remove(&mut self, number: u64) -> Result<(), StoreError> {
        let spool = Arc::clone(self.spool);
        let work = self.spool.file_work.clone();
        let removed = work.spawn_blocking(move || spool.log.remove_before(number + 1));
        removed.await.map_err(|_| {
            StoreError::Unavailable("removing a spooled file panicked".to_owned())
        })??;
        self.spool.ledger.removed(number);
        self.file = None;
        if self.spool.ledger.oldest_file().is_none() {
            tracing::info!("everything in the spool was delivered");
        }
        Ok(())
    }
}

/// The records of a file that is not written any more.
async fn read(spool: &Spool, number: u64) -> Result<VecDeque<(Position, Vec<u8>)>, StoreError> {
    let Some(dir) = spool.dir.lock().clone() else {
        return Err(StoreError::Closed);
    };
    let disk = Arc::clone(&spool.disk);
    let read = spool.file_work.spawn_blocking(move || {
        let mut records = VecDeque::new();
        read_file(&*disk, dir.path(), number, |position, payload| {
            records.push_back((position, payload.to_vec()));
            Ok(())
        })?;
        Ok::<_, StoreError>(records)
    });
    read.await
        .map_err(|_| StoreError::Unavailable("reading the spool panicked".to_owned()))?
}

/// The next records, without pairs of users who were erased after they came.
fn next_group(spool: &Spool, file: &OpenFile) -> Result<Group, StoreError> {
    let damaged = |reason| StoreError::Damaged(format!("the spool: {reason}"));
    let mut batch = BatchBuilder::default();
    let mut records = 0;
    let mut pairs = 0;
    for (position, payload) in &file.records {
        if records > 0 && batch.len() >= BATCH_PAIRS {
            break;
        }
        records += 1;
        let Record::Pairs(some) = Record::read(payload).map_err(damaged)? else {
            continue;
        };
        pairs += u64::from(some.count);
        some.decode_into(&mut batch, |user| spool.ledger.is_erased(user, *position))
            .map_err(damaged)?;
    }
    Ok(Group {
        batch: batch.finish(),
        records,
        pairs,
    })
}
