//! Chooses the number of slots to read at once.

/// The target number of pairs of a range: enough that the cost of a round trip is small in comparison, few enough that
/// several ranges fit in memory (about two megabytes each).
const WANTED: u64 = 20_000;
/// How much wider than the average a range may become where there are few pairs.
const WIDEST: u64 = 4;

/// The width of the next range. It follows from the pairs of the last one: it grows by doubling at most, and shrinks at
/// once.
///
/// A width is *proven* if a range of that width had about the target number of pairs. A wider range may contain a slot
/// with very many users, so the caller checks its count before it reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stride {
    slots: u64,
    proven: u64,
    widest: u64,
}

impl Stride {
    /// The first width for a segment with `users` in `slots` slots.
    pub(super) fn new(users: u64, slots: u64) -> Self {
        let slots = slots.max(1);
        let average = (slots.saturating_mul(WANTED) / users.max(1)).clamp(1, slots);
        // One range can hold all users of a small segment, however they are distributed.
        let proven = if users <= WANTED { slots } else { 1 };
        Self {
            slots: average,
            proven,
            widest: average.saturating_mul(WIDEST).min(slots),
        }
    }

    /// The width of the next range, in slots.
    pub(super) fn slots(&self) -> u64 {
        self.slots
    }

    /// Whether the next range is wider than proven.
    pub(super) fn is_bold(&self) -> bool {
        self.slots > self.proven
    }

    /// Adapts to the fact that the next range has `users`. Returns whether the range is narrower now.
    pub(super) fn foresee(&mut self, users: u64) -> bool {
        if users <= 2 * WANTED || self.slots == 1 {
            return false;
        }
        self.slots = (self.slots / 2).max(1);
        true
    }

    /// Adapts to the fact that a range of `slots` had `pairs`.
    pub(super) fn learn(&mut self, slots: u64, pairs: u64) {
        let fitting = slots.saturating_mul(WANTED) / pairs.max(1);
        self.slots = fitting.min(slots.saturating_mul(2)).clamp(1, self.widest);
        if pairs >= WANTED / 4 {
            // All pairs of the range may have been at its end, so the proven width only doubles.
            self.proven = fitting.clamp(1, self.proven.saturating_mul(2));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the pairs of each range that is read from slots with these pairs.
    fn read(pairs: &[u64], users: u64) -> Vec<u64> {
        let mut stride = Stride::new(users, pairs.len() as u64);
        let (mut at, mut ranges) = (0, Vec::new());
        while at < pairs.len() {
            let mut looked = 0;
            let (end, sum) = loop {
                let end = (at + usize::try_from(stride.slots()).unwrap()).min(pairs.len());
                let sum: u64 = pairs[at..end].iter().sum();
                if !stride.is_bold() || !stride.foresee(sum) {
                    break (end, sum);
                }
                looked += 1;
                assert!(looked < 20);
            };
            stride.learn((end - at) as u64, sum);
            ranges.push(sum);
            at = end;
        }
        assert_eq!(ranges.iter().sum::<u64>(), pairs.iter().sum::<u64>());
        ranges
    }

    #[test]
    fn a_small_segment_is_one_range() {
        assert_eq!(read(&[1; 20_160], 20_160 / 2).len(), 1);
        assert_eq!(read(&[0; 10], 0).len(), 1);
    }

    #[test]
    fn an_even_segment_is_read_in_ranges_of_the_wanted_size() {
        let ranges = read(&[500; 20_000], 10_000_000);
        assert!(ranges.iter().all(|pairs| *pairs <= WANTED));
        assert!(ranges.len() < 600, "{}", ranges.len());
    }

    #[test]
    fn where_users_crowd_ranges_shrink_before_they_are_read() {
        // No pairs for days, then a burst; and the other way round.
        let mut pairs = vec![0; 20_000];
        pairs.extend([20_000; 160]);
        for _ in 0..2 {
            let ranges = read(&pairs, 20_000 * 160);
            assert!(
                ranges.iter().all(|pairs| *pairs <= 2 * WANTED),
                "{ranges:?}"
            );
            assert!(ranges.len() < 600, "{}", ranges.len());
            pairs.reverse();
        }
    }

    #[test]
    fn a_single_slot_is_the_narrowest_range() {
        let mut stride = Stride::new(u64::MAX, 10);
        assert_eq!(stride.slots(), 1);
        assert!(!stride.foresee(u64::MAX));
        stride.learn(1, 5_000_000);
        assert_eq!(stride.slots(), 1);
    }
}
