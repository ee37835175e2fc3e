//! Reads from the store what the replica lacks: every segment when it is new, and recent slots after entries were lost.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use backon::BackoffBuilder;
use futures::{StreamExt, TryStreamExt, future, stream};
use tokio::time::sleep;

use super::{Replica, Sources};
use domain::store::StoreError;
use domain::{Segment, Slot, Timestamp};
use supervisor::doubling;

/// Segments that are read at a time.
const CONCURRENT: usize = 3;
/// Slots that are read at a time, as a fraction of the window, from a store that returns them all at once: a day of two weeks.
const PARTS: u64 = 14;
const FIRST_RETRY: Duration = Duration::from_millis(200);
const LONGEST_RETRY: Duration = Duration::from_secs(30);

/// Reads everything once, and recent slots whenever that is requested. Runs until it is dropped.
pub(super) async fn keep_complete(replica: Arc<Replica>, sources: Sources) {
    let hydration = Hydration {
        replica: &replica,
        sources: &sources,
    };
    future::join(
        retried(|| hydration.everything()),
        hydration.keep_repairing(),
    )
    .await;
}

/// Reads from the store into the replica.
pub(super) struct Hydration<'a> {
    pub(super) replica: &'a Replica,
    pub(super) sources: &'a Sources,
}

impl Hydration<'_> {
    async fn keep_repairing(&self) {
        let replica = self.replica;
        loop {
            let repair = *replica.repair.lock();
            let Some(repair) = repair else {
                replica.repair_requested.notified().await;
                continue;
            };
            retried(|| self.repair(repair.from)).await;
            replica.progress.repairs.fetch_add(1, Ordering::Relaxed);
            // A loss that was noticed meanwhile needs another repair.
            replica.repair.lock().take_if(|wanted| *wanted == repair);
        }
    }

    /// Reads every segment that was not read yet.
    async fn everything(&self) -> Result<(), StoreError> {
        let reset = self.replica.state().following.lock().reset.clone();
        for segment in reset {
            // A restart interrupted this.
            self.cover(&segment).await?;
        }
        if self.replica.state().following.lock().is_complete {
            return Ok(());
        }
        // Before the position is known, an entry could be neither in the feed nor in what is read.
        while self.replica.state().following.lock().position.is_none() {
            sleep(FIRST_RETRY).await;
        }
        let now = self.now().await?;
        let segments = self.sources.store.segments(now).await?;
        let left: Vec<Segment> = {
            let following = self.replica.state().following.lock();
            let is_left = |segment: &Segment| !following.covered.contains(segment);
            segments.into_iter().filter(is_left).collect()
        };
        let segments = left.len() as u64;
        tracing::info!(segments, "the replica reads the store");
        let unread = &self.replica.progress.unread;
        unread.store(segments, Ordering::Relaxed);
        stream::iter(left)
            .map(|segment| async move {
                self.cover(&segment).await?;
                let unread = unread.fetch_sub(1, Ordering::Relaxed) - 1;
                let tenths = |unread| 10 * (segments - unread) / segments;
                if tenths(unread) > tenths(unread + 1) {
                    tracing::info!(unread, segments, "the replica continues to read the store");
                }
                Ok::<_, StoreError>(())
            })
            .buffer_unordered(CONCURRENT)
            .try_collect::<()>()
            .await?;
        self.log(state::covered(true, &[])).await?;
        tracing::info!("the replica has every segment");
        Ok(())
    }

    /// Reads a segment over the full window, and notes that it was read.
    pub(super) async fn cover(&self, segment: &Segment) -> Result<(), StoreError> {
        let now = self.now().await?;
        self.segment(segment, self.window(now), now).await?;
        let covered = state::covered(false, std::slice::from_ref(segment));
        self.log(covered).await
    }

    /// Reads the slots of every segment from `from` on.
    async fn repair(&self, from: Slot) -> Result<(), StoreError> {
        let now = self.now().await?;
        let window = self.window(now);
        let slots = from.max(*window.start())..=*window.end();
        let segments = self.sources.store.segments(now).await?;
        stream::iter(segments)
            .map(|segment| {
                let slots = slots.clone();
                async move { self.segment(&segment, slots, now).await }
            })
            .buffer_unordered(CONCURRENT)
            .try_collect::<()>()
            .await?;
        tracing::info!("the replica has read recent pairs from the store");
        Ok(())
    }

    /// The time by the clock of the feed, which decides what a count includes.
    async fn now(&self) -> Result<Timestamp, StoreError> {
        let now = self.sources.feed_now().await;
        now.map_err(|error| StoreError::Unavailable(error.to_string()))
    }

    /// The slots of the full window as of `now`, and those in the future of the feed: the clocks of services may be ahead of it,
    /// as that of this process may be.
    fn window(&self, now: Timestamp) -> RangeInclusive<Slot> {
        let full = self.replica.frame.full_window();
        let window = full.slots_as_of(self.replica.slot(now));
        let own = self.replica.slot(self.sources.clock.now());
        *window.start()..=own.max(*window.end())
    }

    /// Reads the pairs of a segment, the oldest part first: a store that keeps the latest slot of a user moves a user who comes
    /// again to a newer part, which must not have been read by then.
    async fn segment(
        &self,
        segment: &Segment,
        slots: RangeInclusive<Slot>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let full = u64::from(self.replica.frame.full_window().slots());
        let part = match self.sources.store.streams() {
            true => full,
            false => full.div_ceil(PARTS),
        };
        let (mut start, last) = (slots.start().number(), slots.end().number());
        while start <= last {
            let end = (start + part - 1).min(last);
            let slots = Slot::new(start)..=Slot::new(end);
            self.part(segment, slots, now).await?;
            start = end + 1;
        }
        Ok(())
    }

    async fn part(
        &self,
        segment: &Segment,
        slots: RangeInclusive<Slot>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        // The store erases a user before the replica learns of the erasure. So for each erasure that the replica knows now, the store
        // has only pairs that came later.
        let erasures = self.replica.state().following.lock().noted_erasures();
        let mut batches = self.sources.store.export_stream(segment, slots);
        while let Some(batch) = batches.next().await {
            let batch = batch?;
            for record in state::stored(&batch, self.replica.durable.key(), erasures) {
                let record = self.replica.limited(record, now)?;
                self.log(record).await?;
            }
            let pairs = batch.len() as u64;
            let progress = &self.replica.progress;
            progress.hydrated_pairs.fetch_add(pairs, Ordering::Relaxed);
        }
        Ok(())
    }

    pub(super) async fn log(&self, record: Vec<u8>) -> Result<(), StoreError> {
        Ok(self.replica.apply(record).await?)
    }
}

impl Replica {
    /// The record, whose slots are limited to that of `now`. A later slot would expire others too early.
    fn limited(&self, record: Vec<u8>, now: Timestamp) -> Result<Vec<u8>, StoreError> {
        let limited = state::no_later_than(&record, self.slot(now)).map_err(StoreError::Damaged)?;
        let Some((limited, furthest)) = limited else {
            return Ok(record);
        };
        self.note_furthest(furthest);
        Ok(limited)
    }
}

/// Repeats `work` with backoff until it succeeds.
async fn retried<W>(work: impl Fn() -> W)
where
    W: Future<Output = Result<(), StoreError>>,
{
    let mut delays = doubling(FIRST_RETRY, LONGEST_RETRY).build();
    while let Err(error) = work().await {
        tracing::warn!(%error, "the replica can't read the store");
        sleep(delays.next().unwrap_or(LONGEST_RETRY)).await;
    }
}
