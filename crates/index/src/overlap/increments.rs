//! Increments of more counters than fit the CPU's cache: collected by part, and applied to a part at once.

/// The counters of a part (64 KiB) stay in the cache while they are incremented.
const PART_BITS: u32 = 14;

/// Increments collected for a part: a few for each cache line of it. They take an eighth of the memory of the counters.
const COLLECTED: usize = 1 << 12;

/// Increments that are still to be applied.
#[derive(Debug)]
pub(super) struct Increments {
    /// For each part, positions in it.
    parts: Vec<Vec<u16>>,
}

impl Increments {
    /// For this many counters.
    pub(super) fn new(counters: usize) -> Self {
        let parts = counters.div_ceil(1 << PART_BITS);
        let part = || Vec::with_capacity(COLLECTED);
        Self {
            parts: std::iter::repeat_with(part).take(parts).collect(),
        }
    }

    /// Increments the counter at a position, now or later.
    pub(super) fn add(&mut self, counters: &mut [u32], position: usize) {
        let number = position >> PART_BITS;
        let part = &mut self.parts[number];
        part.push((position & ((1 << PART_BITS) - 1)) as u16);
        if part.len() == COLLECTED {
            apply(number, part, counters);
        }
    }

    /// Applies what is left.
    pub(super) fn finish(mut self, counters: &mut [u32]) {
        for (number, part) in self.parts.iter_mut().enumerate() {
            apply(number, part, counters);
        }
    }
}

/// Applies the increments of a part. A counter stays at its maximum.
fn apply(number: usize, part: &mut Vec<u16>, counters: &mut [u32]) {
    let start = number << PART_BITS;
    let end = counters.len().min(start + (1 << PART_BITS));
    let counters = &mut counters[start..end];
    for position in part.drain(..) {
        let counter = &mut counters[usize::from(position)];
        *counter = counter.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn applies_each_increment_once() {
        for len in [1, 1 << PART_BITS, (3 << PART_BITS) + 5] {
            let mut counters = vec![0; len];
            let mut expected = vec![0; len];
            counters[0] = u32::MAX - 2;
            expected[0] = u32::MAX;
            let mut increments = Increments::new(len);
            for number in 0..20_000_usize {
                // Most are of few counters, so that a part is applied several times.
                let position = number * number % if number % 3 == 0 { len } else { len.min(7) };
                increments.add(&mut counters, position);
                expected[position] = expected[position].saturating_add(1);
            }
            increments.finish(&mut counters);
            assert_eq!(counters, expected);
        }
        Increments::new(0).finish(&mut []);
    }
}
