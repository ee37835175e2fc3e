//! Downsampling of trends.

use std::time::Duration;

use crate::Count;

/// Keeps the last point of each step. `points` must be in order of time; steps are aligned to the epoch.
pub fn last_of_each(points: Vec<Count>, step: Duration) -> Vec<Count> {
    let step = i64::try_from(step.as_secs().max(1)).unwrap_or(i64::MAX);
    let mut kept: Vec<Count> = Vec::new();
    for point in points {
        let bucket = |count: &Count| count.as_of.as_second().div_euclid(step);
        match kept.last_mut() {
            Some(last) if bucket(last) == bucket(&point) => *last = point,
            _ => kept.push(point),
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Timestamp;

    #[test]
    fn a_step_keeps_its_last_point() {
        let count = |second, users| Count {
            users,
            as_of: Timestamp::from_second(second).unwrap(),
        };
        let points = vec![count(0, 1), count(59, 2), count(60, 3), count(179, 4)];
        let kept = last_of_each(points, Duration::from_secs(60));
        assert_eq!(kept, [count(59, 2), count(60, 3), count(179, 4)]);
    }
}
