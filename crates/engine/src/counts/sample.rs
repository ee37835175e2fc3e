//! A snapshot of all counts, each over the window of its segment, for the events of changed counts.

use std::collections::HashMap;

use super::{CountResult, Counts, ShownCount};
use domain::{Count, Flow, Segment, Timestamp};

/// A snapshot of all counts.
pub(crate) struct Sample {
    pub(crate) counts: Vec<(Segment, ShownCount)>,
    /// How many users entered and left each segment since it is in memory, when it was counted. Empty without the embedded store or
    /// a replica in this process.
    pub(crate) flows: HashMap<Segment, Flow>,
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
            let mut counts: Vec<_> = counted.collect();
            return Some(Sample {
                flows: self.with_flows(&mut counts),
                counts: self.for_people(counts).await,
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
                flows: self.with_flows(&mut counts),
                counts: self.for_people(counts).await,
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
            counts: self.for_people(counts).await,
            flows: HashMap::new(),
            is_complete,
            at,
        })
    }

    /// The counts without what a floor withholds.
    async fn for_people(&self, counts: Vec<(Segment, Count)>) -> Vec<(Segment, ShownCount)> {
        let mut shown = Vec::with_capacity(counts.len());
        for (segment, count) in counts {
            let users = match self.floor().is_on() {
                false => Some(count.users),
                true => {
                    let counted = CountResult::cached(count, self.window_of(&segment));
                    self.shown(&segment, &counted).await
                }
            };
            let as_of = count.as_of;
            shown.push((segment, ShownCount { users, as_of }));
        }
        shown
    }

    /// Replaces counts by those of an instant at which it is known how many users entered and left, and returns that. It is
    /// known of the configured window only.
    fn with_flows(&self, counts: &mut [(Segment, Count)]) -> HashMap<Segment, Flow> {
        let mut flows = HashMap::with_capacity(counts.len());
        let own_windows = self.own_windows();
        let with_full = counts
            .iter_mut()
            .filter(|(segment, _)| !own_windows.contains_key(segment));
        for (segment, count) in with_full {
            if let Some((counted, flow)) = self.total_flow(segment) {
                *count = counted;
                flows.insert(segment.clone(), flow);
            }
        }
        flows
    }
}
