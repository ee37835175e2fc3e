//! Last known counts in the memory of this process: what is left when the cache and the store are unavailable.

use tokio::time::Instant;

use crate::domain::{Count, Segment, Window};

/// Counts kept, one for each segment and window.
const MAX_KEPT: u64 = 100_000;

/// What is counted.
pub(crate) type Key = (Segment, Window);

/// The latest count of each key.
#[derive(Debug)]
pub(crate) struct Remembered(moka::sync::Cache<Key, Kept>);

/// A count, and when this process learned of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kept {
    pub(crate) count: Count,
    pub(crate) at: Instant,
}

impl Default for Remembered {
    fn default() -> Self {
        Self(moka::sync::Cache::new(MAX_KEPT))
    }
}

impl Remembered {
    pub(crate) fn get(&self, key: &Key) -> Option<Kept> {
        self.0.get(key)
    }

    /// Keeps `count` unless one as of a later instant is kept.
    pub(crate) fn keep(&self, segment: &Segment, window: Window, count: Count) {
        let newer = Kept {
            count,
            at: Instant::now(),
        };
        self.0
            .entry((segment.clone(), window))
            .and_upsert_with(|entry| match entry {
                Some(entry) if entry.value().count.as_of > count.as_of => entry.into_value(),
                _ => newer,
            });
    }

    /// The segments with a count over `window`, in any order.
    pub(crate) fn segments(&self, window: Window) -> Vec<Segment> {
        let all = self.0.iter().filter(|(key, _)| key.1 == window);
        all.map(|(key, _)| key.0.clone()).collect()
    }
}
