//! A snapshot of all counts, each over the window of its segment, for the events of changed counts.

use super::Counts;
use domain::{Count, Segment, Timestamp};

/// A snapshot of all counts.
pub(crate) struct Sample {
    pub(crate) counts: Vec<(Segment, Count)>,
    /// Whether the snapshot is complete, so that a missing segment has no users.
    pub(crate) is_complete: bool,
    pub(crate) at: Timestamp,
}

impl Counts {
    /// Whether the store is in this process and counts without I/O.
    pub(crate) fn is_live(&self) -> bool {
        self.parts.store.is_live()
    }

    /// The counts of a live store, else the cached counts. Nothing is recounted. `None` while the source is unavailable.
    pub(crate) async fn sample(&self) -> Option<Sample> {
        let (window, at) = (self.parts.frame.full_window(), self.parts.clock.now());
        let segments = &self.parts.segments;
        let (store, cache) = (&self.parts.store, &self.parts.cache);
        if store.is_live() {
            let names = store.segments(at).await.ok()?;
            let counted = names.into_iter().filter_map(|segment| {
                let count = store.count_now(&segment, segments.window_of(&segment), at)?;
                Some((segment, count))
            });
            return Some(Sample {
                counts: counted.collect(),
                is_complete: true,
                at,
            });
        }
        if let Some(live) = &self.parts.live
            && let Some(mut counts) = live.list(window).await
        {
            let own_windows = segments.own_windows();
            let mut is_complete = true;
            if !own_windows.is_empty() {
                counts.retain_mut(|(segment, count)| {
                    let Some(&window) = own_windows.get(segment) else {
                        return true;
                    };
                    let own = live.count(segment, window);
                    // It is published soon after the window was set.
                    is_complete &= own.is_some();
                    *count = own.unwrap_or(*count);
                    own.is_some()
                });
            }
            return Some(Sample {
                counts,
                is_complete,
                at,
            });
        }
        let list = cache.segments().await.ok()?;
        let mut cached = cache.get_many(&list.names, window).await.ok()?;
        let own_windows = segments.own_windows();
        for (segment, cached) in list.names.iter().zip(&mut cached) {
            if let Some(&window) = own_windows.get(segment) {
                *cached = cache.get(segment, window).await.ok()?;
            }
        }
        let (mut counts, mut is_complete) = (Vec::with_capacity(cached.len()), list.complete);
        for (segment, cached) in list.names.into_iter().zip(cached) {
            match cached {
                Some(count) => counts.push((segment, count)),
                // Listed but not counted yet: there is no count, but the segment is not gone either.
                None => is_complete = false,
            }
        }
        Some(Sample {
            counts,
            is_complete,
            at,
        })
    }
}
