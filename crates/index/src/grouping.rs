//! Groups items by user: a sort by the bits of the fingerprint that vary within a range.

use super::entry::{FINGERPRINT_BITS, Fingerprint};

/// A bucket with more items is sorted by the standard library, which is faster for many.
const MANY: usize = 24;

/// An item that belongs to a user.
pub(super) trait OfUser: Copy + Default {
    /// What to sort by. Its first 48 bits are the fingerprint.
    fn key(self) -> u64;
}

impl OfUser for Fingerprint {
    fn key(self) -> u64 {
        self.aligned()
    }
}

/// Sorts items into buckets by the first bits that vary, and then each bucket. Fingerprints are uniform, so that a bucket has
/// few items; for others it takes the time of a sort.
#[derive(Debug, Default)]
pub(super) struct Grouping<T> {
    /// Where the next item of each bucket goes, then where the bucket ends.
    ends: Vec<u32>,
    sorted: Vec<T>,
}

impl<T: OfUser> Grouping<T> {
    /// Sorts items of a range in which `bits` of the fingerprint vary.
    pub(super) fn sort(&mut self, items: &[T], bits: u32) -> &[T] {
        if self.sorted.len() < items.len() {
            self.sorted.resize(items.len(), T::default());
        }
        // Most users have several items.
        let bucket_bits = (items.len() / 2).next_power_of_two().ilog2().max(1);
        let bucket = |item: T| {
            let varying = item.key() << (FINGERPRINT_BITS - bits);
            (varying >> (u64::BITS - bucket_bits)) as usize
        };
        self.ends.clear();
        self.ends.resize(1 << bucket_bits, 0);
        for item in items {
            self.ends[bucket(*item)] += 1;
        }
        let mut before = 0;
        for end in &mut self.ends {
            let count = *end;
            *end = before;
            before += count;
        }
        for item in items {
            let end = &mut self.ends[bucket(*item)];
            self.sorted[*end as usize] = *item;
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
        &self.sorted[..items.len()]
    }
}

fn sort_few<T: OfUser>(items: &mut [T]) {
    if items.len() > MANY {
        items.sort_unstable_by_key(|item| item.key());
        return;
    }
    // Most buckets have one user, whose items are already in order.
    for end in 1..items.len() {
        let item = items[end];
        let mut at = end;
        while at > 0 && items[at - 1].key() > item.key() {
            items[at] = items[at - 1];
            at -= 1;
        }
        items[at] = item;
    }
}

/// The items of each user, given all in ascending order.
pub(super) fn users<T: OfUser>(sorted: &[T]) -> impl Iterator<Item = &[T]> {
    let is_same =
        |one: &T, other: &T| (one.key() ^ other.key()) >> (u64::BITS - FINGERPRINT_BITS) == 0;
    sorted.chunk_by(is_same)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Entry;
    use domain::Slot;

    /// A user and a number.
    fn item(user: u64, number: u64) -> Entry {
        Entry::new(Fingerprint::from_number(user), Slot::new(number))
    }

    impl OfUser for Entry {
        fn key(self) -> u64 {
            self.to_bits()
        }
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
                let numbers = [2, 1, 4, 0xffff].into_iter();
                let items: Vec<Entry> = numbers
                    .flat_map(|number| users.iter().map(move |user| item(*user, number)))
                    .collect();
                let mut expected = items.clone();
                expected.sort();
                assert_eq!(grouping.sort(&items, bits), expected);
            }
        }
    }

    #[test]
    fn groups_by_user() {
        let sorted = [item(1, 3), item(2, 0), item(2, 9), item(3, 9)];
        let groups: Vec<usize> = users(&sorted).map(<[_]>::len).collect();
        assert_eq!(groups, [1, 2, 1]);
        assert_eq!(users::<Entry>(&[]).count(), 0);
    }
}
