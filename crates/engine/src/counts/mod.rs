//! The read path of counts: process memory, then the cache, then the store, with one load per key at a time.

mod floor;
mod flow;
mod list;
mod load;
mod own;
mod questions;
mod result;
mod sample;
mod timeouts;
mod trend;

use std::sync::Arc;
use std::time::Duration;

use tracing::Instrument;

pub use self::flow::FlowStep;
use self::list::Lists;
pub use self::result::{Answer, CountError, CountResult, Listed, ShownCount, Source};
pub(crate) use self::sample::Sample;
use crate::live::Live;
use crate::probes::Probes;
use crate::refresher::{Key, Refresher};
use crate::segments::SegmentCatalog;
use domain::cache::CountCache;
use domain::store::PairStore;
use domain::{Clock, Floor, Segment, TimeFrame, Timestamp, Window};
use telemetry::{Metrics, traces};

/// The maximum number of loads in flight that requests can join.
const MAX_LOADS: u64 = 100_000;
/// The longest time for which the result of a load is shared, if the caller that should remove it was cancelled.
const LOAD_KEPT: Duration = Duration::from_secs(1);

/// Serves counts.
#[derive(Debug)]
pub struct Counts {
    parts: CountsParts,
    /// Loads in flight. All concurrent requests for a missing key share one.
    loads: moka::future::Cache<Key, CountResult>,
    lists: Lists,
}

/// The dependencies and settings of the read path.
#[derive(Debug)]
pub struct CountsParts {
    /// The window and resolution.
    pub frame: TimeFrame,
    /// The source of the current time.
    pub clock: Arc<dyn Clock>,
    /// The source of truth.
    pub store: Arc<dyn PairStore>,
    /// The shared cache of counts.
    pub cache: Arc<dyn CountCache>,
    /// Live counts over a store on the network.
    pub live: Option<Arc<Live>>,
    /// Whether the store responds.
    pub probes: Arc<Probes>,
    /// Requests counts from the store; the only writer of cached counts.
    pub refresher: Arc<Refresher>,
    /// The settings of segments.
    pub segments: Arc<SegmentCatalog>,
    /// The metrics, with counters of fallbacks.
    pub metrics: Arc<Metrics>,
    /// A count older than this is recounted, whatever its source.
    pub cache_ttl: Duration,
    /// How long a count is served from process memory without a request to the cache. Zero if the cache itself is in process
    /// memory.
    pub memory_ttl: Duration,
    /// The age from which a remembered count that the cache lacks is recounted, although it is still served.
    pub renew_after: Duration,
    /// The privacy floor.
    pub floor: Floor,
}

impl Counts {
    /// Creates the read path.
    pub fn new(parts: CountsParts) -> Self {
        Self {
            parts,
            loads: moka::future::Cache::builder()
                .max_capacity(MAX_LOADS)
                .time_to_live(LOAD_KEPT)
                .build(),
            lists: Lists::default(),
        }
    }

    /// The configured window.
    pub(crate) fn full_window(&self) -> Window {
        self.parts.frame.full_window()
    }

    /// A count that needs no I/O: from a live store, or from memory for at most `memory_ttl`. `None` if there is none.
    pub fn get_now(&self, segment: &Segment, window: Window) -> Option<CountResult> {
        if let Some(result) = self.count_live(segment, window) {
            return Some(result);
        }
        if self.parts.memory_ttl.is_zero() {
            return None;
        }
        let key = (segment.clone(), window);
        let kept = self.parts.refresher.remembered().get(&key)?;
        let is_new = kept.at.elapsed() < self.parts.memory_ttl;
        // Memory also keeps counts that are too old, as a fallback. They are not served here.
        let is_current = is_new && self.is_recent(kept.count.as_of);
        is_current.then(|| CountResult::remembered(kept.count, window))
    }

    /// The count of a live store, or of the replica; `None` without either.
    fn count_live(&self, segment: &Segment, window: Window) -> Option<CountResult> {
        if let Some(live) = &self.parts.live {
            return Some(CountResult::replica(live.count(segment, window)?, window));
        }
        let now = self.parts.clock.now();
        let count = self.parts.store.count_now(segment, window, now)?;
        Some(CountResult::live(count, window))
    }

    /// The number of distinct users of `segment` over `window`. A `fresh` count includes every pair recorded before the
    /// call, unless it is marked stale.
    pub async fn get(
        &self,
        segment: &Segment,
        window: Window,
        fresh: bool,
    ) -> Result<CountResult, CountError> {
        let key = (segment.clone(), window);
        if fresh {
            let counted = match &self.parts.live {
                Some(live) => {
                    let count = live.count_fresh(segment, window).await;
                    count.map(|count| CountResult::replica(count, window))
                }
                // The count of a live store is always fresh, so the cache does not matter.
                None => self.count_live(segment, window),
            };
            return match counted {
                Some(result) => Ok(result),
                None => self.load_fresh(&key).await,
            };
        }
        if let Some(result) = self.get_now(segment, window) {
            return Ok(result);
        }
        let loading = tracing::debug_span!(target: traces::TARGET, "count");
        let load = self.load(&key).instrument(loading);
        let loaded = self.loads.try_get_with_by_ref(&key, load).await;
        // The result is shared only with requests that joined the load. Later requests use the memory, which has its
        // own TTL.
        self.loads.invalidate(&key).await;
        loaded.map_err(|error| CountError::clone(&error))
    }

    /// Whether `as_of` is within `cache_ttl` of now, in the past or in the future. The clocks of instances may differ a
    /// little. A count from far in the future comes from an instance with a wrong clock; without this bound it would be
    /// kept until that time.
    ///
    /// Single counts and lists share this rule.
    fn is_recent(&self, as_of: Timestamp) -> bool {
        self.is_within(as_of, self.parts.cache_ttl)
    }

    /// Whether a count that the store just returned is too old. Its `as_of` may be ahead of this instance's clock,
    /// because the store may have seen a later instant.
    fn is_old(&self, as_of: Timestamp) -> bool {
        as_of < self.parts.clock.now() && !self.is_recent(as_of)
    }

    fn is_within(&self, as_of: Timestamp, time: Duration) -> bool {
        let age = self.parts.clock.now().duration_since(as_of);
        age.unsigned_abs() <= time
    }
}
