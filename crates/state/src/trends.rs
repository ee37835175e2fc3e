//! The trend: past counts per segment and window. All points are kept for two days, then one per hour for 400 days.

use std::collections::{HashMap, VecDeque};

use domain::{Count, Segment, Timestamp};

const HOUR: u32 = 3600;
/// How long every point is kept, relative to the newest point of its series.
const FINE: u32 = 48 * HOUR;
/// How long the last point of each hour is kept.
const KEPT: u32 = 400 * 24 * HOUR;

/// One count. Unix seconds fit 32 bits until 2106; the number of users saturates at 32 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point {
    /// Unix seconds.
    pub at: u32,
    /// Users.
    pub users: u32,
}

impl Point {
    /// A point; both numbers saturate.
    pub fn new(seconds: i64, users: u64) -> Self {
        Self {
            at: u32::try_from(seconds.max(0)).unwrap_or(u32::MAX),
            users: u32::try_from(users).unwrap_or(u32::MAX),
        }
    }
}

/// The points of every segment and window.
#[derive(Debug, Default)]
pub struct Trends {
    series: HashMap<(Segment, u64), Series>,
}

impl Trends {
    /// Adds a point, which replaces one of the same second. Adding a point again changes nothing.
    pub fn add(&mut self, segment: &Segment, window: u64, point: Point) {
        let series = self.series.entry((segment.clone(), window)).or_default();
        series.add(point);
    }

    /// The points from `from` to `to`, both included, oldest first.
    pub fn read(
        &self,
        segment: &Segment,
        window: u64,
        from: Timestamp,
        to: Timestamp,
    ) -> Vec<Count> {
        let Some(series) = self.series.get(&(segment.clone(), window)) else {
            return Vec::new();
        };
        let wanted = ceiling(from)..=to.as_second();
        let points = series.points();
        points
            .filter(|point| wanted.contains(&i64::from(point.at)))
            .filter_map(|point| {
                let as_of = Timestamp::from_second(i64::from(point.at)).ok()?;
                let users = u64::from(point.users);
                Some(Count { users, as_of })
            })
            .collect()
    }

    /// Removes the points of a segment over all windows.
    pub(super) fn remove(&mut self, segment: &Segment) {
        self.series.retain(|(of, _), _| of != segment);
    }

    /// Every segment and window that has points.
    pub(super) fn keys(&self) -> Vec<(Segment, u64)> {
        self.series.keys().cloned().collect()
    }

    /// All points of a segment and window, oldest first.
    pub(super) fn points(&self, segment: &Segment, window: u64) -> Vec<Point> {
        let series = self.series.get(&(segment.clone(), window));
        series.map_or_else(Vec::new, |series| series.points().collect())
    }

    /// Drops the series whose newest point has expired, relative to the newest point of all series.
    pub(super) fn drop_ended(&mut self) {
        let newest = self.series.values().map(Series::newest).max().unwrap_or(0);
        self.series
            .retain(|_, series| newest - series.newest() <= KEPT);
    }
}

/// The points of one segment and window. The result depends only on the points that were added, not on the time: so
/// replay on top of a snapshot leads to the same points.
#[derive(Debug, Default)]
struct Series {
    /// The last point of each hour, for points older than [`FINE`]; ascending.
    hours: VecDeque<Point>,
    /// Every newer point; ascending.
    fine: VecDeque<Point>,
}

impl Series {
    fn newest(&self) -> u32 {
        self.fine.back().map_or(0, |point| point.at)
    }

    fn points(&self) -> impl Iterator<Item = Point> {
        self.hours.iter().chain(&self.fine).copied()
    }

    fn add(&mut self, point: Point) {
        if point.at < self.newest().saturating_sub(FINE) {
            self.add_to_hours(point);
        } else {
            match self.fine.binary_search_by_key(&point.at, |kept| kept.at) {
                Ok(position) => self.fine[position] = point,
                Err(position) => self.fine.insert(position, point),
            }
        }
        let newest = self.newest();
        let is_before = |point: Option<&Point>, age| {
            point.is_some_and(|point| point.at < newest.saturating_sub(age))
        };
        while is_before(self.fine.front(), FINE) {
            if let Some(point) = self.fine.pop_front() {
                self.add_to_hours(point);
            }
        }
        while is_before(self.hours.front(), KEPT) {
            self.hours.pop_front();
        }
    }

    /// Keeps an old point if it is the last one of its hour so far.
    fn add_to_hours(&mut self, point: Point) {
        let hour = |point: &Point| point.at / HOUR;
        match self.hours.binary_search_by_key(&hour(&point), hour) {
            Ok(position) if self.hours[position].at <= point.at => self.hours[position] = point,
            Ok(_) => {}
            Err(position) => self.hours.insert(position, point),
        }
    }
}

/// Rounds up to a whole second.
fn ceiling(at: Timestamp) -> i64 {
    at.as_second() + i64::from(at.subsec_nanosecond() > 0)
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
            let point = Point::new(start + minute * 60, minute.unsigned_abs());
            trends.add(&segment, 60, point);
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

    #[test]
    fn a_second_has_one_point_and_repeating_the_past_changes_nothing() {
        let segment = Segment::new("s").unwrap();
        let given: Vec<Point> = (0..10_000)
            .map(|n| Point::new(1_800_000_000 + n * 67, n.unsigned_abs()))
            .collect();
        let (mut once, mut twice) = (Trends::default(), Trends::default());
        for point in &given {
            once.add(&segment, 60, *point);
        }
        // As after a replay of records that the snapshot already covers.
        for point in given.iter().chain(&given[2_000..]) {
            twice.add(&segment, 60, *point);
        }
        let points = |trends: &Trends| trends.points(&segment, 60);
        assert!(points(&once) == points(&twice));
        let last = Point {
            users: 7,
            ..given[9_999]
        };
        once.add(&segment, 60, last);
        assert_eq!(once.points(&segment, 60).last(), Some(&last));
    }

    #[test]
    fn a_series_that_ended_long_ago_goes() {
        let (old, new) = (Segment::new("old").unwrap(), Segment::new("new").unwrap());
        let mut trends = Trends::default();
        let start = 1_800_000_000;
        trends.add(&old, 60, Point::new(start, 1));
        trends.add(&new, 60, Point::new(start + i64::from(KEPT), 1));
        trends.drop_ended();
        assert_eq!(trends.keys().len(), 2);
        trends.add(&new, 60, Point::new(start + i64::from(KEPT) + 1, 1));
        trends.drop_ended();
        assert_eq!(trends.keys(), [(new, 60)]);
    }
}
