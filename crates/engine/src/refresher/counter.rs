//! Counts segments in one call of the store, and writes the counts to the cache and to memory.

use std::sync::Arc;

use futures::future::{BoxFuture, join_all};

use super::names::Names;
use super::permits::Lane;
use super::remembered::Remembered;
use crate::segments::SegmentCatalog;
use domain::cache::{CacheError, CountCache};
use domain::store::{PairStore, StoreError};
use domain::{Clock, Count, Segment, TimeFrame, Window};
use telemetry::Metrics;

/// The maximum number of attempts to count within one slot. After the last one the count is used as it is.
const MAX_COUNT_ATTEMPTS: u32 = 3;

/// The maximum number of attempts of a refresh to call a cache that times out. The counts may have taken minutes, and no
/// client waits for them. A call for a reader is not retried, because the reader has other sources.
const MAX_CACHE_ATTEMPTS: u32 = 3;

/// Counts segments and stores the counts.
#[derive(Debug)]
pub(super) struct Counter {
    pub(super) frame: TimeFrame,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) store: Arc<dyn PairStore>,
    pub(super) cache: Arc<dyn CountCache>,
    /// The windows whose counts go to the cache, of every segment.
    pub(super) windows: Vec<Window>,
    /// The window of a segment, whose count goes to the cache too.
    pub(super) segments: Arc<SegmentCatalog>,
    pub(super) names: Arc<Names>,
    pub(super) remembered: Arc<Remembered>,
    pub(super) metrics: Arc<Metrics>,
}

/// A count that the store has just returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recount {
    /// The count.
    pub count: Count,
    /// Whether the cache has this count or a later one.
    pub is_cached: bool,
}

impl Counter {
    /// Counts `segments` in one call of the store, and stores each count in memory. Counts of configured windows and
    /// existing segments also go to the cache. Requests for arbitrary names and windows do not fill the cache.
    pub(super) async fn count(
        &self,
        segments: &[Segment],
        window: Window,
        lane: Lane,
    ) -> Result<Vec<Recount>, StoreError> {
        let counts = self.count_once(segments, window).await?;
        let kept = segments.iter().zip(counts);
        let kept = kept.map(|(segment, count)| self.keep(segment, window, count, lane));
        Ok(join_all(kept).await)
    }

    async fn keep(&self, segment: &Segment, window: Window, count: Count, lane: Lane) -> Recount {
        let is_usual = self.windows.contains(&window) || self.segments.window_of(segment) == window;
        if !is_usual || !self.names.is_known_or_cached(segment).await {
            self.remembered.keep_other(segment, window, count);
            return Recount {
                count,
                is_cached: false,
            };
        }
        self.remembered.keep(segment, window, count);
        // A retry is safe: putting the same count twice has the effect of one put.
        let put = || self.cache.put(segment, window, count);
        let is_cached = with_retries(lane, put).await.is_ok();
        if !is_cached {
            self.metrics.counts.cache_fallbacks.inc();
        }
        Recount { count, is_cached }
    }

    /// Counts again if the slot ended before the store was done, unless the store keeps every slot of a pair. A store that
    /// keeps only the latest slot of a pair moves a user who is seen again to the new slot, so the count of the ended slot
    /// would lack that user.
    async fn count_once(
        &self,
        segments: &[Segment],
        window: Window,
    ) -> Result<Vec<Count>, StoreError> {
        let slot_of = |instant| self.frame.resolution().slot_of(instant);
        let mut attempts = 0;
        loop {
            let as_of = self.clock.now();
            let counts = match segments {
                [only] => vec![self.store.count(only, window, as_of).await?],
                several => self.store.count_many(several, window, as_of).await?,
            };
            attempts += 1;
            let present = slot_of(self.clock.now());
            let has_ended = counts.iter().any(|count| present > slot_of(count.as_of));
            if !has_ended || self.store.keeps_every_slot() || attempts == MAX_COUNT_ATTEMPTS {
                return Ok(counts);
            }
        }
    }
}

/// Calls the cache. After a timeout the call is retried for a refresh, not for a reader.
async fn with_retries<'a, T>(
    lane: Lane,
    call: impl Fn() -> BoxFuture<'a, Result<T, CacheError>>,
) -> Result<T, CacheError> {
    let mut attempts = 1;
    loop {
        match call().await {
            Err(CacheError::Timeout) if lane == Lane::Refresh && attempts < MAX_CACHE_ATTEMPTS => {
                attempts += 1;
            }
            done => return done,
        }
    }
}

/// Whether the count failed because `store` is unavailable: the error suggests it, and a ping fails too.
pub(super) async fn is_unavailable(store: &dyn PairStore, error: &StoreError) -> bool {
    matches!(error, StoreError::Unavailable(_) | StoreError::Timeout(_))
        && store.ping().await.is_err()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use futures::FutureExt;

    use super::*;

    /// Whether the call succeeds with a cache that times out this often, and the number of attempts.
    fn attempts(lane: Lane, timeouts: u32) -> (bool, u32) {
        let attempts = AtomicU32::new(0);
        let call = || {
            let is_late = attempts.fetch_add(1, Ordering::Relaxed) < timeouts;
            let response = if is_late {
                Err(CacheError::Timeout)
            } else {
                Ok(())
            };
            std::future::ready(response).boxed()
        };
        let response = with_retries(lane, call).now_or_never().unwrap();
        (response.is_ok(), attempts.load(Ordering::Relaxed))
    }

    #[test]
    fn a_slow_moment_of_the_cache_costs_a_refresh_no_count_and_a_reader_no_time() {
        assert_eq!(attempts(Lane::Refresh, 2), (true, 3));
        assert_eq!(attempts(Lane::Refresh, 9), (false, 3));
        assert_eq!(attempts(Lane::Usual, 1), (false, 1));
    }
}
