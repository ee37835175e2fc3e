//! Counts: made by the store in one call, kept in the cache and in memory.

use std::sync::Arc;

use futures::future::{BoxFuture, join_all};

use super::names::Names;
use super::places::Lane;
use super::remembered::Remembered;
use domain::cache::{CacheError, CountCache, PendingMark};
use domain::store::{PairStore, StoreError};
use domain::{Clock, Count, Segment, TimeFrame, Window};
use telemetry::Metrics;

/// A count that takes longer than a slot, again and again, is taken as it is.
const COUNT_TRIES: u32 = 3;

/// How often a refresh asks a cache that does not respond in time. Its counts may have taken minutes, and nobody waits for them; a
/// reader has other numbers.
const CACHE_TRIES: u32 = 3;

/// Counts, and keeps what it counted.
#[derive(Debug)]
pub(super) struct Counter {
    pub(super) frame: TimeFrame,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) store: Arc<dyn PairStore>,
    pub(super) cache: Arc<dyn CountCache>,
    /// The windows that are refreshed.
    pub(super) windows: Vec<Window>,
    pub(super) names: Arc<Names>,
    pub(super) remembered: Arc<Remembered>,
    pub(super) metrics: Arc<Metrics>,
}

/// A count made now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recount {
    /// The count.
    pub count: Count,
    /// Pairs acknowledged since the count began; `None` when the cache does not know.
    pub pending: Option<u64>,
    /// Whether the cache has it, or a later one.
    pub is_cached: bool,
}

/// Where a count is kept.
enum Goal {
    /// In the cache and in memory.
    Cache(PendingMark),
    /// In memory: the cache can't be asked.
    Memory,
    /// In memory, among counts of anything that readers ask for.
    Others,
}

impl Counter {
    /// Counts `segments` in one call of the store and keeps each count: in the cache if it is one that is refreshed, of a
    /// configured window and of a segment that there is. Whoever asks for made-up names and windows fills nothing there.
    pub(super) async fn count(
        &self,
        segments: &[Segment],
        window: Window,
        lane: Lane,
    ) -> Result<Vec<Recount>, StoreError> {
        let goals = segments
            .iter()
            .map(|segment| self.goal(segment, window, lane));
        let goals = join_all(goals).await;
        let counts = self.count_once(segments, window).await?;
        let kept = segments.iter().zip(counts).zip(goals);
        let kept =
            kept.map(|((segment, count), goal)| self.keep(segment, window, count, goal, lane));
        Ok(join_all(kept).await)
    }

    /// Where a count that begins now is to be kept.
    async fn goal(&self, segment: &Segment, window: Window, lane: Lane) -> Goal {
        if !self.windows.contains(&window) || !self.names.has_heard_of(segment).await {
            return Goal::Others;
        }
        match patiently(lane, || self.cache.mark(segment)).await {
            Ok(mark) => Goal::Cache(mark),
            Err(_) => Goal::Memory,
        }
    }

    async fn keep(
        &self,
        segment: &Segment,
        window: Window,
        count: Count,
        goal: Goal,
        lane: Lane,
    ) -> Recount {
        match goal {
            Goal::Others => self.remembered.keep_other(segment, window, count),
            Goal::Memory | Goal::Cache(_) => self.remembered.keep(segment, window, count),
        }
        let Goal::Cache(mark) = goal else {
            return Recount {
                count,
                pending: None,
                is_cached: false,
            };
        };
        // Putting the same count twice keeps it once.
        let put = || self.cache.put(segment, window, count, mark);
        let (pending, is_cached) = match patiently(lane, put).await {
            Ok(Some(kept)) if kept.count == count => (kept.pending, true),
            Ok(_) => (None, true),
            Err(_) => {
                self.metrics.counts.cache_fallbacks.inc();
                (None, false)
            }
        };
        Recount {
            count,
            pending,
            is_cached,
        }
    }

    /// Counts again when the slot ended before the store was done, unless the store keeps every slot of a pair. One
    /// that keeps the latest leaves out of the count of an ended slot whoever has been seen again since, though they
    /// were there.
    async fn count_once(
        &self,
        segments: &[Segment],
        window: Window,
    ) -> Result<Vec<Count>, StoreError> {
        let slot_of = |instant| self.frame.resolution().slot_of(instant);
        let mut tries = 0;
        loop {
            let as_of = self.clock.now();
            let counts = match segments {
                [only] => vec![self.store.count(only, window, as_of).await?],
                several => self.store.count_many(several, window, as_of).await?,
            };
            tries += 1;
            let present = slot_of(self.clock.now());
            let has_ended = counts.iter().any(|count| present > slot_of(count.as_of));
            if !has_ended || self.store.keeps_every_slot() || tries == COUNT_TRIES {
                return Ok(counts);
            }
        }
    }
}

/// What the cache responds, asked again for a refresh if that takes too long.
async fn patiently<'a, T>(
    lane: Lane,
    ask: impl Fn() -> BoxFuture<'a, Result<T, CacheError>>,
) -> Result<T, CacheError> {
    let mut tries = 1;
    loop {
        match ask().await {
            Err(CacheError::Timeout) if lane == Lane::Refresh && tries < CACHE_TRIES => tries += 1,
            done => return done,
        }
    }
}

/// Whether it was not the count that failed but `store` that went away.
pub(super) async fn is_away(store: &dyn PairStore, error: &StoreError) -> bool {
    matches!(error, StoreError::Unavailable(_) | StoreError::Timeout(_))
        && store.ping().await.is_err()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use futures::FutureExt;

    use super::*;

    /// What comes of a cache that does not respond in time this often, and how often it was asked.
    fn asked(lane: Lane, timeouts: u32) -> (bool, u32) {
        let asked = AtomicU32::new(0);
        let ask = || {
            let is_late = asked.fetch_add(1, Ordering::Relaxed) < timeouts;
            let response = if is_late {
                Err(CacheError::Timeout)
            } else {
                Ok(())
            };
            std::future::ready(response).boxed()
        };
        let response = patiently(lane, ask).now_or_never().unwrap();
        (response.is_ok(), asked.load(Ordering::Relaxed))
    }

    #[test]
    fn a_slow_moment_of_the_cache_costs_a_refresh_no_count_and_a_reader_no_time() {
        assert_eq!(asked(Lane::Refresh, 2), (true, 3));
        assert_eq!(asked(Lane::Refresh, 9), (false, 3));
        assert_eq!(asked(Lane::Usual, 1), (false, 1));
    }
}
