//! The one way out: process memory, then the cache, then the store; one load per key at a time.

mod answer;
mod list;
mod load;
mod patience;
mod sample;
mod trend;

use std::sync::Arc;
use std::time::Duration;

pub use self::answer::{Answer, CountError, Listed, Source};
use self::list::Lists;
pub(crate) use self::sample::Sample;
use crate::refresher::{Key, Refresher};
use domain::cache::CountCache;
use domain::store::PairStore;
use domain::{Clock, Segment, TimeFrame, Timestamp, Window};
use telemetry::Metrics;

/// Loads under way that may be joined.
const MAX_LOADS: u64 = 100_000;
/// A load whose first caller went away is repeated after this time at the latest.
const LOAD_KEPT: Duration = Duration::from_secs(1);

/// Answers counts.
#[derive(Debug)]
pub struct Counts {
    parts: CountsParts,
    /// Loads under way, so that a hot missing key makes one, however many ask.
    loads: moka::future::Cache<Key, Answer>,
    lists: Lists,
}

/// What the read path is made of.
#[derive(Debug)]
pub struct CountsParts {
    /// The window and resolution.
    pub frame: TimeFrame,
    /// Where "now" comes from.
    pub clock: Arc<dyn Clock>,
    /// The source of truth.
    pub store: Arc<dyn PairStore>,
    /// Last known counts.
    pub cache: Arc<dyn CountCache>,
    /// The one writer of cached counts.
    pub refresher: Arc<Refresher>,
    /// Counters of fallbacks.
    pub metrics: Arc<Metrics>,
    /// A count older than this is counted anew, wherever it comes from.
    pub cache_ttl: Duration,
    /// How long an answer is repeated from process memory without asking the cache; zero for a cache that lives there
    /// itself.
    pub memory_ttl: Duration,
    /// The age from which a remembered count that the cache lacks is counted anew, while it is still answered.
    pub renew_after: Duration,
}

impl Counts {
    /// The read path from its parts.
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

    /// A count that needs no I/O: from a live store, or remembered for less than `memory_ttl`.
    pub fn get_now(&self, segment: &Segment, window: Window) -> Option<Answer> {
        if let Some(answer) = self.count_live(segment, window) {
            return Some(answer);
        }
        if self.parts.memory_ttl.is_zero() {
            return None;
        }
        let key = (segment.clone(), window);
        let kept = self.parts.refresher.remembered().get(&key)?;
        let is_new = kept.at.elapsed() < self.parts.memory_ttl;
        // A count that is too old is remembered as the last known one, not to be repeated.
        let is_repeated = is_new && self.is_recent(kept.count.as_of);
        is_repeated.then(|| Answer::remembered(kept.count, window))
    }

    /// The count of a live store.
    fn count_live(&self, segment: &Segment, window: Window) -> Option<Answer> {
        let now = self.parts.clock.now();
        let count = self.parts.store.count_now(segment, window, now)?;
        Some(Answer::live(count, window))
    }

    /// The number of distinct users of `segment` over `window`. A `fresh` one holds every pair recorded before the
    /// call, unless it is called stale.
    pub async fn get(
        &self,
        segment: &Segment,
        window: Window,
        fresh: bool,
    ) -> Result<Answer, CountError> {
        let key = (segment.clone(), window);
        if fresh {
            // That of a live store is, whatever a cache beside it does.
            return match self.count_live(segment, window) {
                Some(answer) => Ok(answer),
                None => self.load_fresh(&key).await,
            };
        }
        if let Some(answer) = self.get_now(segment, window) {
            return Ok(answer);
        }
        let mut is_own = false;
        let load = async {
            is_own = true;
            self.load(&key).await
        };
        let loaded = self.loads.try_get_with_by_ref(&key, load).await;
        // Kept only while the load was under way: what to repeat, and for how long, the memory knows.
        self.loads.invalidate(&key).await;
        let mut answer = loaded.map_err(|error| CountError::clone(&error))?;
        if !is_own {
            // Pairs may have been acknowledged between the beginning of that load and of this call.
            answer.pending = None;
        }
        Ok(answer)
    }

    /// Within `cache_ttl`, on either side of now: clocks of instances may differ a little, and a count from far ahead was
    /// made by one that was wrong, and would be kept until that time has come.
    ///
    /// The one rule of what is recent, for single counts and for lists.
    fn is_recent(&self, as_of: Timestamp) -> bool {
        self.is_within(as_of, self.parts.cache_ttl)
    }

    /// Of a count that the store has just made, which may know of a later time than this instance's clock.
    fn is_old(&self, as_of: Timestamp) -> bool {
        as_of < self.parts.clock.now() && !self.is_recent(as_of)
    }

    fn is_within(&self, as_of: Timestamp, time: Duration) -> bool {
        let age = self.parts.clock.now().duration_since(as_of);
        age.unsigned_abs() <= time
    }
}
