//! The in-process cache: the default, for one instance.

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::time::Instant;

use domain::cache::{
    CacheError, Cached, CountCache, KEEP_RUN, KnownSegments, LockToken, PendingMark,
};
use domain::{Count, Segment, Window};

/// Segments that are kept without any noted pair. The limit keeps requests for made-up names from filling the memory.
const MAX_UNKNOWN: usize = 10_000;
/// Counts that are kept of one segment; more than the number of refreshed windows. The limit keeps requests for made-up
/// windows from filling the memory.
const MAX_WINDOWS: usize = 64;

/// A [`CountCache`] in the memory of this process. It never fails, and its lock does not exclude other processes.
#[derive(Debug, Default)]
pub struct MemoryCache {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    entries: HashMap<Segment, Entry>,
    /// The number of entries of unknown segments.
    unknown: usize,
    /// The epoch of new counters. It increases whenever counters are dropped.
    epoch: u64,
    /// Until when the list of known segments is complete.
    complete_until: Option<Instant>,
    lock: Option<Lock>,
    /// When the latest recorded refresh began.
    last_run: Option<Instant>,
}

#[derive(Debug, Default)]
struct Entry {
    /// Whether the segment is on the list of known segments.
    known: bool,
    noted: PendingMark,
    counts: HashMap<Window, (Count, PendingMark)>,
}

#[derive(Debug)]
struct Lock {
    token: LockToken,
    until: Instant,
}

impl Entry {
    /// Stores a count, unless a later one is stored. Evicts the count with the oldest `as_of` at the limit.
    fn keep(&mut self, window: Window, count: Count, mark: PendingMark) {
        match self.counts.get(&window) {
            Some((kept, _)) if kept.as_of > count.as_of => return,
            Some(_) => {}
            None if self.counts.len() < MAX_WINDOWS => {}
            None => {
                let oldest = self.counts.iter().min_by_key(|(_, (count, _))| count.as_of);
                if let Some((&oldest, _)) = oldest {
                    self.counts.remove(&oldest);
                }
            }
        }
        self.counts.insert(window, (count, mark));
    }

    /// Whether the widest count found no users and no pair was noted since.
    fn is_empty(&self) -> bool {
        let widest = self.counts.iter().max_by_key(|(window, _)| **window);
        widest
            .is_some_and(|(_, (count, mark))| count.users == 0 && self.noted.since(mark) == Some(0))
    }
}

impl State {
    fn entry(&mut self, segment: &Segment) -> &mut Entry {
        if !self.entries.contains_key(segment) {
            if self.unknown >= MAX_UNKNOWN {
                self.entries.retain(|_, entry| entry.known);
                self.unknown = 0;
                self.epoch += 1;
            }
            self.unknown += 1;
        }
        let epoch = self.epoch;
        self.entries
            .entry(segment.clone())
            .or_insert_with(|| Entry {
                noted: PendingMark {
                    epoch,
                    ..PendingMark::default()
                },
                ..Entry::default()
            })
    }

    fn known_entry(&mut self, segment: &Segment) -> &mut Entry {
        let newly_known = !std::mem::replace(&mut self.entry(segment).known, true);
        if newly_known {
            self.unknown -= 1;
        }
        self.entry(segment)
    }

    fn cached(&self, segment: &Segment, window: Window) -> Option<Cached> {
        let entry = self.entries.get(segment)?;
        let (count, mark) = *entry.counts.get(&window)?;
        Some(Cached {
            count,
            pending: entry.noted.since(&mark),
        })
    }

    /// The lock, if it is held now.
    fn held(&self) -> Option<&Lock> {
        self.lock
            .as_ref()
            .filter(|lock| lock.until > Instant::now())
    }
}

#[async_trait]
impl CountCache for MemoryCache {
    async fn get(&self, segment: &Segment, window: Window) -> Result<Option<Cached>, CacheError> {
        Ok(self.state.lock().cached(segment, window))
    }

    async fn get_many(
        &self,
        segments: &[Segment],
        window: Window,
    ) -> Result<Vec<Option<Cached>>, CacheError> {
        let state = self.state.lock();
        Ok(segments
            .iter()
            .map(|segment| state.cached(segment, window))
            .collect())
    }

    async fn add_pending(&self, added: &[(Segment, u64)]) -> Result<(), CacheError> {
        let mut state = self.state.lock();
        for (segment, pairs) in added {
            state.known_entry(segment).noted.noted += pairs;
        }
        Ok(())
    }

    async fn mark_pending_unknown(&self, segments: &[Segment]) -> Result<(), CacheError> {
        let mut state = self.state.lock();
        for segment in segments {
            state.known_entry(segment).noted.gaps += 1;
        }
        Ok(())
    }

    async fn mark(&self, segment: &Segment) -> Result<PendingMark, CacheError> {
        let state = self.state.lock();
        let fresh = PendingMark {
            epoch: state.epoch,
            ..PendingMark::default()
        };
        Ok(state
            .entries
            .get(segment)
            .map_or(fresh, |entry| entry.noted))
    }

    async fn put(
        &self,
        segment: &Segment,
        window: Window,
        count: Count,
        mark: PendingMark,
    ) -> Result<Option<Cached>, CacheError> {
        let mut state = self.state.lock();
        let entry = if count.users > 0 {
            state.known_entry(segment)
        } else {
            state.entry(segment)
        };
        entry.keep(window, count, mark);
        Ok(state.cached(segment, window))
    }

    async fn segments(&self) -> Result<KnownSegments, CacheError> {
        let state = self.state.lock();
        let known = state.entries.iter().filter(|(_, entry)| entry.known);
        let complete_for = state.complete_until.map_or(Duration::ZERO, |until| {
            until.saturating_duration_since(Instant::now())
        });
        Ok(KnownSegments {
            names: known.map(|(segment, _)| segment.clone()).collect(),
            complete: !complete_for.is_zero(),
            complete_for,
        })
    }

    async fn knows(&self, segment: &Segment) -> Result<bool, CacheError> {
        let state = self.state.lock();
        Ok(state.entries.get(segment).is_some_and(|entry| entry.known))
    }

    async fn complete_segments(&self, listed: &[Segment], ttl: Duration) -> Result<(), CacheError> {
        let mut state = self.state.lock();
        for segment in listed {
            state.known_entry(segment);
        }
        state.complete_until = Some(Instant::now() + ttl);
        Ok(())
    }

    async fn remove_segment(&self, segment: &Segment) -> Result<(), CacheError> {
        let mut state = self.state.lock();
        let Some(entry) = state.entries.get(segment) else {
            return Ok(());
        };
        if !entry.is_empty() {
            return Ok(());
        }
        if !entry.known {
            state.unknown -= 1;
        }
        state.entries.remove(segment);
        state.epoch += 1;
        Ok(())
    }

    async fn lock(&self, token: &LockToken, ttl: Duration) -> Result<bool, CacheError> {
        let mut state = self.state.lock();
        if state.held().is_some_and(|lock| lock.token != *token) {
            return Ok(false);
        }
        state.lock = Some(Lock {
            token: token.clone(),
            until: Instant::now() + ttl,
        });
        Ok(true)
    }

    async fn unlock(&self, token: &LockToken) -> Result<(), CacheError> {
        let mut state = self.state.lock();
        if state.held().is_some_and(|lock| lock.token == *token) {
            state.lock = None;
        }
        Ok(())
    }

    async fn note_run(&self, ago: Duration) -> Result<(), CacheError> {
        let mut state = self.state.lock();
        let began = Instant::now().checked_sub(ago);
        state.last_run = state.last_run.max(began);
        Ok(())
    }

    async fn last_run(&self) -> Result<Option<Duration>, CacheError> {
        let last = self.state.lock().last_run.map(|began| began.elapsed());
        Ok(last.filter(|ago| *ago < KEEP_RUN))
    }

    async fn ping(&self) -> Result<(), CacheError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use domain::cache::conformance::{check_cache, check_scenario};
    use domain::{TimeFrame, Timestamp};

    #[tokio::test]
    async fn keeps_the_promises_of_a_count_cache() {
        check_cache(async || Arc::new(MemoryCache::default()) as Arc<dyn CountCache>).await;
    }

    proptest! {
        #[test]
        fn users_and_pending_never_fall_below_the_truth(script: Vec<u8>) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let cache = MemoryCache::default();
                let forget = async || {
                    let mut state = cache.state.lock();
                    let epoch = state.epoch + 1;
                    *state = State { epoch, ..State::default() };
                };
                check_scenario(&[&cache, &cache], &script, forget).await;
            });
        }
    }

    #[tokio::test]
    async fn made_up_names_do_not_fill_the_memory() {
        let cache = MemoryCache::default();
        let frame = domain::store::conformance::frame(60);
        let known = Segment::new("known").unwrap();
        cache.add_pending(&[(known.clone(), 1)]).await.unwrap();
        let count = Count {
            users: 0,
            as_of: Timestamp::UNIX_EPOCH,
        };
        for index in 0..=2 * MAX_UNKNOWN {
            let unknown = Segment::new(&format!("made up {index}")).unwrap();
            let mark = cache.mark(&unknown).await.unwrap();
            cache
                .put(&unknown, frame.full_window(), count, mark)
                .await
                .unwrap();
        }
        assert!(cache.state.lock().entries.len() <= MAX_UNKNOWN + 1);
        assert_eq!(cache.segments().await.unwrap().names, [known]);
    }

    #[tokio::test]
    async fn made_up_windows_do_not_fill_the_memory() {
        let cache = MemoryCache::default();
        let second = Duration::from_secs(1);
        let frame = TimeFrame::new(second * 3_600, second, second).unwrap();
        let sports = Segment::new("sports").unwrap();
        let mark = cache.mark(&sports).await.unwrap();
        for seconds in 1..=3_600 {
            let count = Count {
                users: 1,
                as_of: Timestamp::from_second(1_700_000_000 + seconds).unwrap(),
            };
            let window = frame.window(second * u32::try_from(seconds).unwrap());
            cache
                .put(&sports, window.unwrap(), count, mark)
                .await
                .unwrap();
        }
        assert_eq!(
            cache.state.lock().entries[&sports].counts.len(),
            MAX_WINDOWS
        );
        let latest = cache.get(&sports, frame.full_window()).await.unwrap();
        assert!(latest.is_some(), "the latest ones stay");
    }
}
