//! Moves pairs from one store to another, while both may serve: so that a small start on one store is no dead end.
//!
//! **What is moved.** Each segment, slot range by slot range, from the oldest slot of the window to the present one.
//! A pair recorded meanwhile moves to a later slot, which is still to come; what came late, with an old slot, is
//! found by the last step. Recording a pair again changes nothing, so any part may be repeated: that is what makes
//! a transfer resumable, and harmless to run twice. Users keep the names that the source has for them: where a
//! `user_key` is set these are hashes already, made at the edge, and the target gets the same ones.
//!
//! **What is not moved:** trends, and erasures. Who is erased from the source while it is copied, or afterwards, has to
//! be erased from the target as well.
//!
//! **Steps.** All segments; then what came since the beginning, again and again until that takes moments only; then
//! [verification](verify) of the counts of both sides.

mod checkpoint;
mod patience;
mod segment;
mod stride;
mod verify;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::stream::{self, StreamExt, TryStreamExt};
use jiff::SignedDuration;

pub use checkpoint::CheckpointError;
pub use patience::{Patience, patiently};
pub use verify::{Compared, Comparison};

use self::checkpoint::Checkpoint;
use domain::store::{PairStore, StoreError};
use domain::{Clock, Segment, Slot, TimeFrame, Timestamp};

/// How far back a further pass begins before the pass that it follows: clocks of instances differ, and segmentation
/// services are late. What is later still is found by verification, at a higher cost.
const OVERLAP: SignedDuration = SignedDuration::from_mins(10);
/// A pass that took no longer than this leaves little to the next one.
const SHORT_PASS: SignedDuration = SignedDuration::from_secs(10);
/// Further passes at most. Where writes outrun the transfer no number is enough.
const MAX_FURTHER_PASSES: usize = 4;

/// A transfer from one store to another.
#[derive(Debug)]
pub struct Transfer {
    parts: TransferParts,
    copied: AtomicU64,
}

/// What a transfer is made of.
#[derive(Debug)]
pub struct TransferParts {
    /// The window and resolution, of both stores.
    pub frame: TimeFrame,
    /// Where "now" comes from.
    pub clock: Arc<dyn Clock>,
    /// Where pairs are read.
    pub source: Arc<dyn PairStore>,
    /// Where they are recorded.
    pub target: Arc<dyn PairStore>,
    /// Which two stores these are: a checkpoint of others is refused.
    pub names: Names,
    /// The file that knows how far it came.
    pub checkpoint: PathBuf,
    /// Segments under way at a time, each with one range of slots in memory.
    pub parallelism: usize,
    /// How long a store that can't answer now is asked again.
    pub patience: Patience,
    /// Who is told how far it has come.
    pub observer: Arc<dyn TransferObserver>,
}

/// What the two stores are called, without secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// The source.
    pub from: String,
    /// The target.
    pub to: String,
}

/// Hears how far a transfer has come.
pub trait TransferObserver: Send + Sync + std::fmt::Debug {
    /// The next step has so many parts.
    fn begins(&self, _step: Step, _parts: u64) {}
    /// So many parts of the step are done, with so many pairs.
    fn moved(&self, _parts: u64, _pairs: u64) {}
}

/// A step of a transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// All segments; a part is a slot of one.
    Copying,
    /// What came meanwhile; a part is a slot of a segment.
    CatchingUp,
    /// The comparison of counts; a part is a segment.
    Comparing,
}

/// Hears nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoTransferObserver;

impl TransferObserver for NoTransferObserver {}

/// What a transfer came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransferReport {
    /// Whether it went on where an earlier one had stopped.
    pub resumed: bool,
    /// Pairs recorded, repeated ones included.
    pub pairs: u64,
    /// The segments of both sides, sorted by name.
    pub compared: Vec<Compared>,
}

/// Why a transfer stopped. What it did until then stays, and the checkpoint knows it.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// The source failed for longer than patience allows.
    #[error("reading: {0}")]
    Source(StoreError),
    /// The target failed for longer than patience allows.
    #[error("writing: {0}")]
    Target(StoreError),
    /// The file that knows how far it came can't be used.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
}

impl Transfer {
    /// A transfer from its parts.
    pub fn new(parts: TransferParts) -> Self {
        Self {
            parts,
            copied: AtomicU64::new(0),
        }
    }

    /// Goes through all steps. Dropping the future stops it, with a checkpoint that is a second old at most.
    pub async fn run(&self) -> Result<TransferReport, TransferError> {
        // Before there is a checkpoint: what can't begin leaves none behind.
        let begun = self.parts.clock.now();
        self.patiently(async || self.parts.target.segments(begun).await)
            .await
            .map_err(TransferError::Target)?;
        let segments = self.segments().await?;
        let names = &self.parts.names;
        let path = self.parts.checkpoint.clone();
        let checkpoint = Checkpoint::open(path, names, self.parts.frame, begun).await?;

        self.begins(Step::Copying, &segments, self.oldest());
        let copied = stream::iter(&segments)
            .map(|segment| self.copy_by(&checkpoint, segment))
            .buffer_unordered(self.parts.parallelism.max(1));
        copied.try_collect::<()>().await?;
        self.catch_up(checkpoint.begun()).await?;

        let compared = self.compare_all().await?;
        checkpoint.remove().await?;
        Ok(TransferReport {
            resumed: checkpoint.is_resumed(),
            pairs: self.copied.load(Ordering::Relaxed),
            compared,
        })
    }

    /// Copies a segment, unless the checkpoint has it already, from where the checkpoint stands.
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
        checkpoint.finish(segment).await?;
        Ok(())
    }

    /// Copies what was recorded since `begun`, again and again until it takes moments only.
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

    async fn segments(&self) -> Result<Vec<Segment>, TransferError> {
        let now = self.parts.clock.now();
        let listed = self.patiently(async || self.parts.source.segments(now).await);
        listed.await.map_err(TransferError::Source)
    }

    async fn patiently<T>(
        &self,
        call: impl AsyncFn() -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        patiently(&self.parts.patience, call).await
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

    /// How many slots there are from `from` to the present one, both included.
    fn slots_since(&self, from: Slot) -> u64 {
        (self.present().number() + 1).saturating_sub(from.number())
    }
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
