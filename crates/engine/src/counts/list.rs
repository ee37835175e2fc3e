//! All segments with their counts: made once for all who ask, and repeated for `memory_ttl`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream;
use tokio::time::{Instant, timeout_at};

use super::patience::PATIENCE;
use super::{CountError, Counts, Listed};
use crate::refresher::Key;
use domain::{Count, Segment, Timestamp, Window};

/// Counts that a list asks for at once. The bound on those under way is elsewhere; this keeps lists from filling the
/// line for single counts.
const ASKED_AT_ONCE: usize = 16;
/// Windows whose lists are repeated.
const MAX_WINDOWS: u64 = 8;
/// A load whose first caller went away is repeated after this time at the latest.
const LOAD_KEPT: Duration = Duration::from_secs(1);

/// Lists made lately, and those under way.
#[derive(Debug)]
pub(super) struct Lists {
    made: moka::sync::Cache<Window, Made>,
    loads: moka::future::Cache<Window, Arc<[Listed]>>,
}

#[derive(Debug, Clone)]
struct Made {
    list: Arc<[Listed]>,
    at: Instant,
    /// As of when the oldest count is that is not called stale.
    oldest: Option<Timestamp>,
}

impl Default for Lists {
    fn default() -> Self {
        Self {
            made: moka::sync::Cache::new(MAX_WINDOWS),
            loads: moka::future::Cache::builder()
                .max_capacity(MAX_WINDOWS)
                .time_to_live(LOAD_KEPT)
                .build(),
        }
    }
}

impl Counts {
    /// Every segment with users over `window`, sorted by name. One that can't be counted is marked, and takes no other
    /// along. When no source can list them, those that are known.
    pub async fn list(&self, window: Window) -> Result<Arc<[Listed]>, CountError> {
        if self.parts.store.is_live() {
            return self.list_live(window).await;
        }
        if let Some(made) = self.lists.made.get(&window)
            && made.at.elapsed() < self.parts.memory_ttl
            // The clock may have gone on by more than that, on a machine that slept.
            && made.oldest.is_none_or(|oldest| self.is_recent(oldest))
        {
            return Ok(made.list);
        }
        let load = async {
            let list = self.load_list(window).await?;
            let not_stale = list.iter().filter(|listed| !listed.stale);
            let counts = not_stale.filter_map(|listed| listed.count);
            let made = Made {
                at: Instant::now(),
                oldest: counts.map(|count| count.as_of).min(),
                list: Arc::clone(&list),
            };
            self.lists.made.insert(window, made);
            Ok(list)
        };
        let loaded = self.lists.loads.try_get_with(window, load).await;
        // Kept only while the load was under way.
        self.lists.loads.invalidate(&window).await;
        loaded.map_err(|error: Arc<CountError>| CountError::clone(&error))
    }

    /// A live store is asked itself: it is as quick.
    async fn list_live(&self, window: Window) -> Result<Arc<[Listed]>, CountError> {
        let (store, now) = (&self.parts.store, self.parts.clock.now());
        let names = store.segments(now).await.map_err(CountError)?;
        let listed = names.into_iter().map(|segment| {
            let count = store.count_now(&segment, window, now);
            Listed {
                segment,
                count,
                stale: false,
            }
        });
        Ok(listed.filter(has_users).collect())
    }

    async fn load_list(&self, window: Window) -> Result<Arc<[Listed]>, CountError> {
        let deadline = Instant::now() + PATIENCE;
        let names = self.parts.refresher.names();
        let names = match names.to_read(PATIENCE).await {
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
        // Those without any number go first.
        to_count.sort_by_key(|(_, known)| known.is_some());
        let to_count = to_count.into_iter().map(|(segment, _)| segment.clone());
        let counted = self.count_until(deadline, to_count.collect(), window).await;
        let mut list: Vec<Listed> = names
            .iter()
            .zip(known)
            .map(|(segment, known)| {
                let counted = counted.get(segment).copied();
                let stale = match &counted {
                    // One that took the store long, or waited for a cache that did not respond, is as old as that.
                    Some(count) => self.is_old(count.as_of),
                    None => !is_recent(&known),
                };
                Listed {
                    segment: segment.clone(),
                    stale,
                    count: counted.or(known),
                }
            })
            .filter(has_users)
            .collect();
        list.sort_unstable_by(|left, right| left.segment.cmp(&right.segment));
        if list.iter().any(|listed| listed.stale) {
            self.parts.metrics.counts.stale_answers.inc();
        }
        Ok(list.into())
    }

    /// What the store counts of `segments` until `deadline`.
    async fn count_until(
        &self,
        deadline: Instant,
        segments: Vec<Segment>,
        window: Window,
    ) -> HashMap<Segment, Count> {
        let mut counts = HashMap::new();
        if self.parts.refresher.recounts().are_stuck_for(PATIENCE) {
            return counts;
        }
        let mut counted = stream::iter(segments)
            .map(|segment| self.count_one((segment, window)))
            .buffer_unordered(ASKED_AT_ONCE);
        while let Ok(Some(counted)) = timeout_at(deadline, counted.next()).await {
            counts.extend(counted);
        }
        counts
    }

    async fn count_one(&self, key: Key) -> Option<(Segment, Count)> {
        if self.parts.refresher.recounts().is_silent(&key) {
            return None;
        }
        let recount = self.ask(&key).recount().await.ok()?;
        Some((key.0, recount.count))
    }
}

/// One without users is no more on the list than one that was never there.
fn has_users(listed: &Listed) -> bool {
    listed.count.is_none_or(|count| count.users > 0)
}
