//! Brings the visits of each user together: a sort by the bits of the fingerprint that vary within a range.

use crate::entry::{Entry, FINGERPRINT_BITS};

/// A bucket with more visits is sorted by the standard library, which is faster for many.
const MANY: usize = 24;

/// A user in a segment.
pub(super) trait Visit: Copy + Default {
    fn user_and_segment(&self) -> UserAndSegment;
}

/// The fingerprint of a user and the number of a segment in one word; ordered by fingerprint first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct UserAndSegment(u64);

impl UserAndSegment {
    pub(super) fn new(entry: Entry, segment: u16) -> Self {
        Self(entry.fingerprint().aligned() | u64::from(segment))
    }

    pub(super) fn segment(self) -> u16 {
        self.0 as u16
    }

    fn is_same_user(self, other: Self) -> bool {
        (self.0 ^ other.0) >> (u64::BITS - FINGERPRINT_BITS) == 0
    }
}

impl Visit for UserAndSegment {
    fn user_and_segment(&self) -> UserAndSegment {
        *self
    }
}

/// Sorts visits into buckets by the first bits that vary, and then each bucket. Fingerprints are uniform, so that a bucket
/// has few visits; the time for others is that of a sort.
#[derive(Debug, Default)]
pub(super) struct Grouping<V> {
    /// Where the next visit of each bucket goes, then where the bucket ends.
    ends: Vec<u32>,
    sorted: Vec<V>,
}

impl<V: Visit> Grouping<V> {
    /// Sorts the visits of a range in which `bits` of the fingerprint vary.
    pub(super) fn sort(&mut self, visits: &[V], bits: u32) -> &[V] {
        if self.sorted.len() < visits.len() {
            self.sorted.resize(visits.len(), V::default());
        }
        let bucket_bits = visits.len().next_power_of_two().ilog2().max(1);
        let bucket = |visit: &V| {
            let varying = visit.user_and_segment().0 << (FINGERPRINT_BITS - bits);
            (varying >> (u64::BITS - bucket_bits)) as usize
        };
        self.ends.clear();
        self.ends.resize(1 << bucket_bits, 0);
        for visit in visits {
            self.ends[bucket(visit)] += 1;
        }
        let mut before = 0;
        for end in &mut self.ends {
            let count = *end;
            *end = before;
            before += count;
        }
        for visit in visits {
            let end = &mut self.ends[bucket(visit)];
            self.sorted[*end as usize] = *visit;
            *end += 1;
        }
        let mut start = 0;
        for end in &self.ends {
            let end = *end as usize;
            if end - start > 1 {
                sort_few(&mut self.sorted[start..end]);
            }
            start = end;
        }
        &self.sorted[..visits.len()]
    }
}

fn sort_few<V: Visit>(visits: &mut [V]) {
    if visits.len() > MANY {
        visits.sort_unstable_by_key(Visit::user_and_segment);
        return;
    }
    // Most buckets have one user, whose visits are already in order.
    for end in 1..visits.len() {
        let visit = visits[end];
        let mut at = end;
        while at > 0 && visits[at - 1].user_and_segment() > visit.user_and_segment() {
            visits[at] = visits[at - 1];
            at -= 1;
        }
        visits[at] = visit;
    }
}

/// The visits of each user, given all in ascending order.
pub(super) fn users<V: Visit>(sorted: &[V]) -> impl Iterator<Item = &[V]> {
    sorted.chunk_by(|one, next| one.user_and_segment().is_same_user(next.user_and_segment()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Fingerprint;
    use domain::Slot;

    fn visit(user: u64, segment: u16) -> UserAndSegment {
        let entry = Entry::new(Fingerprint::from_number(user), Slot::new(0x1_ffff));
        UserAndSegment::new(entry, segment)
    }

    #[test]
    fn sorts_even_and_lumped_users_of_any_range() {
        let mix = |number: u64| number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 16;
        let mut grouping = Grouping::default();
        for bits in [48, 40, 13, 7, 1] {
            let prefix = if bits == 48 { 0 } else { 5 << bits };
            let mask = (1 << bits) - 1;
            for number_of_users in [3_000, 1, 0, 700] {
                let even = (0..number_of_users).map(|user| prefix | (mix(user) & mask));
                let lumped = (0..number_of_users).map(|user| prefix | (user & mask & 0xff));
                let users: Vec<u64> = even.chain(lumped).collect();
                let segments = [2, 1, 4, u16::MAX].into_iter();
                let visits: Vec<UserAndSegment> = segments
                    .flat_map(|segment| users.iter().map(move |user| visit(*user, segment)))
                    .collect();
                let mut expected = visits.clone();
                expected.sort();
                assert_eq!(grouping.sort(&visits, bits), expected);
            }
        }
    }

    #[test]
    fn groups_by_user() {
        let sorted = [visit(1, 3), visit(2, 0), visit(2, 9), visit(3, 9)];
        let groups: Vec<usize> = users(&sorted).map(<[_]>::len).collect();
        assert_eq!(groups, [1, 2, 1]);
        assert_eq!(users::<UserAndSegment>(&[]).count(), 0);
    }
}
