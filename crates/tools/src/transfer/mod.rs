//! Copies pairs from one store to another while both may serve, so that a deployment can change its store later.
//!
//! **What is copied.** Each segment, in ranges of slots, from the oldest slot of the window to the present one. A pair
//! that is recorded again meanwhile moves to a later slot, which is copied later; pairs that arrive late, with an old
//! slot, are found by the last step. Recording a pair is idempotent, so any part may be repeated. Therefore a transfer
//! can be resumed, and may run twice. Users keep the ids of the source: with a `user_key` these are hashes already, and
//! the target gets the same hashes.
//!
//! **What is not copied:** trends and erasures. A user who is erased from the source during the copy, or later, must be
//! erased from the target as well.
//!
//! **Steps.** All segments; then the pairs recorded since the start, in further passes until a pass is short; then
//! [verification](verify) of the counts of both sides.

mod checkpoint;
mod retry;
mod segment;
mod verify;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::stream::{self, StreamExt, TryStreamExt};
use jiff::SignedDuration;

pub use checkpoint::CheckpointError;
pub use retry::{RetryPolicy, with_retries};
pub use verify::{Compared, Comparison};

use self::checkpoint::Checkpoint;
use domain::store::{PairStore, StoreError};
use domain::{Clock, Segment, Slot, TimeFrame, Timestamp};

/// How far before the start of the previous pass a further pass starts: clocks of instances differ, and segmentation
/// services send pairs late. Verification finds even later pairs, at a higher cost.
const OVERLAP: SignedDuration = SignedDuration::from_mins(10);
/// After a pass that took no longer than this, the next one would find little.
const SHORT_PASS: SignedDuration = SignedDuration::from_secs(10);
/// The maximum number of further passes. If writes are faster than the transfer, no number is enough.
const MAX_FURTHER_PASSES: usize = 4;

/// A transfer from one store to another.
#[derive(Debug)]
pub struct Transfer {
    parts: TransferParts,
    copied: AtomicU64,
}

/// The parts of a [`Transfer`].
#[derive(Debug)]
pub struct TransferParts {
    /// The window and resolution of both stores.
    pub frame: TimeFrame,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// The store from which pairs are read.
    pub source: Arc<dyn PairStore>,
    /// The store in which pairs are recorded.
    pub target: Arc<dyn PairStore>,
    /// The names of both stores: a checkpoint with other names is an error.
    pub names: Names,
    /// The path of the checkpoint file.
    pub checkpoint: PathBuf,
    /// The number of segments copied concurrently, each with one range of slots in memory.
    pub parallelism: usize,
    /// How long to retry a store that is unavailable.
    pub retry: RetryPolicy,
    /// Receives the progress.
    pub observer: Arc<dyn TransferObserver>,
}

/// The names of the two stores, without secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// The source.
    pub from: String,
    /// The target.
    pub to: String,
}

/// Receives the progress of a transfer.
pub trait TransferObserver: Send + Sync + std::fmt::Debug {
    /// The next step starts, with this number of parts.
    fn begins(&self, _step: Step, _parts: u64) {}
    /// This number of further parts of the step are done, with this number of pairs.
    fn moved(&self, _parts: u64, _pairs: u64) {}
}

/// A step of a transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// All segments; a part is a slot of one.
    Copying,
    /// The pairs recorded meanwhile; a part is a slot of a segment.
    CatchingUp,
    /// The comparison of counts; a part is a segment.
    Comparing,
}

/// An observer that ignores everything.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoTransferObserver;

impl TransferObserver for NoTransferObserver {}

/// The result of a transfer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransferReport {
    /// Whether it resumed an earlier transfer.
    pub resumed: bool,
    /// Pairs recorded, repeated ones included.
    pub pairs: u64,
    /// The segments of both sides, sorted by name.
    pub compared: Vec<Compared>,
}

/// Why a transfer stopped. The pairs copied until then stay, and the checkpoint covers them.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// The source failed, and retries did not help.
    #[error("reading: {0}")]
    Source(StoreError),
    /// The target failed, and retries did not help.
    #[error("writing: {0}")]
    Target(StoreError),
    /// The checkpoint can't be used.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
}

impl Transfer {
    /// Creates a transfer; [`run`](Self::run) starts it.
    pub fn new(parts: TransferParts) -> Self {
        Self {
            parts,
            copied: AtomicU64::new(0),
        }
    }

    /// Runs all steps. Dropping the future stops the transfer; its checkpoint is then at most a second old.
    pub async fn run(&self) -> Result<TransferReport, TransferError> {
        // Before the checkpoint is created: a transfer that can't start leaves no file behind.
        let begun = self.parts.clock.now();
        self.retry(async || self.parts.target.segments(begun).await)
            .await
            .map_err(TransferError::Target)?;
        let segments = self.segments().await?;
        let path = self.parts.checkpoint.clone();
        let checkpoint = Checkpoint::open(path, self.description(), begun)?;

        self.begins(Step::Copying, &segments, self.oldest());
        let copied = stream::iter(&segments)
            .map(|segment| self.copy_by(&checkpoint, segment))
            .buffer_unordered(self.parts.parallelism.max(1));
        copied.try_collect::<()>().await?;
        self.catch_up(checkpoint.begun()).await?;

        let compared = self.compare_all().await?;
        let resumed = checkpoint.is_resumed();
        checkpoint.remove()?;
        Ok(TransferReport {
            resumed,
            pairs: self.copied.load(Ordering::Relaxed),
            compared,
        })
    }

    /// Copies a segment from the position in the checkpoint on, unless the checkpoint has it as complete.
    async fn copy_by(
        &self,
        checkpoint: &Checkpoint,
        segment: &Segment,
    ) -> Result<(), TransferError> {
        let oldest = self.oldest();
        let Some(from) = checkpoint.next_slot(segment, oldest) else {
            self.observer().moved(self.slots_since(oldest), 0);
            return Ok(());
        };
        self.observer()
            .moved(from.number().saturating_sub(oldest.number()), 0);
        self.copy_segment(segment, from, Some(checkpoint)).await?;
        checkpoint.finish(segment)?;
        Ok(())
    }

    /// Copies the pairs recorded since `begun`, in passes until one is short.
    async fn catch_up(&self, begun: Timestamp) -> Result<(), TransferError> {
        let mut since = begun;
        for _ in 0..MAX_FURTHER_PASSES {
            let began = self.parts.clock.now();
            let from = since.saturating_sub(OVERLAP).unwrap_or(since);
            let from = self.oldest().max(self.slot_of(from));
            let segments = self.segments().await?;
            self.begins(Step::CatchingUp, &segments, from);
            stream::iter(&segments)
                .map(|segment| self.copy_segment(segment, from, None))
                .buffer_unordered(self.parts.parallelism.max(1))
                .try_collect::<()>()
                .await?;
            if self.parts.clock.now().duration_since(began) <= SHORT_PASS {
                break;
            }
            since = began;
        }
        Ok(())
    }

    /// What distinguishes this copy from others, in words: a checkpoint with another description is an error.
    fn description(&self) -> String {
        let (names, frame) = (&self.parts.names, &self.parts.frame);
        format!(
            "from {} to {} with a window of {} s in steps of {} s",
            names.from,
            names.to,
            frame.full_window().seconds(),
            frame.resolution().seconds()
        )
    }

    async fn segments(&self) -> Result<Vec<Segment>, TransferError> {
        let now = self.parts.clock.now();
        let listed = self.retry(async || self.parts.source.segments(now).await);
        listed.await.map_err(TransferError::Source)
    }

    async fn retry<T>(
        &self,
        call: impl AsyncFn() -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        with_retries(&self.parts.retry, call).await
    }

    fn observer(&self) -> &dyn TransferObserver {
        &*self.parts.observer
    }

    fn begins(&self, step: Step, segments: &[Segment], from: Slot) {
        let parts = segments.len() as u64 * self.slots_since(from);
        self.observer().begins(step, parts);
    }

    fn slot_of(&self, instant: Timestamp) -> Slot {
        self.parts.frame.resolution().slot_of(instant)
    }

    fn present(&self) -> Slot {
        self.slot_of(self.parts.clock.now())
    }

    /// The oldest slot of the full window.
    fn oldest(&self) -> Slot {
        let window = self.parts.frame.full_window();
        *window.slots_as_of(self.present()).start()
    }

    /// The number of slots from `from` to the present one, both included.
    fn slots_since(&self, from: Slot) -> u64 {
        (self.present().number() + 1).saturating_sub(from.number())
    }
}

#[cfg(test)]
mod tests;
