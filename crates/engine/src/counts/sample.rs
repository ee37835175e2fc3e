//! All counts at an instant, for the events of changes.

use super::Counts;
use domain::{Count, Segment, Timestamp};

/// All counts of the full window at an instant.
pub(crate) struct Sample {
    pub(crate) counts: Vec<(Segment, Count)>,
    /// Whether a segment that is missing has no users.
    pub(crate) is_whole: bool,
    pub(crate) at: Timestamp,
}

impl Counts {
    /// Whether counts come from a store in this process.
    pub(crate) fn is_live(&self) -> bool {
        self.parts.store.is_live()
    }

    /// All counts: those of a live store, else the cached ones; nothing is recounted. `None` while the source is unavailable.
    pub(crate) async fn sample(&self) -> Option<Sample> {
        let (window, at) = (self.parts.frame.full_window(), self.parts.clock.now());
        let (store, cache) = (&self.parts.store, &self.parts.cache);
        if store.is_live() {
            let names = store.segments(at).await.ok()?;
            let counted = names.into_iter().filter_map(|segment| {
                let count = store.count_now(&segment, window, at)?;
                Some((segment, count))
            });
            return Some(Sample {
                counts: counted.collect(),
                is_whole: true,
                at,
            });
        }
        let list = cache.segments().await.ok()?;
        let cached = cache.get_many(&list.names, window).await.ok()?;
        let (mut counts, mut is_whole) = (Vec::with_capacity(cached.len()), list.complete);
        for (segment, cached) in list.names.into_iter().zip(cached) {
            match cached {
                Some(cached) => counts.push((segment, cached.count)),
                // Listed, and not counted yet: neither a count nor a segment that is gone.
                None => is_whole = false,
            }
        }
        Some(Sample {
            counts,
            is_whole,
            at,
        })
    }
}
