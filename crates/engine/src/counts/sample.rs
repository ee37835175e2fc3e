//! A snapshot of all counts, each over the window of its segment, for the events of changed counts.

use std::collections::{BTreeMap, HashMap};

use super::{Counts, ShownCount};
use domain::{Count, Flow, Segment, Timestamp, Window};

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
        let at = self.parts.clock.now();
        let (names, mut is_complete) = self.known_names(at).await?;
        let own = self.own_windows();
        let mut by_window = BTreeMap::<Window, Vec<Segment>>::new();
        let (mut counts, mut flows) = (Vec::with_capacity(names.len()), HashMap::new());
        for segment in names {
            let window = own.get(&segment).copied();
            // These numbers exist for the configured window only.
            let with_flow = window
                .is_none()
                .then(|| self.total_flow(&segment))
                .flatten();
            match with_flow {
                Some((count, flow)) => {
                    flows.insert(segment.clone(), flow);
                    counts.push((segment, count));
                }
                None => {
                    let window = window.unwrap_or_else(|| self.full_window());
                    by_window.entry(window).or_default().push(segment);
                }
            }
        }
        for (window, names) in by_window {
            let counted = self.known_counts(&names, window).await?;
            for (segment, count) in names.into_iter().zip(counted) {
                match count {
                    Some(count) => counts.push((segment, count)),
                    // Listed but not counted yet: there is no count, but the segment is not gone either.
                    None => is_complete = false,
                }
            }
        }
        Some(Sample {
            counts: self.withhold_all(counts).await?,
            flows,
            is_complete,
            at,
        })
    }

    /// All segments, and whether the list is complete.
    async fn known_names(&self, at: Timestamp) -> Option<(Vec<Segment>, bool)> {
        if self.is_live() {
            return Some((self.parts.store.segments(at).await.ok()?, true));
        }
        if let Some(live) = &self.parts.live
            && let Some(list) = live.list(self.full_window()).await
        {
            let names = list.into_iter().map(|(segment, _)| segment);
            return Some((names.collect(), true));
        }
        let list = self.parts.cache.segments().await.ok()?;
        Some((list.names, list.complete))
    }

    /// The counts over `window` that are known without a recount.
    pub(super) async fn known_counts(
        &self,
        names: &[Segment],
        window: Window,
    ) -> Option<Vec<Option<Count>>> {
        let mut counts: Vec<_> = names
            .iter()
            .map(|segment| Some(self.count_live(segment, window)?.count))
            .collect();
        if self.is_live() || counts.iter().all(Option::is_some) {
            return Some(counts);
        }
        let cached = self.parts.cache.get_many(names, window).await.ok()?;
        for (count, cached) in counts.iter_mut().zip(cached) {
            *count = count.or(cached);
        }
        Some(counts)
    }
}
