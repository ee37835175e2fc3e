//! Counts of the past, per segment and window: all of the last two days, then one an hour, for 400 days.

use std::collections::HashMap;

use crate::domain::{Count, Segment, Timestamp};

const HOUR: u32 = 3600;
/// How long every point is kept.
const FINE: u32 = 48 * HOUR;
/// How long the last point of each hour is kept.
const KEPT: u32 = 400 * 24 * HOUR;

/// One count. Seconds since 1970 fit 32 bits until 2106; more users than 32 bits can tell become as many as they can.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Point {
    pub(super) at: u32,
    pub(super) users: u32,
}

/// The points of every segment and window.
#[derive(Debug, Default)]
pub(super) struct Trends {
    series: HashMap<(Segment, u64), Vec<Point>>,
}

impl Trends {
    /// Adds a point, in place of one of the same second.
    pub(super) fn add(&mut self, segment: &Segment, window: u64, at: Timestamp, users: u64) {
        let point = Point {
            at: seconds(at),
            users: u32::try_from(users).unwrap_or(u32::MAX),
        };
        let series = self.series.entry((segment.clone(), window)).or_default();
        let newest = series.last().map_or(0, |last| last.at);
        match series.binary_search_by_key(&point.at, |kept| kept.at) {
            Ok(index) => series[index] = point,
            Err(index) => series.insert(index, point),
        }
        // Once an hour is often enough to keep a series short.
        if point.at / HOUR > newest / HOUR {
            thin(series, point.at);
        }
    }

    /// The points from `from` to `to`, both included, oldest first.
    pub(super) fn read(
        &self,
        segment: &Segment,
        window: u64,
        from: Timestamp,
        to: Timestamp,
    ) -> Vec<Count> {
        let Some(series) = self.series.get(&(segment.clone(), window)) else {
            return Vec::new();
        };
        let first = series.partition_point(|point| i64::from(point.at) < ceiling(from));
        let points = series[first..]
            .iter()
            .take_while(|point| i64::from(point.at) <= to.as_second());
        points
            .filter_map(|point| {
                let as_of = Timestamp::from_second(i64::from(point.at)).ok()?;
                Some(Count {
                    users: u64::from(point.users),
                    as_of,
                })
            })
            .collect()
    }

    /// Every series, for a snapshot.
    pub(super) fn all(&self) -> impl Iterator<Item = (&Segment, u64, &[Point])> {
        self.series
            .iter()
            .map(|((segment, window), points)| (segment, *window, points.as_slice()))
    }
}

fn seconds(at: Timestamp) -> u32 {
    u32::try_from(at.as_second().max(0)).unwrap_or(u32::MAX)
}

/// The first whole second that is not before `at`.
fn ceiling(at: Timestamp) -> i64 {
    at.as_second() + i64::from(at.subsec_nanosecond() > 0)
}

/// Drops what is too old as of `now`, and all but the last point of each hour that is no longer fine.
fn thin(series: &mut Vec<Point>, now: u32) {
    let next_hours: Vec<u32> = series.iter().skip(1).map(|point| point.at / HOUR).collect();
    let mut index = 0;
    series.retain(|point| {
        let is_last_of_hour = next_hours.get(index) != Some(&(point.at / HOUR));
        index += 1;
        let age = now.saturating_sub(point.at);
        age <= FINE || age <= KEPT && is_last_of_hour
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_points_are_thinned_to_the_last_of_each_hour_and_dropped_after_400_days() {
        let segment = Segment::new("s").unwrap();
        let mut trends = Trends::default();
        let start = 1_800_000_000_i64;
        let minutes = 410 * 24 * 60;
        for minute in 0..minutes {
            let at = Timestamp::from_second(start + minute * 60).unwrap();
            trends.add(&segment, 60, at, u64::try_from(minute).unwrap());
        }
        let last = start + (minutes - 1) * 60;
        let at = |second| Timestamp::from_second(second).unwrap();
        let fine = trends.read(&segment, 60, at(last - 47 * 3600), at(last));
        assert_eq!(fine.len(), 47 * 60 + 1);
        let coarse = trends.read(
            &segment,
            60,
            at(last - 300 * 86_400),
            at(last - 299 * 86_400 - 1),
        );
        assert_eq!(coarse.len(), 24);
        assert!(
            coarse
                .iter()
                .all(|point| point.as_of.as_second() % 3600 == 3540)
        );
        let oldest = trends.read(&segment, 60, at(start), at(last))[0]
            .as_of
            .as_second();
        assert!(
            last - oldest <= 400 * 86_400 + 3600,
            "{} days",
            (last - oldest) / 86_400
        );
    }
}
