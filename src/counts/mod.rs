//! The one way out: process memory, then the cache, then the store; one load per key at a time.

mod patience;

use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, StreamExt, TryStreamExt};
use tokio::time::Instant;

use self::patience::Patience;
use crate::cache::{Cached, CountCache};
use crate::domain::{Clock, Count, Segment, TimeFrame, Timestamp, Window};
use crate::refresher::Refresher;
use crate::store::{PairStore, StoreError};
use crate::telemetry::Metrics;

/// Last known counts kept in process: (segment, window) pairs.
const MAX_REMEMBERED: u64 = 100_000;
/// Counts loaded from the store at a time for a list that the cache can't fill.
const LIST_PARALLELISM: usize = 4;

/// A load whose first caller went away is repeated after this time at the latest.
const LOAD_KEPT: Duration = Duration::from_secs(1);

type Key = (Segment, Window);

/// Answers counts.
#[derive(Debug)]
pub struct Counts {
    parts: CountsParts,
    remembered: moka::sync::Cache<Key, Remembered>,
    /// Loads under way, so that a hot missing key makes one, however many ask.
    loads: moka::future::Cache<Key, Answer>,
    patience: Patience,
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
    /// A cached count older than this is counted anew.
    pub cache_ttl: Duration,
    /// How long an answer is repeated from process memory; zero for a cache that lives there itself.
    pub memory_ttl: Duration,
}

/// A count with its provenance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// The count.
    pub count: Count,
    /// The window that was counted.
    pub window: Window,
    /// Where it came from.
    pub source: Source,
    /// Pairs acknowledged that the count need not hold; `None` when unknown.
    pub pending: Option<u64>,
    /// Whether every source failed and this is the last known number.
    pub stale: bool,
}

/// Where a count came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// This process's memory of an earlier answer.
    Memory,
    /// The cache.
    Cache,
    /// The store.
    Store,
}

impl Source {
    /// The name that clients see.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Cache => "cache",
            Self::Store => "store",
        }
    }
}

/// Why there is no count at all.
#[derive(Debug, Clone, thiserror::Error)]
#[error("no source can answer, and no earlier count is known: {0}")]
pub struct CountError(pub StoreError);

#[derive(Debug, Clone, Copy)]
struct Remembered {
    answer: Answer,
    at: Instant,
}

impl Counts {
    /// The read path from its parts.
    pub fn new(parts: CountsParts) -> Self {
        Self {
            parts,
            remembered: moka::sync::Cache::new(MAX_REMEMBERED),
            loads: moka::future::Cache::builder()
                .max_capacity(MAX_REMEMBERED)
                .time_to_live(LOAD_KEPT)
                .build(),
            patience: Patience::default(),
        }
    }

    /// A count that needs no I/O: from a live store, or remembered for less than `memory_ttl`.
    pub fn get_now(&self, segment: &Segment, window: Window) -> Option<Answer> {
        let now = self.parts.clock.now();
        if let Some(count) = self.parts.store.count_now(segment, window, now) {
            return Some(live(count, window));
        }
        if self.parts.memory_ttl.is_zero() {
            return None;
        }
        let remembered = self.remembered.get(&(segment.clone(), window))?;
        let is_fresh = remembered.at.elapsed() < self.parts.memory_ttl;
        // A count that the cache kept for too long is remembered as the last known one, not to be repeated.
        if !is_fresh || !self.is_recent(remembered.answer.count.as_of) {
            return None;
        }
        // Other instances may have acknowledged pairs since this was loaded.
        Some(Answer {
            source: Source::Memory,
            pending: None,
            ..remembered.answer
        })
    }

    /// The number of distinct users of `segment` over `window`; `fresh` skips memory and cache.
    pub async fn get(
        &self,
        segment: &Segment,
        window: Window,
        fresh: bool,
    ) -> Result<Answer, CountError> {
        if fresh {
            return self
                .count_in_store(segment, window)
                .await
                .or_else(|error| self.last(segment, window, error));
        }
        if let Some(answer) = self.get_now(segment, window) {
            return Ok(answer);
        }
        let key = (segment.clone(), window);
        let mut is_own = false;
        let load = async {
            is_own = true;
            self.load(segment, window).await
        };
        let loaded = self.loads.try_get_with_by_ref(&key, load).await;
        // Kept only while the load was under way: what to repeat, and for how long, `remembered` knows.
        self.loads.invalidate(&key).await;
        let mut answer = loaded.map_err(|error| CountError::clone(&error))?;
        if !is_own {
            // Pairs may have been acknowledged between the beginning of that load and of this call.
            answer.pending = None;
        }
        Ok(answer)
    }

    async fn load(&self, segment: &Segment, window: Window) -> Result<Answer, CountError> {
        let cached = self.cached(segment, window).await;
        if let Some(cached) = cached {
            self.remember(segment, cached);
            let latest = self.latest(segment, cached);
            if self.is_recent(latest.count.as_of) {
                return Ok(latest);
            }
        }
        let has_fallback = self.remembered.contains_key(&(segment.clone(), window));
        self.patience
            .wait(self.count_in_store(segment, window), has_fallback)
            .await
            .or_else(|error| self.last(segment, window, error))
    }

    async fn cached(&self, segment: &Segment, window: Window) -> Option<Answer> {
        match self.parts.cache.get(segment, window).await {
            Ok(cached) => cached.map(|cached| from_cache(cached, window)),
            Err(_) => {
                self.parts.metrics.cache_fallback();
                None
            }
        }
    }

    async fn count_in_store(
        &self,
        segment: &Segment,
        window: Window,
    ) -> Result<Answer, StoreError> {
        let recount = self.parts.refresher.recount(segment, window).await?;
        let answer = Answer {
            count: recount.count,
            window,
            source: Source::Store,
            pending: recount.pending,
            stale: false,
        };
        self.remember(segment, answer);
        Ok(answer)
    }

    /// Within `cache_ttl`, on either side of now: clocks of instances may differ a little, and a count from far ahead was
    /// made by one that was wrong, and would be kept until that time has come.
    fn is_recent(&self, as_of: Timestamp) -> bool {
        let age = self.parts.clock.now().duration_since(as_of);
        age.unsigned_abs() <= self.parts.cache_ttl
    }

    /// Keeps the answer with the latest instant.
    fn remember(&self, segment: &Segment, answer: Answer) {
        let key = (segment.clone(), answer.window);
        let newer = Remembered {
            answer,
            at: Instant::now(),
        };
        self.remembered
            .entry(key)
            .and_upsert_with(|entry| match entry {
                Some(entry) if entry.value().answer.count.as_of > answer.count.as_of => {
                    entry.into_value()
                }
                _ => newer,
            });
    }

    /// `cached`, or what is remembered, if that is later: a cache that was away when the store was counted must not
    /// take a reader back to an older number.
    fn latest(&self, segment: &Segment, cached: Answer) -> Answer {
        match self.remembered.get(&(segment.clone(), cached.window)) {
            Some(remembered) if remembered.answer.count.as_of > cached.count.as_of => Answer {
                source: Source::Memory,
                pending: None,
                ..remembered.answer
            },
            _ => cached,
        }
    }

    fn last(
        &self,
        segment: &Segment,
        window: Window,
        error: StoreError,
    ) -> Result<Answer, CountError> {
        let Some(remembered) = self.remembered.get(&(segment.clone(), window)) else {
            return Err(CountError(error));
        };
        self.parts.metrics.stale_answer();
        Ok(Answer {
            pending: None,
            stale: true,
            ..remembered.answer
        })
    }

    /// Every segment with its count over the full window, sorted by name. When no source can list them, those
    /// whose count is remembered.
    pub async fn list(&self) -> Result<Vec<(Segment, Count)>, CountError> {
        let window = self.parts.frame.full_window();
        let mut list = match self.listed(window).await {
            Ok(list) => list,
            Err(error) => {
                let remembered = self.remembered_over(window);
                if remembered.is_empty() {
                    return Err(error);
                }
                self.parts.metrics.stale_answer();
                remembered
            }
        };
        list.retain(|(_, count)| count.users > 0);
        list.sort_unstable_by(|left, right| left.0.cmp(&right.0));
        Ok(list)
    }

    async fn listed(&self, window: Window) -> Result<Vec<(Segment, Count)>, CountError> {
        let (names, mut known) = match self.listed_by_cache(window).await {
            Some(listed) => listed,
            None => {
                let names = self.parts.store.segments(self.parts.clock.now());
                let has_fallback = !self.remembered_over(window).is_empty();
                let names = self.patience.wait(names, has_fallback).await;
                let names = names.map_err(CountError)?;
                let unknown = vec![None; names.len()];
                (names, unknown)
            }
        };
        let missing: Vec<_> = (0..names.len())
            .filter(|index| known[*index].is_none())
            .collect();
        let names = &names;
        let loaded: Vec<(usize, Count)> = stream::iter(missing)
            .map(|index| async move {
                let answer = self.get(&names[index], window, false).await?;
                Ok::<_, CountError>((index, answer.count))
            })
            .buffer_unordered(LIST_PARALLELISM)
            .try_collect()
            .await?;
        for (index, count) in loaded {
            known[index] = Some(count);
        }
        let counted = names.iter().cloned().zip(known);
        Ok(counted
            .filter_map(|(segment, count)| Some((segment, count?)))
            .collect())
    }

    fn remembered_over(&self, window: Window) -> Vec<(Segment, Count)> {
        let all = self.remembered.iter().filter(|(key, _)| key.1 == window);
        all.map(|(key, remembered)| (key.0.clone(), remembered.answer.count))
            .collect()
    }

    /// What the cache knows, if its list is whole. A live store is asked itself: it is as quick.
    async fn listed_by_cache(&self, window: Window) -> Option<(Vec<Segment>, Vec<Option<Count>>)> {
        if self.parts.store.is_live() {
            return None;
        }
        let known = self
            .parts
            .cache
            .segments()
            .await
            .ok()
            .filter(|known| known.complete)?;
        let cached = self.parts.cache.get_many(&known.names, window).await.ok()?;
        let counts = cached
            .into_iter()
            .map(|cached| cached.map(|cached| cached.count))
            .collect();
        Some((known.names, counts))
    }
}

fn live(count: Count, window: Window) -> Answer {
    Answer {
        count,
        window,
        source: Source::Store,
        pending: Some(0),
        stale: false,
    }
}

fn from_cache(cached: Cached, window: Window) -> Answer {
    Answer {
        count: cached.count,
        window,
        source: Source::Cache,
        pending: cached.pending,
        stale: false,
    }
}
