//! Where accepted pairs are kept: in the store, or in the spool while the store is unavailable.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::spool::{Sink, Spool};
use super::{Durability, Kept, PendingNotes};
use domain::store::{PairStore, Partly, StoreError};
use domain::{Batch, Clock};

/// Makes pairs durable.
#[derive(Debug)]
pub(super) struct Keeper {
    recorder: Arc<Recorder>,
    spool: Option<Arc<Spool>>,
    clock: Arc<dyn Clock>,
    /// How long a client waits for the store.
    patience: Option<Duration>,
    /// Held by the one request that tries a store which was unavailable when the spool fails too.
    trying: tokio::sync::Mutex<()>,
}

/// Puts pairs into the store and notes them as pending: at once, or later out of the spool.
#[derive(Debug)]
pub struct Recorder {
    store: Arc<dyn PairStore>,
    pending: Option<PendingNotes>,
}

impl Recorder {
    /// A recorder into `store`; `pending` is `None` with a store whose counts always hold all pairs.
    pub fn new(store: Arc<dyn PairStore>, pending: Option<PendingNotes>) -> Self {
        Self { store, pending }
    }

    /// Records pairs; the store has `patience` for it, or as long as it needs.
    async fn record(&self, batch: &Batch, patience: Option<Duration>) -> Result<(), StoreError> {
        let recorded = match patience {
            None => self.store.record(batch).await,
            Some(patience) => {
                let in_time = tokio::time::timeout(patience, self.store.record(batch)).await;
                in_time.unwrap_or_else(|_| {
                    let text = format!("it did not take pairs within {patience:?}");
                    Err(StoreError::Timeout(text))
                })
            }
        };
        let took_some = matches!(&recorded, Ok(()) | Err(StoreError::Partly(_)));
        if let Some(pending) = &self.pending
            && took_some
        {
            pending.note(batch).await;
        }
        recorded
    }
}

#[async_trait]
impl Sink for Recorder {
    async fn take(&self, batch: &Batch) -> Result<(), StoreError> {
        self.record(batch, None).await
    }
}

impl Keeper {
    pub(super) fn new(
        recorder: Arc<Recorder>,
        spool: Option<Arc<Spool>>,
        clock: Arc<dyn Clock>,
        patience: Option<Duration>,
    ) -> Self {
        Self {
            recorder,
            spool,
            clock,
            patience,
            trying: tokio::sync::Mutex::default(),
        }
    }

    /// Keeps `batch` in the store, or in the spool when the store can't take it now.
    pub(super) async fn keep(&self, batch: &Batch) -> Result<Kept, StoreError> {
        let Some(spool) = &self.spool else {
            return match self.record(batch).await {
                Ok(()) => Ok(Kept::all(Durability::Stored)),
                Err(StoreError::Partly(partly)) => stored_or_undecided(*partly),
                Err(error) => Err(error),
            };
        };
        if !spool.store_is_away() {
            return self.store_or_spool(spool, batch).await;
        }
        // A request that tried the store now would wait for its time-outs; delivery notices when it is back.
        let error = match self.append(spool, batch).await {
            Ok(()) => return Ok(Kept::all(Durability::Spooled)),
            Err(error) => error,
        };
        // Neither the store nor the spool: one request at a time finds out whether the store is back.
        let Ok(_trying) = self.trying.try_lock() else {
            return Err(error);
        };
        match self.record(batch).await {
            Ok(()) => {
                spool.note_back();
                Ok(Kept::all(Durability::Stored))
            }
            Err(StoreError::Partly(partly)) if partly.open.is_empty() => {
                spool.note_back();
                stored_or_undecided(*partly)
            }
            Err(_) => Err(error),
        }
    }

    async fn store_or_spool(&self, spool: &Spool, batch: &Batch) -> Result<Kept, StoreError> {
        match self.record(batch).await {
            Ok(()) => Ok(Kept::all(Durability::Stored)),
            Err(StoreError::Partly(partly)) if partly.open.is_empty() => {
                stored_or_undecided(*partly)
            }
            Err(StoreError::Partly(partly)) => {
                self.append(spool, &batch.at(&partly.open)).await?;
                Ok(Kept {
                    durability: Durability::Spooled,
                    refused: partly.refused,
                })
            }
            Err(error) if is_away(&error) => {
                if spool.note_away() {
                    tracing::warn!(%error, "the store is unavailable: pairs go to the spool");
                }
                self.append(spool, batch).await?;
                Ok(Kept::all(Durability::Spooled))
            }
            Err(error) => Err(error),
        }
    }

    /// Records in the store for as long as a client waits.
    async fn record(&self, batch: &Batch) -> Result<(), StoreError> {
        self.recorder.record(batch, self.patience).await
    }

    async fn append(&self, spool: &Spool, batch: &Batch) -> Result<(), StoreError> {
        spool.append(batch, self.clock.now()).await
    }
}

/// What is known of a batch of which a part is recorded, without a spool for the rest.
fn stored_or_undecided(partly: Partly) -> Result<Kept, StoreError> {
    match partly.open.is_empty() {
        true => Ok(Kept {
            durability: Durability::Stored,
            refused: partly.refused,
        }),
        false => Err(StoreError::Unavailable(partly.reason)),
    }
}

/// Whether the same pairs may well be taken later. A store that is merely busy slows its clients down instead:
/// spooling then would only hide that they send too much.
fn is_away(error: &StoreError) -> bool {
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
        let keeper = Keeper::new(
            Arc::new(Recorder::new(
                Arc::clone(&store) as Arc<dyn PairStore>,
                None,
            )),
            Some(Arc::clone(&spool)),
            Arc::new(ManualClock::new(Timestamp::UNIX_EPOCH)),
            None,
        );
        store.is_gone.store(true, Ordering::Relaxed);
        let kept = keeper.keep(&batch()).await.unwrap();
        assert_eq!(kept, Kept::all(Durability::Spooled));
        // After a failed sync the spool takes nothing any more.
        disk.set_faults(Faults {
            sync: true,
            ..Faults::default()
        });
        assert!(keeper.keep(&batch()).await.is_err());
        assert!(spool.store_is_away());
        store.is_gone.store(false, Ordering::Relaxed);
        let kept = keeper.keep(&batch()).await.unwrap();
        assert_eq!(kept, Kept::all(Durability::Stored));
        assert!(
            !spool.store_is_away(),
            "no need to go by the spool any more"
        );
    }
}
