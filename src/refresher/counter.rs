//! One count: made by the store, kept in the cache and in memory.

use std::sync::Arc;

use super::names::Names;
use super::remembered::Remembered;
use crate::cache::CountCache;
use crate::domain::{Clock, Count, Segment, TimeFrame, Window};
use crate::store::{PairStore, StoreError};
use crate::telemetry::Metrics;

/// A count that takes longer than a slot, again and again, is taken as it is.
const COUNT_TRIES: u32 = 3;

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
}

impl Counter {
    /// Counts `segment` in the store and keeps the count: in the cache if it is one that is refreshed, of a configured
    /// window and of a segment that there is. Whoever asks for made-up names and windows fills nothing there.
    pub(super) async fn count(
        &self,
        segment: &Segment,
        window: Window,
    ) -> Result<Recount, StoreError> {
        let is_refreshed = self.windows.contains(&window) && self.names.has_heard_of(segment).await;
        if !is_refreshed {
            let count = self.count_once(segment, window).await?;
            self.remembered.keep_other(segment, window, count);
            return Ok(Recount {
                count,
                pending: None,
            });
        }
        let mark = self.cache.mark(segment).await;
        let count = self.count_once(segment, window).await?;
        self.remembered.keep(segment, window, count);
        let Ok(mark) = mark else {
            return Ok(Recount {
                count,
                pending: None,
            });
        };
        let pending = match self.cache.put(segment, window, count, mark).await {
            Ok(Some(kept)) if kept.count == count => kept.pending,
            Ok(_) => None,
            Err(_) => {
                self.metrics.cache_fallback();
                None
            }
        };
        Ok(Recount { count, pending })
    }

    /// Counts again when the slot ended before the store was done, unless the store keeps every slot of a pair. One
    /// that keeps the latest leaves out of the count of an ended slot whoever has been seen again since, though they
    /// were there.
    async fn count_once(&self, segment: &Segment, window: Window) -> Result<Count, StoreError> {
        let slot_of = |instant| self.frame.resolution().slot_of(instant);
        let mut tries = 0;
        loop {
            let as_of = self.clock.now();
            let count = self.store.count(segment, window, as_of).await?;
            tries += 1;
            let has_ended = slot_of(self.clock.now()) > slot_of(count.as_of);
            if !has_ended || self.store.keeps_every_slot() || tries == COUNT_TRIES {
                return Ok(count);
            }
        }
    }
}
