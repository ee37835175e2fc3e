//! The list of all segments with their counts. Concurrent requests share one load, and the list is reused for `memory_ttl`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream;
use tokio::time::{Instant, timeout_at};

use super::timeouts::READ_TIMEOUT;
use super::{CountError, Counts, Listed};
use crate::refresher::Key;
use domain::{Count, Segment, Timestamp, Window};

/// Counts that a list requests concurrently. The refresher bounds the counts that run; this limit keeps lists from filling
/// the queue of single counts.
const CONCURRENT_COUNTS: usize = 16;
/// The maximum number of windows whose lists are cached.
const MAX_WINDOWS: u64 = 8;
/// The longest time for which the result of a load is shared, if the caller that should remove it was cancelled.
const LOAD_KEPT: Duration = Duration::from_secs(1);

/// Recent lists, and loads in flight.
#[derive(Debug)]
pub(super) struct Lists {
    recent: moka::sync::Cache<Window, RecentList>,
    loads: moka::future::Cache<Window, Arc<[Listed]>>,
}

#[derive(Debug, Clone)]
struct RecentList {
    list: Arc<[Listed]>,
    at: Instant,
    /// The `as_of` of the oldest count that is not stale.
    oldest: Option<Timestamp>,
}

impl Default for Lists {
    fn default() -> Self {
        Self {
            recent: moka::sync::Cache::new(MAX_WINDOWS),
            loads: moka::future::Cache::builder()
                .max_capacity(MAX_WINDOWS)
                .time_to_live(LOAD_KEPT)
                .build(),
        }
    }
}

impl Counts {
    /// Every segment with users over `window`, sorted by name. A segment that can't be counted is marked stale and does not
    /// affect the others. If no source can list the segments, the list has the segments that this process knows.
    pub async fn list(&self, window: Window) -> Result<Arc<[Listed]>, CountError> {
        let list = self.list_all(window).await?;
        self.withhold(list, window).await
    }

    /// The same without a floor.
    pub(super) async fn list_all(&self, window: Window) -> Result<Arc<[Listed]>, CountError> {
        if self.parts.store.is_live() {
            return self.list_live(window).await;
        }
        if let Some(live) = &self.parts.live
            && let Some(list) = live.list(window).await
        {
            let listed = list
                .into_iter()
                .map(|(segment, count)| Listed::new(segment, window, Some(count), false));
            return Ok(listed.collect());
        }
        if let Some(recent) = self.lists.recent.get(&window)
            && recent.at.elapsed() < self.parts.memory_ttl
            // The clock may have advanced by more than the monotonic time, on a machine that slept.
            && recent.oldest.is_none_or(|oldest| self.is_recent(oldest))
        {
            return Ok(recent.list);
        }
        let load = async {
            let list = self.load_list(window).await?;
            let not_stale = list.iter().filter(|listed| !listed.stale);
            let counts = not_stale.filter_map(|listed| listed.count);
            let recent = RecentList {
                at: Instant::now(),
                oldest: counts.map(|count| count.as_of).min(),
                list: Arc::clone(&list),
            };
            self.lists.recent.insert(window, recent);
            Ok(list)
        };
        let loaded = self.lists.loads.try_get_with(window, load).await;
        // The result is shared only with requests that joined the load.
        self.lists.loads.invalidate(&window).await;
        loaded.map_err(|error: Arc<CountError>| CountError::clone(&error))
    }

    /// The counts of `segments` over `window`, or of each over its own window, in their order. Segments without users are
    /// included. Each count is that of [`get`](Self::get). A segment that can't be counted in time is marked stale and does
    /// not affect the others.
    pub async fn list_of(&self, segments: Vec<Segment>, window: Option<Window>) -> Vec<Listed> {
        let deadline = Instant::now() + READ_TIMEOUT;
        stream::iter(segments)
            .map(|segment| async move {
                let window = window.unwrap_or_else(|| self.window_of(&segment));
                let listed = self.listed_before(deadline, segment, window).await;
                self.withhold_one(listed).await
            })
            .buffered(CONCURRENT_COUNTS)
            .collect()
            .await
    }

    async fn listed_before(&self, deadline: Instant, segment: Segment, window: Window) -> Listed {
        let counted = match self.get_now(&segment, window) {
            Some(result) => Some(result),
            // No time is left: a count would continue in the store although no reader waits for it.
            None if Instant::now() >= deadline => None,
            None => {
                let counted = timeout_at(deadline, self.get(&segment, window, false)).await;
                counted.ok().and_then(Result::ok)
            }
        };
        if let Some(result) = counted {
            return Listed::new(segment, window, Some(result.count), result.stale);
        }
        let key = (segment, window);
        let kept = self.parts.refresher.remembered().get(&key);
        Listed::new(key.0, window, kept.map(|kept| kept.count), true)
    }

    /// Queries a live store directly, which is as fast as memory.
    async fn list_live(&self, window: Window) -> Result<Arc<[Listed]>, CountError> {
        let (store, now) = (&self.parts.store, self.parts.clock.now());
        let names = store.segments(now).await.map_err(CountError)?;
        let listed = names.into_iter().map(|segment| {
            let count = store.count_now(&segment, window, now);
            Listed::new(segment, window, count, false)
        });
        Ok(listed.filter(has_users).collect())
    }

    async fn load_list(&self, window: Window) -> Result<Arc<[Listed]>, CountError> {
        let deadline = Instant::now() + READ_TIMEOUT;
        let names = self.parts.refresher.names();
        let names = match names.to_read(READ_TIMEOUT).await {
            Ok(names) => names,
            Err(error) => {
                let known = self.parts.refresher.remembered().segments(window);
                if known.is_empty() {
                    return Err(CountError(error));
                }
                known.into()
            }
        };
        let known = self.parts.refresher.known(&names, window).await;
        let is_recent =
            |count: &Option<Count>| count.is_some_and(|count| self.is_recent(count.as_of));
        let mut to_count: Vec<_> = names.iter().zip(&known).collect();
        to_count.retain(|(_, known)| !is_recent(known));
        // Segments without any count go first.
        to_count.sort_by_key(|(_, known)| known.is_some());
        let to_count = to_count.into_iter().map(|(segment, _)| segment.clone());
        let counted = self.count_until(deadline, to_count.collect(), window).await;
        let mut list: Vec<Listed> = names
            .iter()
            .zip(known)
            .map(|(segment, known)| {
                let counted = counted.get(segment).copied();
                let stale = match &counted {
                    // It is old if the store was slow, or if the count waited for a cache that did not respond.
                    Some(count) => self.is_old(count.as_of),
                    None => !is_recent(&known),
                };
                Listed::new(segment.clone(), window, counted.or(known), stale)
            })
            .filter(has_users)
            .collect();
        list.sort_unstable_by(|left, right| left.segment.cmp(&right.segment));
        if list.iter().any(|listed| listed.stale) {
            self.parts.metrics.counts.stale_answers.inc();
        }
        Ok(list.into())
    }

    /// The counts of `segments` that the store completes before `deadline`.
    async fn count_until(
        &self,
        deadline: Instant,
        segments: Vec<Segment>,
        window: Window,
    ) -> HashMap<Segment, Count> {
        let mut counts = HashMap::new();
        if self.parts.refresher.recounts().are_stuck_for(READ_TIMEOUT) {
            return counts;
        }
        let mut counted = stream::iter(segments)
            .map(|segment| self.count_one((segment, window)))
            .buffer_unordered(CONCURRENT_COUNTS);
        while let Ok(Some(counted)) = timeout_at(deadline, counted.next()).await {
            counts.extend(counted);
        }
        counts
    }

    async fn count_one(&self, key: Key) -> Option<(Segment, Count)> {
        if self.parts.refresher.recounts().timed_out_recently(&key) {
            return None;
        }
        let recount = self.request(&key).recount().await.ok()?;
        Some((key.0, recount.count))
    }
}

/// Whether the segment belongs on the list. Segments without users do not.
pub(super) fn has_users(listed: &Listed) -> bool {
    listed.count.is_none_or(|count| count.users > 0)
}
