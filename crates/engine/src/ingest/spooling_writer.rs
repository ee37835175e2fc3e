//! Writes accepted pairs to the store, and falls back to the spool while the store is unavailable.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::spool::{Sink, Spool};
use super::{Accepted, Durability, SegmentNotes};
use crate::coverage::KnownCoverage;
use crate::live::{Delivery, Live};
use domain::store::{PairStore, Partly, StoreError};
use domain::{Batch, Clock, Timestamp};

/// Makes pairs durable, in the store or in the spool.
#[derive(Debug)]
pub(super) struct SpoolingWriter {
    recorder: Arc<Recorder>,
    spool: Option<Arc<Spool>>,
    clock: Arc<dyn Clock>,
    /// The timeout of a write to the store; `None` for no timeout.
    write_timeout: Option<Duration>,
    /// Held by the one request that probes an unavailable store when the spool fails too.
    probing: tokio::sync::Mutex<()>,
}

/// Records pairs in the store and notes their segments. Both new pairs and spooled pairs pass through it.
#[derive(Debug)]
pub struct Recorder {
    store: Arc<dyn PairStore>,
    notes: Option<SegmentNotes>,
    live: Option<Arc<Live>>,
    /// Where lost pairs are noted.
    coverage: Option<Arc<KnownCoverage>>,
}

impl Recorder {
    /// Creates a recorder into `store`. `notes` is `None` for a store that lists its segments itself.
    pub fn new(store: Arc<dyn PairStore>, notes: Option<SegmentNotes>) -> Self {
        Self {
            store,
            notes,
            live: None,
            coverage: None,
        }
    }

    /// The same, which also notes lost pairs.
    pub(crate) fn with_coverage(mut self, coverage: Arc<KnownCoverage>) -> Self {
        self.coverage = Some(coverage);
        self
    }

    /// The same, which also appends to the change feed.
    pub(crate) fn with_live(mut self, live: Option<Arc<Live>>) -> Self {
        self.live = live;
        self
    }

    /// Records pairs, with an optional timeout. Returns how durable the recorded pairs are.
    async fn record(
        &self,
        batch: &Batch,
        timeout: Option<Duration>,
    ) -> (Result<(), StoreError>, Durability) {
        let received_at = self.live.as_ref().map(|live| live.now());
        let recorded = match timeout {
            None => self.store.record(batch).await,
            Some(timeout) => {
                let in_time = tokio::time::timeout(timeout, self.store.record(batch)).await;
                in_time.unwrap_or_else(|_| {
                    let reason = format!("the write did not complete within {timeout:?}");
                    Err(StoreError::Timeout(reason))
                })
            }
        };
        let has_recorded = matches!(&recorded, Ok(()) | Err(StoreError::Partly(_)));
        if let Some(notes) = &self.notes
            && has_recorded
        {
            notes.note(batch).await;
        }
        let durability = match (&self.live, received_at) {
            (Some(live), Some(at)) => append(live, batch, &recorded, at).await,
            _ => Durability::Stored,
        };
        (recorded, durability)
    }
}

#[async_trait]
impl Sink for Recorder {
    async fn take(&self, batch: &Batch) -> Result<(), StoreError> {
        let recorded = self.record(batch, None).await.0;
        // Refused pairs that the store did not keep elsewhere stay in the spool, and are sent again.
        if let (Some(coverage), Err(StoreError::Partly(partly))) = (&self.coverage, &recorded)
            && partly.kept
        {
            coverage.refused(batch, &partly.refused);
        }
        recorded
    }
}

/// Appends the pairs that the store has recorded.
async fn append(
    live: &Live,
    batch: &Batch,
    recorded: &Result<(), StoreError>,
    at: Timestamp,
) -> Durability {
    let delivery = match recorded {
        Ok(()) => live.append(batch, at).await,
        Err(StoreError::Partly(partly)) => {
            let lacks = |position: &usize| {
                [&partly.refused, &partly.open]
                    .into_iter()
                    .any(|lacking| lacking.binary_search(position).is_ok())
            };
            let stored = batch.subset(|position, _| !lacks(&position));
            live.append(&stored, at).await
        }
        Err(_) => return Durability::Stored,
    };
    match delivery {
        Delivery::InFeed => Durability::Stored,
        Delivery::Owed => Durability::Uncounted,
    }
}

impl SpoolingWriter {
    pub(super) fn new(
        recorder: Arc<Recorder>,
        spool: Option<Arc<Spool>>,
        clock: Arc<dyn Clock>,
        write_timeout: Option<Duration>,
    ) -> Self {
        Self {
            recorder,
            spool,
            clock,
            write_timeout,
            probing: tokio::sync::Mutex::default(),
        }
    }

    /// Writes `batch` to the store, or to the spool if the store is unavailable. Notes the pairs that neither takes.
    pub(super) async fn write(&self, batch: &Batch) -> Result<Accepted, StoreError> {
        let written = self.try_write(batch).await;
        if let Some(coverage) = &self.recorder.coverage {
            match &written {
                Ok(accepted) => coverage.refused(batch, &accepted.refused),
                Err(error) if is_lost(error) => coverage.unavailable(batch),
                Err(_) => {}
            }
        }
        written
    }

    async fn try_write(&self, batch: &Batch) -> Result<Accepted, StoreError> {
        let Some(spool) = &self.spool else {
            let (recorded, durability) = self.record(batch).await;
            return match recorded {
                Ok(()) => Ok(Accepted::all(durability)),
                Err(StoreError::Partly(partly)) => stored_or_undecided(*partly, durability),
                Err(error) => Err(error),
            };
        };
        if !spool.store_is_unavailable() {
            return self.store_or_spool(spool, batch).await;
        }
        // A write to the store would only time out. Delivery detects when the store is available again.
        let error = match self.append(spool, batch).await {
            Ok(()) => return Ok(Accepted::all(Durability::Spooled)),
            Err(error) => error,
        };
        // Both the store and the spool fail. One request at a time probes whether the store is available again.
        let Ok(_probing) = self.probing.try_lock() else {
            return Err(error);
        };
        let (recorded, durability) = self.record(batch).await;
        match recorded {
            Ok(()) => {
                spool.note_available();
                Ok(Accepted::all(durability))
            }
            Err(StoreError::Partly(partly)) if partly.open.is_empty() => {
                spool.note_available();
                stored_or_undecided(*partly, durability)
            }
            Err(_) => Err(error),
        }
    }

    async fn store_or_spool(&self, spool: &Spool, batch: &Batch) -> Result<Accepted, StoreError> {
        let (recorded, durability) = self.record(batch).await;
        match recorded {
            Ok(()) => Ok(Accepted::all(durability)),
            Err(StoreError::Partly(partly)) if partly.open.is_empty() => {
                stored_or_undecided(*partly, durability)
            }
            Err(StoreError::Partly(partly)) => {
                self.append(spool, &batch.at(&partly.open)).await?;
                Ok(Accepted {
                    durability: Durability::Spooled,
                    refused: partly.refused,
                })
            }
            Err(error) if is_to_spool(&error) => {
                if spool.note_unavailable() {
                    tracing::warn!(%error, "the store is unavailable; pairs go to the spool");
                }
                self.append(spool, batch).await?;
                Ok(Accepted::all(Durability::Spooled))
            }
            Err(error) => Err(error),
        }
    }

    /// Records in the store, with the timeout for requests.
    async fn record(&self, batch: &Batch) -> (Result<(), StoreError>, Durability) {
        self.recorder.store.advance(self.clock.now());
        self.recorder.record(batch, self.write_timeout).await
    }

    async fn append(&self, spool: &Spool, batch: &Batch) -> Result<(), StoreError> {
        spool.append(batch, self.clock.now()).await
    }
}

/// The result for a batch that is partly recorded, when nothing of it goes to the spool.
fn stored_or_undecided(partly: Partly, durability: Durability) -> Result<Accepted, StoreError> {
    match partly.open.is_empty() {
        true => Ok(Accepted {
            durability,
            refused: partly.refused,
        }),
        false => Err(StoreError::Unavailable(partly.reason)),
    }
}

/// Whether pairs go to the spool after this error, because the store may accept them later. A store that is merely busy
/// slows its clients down instead: spooling would only hide that they send too much.
fn is_to_spool(error: &StoreError) -> bool {
    match error {
        StoreError::Unavailable(_)
        | StoreError::Timeout(_)
        | StoreError::Full(_)
        | StoreError::NotSetUp(_) => true,
        StoreError::Busy(_)
        | StoreError::Throttled { .. }
        | StoreError::Rejected(_)
        | StoreError::Partly(_)
        | StoreError::Damaged(_)
        | StoreError::Unsupported(_)
        | StoreError::Closed => false,
    }
}

/// Whether this error may lose pairs, because an immediate retry would probably fail too. After an error of a busy or
/// stopping process, a retry may succeed.
fn is_lost(error: &StoreError) -> bool {
    match error {
        StoreError::Busy(_) | StoreError::Throttled { .. } | StoreError::Closed => false,
        StoreError::Unavailable(_)
        | StoreError::Timeout(_)
        | StoreError::Full(_)
        | StoreError::NotSetUp(_)
        | StoreError::Rejected(_)
        | StoreError::Partly(_)
        | StoreError::Damaged(_)
        | StoreError::Unsupported(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::ingest::spool::tests_support::spool_on;
    use domain::store::model::Model;
    use domain::{BatchBuilder, ManualClock, Slot, Timestamp, UserId};
    use wal::testing::{Faults, MemDisk};

    fn batch() -> Batch {
        let mut batch = BatchBuilder::default();
        let user = UserId::new("u").unwrap();
        batch.push_pair(&user, "s", Slot::new(1)).unwrap();
        batch.finish()
    }

    #[tokio::test]
    async fn a_store_that_is_back_is_used_again_though_the_spool_has_failed() {
        let (root, disk) = (tempfile::tempdir().unwrap(), MemDisk::default());
        let spool = spool_on(&root, &disk);
        let store = Arc::new(Model::default());
        let writer = SpoolingWriter::new(
            Arc::new(Recorder::new(
                Arc::clone(&store) as Arc<dyn PairStore>,
                None,
            )),
            Some(Arc::clone(&spool)),
            Arc::new(ManualClock::new(Timestamp::UNIX_EPOCH)),
            None,
        );
        store.is_gone.store(true, Ordering::Relaxed);
        let result = writer.write(&batch()).await.unwrap();
        assert_eq!(result, Accepted::all(Durability::Spooled));
        // After a failed sync the spool accepts no further writes.
        disk.set_faults(Faults {
            sync: true,
            ..Faults::default()
        });
        assert!(writer.write(&batch()).await.is_err());
        assert!(spool.store_is_unavailable());
        store.is_gone.store(false, Ordering::Relaxed);
        let result = writer.write(&batch()).await.unwrap();
        assert_eq!(result, Accepted::all(Durability::Stored));
        assert!(
            !spool.store_is_unavailable(),
            "new pairs go to the store again"
        );
    }
}
