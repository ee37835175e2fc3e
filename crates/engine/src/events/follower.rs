//! Finds out which counts changed, by comparing all of them with those that were known before.
//!
//! Comparing sees every cause alike: pairs that came, users that expired or were erased, counts that another instance
//! put into a shared cache. What was missed while the cache was away is found when it is back.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Events;
use crate::counts::{Counts, Sample};
use domain::{Count, Segment};

/// A live store answers from memory: about a millisecond for a thousand segments.
const LIVE_PERIOD: Duration = Duration::from_millis(400);
/// Another store's counts change with its recounts; asking a shared cache costs it some of its time.
const CACHED_PERIOD: Duration = Duration::from_secs(1);

/// Publishes changes to `events` until `stop`. Without clients it waits for one.
pub async fn follow(events: Arc<Events>, counts: Arc<Counts>, stop: CancellationToken) {
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
        // Whose call failed has logged and counted it; what was missed is found by the next comparison.
        if let Some(sample) = sample {
            match &mut known {
                Some(known) => events.publish(&known.compare(sample)),
                None => {
                    let mut fresh = Known::default();
                    fresh.compare(sample);
                    known = Some(fresh);
                    // Whoever did not wait for this may have missed changes.
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

/// The users of each segment as last told.
#[derive(Debug, Default)]
struct Known(HashMap<Segment, u64>);

impl Known {
    /// What changed since the sample before.
    fn compare(&mut self, sample: Sample) -> Vec<(Segment, Count)> {
        let mut changes = Vec::new();
        let gone = sample.is_whole.then(|| self.missing_in(&sample));
        for (segment, count) in sample.counts {
            // Nobody was told of it yet, and nobody is there: no change.
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
        let there: HashSet<&Segment> = sample.counts.iter().map(|(segment, _)| segment).collect();
        let known = self.0.keys();
        known
            .filter(|segment| !there.contains(segment))
            .cloned()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::Timestamp;

    fn sample(counts: &[(&str, u64)], is_whole: bool) -> Sample {
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
            is_whole,
            at,
        }
    }

    #[test]
    fn only_changes_are_told() {
        let mut known = Known::default();
        let mut told = |counts: &[(&str, u64)], is_whole| -> Vec<(String, u64)> {
            let changes = known.compare(sample(counts, is_whole));
            let texts = changes.iter();
            texts
                .map(|(segment, count)| (segment.as_str().to_owned(), count.users))
                .collect()
        };
        let owned = |name: &str, users| (name.to_owned(), users);
        assert_eq!(
            told(&[("a", 1), ("b", 2), ("c", 0)], true),
            [owned("a", 1), owned("b", 2)]
        );
        assert_eq!(told(&[("a", 1), ("b", 2)], true), []);
        assert_eq!(told(&[("a", 1), ("b", 3)], true), [owned("b", 3)]);
        // A list that is not whole says nothing about what is missing from it.
        assert_eq!(told(&[], false), []);
        assert_eq!(told(&[("a", 1)], true), [owned("b", 0)]);
        assert_eq!(told(&[("b", 3)], true), [owned("b", 3), owned("a", 0)]);
        assert_eq!(told(&[("b", 0)], true), [owned("b", 0)]);
        assert_eq!(told(&[], true), []);
    }
}
