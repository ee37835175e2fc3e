//! The in-process cache: the default, for one instance.

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::time::Instant;

use domain::cache::{CacheError, CountCache, KEEP_NOTED, KEEP_RUN, KnownSegments, LockToken};
use domain::{Count, Segment, Window};

/// Segments that are kept although they are not known. The limit keeps requests for made-up names from filling the memory.
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
    /// Until when the list of known segments is complete.
    complete_until: Option<Instant>,
    lock: Option<Lock>,
    /// When the latest recorded refresh began.
    last_run: Option<Instant>,
}

#[derive(Debug, Default)]
struct Entry {
    /// When the segment was last noted; `None` if it is not known.
    noted: Option<Instant>,
    counts: HashMap<Window, Count>,
}

#[derive(Debug)]
struct Lock {
    token: LockToken,
    until: Instant,
}

impl Entry {
    /// Stores a count, unless a later one is stored, and returns the stored one. Evicts the count with the oldest `as_of` at
    /// the limit.
    fn keep(&mut self, window: Window, count: Count) -> Count {
        match self.counts.get(&window) {
            Some(kept) if kept.as_of > count.as_of => return *kept,
            Some(_) => {}
            None if self.counts.len() < MAX_WINDOWS => {}
            None => {
                let oldest = self.counts.iter().min_by_key(|(_, count)| count.as_of);
                if let Some((&oldest, _)) = oldest {
                    self.counts.remove(&oldest);
                }
            }
        }
        self.counts.insert(window, count);
        count
    }

    /// Whether the widest count found no users, and the segment was not noted recently.
    fn is_removable(&self) -> bool {
        let widest = self.counts.iter().max_by_key(|(window, _)| **window);
        widest.is_some_and(|(_, count)| count.users == 0)
            && self.noted.is_none_or(|at| at.elapsed() >= KEEP_NOTED)
    }
}

impl State {
    fn entry(&mut self, segment: &Segment) -> &mut Entry {
        if !self.entries.contains_key(segment) {
            if self.unknown >= MAX_UNKNOWN {
                self.entries.retain(|_, entry| entry.noted.is_some());
                self.unknown = 0;
            }
            self.unknown += 1;
        }
        self.entries.entry(segment.clone()).or_default()
    }

    /// The entry of a segment that is noted now.
    fn noted_entry(&mut self, segment: &Segment) -> &mut Entry {
        let before = self.entry(segment).noted.replace(Instant::now());
        if before.is_none() {
            self.unknown -= 1;
        }
        self.entry(segment)
    }

    fn count(&self, segment: &Segment, window: Window) -> Option<Count> {
        self.entries.get(segment)?.counts.get(&window).copied()
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
    async fn get(&self, segment: &Segment, window: Window) -> Result<Option<Count>, CacheError> {
        Ok(self.state.lock().count(segment, window))
    }

    async fn get_many(
        &self,
        segments: &[Segment],
        window: Window,
    ) -> Result<Vec<Option<Count>>, CacheError> {
        let state = self.state.lock();
        Ok(segments
            .iter()
            .map(|segment| state.count(segment, window))
            .collect())
    }

    async fn note_segments(&self, segments: &[Segment]) -> Result<(), CacheError> {
        let mut state = self.state.lock();
        for segment in segments {
            state.noted_entry(segment);
        }
        Ok(())
    }

    async fn put(
        &self,
        segment: &Segment,
        window: Window,
        count: Count,
    ) -> Result<Count, CacheError> {
        let mut state = self.state.lock();
        let entry = if count.users > 0 {
            state.noted_entry(segment)
        } else {
            state.entry(segment)
        };
        Ok(entry.keep(window, count))
    }

    async fn segments(&self) -> Result<KnownSegments, CacheError> {
        let state = self.state.lock();
        let known = state
            .entries
            .iter()
            .filter(|(_, entry)| entry.noted.is_some());
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
        let entry = state.entries.get(segment);
        Ok(entry.is_some_and(|entry| entry.noted.is_some()))
    }

    async fn complete_segments(&self, listed: &[Segment], ttl: Duration) -> Result<(), CacheError> {
        let mut state = self.state.lock();
        for segment in listed {
            state.noted_entry(segment);
        }
        state.complete_until = Some(Instant::now() + ttl);
        Ok(())
    }

    async fn remove_segment(&self, segment: &Segment) -> Result<(), CacheError> {
        let mut state = self.state.lock();
        let Some(entry) = state.entries.get(segment) else {
            return Ok(());
        };
        if !entry.is_removable() {
            return Ok(());
        }
        if entry.noted.is_none() {
            state.unknown -= 1;
        }
        state.entries.remove(segment);
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

    use super::*;
    use domain::cache::conformance::{check_cache, check_removal};
    use domain::{TimeFrame, Timestamp};

    #[tokio::test]
    async fn keeps_the_promises_of_a_count_cache() {
        check_cache(async || Arc::new(MemoryCache::default()) as Arc<dyn CountCache>).await;
    }

    #[tokio::test(start_paused = true)]
    async fn removes_segments_without_users() {
        let time_passes = async || tokio::time::advance(KEEP_NOTED).await;
        check_removal(&MemoryCache::default(), time_passes).await;
    }

    #[tokio::test]
    async fn made_up_names_do_not_fill_the_memory() {
        let cache = MemoryCache::default();
        let frame = domain::store::conformance::frame(60);
        let known = Segment::new("known").unwrap();
        cache
            .note_segments(std::slice::from_ref(&known))
            .await
            .unwrap();
        let count = Count {
            users: 0,
            as_of: Timestamp::UNIX_EPOCH,
        };
        for index in 0..=2 * MAX_UNKNOWN {
            let unknown = Segment::new(&format!("made up {index}")).unwrap();
            cache
                .put(&unknown, frame.full_window(), count)
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
        for seconds in 1..=3_600 {
            let count = Count {
                users: 1,
                as_of: Timestamp::from_second(1_700_000_000 + seconds).unwrap(),
            };
            let window = frame.window(second * u32::try_from(seconds).unwrap());
            cache.put(&sports, window.unwrap(), count).await.unwrap();
        }
        assert_eq!(
            cache.state.lock().entries[&sports].counts.len(),
            MAX_WINDOWS
        );
        let latest = cache.get(&sports, frame.full_window()).await.unwrap();
        assert!(latest.is_some(), "the latest ones stay");
    }
}
