//! How many slots to read at once.

/// Pairs that one range should have: enough that a round trip costs little beside them, few enough that several
/// ranges fit into any memory (about two megabytes each).
const WANTED: u64 = 20_000;
/// How far a quiet stretch may widen a range beyond the average one.
const WIDEST: u64 = 4;

/// The width of the next range: from what the last one held, growing by doubling and shrinking at once.
///
/// A width is *proven* that held about as many pairs as are wanted. Beyond it users may crowd at any slot: who reads
/// so far looks ahead first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stride {
    slots: u64,
    proven: u64,
    widest: u64,
}

impl Stride {
    /// A first width for a segment with `users` in `slots` slots.
    pub(super) fn new(users: u64, slots: u64) -> Self {
        let slots = slots.max(1);
        let average = (slots.saturating_mul(WANTED) / users.max(1)).clamp(1, slots);
        // However the users of a small segment lie, one range can hold them all.
        let proven = if users <= WANTED { slots } else { 1 };
        Self {
            slots: average,
            proven,
            widest: average.saturating_mul(WIDEST).min(slots),
        }
    }

    /// Slots to read next, if they may hold so many users; else fewer.
    pub(super) fn slots(&self) -> u64 {
        self.slots
    }

    /// Whether the next range is wider than any that held enough to judge by.
    pub(super) fn is_bold(&self) -> bool {
        self.slots > self.proven
    }

    /// Learns that the next range would have `users`; says whether it is narrower now.
    pub(super) fn foresee(&mut self, users: u64) -> bool {
        if users <= 2 * WANTED || self.slots == 1 {
            return false;
        }
        self.slots = (self.slots / 2).max(1);
        true
    }

    /// Learns that a range of `slots` had `pairs`.
    pub(super) fn learn(&mut self, slots: u64, pairs: u64) {
        let fitting = slots.saturating_mul(WANTED) / pairs.max(1);
        self.slots = fitting.min(slots.saturating_mul(2)).clamp(1, self.widest);
        if pairs >= WANTED / 4 {
            // One range may have been quiet but for its end: trust comes by doubling.
            self.proven = fitting.clamp(1, self.proven.saturating_mul(2));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pairs of each range read, when the slots have these.
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
        // Nobody for days, then a thousand times as many as on average; and the other way round.
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
