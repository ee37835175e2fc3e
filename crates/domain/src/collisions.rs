//! How many users a store hides that keeps users of one segment, slot and offset in the slot as one point, as InfluxDB does.

use crate::Resolution;

/// An upper bound of the users that are hidden where each slot has this many users. The offset of a point is a hash of the
/// user, in nanoseconds, so with `n` users a slot of `t` nanoseconds is expected to hide `n^2 / 2t` of them. The result is
/// five standard deviations above the sum over the slots, plus one: a Poisson variable exceeds it less than once in a thousand times.
///
/// A user is hidden only if the point of their latest slot is. Where only the number of distinct users of a window is known,
/// it may be passed as one slot: no slot has more users, and each user has one latest slot, so no other distribution hides
/// more.
pub fn hidden_at_most(
    users_per_slot: impl IntoIterator<Item = u64>,
    resolution: Resolution,
) -> u64 {
    let nanoseconds = f64::from(resolution.seconds()) * 1e9;
    let expected: f64 = users_per_slot
        .into_iter()
        .map(|users| users as f64 * users as f64 / (2.0 * nanoseconds))
        .sum();
    (expected + 5.0 * expected.sqrt() + 1.0) as u64
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::TimeFrame;

    fn resolution() -> Resolution {
        let second = Duration::from_secs(1);
        TimeFrame::new(second * 60, second, second)
            .unwrap()
            .resolution()
    }

    /// The users of one slot that share their offset with another one that is kept.
    fn hidden(users: u64, random: &mut fastrand::Rng) -> u64 {
        let mut offsets: Vec<u64> = (0..users).map(|_| random.u64(..1_000_000_000)).collect();
        offsets.sort_unstable();
        offsets.dedup();
        users - offsets.len() as u64
    }

    #[test]
    fn random_offsets_hide_as_many_as_expected_and_never_more_than_the_bound() {
        let mut random = fastrand::Rng::with_seed(11);
        for slots in [&[300][..], &[60_000], &[50_000, 10_000, 0, 30_000]] {
            let bound = hidden_at_most(slots.iter().copied(), resolution());
            let expected: f64 = slots.iter().map(|n| (n * n) as f64 / 2e9).sum();
            let rounds = 50;
            let mut all = 0;
            for _ in 0..rounds {
                let hidden: u64 = slots.iter().map(|n| hidden(*n, &mut random)).sum();
                assert!(hidden <= bound, "{slots:?}: {hidden} of {bound}");
                all += hidden;
            }
            let (mean, deviation) = (all as f64 / 50.0, (expected / 50.0).sqrt());
            assert!((mean - expected).abs() <= 5.0 * deviation, "{slots:?}");
        }
    }

    #[test]
    fn one_slot_with_all_users_hides_the_most() {
        assert_eq!(hidden_at_most([], resolution()), 1);
        let spread = hidden_at_most([250_000; 4], resolution());
        let together = hidden_at_most([1_000_000], resolution());
        assert!(spread < together, "{spread} of {together}");
        // 500 expected, and a deviation of 22.4.
        assert_eq!(together, 612);
    }
}
