//! Detects changed counts by comparing all counts with the previous ones.
//!
//! The comparison detects every kind of change: new pairs, expired or erased users, and counts that another instance wrote
//! to a shared cache. Changes during an outage of the cache are detected when it is available again.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Events;
use crate::counts::{Counts, Sample};
use crate::coverage::KnownCoverage;
use domain::{Count, Segment};

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
            match &mut known {
                Some(known) => events.publish(&known.compare(sample), |count| {
                    coverage.of(counts.full_window(), count.as_of)
                }),
                None => {
                    let mut fresh = Known::default();
                    fresh.compare(sample);
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

/// The number of users of each segment in the last comparison.
#[derive(Debug, Default)]
struct Known(HashMap<Segment, u64>);

impl Known {
    /// The changes since the previous sample.
    fn compare(&mut self, sample: Sample) -> Vec<(Segment, Count)> {
        let mut changes = Vec::new();
        let gone = sample.is_complete.then(|| self.missing_in(&sample));
        for (segment, count) in sample.counts {
            // A new segment without users is no change.
            let before = self.0.get(&segment).copied().unwrap_or(0);
            if before != count.users {
                self.0.insert(segment.clone(), count.users);
                changes.push((segment, count));
            }
        }
        for segment in gone.into_iter().flatten() {
            let users = self.0.remove(&segment);
            if users != Some(0) {
                let (users, as_of) = (0, sample.at);
                changes.push((segment, Count { users, as_of }));
            }
        }
        changes
    }

    fn missing_in(&self, sample: &Sample) -> Vec<Segment> {
        let present: HashSet<&Segment> = sample.counts.iter().map(|(segment, _)| segment).collect();
        let known = self.0.keys();
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
        let at = Timestamp::UNIX_EPOCH;
        let counts = counts.iter().map(|(name, users)| {
            let count = Count {
                users: *users,
                as_of: at,
            };
            (Segment::new(name).unwrap(), count)
        });
        Sample {
            counts: counts.collect(),
            is_complete,
            at,
        }
    }

    #[test]
    fn only_changes_are_told() {
        let mut known = Known::default();
        let mut changes = |counts: &[(&str, u64)], is_complete| -> Vec<(String, u64)> {
            let changes = known.compare(sample(counts, is_complete));
            changes
                .iter()
                .map(|(segment, count)| (segment.as_str().to_owned(), count.users))
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
}
