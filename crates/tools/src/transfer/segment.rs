//! Copies one segment: exports a range of slots, records it, and updates the checkpoint.

use std::ops::RangeInclusive;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::stream::StreamExt;

use super::checkpoint::Checkpoint;
use super::stride::Stride;
use super::{Transfer, TransferError};
use domain::store::StoreError;
use domain::{Batch, BatchBuilder, Segment, Slot, TimeFrame, Window};

/// Pairs recorded at once: every store records that many well within its timeouts.
const RECORDED_AT_ONCE: usize = 10_000;
/// The first range of a segment that is streamed. The length of later ones depends on the pairs found.
const FIRST_RANGE: Duration = Duration::from_hours(24);
/// The target number of pairs of a streamed range: a few seconds of work, which a failure repeats.
const STREAMED_AT_ONCE: u64 = 500_000;
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
        let source = &self.parts.source;
        if source.streams() {
            return self.stream_segment(segment, from, checkpoint).await;
        }
        let window = self.parts.frame.full_window();
        let users = self.count_source(segment, window).await?;
        let mut stride = Stride::new(users, u64::from(window.slots()));
        let mut at = from;
        loop {
            let present = self.present();
            if at > present {
                return Ok(());
            }
            let end = self.choose_end(segment, at, present, &mut stride).await?;
            let exported = self.retry(async || source.export(segment, at..=end).await);
            let exported = exported.await.map_err(TransferError::Source)?;
            let (slots, pairs) = (end.number() - at.number() + 1, exported.len() as u64);
            self.record(exported).await?;
            stride.learn(slots, pairs);
            self.observer().moved(slots, pairs);
            at = Slot::new(end.number() + 1);
            // The present slot is still being written to, so a resumed transfer must read it again.
            if let Some(checkpoint) = checkpoint
                && end < present
            {
                checkpoint.advance(segment, at).await?;
            }
        }
    }

    /// The same for a source that streams: memory holds a few batches regardless of the range, so no counts are needed to
    /// choose it. The length of a range limits the work that a failure repeats; the checkpoint advances after each range.
    async fn stream_segment(
        &self,
        segment: &Segment,
        from: Slot,
        checkpoint: Option<&Checkpoint>,
    ) -> Result<(), TransferError> {
        let mut at = from;
        let mut length = FIRST_RANGE.as_secs() / u64::from(self.parts.frame.resolution().seconds());
        loop {
            let present = self.present();
            if at > present {
                return Ok(());
            }
            length = length.max(1);
            let end = Slot::new(at.number().saturating_add(length - 1)).min(present);
            let streamed = self.retry(async || self.stream_range(segment, at..=end).await);
            let pairs = streamed.await.map_err(TransferError::Source)??;
            self.observer().moved(end.number() - at.number() + 1, 0);
            at = Slot::new(end.number() + 1);
            length = match pairs {
                0..STREAMED_AT_ONCE => length.saturating_mul(4),
                _ => length / 2,
            };
            // The present slot is still being written to, so a resumed transfer must read it again.
            if let Some(checkpoint) = checkpoint
                && end < present
            {
                checkpoint.advance(segment, at).await?;
            }
        }
    }

    /// Reads and records a range, a few batches at a time. Returns the number of pairs. The outer error is that of the
    /// source, after which the whole range may be retried.
    async fn stream_range(
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

    /// Chooses the last slot of the range that starts at `at`, such that the range fits in memory.
    async fn choose_end(
        &self,
        segment: &Segment,
        at: Slot,
        present: Slot,
        stride: &mut Stride,
    ) -> Result<Slot, TransferError> {
        let end = |stride: &Stride| {
            let end = at.number().saturating_add(stride.slots() - 1);
            Slot::new(end).min(present)
        };
        if !stride.is_bold() {
            return Ok(end(stride));
        }
        // Counts over shorter windows show in which slots users were last seen, in any store.
        let from_here = self.users_since(segment, at).await?;
        loop {
            let next = Slot::new(end(stride).number() + 1);
            let beyond = self.users_since(segment, next).await?;
            if !stride.is_bold() || !stride.foresee(from_here.saturating_sub(beyond)) {
                return Ok(end(stride));
            }
        }
    }

    /// The number of users of the source last seen in `slot` or later.
    async fn users_since(&self, segment: &Segment, slot: Slot) -> Result<u64, TransferError> {
        let frame = &self.parts.frame;
        let seconds = self.slots_since(slot) * u64::from(frame.resolution().seconds());
        let length = Duration::from_secs(seconds).min(full_length(frame));
        // No slot is left, so no users.
        let Ok(window) = frame.window(length) else {
            return Ok(0);
        };
        self.count_source(segment, window).await
    }

    async fn count_source(&self, segment: &Segment, window: Window) -> Result<u64, TransferError> {
        let (source, now) = (&self.parts.source, self.parts.clock.now());
        let counted = self.retry(async || source.count(segment, window, now).await);
        Ok(counted.await.map_err(TransferError::Source)?.users)
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

fn full_length(frame: &TimeFrame) -> Duration {
    Duration::from_secs(frame.full_window().seconds())
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
