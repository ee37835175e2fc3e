//! Where accepted pairs are kept: in the store, or in the spool while the store is away.

use std::sync::Arc;

use async_trait::async_trait;

use super::spool::{Sink, Spool};
use super::{Durability, PendingNotes};
use crate::domain::{Batch, Clock};
use crate::store::{PairStore, StoreError};

/// Makes pairs durable.
#[derive(Debug)]
pub(super) struct Keeper {
    recorder: Arc<Recorder>,
    spool: Option<Arc<Spool>>,
    clock: Arc<dyn Clock>,
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

    async fn record(&self, batch: &Batch) -> Result<(), StoreError> {
        self.store.record(batch).await?;
        if let Some(pending) = &self.pending {
            pending.note(batch).await;
        }
        Ok(())
    }
}

#[async_trait]
impl Sink for Recorder {
    async fn take(&self, batch: &Batch) -> Result<(), StoreError> {
        self.record(batch).await
    }
}

impl Keeper {
    pub(super) fn new(
        recorder: Arc<Recorder>,
        spool: Option<Arc<Spool>>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            recorder,
            spool,
            clock,
        }
    }

    /// Keeps `batch` in the store, or in the spool when the store can't take it now.
    pub(super) async fn keep(&self, batch: &Batch) -> Result<Durability, StoreError> {
        let Some(spool) = &self.spool else {
            self.recorder.record(batch).await?;
            return Ok(Durability::Stored);
        };
        if spool.store_is_away() {
            // Whoever tried the store now would wait for its time-outs; delivery notices when it is back.
            match self.append(spool, batch).await {
                Err(error) if !matches!(error, StoreError::Full(_)) => {
                    tracing::error!(%error, "the spool fails: trying the store that was away");
                }
                appended => return appended,
            }
        }
        match self.recorder.record(batch).await {
            Ok(()) => Ok(Durability::Stored),
            Err(error) if is_away(&error) => {
                if spool.note_away() {
                    tracing::warn!(%error, "the store is away: pairs go to the spool");
                }
                self.append(spool, batch).await
            }
            Err(error) => Err(error),
        }
    }

    async fn append(&self, spool: &Spool, batch: &Batch) -> Result<Durability, StoreError> {
        spool.append(batch, self.clock.now()).await?;
        Ok(Durability::Spooled)
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
        | StoreError::Rejected(_)
        | StoreError::Damaged(_)
        | StoreError::Unsupported(_)
        | StoreError::Closed => false,
    }
}
