//! Groups the segments that a refresh counts together: those that are small by their last known counts.

use super::Refresher;
use domain::{Count, Segment, Window};

/// The maximum number of users in a group. With it the query of a group needs no more memory than a large segment alone,
/// and takes little longer.
const MAX_USERS: u64 = 250_000;

impl Refresher {
    /// The latest counts of `segments` in the cache and in memory, in the order of `segments`.
    pub(crate) async fn known(&self, segments: &[Segment], window: Window) -> Vec<Option<Count>> {
        let cached = match self.parts.cache.get_many(segments, window).await {
            Ok(cached) => cached,
            Err(_) => {
                self.parts.metrics.counts.cache_fallbacks.inc();
                vec![None; segments.len()]
            }
        };
        let latest = segments.iter().zip(cached).map(|(segment, cached)| {
            if let Some(count) = cached {
                self.remembered.keep(segment, window, count);
            }
            let kept = self.remembered.get(&(segment.clone(), window));
            let both = [cached, kept.map(|kept| kept.count)];
            both.into_iter().flatten().max_by_key(|count| count.as_of)
        });
        latest.collect()
    }

    /// `segments` in groups to count together. Large segments, and segments of unknown size, are alone.
    pub(super) async fn groups(&self, segments: &[Segment]) -> Vec<Vec<Segment>> {
        let at_once = self.parts.store.counts_at_once();
        if at_once <= 1 {
            return segments
                .iter()
                .cloned()
                .map(|segment| vec![segment])
                .collect();
        }
        let known = self.known(segments, self.parts.frame.full_window()).await;
        let sizes = segments.iter().zip(known).map(|(segment, known)| {
            let size = known.filter(|_| !self.recounts.is_apart(segment));
            (segment.clone(), size.map(|count| count.users))
        });
        grouped(sizes, at_once)
    }
}

fn grouped(
    sizes: impl IntoIterator<Item = (Segment, Option<u64>)>,
    at_once: usize,
) -> Vec<Vec<Segment>> {
    let mut groups = Vec::new();
    let (mut group, mut group_users) = (Vec::new(), 0);
    for (segment, users) in sizes {
        let Some(users) = users.filter(|users| *users <= MAX_USERS) else {
            groups.push(vec![segment]);
            continue;
        };
        if group.len() == at_once || group_users + users > MAX_USERS {
            groups.push(std::mem::take(&mut group));
            group_users = 0;
        }
        group_users += users;
        group.push(segment);
    }
    if !group.is_empty() {
        groups.push(group);
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sizes of the groups' segments, each named by its size.
    fn groups_of(sizes: &[Option<u64>], at_once: usize) -> Vec<Vec<String>> {
        let named = sizes.iter().map(|size| {
            let name = size.map_or("unknown".to_owned(), |size| size.to_string());
            (Segment::new(&name).unwrap(), *size)
        });
        let groups = grouped(named, at_once).into_iter();
        let names = |group: Vec<Segment>| group.iter().map(ToString::to_string).collect();
        groups.map(names).collect()
    }

    #[test]
    fn small_segments_are_together_and_others_alone() {
        let sizes = [3, 300_000, 4, 5, 100_000, 6, 149_994, 249_999, 0];
        let mut sizes: Vec<_> = sizes.into_iter().map(Some).collect();
        sizes.insert(3, None);
        let groups: [&[&str]; 5] = [
            &["300000"],
            &["unknown"],
            &["3", "4", "5"],
            &["100000", "6", "149994"],
            &["249999", "0"],
        ];
        assert_eq!(groups_of(&sizes, 3), groups);
    }

    #[test]
    fn groups_hold_each_segment_once_within_both_bounds() {
        let mut random = fastrand::Rng::with_seed(29);
        for at_once in [1, 2, 25] {
            let sizes =
                (0..500).map(|_| random.choice([None, Some(1), Some(1 << 16), Some(1 << 20)]));
            let sizes: Vec<Option<u64>> = sizes.flatten().collect();
            let named = sizes
                .iter()
                .enumerate()
                .map(|(index, size)| (Segment::new(&index.to_string()).unwrap(), *size));
            let groups = grouped(named, at_once);
            let mut seen: Vec<usize> = Vec::new();
            for group in &groups {
                let members: Vec<usize> = group
                    .iter()
                    .map(|name| name.as_str().parse().unwrap())
                    .collect();
                assert!((1..=at_once).contains(&members.len()));
                let users = members.iter().map(|member| sizes[*member]);
                let users = users.sum::<Option<u64>>();
                assert!(
                    members.len() == 1 || users.is_some_and(|users| users <= MAX_USERS),
                    "{users:?}"
                );
                seen.extend(members);
            }
            seen.sort_unstable();
            assert_eq!(seen, (0..500).collect::<Vec<_>>());
        }
    }
}
