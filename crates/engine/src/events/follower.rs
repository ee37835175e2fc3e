//! Detects changed counts by comparing all counts with the previous ones.
//!
//! The comparison detects every kind of change: new pairs, expired or erased users, and counts that another instance wrote
//! to a shared cache. Changes during an outage of the cache are detected when it is available again.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Change, Events};
use crate::counts::{Counts, Sample, ShownCount};
use crate::coverage::KnownCoverage;
use domain::{Flow, Segment};

/// The interval of comparisons with a live store. It returns the counts of a thousand segments in about a millisecond.
const LIVE_PERIOD: Duration = Duration::from_millis(400);
/// The interval of comparisons with any other store. Its counts change only with recounts, and each comparison is load
/// on the shared cache.
const CACHED_PERIOD: Duration = Duration::from_secs(1);

/// Publishes changes to `events` until `stop`. While there are no clients, it waits for one.
pub async fn follow(
    events: Arc<Events>,
    counts: Arc<Counts>,
    coverage: Arc<KnownCoverage>,
    stop: CancellationToken,
) {
    let period = match counts.is_live() {
        true => LIVE_PERIOD,
        false => CACHED_PERIOD,
    };
    let nobody = counts.floor().shown(0);
    let mut known: Option<Known> = None;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = events.wait_for_clients() => {}
        }
        let sample = tokio::select! {
            () = stop.cancelled() => return,
            sample = counts.sample() => sample,
        };
        // A failed call was already logged and counted. The next comparison detects what this one missed.
        if let Some(sample) = sample {
            let flow = |gone: &Segment| counts.total_flow(gone).map(|(_, flow)| flow);
            match &mut known {
                Some(known) => events.publish(&known.compare(sample, flow), |change| {
                    coverage.of(counts.window_of(&change.segment), change.as_of)
                }),
                None => {
                    let mut fresh = Known::new(nobody);
                    fresh.compare(sample, flow);
                    known = Some(fresh);
                    // Clients that did not wait for this comparison may have missed changes.
                    events.reset();
                }
            }
            events.note_comparison();
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(period) => {}
        }
    }
}

/// Each segment at its last change.
#[derive(Debug)]
struct Known {
    segments: HashMap<Segment, Last>,
    /// What is shown of a segment without users.
    nobody: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Last {
    /// `None` while the count is withheld.
    users: Option<u64>,
    /// How many users entered and left since the segment is in memory, if that was known.
    flow: Option<Flow>,
}

impl Last {
    /// How many users entered and left since then, if that adds up to `users`.
    fn flow_to(self, users: Option<u64>, flow: Option<Flow>) -> Option<Flow> {
        let since = flow?.since(self.flow?)?;
        let expected = (self.users? + since.entered).checked_sub(since.left);
        (expected == users).then_some(since)
    }
}

impl Known {
    fn new(nobody: Option<u64>) -> Self {
        Self {
            segments: HashMap::new(),
            nobody,
        }
    }

    /// The changes since the previous sample. `flow` returns how many users entered and left a segment that is gone.
    fn compare(&mut self, sample: Sample, flow: impl Fn(&Segment) -> Option<Flow>) -> Vec<Change> {
        let mut changes = Vec::new();
        let gone = sample.is_complete.then(|| self.missing_in(&sample));
        for (segment, ShownCount { users, as_of }) in sample.counts {
            // A new segment without users is no change.
            let before = self.segments.get(&segment).copied().unwrap_or(Last {
                users: self.nobody,
                flow: Some(Flow::default()),
            });
            let flow = sample.flows.get(&segment).copied();
            if before.users != users {
                self.segments.insert(segment.clone(), Last { users, flow });
                changes.push(Change {
                    flow: before.flow_to(users, flow),
                    segment,
                    users,
                    as_of,
                });
            }
        }
        for segment in gone.into_iter().flatten() {
            let before = self.segments.remove(&segment);
            if let Some(before) = before.filter(|before| before.users != self.nobody) {
                changes.push(Change {
                    flow: before.flow_to(self.nobody, flow(&segment)),
                    segment,
                    users: self.nobody,
                    as_of: sample.at,
                });
            }
        }
        changes
    }

    fn missing_in(&self, sample: &Sample) -> Vec<Segment> {
        let present: HashSet<&Segment> = sample.counts.iter().map(|(segment, _)| segment).collect();
        let known = self.segments.keys();
        known
            .filter(|segment| !present.contains(segment))
            .cloned()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::Timestamp;

    fn sample(counts: &[(&str, u64)], is_complete: bool) -> Sample {
        let shown: Vec<_> = counts
            .iter()
            .map(|(name, users)| (*name, Some(*users)))
            .collect();
        shown_sample(&shown, is_complete)
    }

    fn shown_sample(counts: &[(&str, Option<u64>)], is_complete: bool) -> Sample {
        let at = Timestamp::UNIX_EPOCH;
        let counts = counts.iter().map(|(name, users)| {
            let count = ShownCount {
                users: *users,
                as_of: at,
            };
            (Segment::new(name).unwrap(), count)
        });
        Sample {
            counts: counts.collect(),
            flows: HashMap::new(),
            is_complete,
            at,
        }
    }

    #[test]
    fn only_changes_are_told() {
        let mut known = Known::new(Some(0));
        let mut changes = |counts: &[(&str, u64)], is_complete| -> Vec<(String, u64)> {
            let changes = known.compare(sample(counts, is_complete), |_| None);
            changes
                .iter()
                .map(|change| (change.segment.as_str().to_owned(), change.users.unwrap()))
                .collect()
        };
        let owned = |name: &str, users| (name.to_owned(), users);
        assert_eq!(
            changes(&[("a", 1), ("b", 2), ("c", 0)], true),
            [owned("a", 1), owned("b", 2)]
        );
        assert_eq!(changes(&[("a", 1), ("b", 2)], true), []);
        assert_eq!(changes(&[("a", 1), ("b", 3)], true), [owned("b", 3)]);
        // A segment that is missing from an incomplete sample may still have users.
        assert_eq!(changes(&[], false), []);
        assert_eq!(changes(&[("a", 1)], true), [owned("b", 0)]);
        assert_eq!(changes(&[("b", 3)], true), [owned("b", 3), owned("a", 0)]);
        assert_eq!(changes(&[("b", 0)], true), [owned("b", 0)]);
        assert_eq!(changes(&[], true), []);
    }

    #[test]
    fn changes_of_withheld_counts_are_not_told() {
        let mut known = Known::new(None);
        let mut changes = |counts: &[(&str, Option<u64>)]| -> Vec<(String, Option<u64>)> {
            let changes = known.compare(shown_sample(counts, true), |_| None);
            let changes = changes.into_iter();
            changes
                .map(|change| (change.segment.as_str().to_owned(), change.users))
                .collect()
        };
        let of_a = |users| vec![("a".to_owned(), users)];
        assert_eq!(changes(&[("a", None), ("b", None)]), []);
        assert_eq!(changes(&[("a", Some(12)), ("b", None)]), of_a(Some(12)));
        assert_eq!(changes(&[("a", Some(13))]), of_a(Some(13)));
        assert_eq!(changes(&[("a", None)]), of_a(None));
        assert_eq!(changes(&[("a", Some(10))]), of_a(Some(10)));
        assert_eq!(changes(&[]), of_a(None), "as a count that is too small");
        assert_eq!(changes(&[]), []);
    }

    #[test]
    fn a_change_tells_who_entered_and_left_if_that_leads_to_it() {
        let mut known = Known::new(Some(0));
        let flow = |entered, left| Flow { entered, left };
        let mut flows = |users, total: Option<Flow>, gone: Option<Flow>| {
            let mut sample = match users {
                0 => sample(&[], true),
                users => sample(&[("a", users)], true),
            };
            let segment = Segment::new("a").unwrap();
            sample.flows.extend(total.map(|total| (segment, total)));
            let changes = known.compare(sample, |_| gone);
            changes.first().map(|change| change.flow)
        };
        assert_eq!(flows(3, Some(flow(3, 0)), None), Some(Some(flow(3, 0))));
        // As many enter as leave.
        assert_eq!(flows(3, Some(flow(5, 2)), None), None);
        assert_eq!(flows(4, Some(flow(7, 3)), None), Some(Some(flow(4, 3))));
        // Not in memory for a moment.
        assert_eq!(flows(5, None, None), Some(None));
        assert_eq!(flows(6, Some(flow(9, 3)), None), Some(None));
        assert_eq!(flows(7, Some(flow(10, 3)), None), Some(Some(flow(1, 0))));
        // A sample and a total of different instants.
        assert_eq!(flows(8, Some(flow(12, 3)), None), Some(None));
        assert_eq!(flows(0, None, Some(flow(12, 11))), Some(Some(flow(0, 8))));
    }
}
