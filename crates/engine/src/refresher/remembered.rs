//! The last known counts, in the memory of this process. They are the fallback while the cache and the store are
//! unavailable.

use tokio::time::Instant;

use domain::{Count, Segment, Window};

/// The maximum number of counts of existing segments over refreshed windows.
const MAX_KEPT: u64 = 100_000;
/// The maximum number of counts of any other names and windows that readers request. Those are unlimited in number, and
/// must not evict the others.
const MAX_OTHERS: u64 = 10_000;

/// The segment and window of a count.
pub(crate) type Key = (Segment, Window);

/// The latest count of each key.
#[derive(Debug)]
pub(crate) struct Remembered {
    refreshed: Counts,
    others: Counts,
}

type Counts = moka::sync::Cache<Key, Kept>;

/// A count, and when this process received it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kept {
    pub(crate) count: Count,
    pub(crate) at: Instant,
}

impl Default for Remembered {
    fn default() -> Self {
        Self {
            refreshed: Counts::new(MAX_KEPT),
            others: Counts::new(MAX_OTHERS),
        }
    }
}

impl Remembered {
    /// The latest count of `key` from either part.
    pub(crate) fn get(&self, key: &Key) -> Option<Kept> {
        let both = [self.refreshed.get(key), self.others.get(key)];
        let both = both.into_iter().flatten();
        both.max_by_key(|kept| kept.count.as_of)
    }

    /// Keeps `count` of a refreshed segment and window, unless a count as of a later instant is already kept.
    pub(crate) fn keep(&self, segment: &Segment, window: Window, count: Count) {
        // The name was requested before the segment was known. Its readers must not get an older count than before.
        if let Some(other) = self.others.remove(&(segment.clone(), window)) {
            keep(&self.refreshed, segment, window, other.count);
        }
        keep(&self.refreshed, segment, window, count);
    }

    /// The same for any other segment or window. A segment that was refreshed before, and is unknown now because the cache
    /// lost it, stays in the refreshed part.
    pub(crate) fn keep_other(&self, segment: &Segment, window: Window, count: Count) {
        match self.refreshed.contains_key(&(segment.clone(), window)) {
            true => keep(&self.refreshed, segment, window, count),
            false => keep(&self.others, segment, window, count),
        }
    }

    /// Whether no count is kept.
    pub(crate) fn is_empty(&self) -> bool {
        let mut all = self.refreshed.iter().chain(self.others.iter());
        all.next().is_none()
    }

    /// The segments with a count over `window`, in any order.
    pub(crate) fn segments(&self, window: Window) -> Vec<Segment> {
        let all = self.refreshed.iter().filter(|(key, _)| key.1 == window);
        all.map(|(key, _)| key.0.clone()).collect()
    }
}

fn keep(counts: &Counts, segment: &Segment, window: Window, count: Count) {
    let newer = Kept {
        count,
        at: Instant::now(),
    };
    counts
        .entry((segment.clone(), window))
        .and_upsert_with(|entry| match entry {
            Some(entry) if entry.value().count.as_of > count.as_of => entry.into_value(),
            _ => newer,
        });
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::Timestamp;
    use domain::store::conformance::frame;

    #[test]
    fn a_name_that_becomes_known_keeps_its_latest_count() {
        let remembered = Remembered::default();
        let (segment, window) = (Segment::new("s").unwrap(), frame(60).full_window());
        let count = |second| Count {
            users: 0,
            as_of: Timestamp::from_second(second).unwrap(),
        };
        remembered.keep_other(&segment, window, count(7));
        remembered.keep(&segment, window, count(5));
        let kept = remembered.get(&(segment, window)).unwrap();
        assert_eq!(kept.count, count(7));
    }

    #[test]
    fn a_name_that_the_cache_lost_keeps_its_latest_count() {
        let remembered = Remembered::default();
        let (segment, window) = (Segment::new("s").unwrap(), frame(60).full_window());
        let count = |second| Count {
            users: 0,
            as_of: Timestamp::from_second(second).unwrap(),
        };
        let key = (segment.clone(), window);
        let kept = || remembered.get(&key).unwrap().count;
        remembered.keep(&segment, window, count(5));
        remembered.keep_other(&segment, window, count(7));
        assert_eq!(kept(), count(7));
        remembered.keep_other(&segment, window, count(6));
        assert_eq!(kept(), count(7));
        remembered.keep(&segment, window, count(8));
        assert_eq!(kept(), count(8));
    }

    #[test]
    fn made_up_names_push_nothing_out() {
        let remembered = Remembered::default();
        let window = frame(60).full_window();
        let count = Count {
            users: 7,
            as_of: Timestamp::UNIX_EPOCH,
        };
        let named = |name: String| Segment::new(&name).unwrap();
        for index in 0..500 {
            remembered.keep(&named(format!("s{index}")), window, count);
        }
        for index in 0..3 * MAX_OTHERS {
            remembered.keep_other(&named(format!("made up {index}")), window, count);
        }
        remembered.others.run_pending_tasks();
        assert!(remembered.others.entry_count() <= MAX_OTHERS);
        for index in 0..500 {
            let key = (named(format!("s{index}")), window);
            assert_eq!(remembered.get(&key).unwrap().count, count);
        }
        assert_eq!(remembered.segments(window).len(), 500);
    }
}
