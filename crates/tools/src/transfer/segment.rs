//! Copies one segment: exports a range of slots, records it, and updates the checkpoint.

use std::ops::RangeInclusive;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::stream::StreamExt;

use super::checkpoint::Checkpoint;
use super::{Transfer, TransferError};
use domain::store::StoreError;
use domain::{Batch, BatchBuilder, Segment, Slot};

/// Pairs recorded at once: every store records that many well within its timeouts.
const RECORDED_AT_ONCE: usize = 10_000;
/// The target number of pairs of a range: a few seconds of work, which a failure repeats. Tests have fewer pairs.
pub(super) const RANGE_PAIRS: u64 = if cfg!(test) { 1_000 } else { 100_000 };
/// The first range of a source that streams. The length of later ones depends on the pairs found.
const FIRST_STREAMED: Duration = Duration::from_hours(24);
/// How much longer than the previous range a range may be: the pairs may crowd in the next slots.
const GROWTH: u64 = 4;
/// Batches of one segment in flight to the target.
const RECORDED_AHEAD: usize = 4;

impl Transfer {
    /// Copies the pairs of `segment` from the slot `from` to the slot that is present when the copy reaches it. Slots
    /// ahead of this clock are copied only once they are present: an embedded target would advance its clock to them.
    pub(super) async fn copy_segment(
        &self,
        segment: &Segment,
        from: Slot,
        checkpoint: Option<&Checkpoint>,
    ) -> Result<(), TransferError> {
        let mut at = from;
        let mut length = self.first_length();
        loop {
            let present = self.present();
            if at > present {
                return Ok(());
            }
            let end = Slot::new(at.number().saturating_add(length - 1)).min(present);
            let end = self.fit(segment, at, end).await?;
            let copied = self.retry(async || self.copy_range(segment, at..=end).await);
            let pairs = copied.await.map_err(TransferError::Source)??;
            let slots = slots_in(at, end);
            self.observer().moved(slots, 0);
            length = (slots.saturating_mul(RANGE_PAIRS) / pairs.max(1)).clamp(1, slots * GROWTH);
            at = Slot::new(end.number() + 1);
            // The present slot is still being written to, so a resumed transfer must read it again.
            if let Some(checkpoint) = checkpoint
                && end < present
            {
                checkpoint.advance(segment, at)?;
            }
        }
    }

    /// The length of the first range of a segment, in slots. A small segment is one range, unless its source streams:
    /// then nothing is counted before it is read.
    fn first_length(&self) -> u64 {
        let frame = &self.parts.frame;
        match self.parts.source.streams() {
            true => FIRST_STREAMED.as_secs() / u64::from(frame.resolution().seconds()),
            false => u64::from(frame.full_window().slots()),
        }
    }

    /// Shortens a range of a source that does not stream until it fits into memory, or is a single slot. Returns its end.
    async fn fit(&self, segment: &Segment, at: Slot, mut end: Slot) -> Result<Slot, TransferError> {
        if self.parts.source.streams() {
            return Ok(end);
        }
        while end > at && self.pairs_in(segment, at, end).await? > 2 * RANGE_PAIRS {
            end = Slot::new(at.number().midpoint(end.number()));
        }
        Ok(end)
    }

    /// The number of pairs of the source from `at` to `end`. A store that does not stream keeps the latest slot of each
    /// pair, so this is its count as of `end`.
    async fn pairs_in(&self, segment: &Segment, at: Slot, end: Slot) -> Result<u64, TransferError> {
        let frame = &self.parts.frame;
        let resolution = frame.resolution();
        let length = slots_in(at, end) * u64::from(resolution.seconds());
        // A range that has become longer than the window begins with expired pairs.
        let window = frame.window(Duration::from_secs(length));
        let window = window.unwrap_or(frame.full_window());
        let (source, as_of) = (&self.parts.source, resolution.start_of(end));
        let counted = self.retry(async || source.count(segment, window, as_of).await);
        Ok(counted.await.map_err(TransferError::Source)?.users)
    }

    /// Reads and records a range, a few batches at a time. Returns the number of pairs. The outer error is that of the
    /// source, after which the whole range may be retried.
    async fn copy_range(
        &self,
        segment: &Segment,
        slots: RangeInclusive<Slot>,
    ) -> Result<Result<u64, TransferError>, StoreError> {
        let mut recorded = self
            .parts
            .source
            .export_stream(segment, slots)
            .map(|batch| async {
                let batch = batch?;
                let pairs = batch.len() as u64;
                let recorded = self.record(batch).await;
                self.observer().moved(0, pairs);
                Ok::<_, StoreError>(recorded.map(|()| pairs))
            })
            // The next batch is read while this one becomes durable.
            .buffered(RECORDED_AHEAD);
        let mut pairs = 0;
        while let Some(recorded) = recorded.next().await {
            match recorded? {
                Ok(some) => pairs += some,
                Err(error) => return Ok(Err(error)),
            }
        }
        Ok(Ok(pairs))
    }

    async fn record(&self, batch: Batch) -> Result<(), TransferError> {
        for part in parts(batch) {
            let recorded = self.retry(async || self.parts.target.record(&part).await);
            recorded.await.map_err(TransferError::Target)?;
            self.copied.fetch_add(part.len() as u64, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// The number of slots from `first` to `last`, both included.
fn slots_in(first: Slot, last: Slot) -> u64 {
    last.number() - first.number() + 1
}

/// Splits a batch into batches of at most [`RECORDED_AT_ONCE`] pairs.
fn parts(batch: Batch) -> Vec<Batch> {
    if batch.len() <= RECORDED_AT_ONCE {
        return vec![batch];
    }
    let mut parts = Vec::with_capacity(batch.len().div_ceil(RECORDED_AT_ONCE));
    let mut part = BatchBuilder::default();
    for pair in batch.pairs() {
        let segment = part.admit(pair.segment.clone());
        part.push(&pair.user, segment, pair.slot);
        if part.len() == RECORDED_AT_ONCE {
            parts.push(std::mem::take(&mut part).finish());
        }
    }
    parts.push(part.finish());
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::store::conformance::batch;

    #[test]
    fn a_large_batch_is_recorded_in_parts_that_lose_nothing() {
        let names: Vec<_> = (0..2 * RECORDED_AT_ONCE + 1)
            .map(|n| n.to_string())
            .collect();
        let slot = Slot::new(7);
        let whole = batch(names.iter().map(|name| (name.as_str(), "s", slot)));
        let parts = parts(whole.clone());
        let sizes: Vec<_> = parts.iter().map(Batch::len).collect();
        assert_eq!(sizes, [RECORDED_AT_ONCE, RECORDED_AT_ONCE, 1]);
        let moved = parts.iter().flat_map(Batch::pairs);
        assert!(moved.eq(whole.pairs()));
    }
}
