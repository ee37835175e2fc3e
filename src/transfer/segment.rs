//! One segment on its way: export a range of slots, record it, note how far it came.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::checkpoint::Checkpoint;
use super::stride::Stride;
use super::{Transfer, TransferError};
use crate::domain::{Batch, BatchBuilder, Segment, Slot, TimeFrame, Window};

/// Pairs recorded at once: every store takes as many well within its time limits.
const RECORDED_AT_ONCE: usize = 10_000;

impl Transfer {
    /// Copies the pairs of `segment` from the slot `from` to the present one, as it is when that is reached. Slots
    /// ahead of this clock wait until it reaches them: an embedded target would take them for the present.
    pub(super) async fn copy_segment(
        &self,
        segment: &Segment,
        from: Slot,
        checkpoint: Option<&Checkpoint>,
    ) -> Result<(), TransferError> {
        let source = &self.parts.source;
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
            let exported = self.patiently(async || source.export(segment, at..=end).await);
            let exported = exported.await.map_err(TransferError::Source)?;
            let (slots, pairs) = (end.number() - at.number() + 1, exported.len() as u64);
            self.record(exported).await?;
            stride.learn(slots, pairs);
            self.observer().moved(slots, pairs);
            at = Slot::new(end.number() + 1);
            // The present slot is still being written to: whoever resumes reads it again.
            if let Some(checkpoint) = checkpoint
                && end < present
            {
                checkpoint.advance(segment, at).await?;
            }
        }
    }

    /// The last slot of the range that begins with `at`, such that memory can hold it.
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
        // Counts over shorter windows tell where users were last seen: in any store, as of now.
        let from_here = self.users_since(segment, at).await?;
        loop {
            let next = Slot::new(end(stride).number() + 1);
            let beyond = self.users_since(segment, next).await?;
            if !stride.is_bold() || !stride.foresee(from_here.saturating_sub(beyond)) {
                return Ok(end(stride));
            }
        }
    }

    /// Users of the source last seen in `slot` or later.
    async fn users_since(&self, segment: &Segment, slot: Slot) -> Result<u64, TransferError> {
        let frame = &self.parts.frame;
        let seconds = self.slots_since(slot) * u64::from(frame.resolution().seconds());
        let length = Duration::from_secs(seconds).min(full_length(frame));
        // No slot is left: nobody either.
        let Ok(window) = frame.window(length) else {
            return Ok(0);
        };
        self.count_source(segment, window).await
    }

    async fn count_source(&self, segment: &Segment, window: Window) -> Result<u64, TransferError> {
        let (source, now) = (&self.parts.source, self.parts.clock.now());
        let counted = self.patiently(async || source.count(segment, window, now).await);
        Ok(counted.await.map_err(TransferError::Source)?.users)
    }

    async fn record(&self, batch: Batch) -> Result<(), TransferError> {
        for part in parts(batch) {
            let recorded = self.patiently(async || self.parts.target.record(&part).await);
            recorded.await.map_err(TransferError::Target)?;
            self.copied.fetch_add(part.len() as u64, Ordering::Relaxed);
        }
        Ok(())
    }
}

fn full_length(frame: &TimeFrame) -> Duration {
    Duration::from_secs(frame.full_window().seconds())
}

/// The pairs of a batch in batches that are small enough.
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
    use crate::store::conformance::batch;

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
