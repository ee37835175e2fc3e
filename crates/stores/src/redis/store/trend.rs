//! The trend: past counts in hashes of bounded size, which Redis stores in its compact encoding.
//!
//! Each point is written twice: into the bucket of its four hours, and as the last point of its hour, unless the hour
//! has a later one. The former buckets expire two days after their last write, the latter after 400 days. So no job has
//! to thin out points. With one point a minute, a segment's trend over one window takes about 150 KB after a year; a
//! sorted set of the same points would take eight times as much.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use crate::redis::Request;
use domain::{Count, Timestamp};

const HOUR: u64 = 3_600;
const DAY: u64 = 24 * HOUR;
/// Seconds of a bucket of all points: 240 points, one a minute, fit a hash that Redis keeps compact.
const FINE_SECONDS: u64 = 4 * HOUR;
/// Seconds of a bucket of hours: 240 hours.
const HOURS_SECONDS: u64 = 10 * DAY;
/// Seconds that all points are kept.
const KEEP_FINE: u64 = 2 * DAY;
/// Seconds that the last point of each hour is kept.
const KEEP_HOURS: u64 = 400 * DAY;

/// The buckets of one segment and window.
#[derive(Debug)]
pub(super) struct Buckets {
    base: String,
}

impl Buckets {
    /// Buckets with `base` as the prefix of their keys; `base` itself is the key of the newest second.
    pub(super) fn of(base: String) -> Self {
        Self { base }
    }

    /// The keys and arguments of the script that writes a point; see [`Scripts`](super::scripts::Scripts).
    pub(super) fn write(&self, count: Count) -> (Vec<String>, Vec<String>) {
        let second = u64::try_from(count.as_of.as_second()).unwrap_or(0);
        let keys = vec![
            self.base.clone(),
            self.fine(second / FINE_SECONDS),
            self.hours(second / HOURS_SECONDS),
        ];
        let args = [
            second,
            count.users,
            second / HOUR,
            KEEP_FINE * 1_000,
            KEEP_HOURS * 1_000,
        ];
        (keys, args.map(|arg| arg.to_string()).to_vec())
    }

    /// The requests for every bucket with points in `seconds` that can exist when the newest point is at `newest`.
    pub(super) fn read(&self, seconds: &RangeInclusive<u64>, newest: u64) -> Vec<Request<'static>> {
        let keys = self.buckets(seconds, newest).into_iter();
        keys.map(|key| Request::command("HGETALL", key)).collect()
    }

    /// Every key that can exist when the newest point is at `newest`.
    pub(super) fn keys(&self, newest: u64) -> Vec<String> {
        let mut keys = self.buckets(&(0..=newest), newest);
        keys.push(self.base.clone());
        keys
    }

    fn buckets(&self, seconds: &RangeInclusive<u64>, newest: u64) -> Vec<String> {
        let last = newest.min(*seconds.end());
        let first = |keep: u64, bucket: u64| {
            let kept_from = newest.saturating_sub(keep + bucket);
            (*seconds.start()).max(kept_from) / bucket
        };
        // A second that is in both kinds of buckets has the same value in both.
        let hours = first(KEEP_HOURS, HOURS_SECONDS)..=last / HOURS_SECONDS;
        let fine = first(KEEP_FINE, FINE_SECONDS)..=last / FINE_SECONDS;
        let keys = hours
            .map(|bucket| self.hours(bucket))
            .chain(fine.map(|bucket| self.fine(bucket)));
        keys.collect()
    }

    fn fine(&self, bucket: u64) -> String {
        format!("{}:fine:{bucket}", self.base)
    }

    fn hours(&self, bucket: u64) -> String {
        format!("{}:hours:{bucket}", self.base)
    }
}

/// Parses the points of all buckets: each second once, oldest first. `None` if one of them is invalid.
pub(super) fn points(
    fields: impl IntoIterator<Item = (String, String)>,
    seconds: &RangeInclusive<u64>,
) -> Option<Vec<Count>> {
    let mut points = BTreeMap::new();
    for (field, value) in fields {
        // The value of an hour holds the second of its point.
        let (second, users) = value.split_once(' ').unwrap_or((&field, &value));
        let (second, users): (u64, u64) = (second.parse().ok()?, users.parse().ok()?);
        if seconds.contains(&second) {
            points.insert(second, users);
        }
    }
    let count = |(second, users): (u64, u64)| {
        let as_of = Timestamp::from_second(i64::try_from(second).ok()?).ok()?;
        Some(Count { users, as_of })
    };
    points.into_iter().map(count).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_asks_for_what_can_exist_and_no_more() {
        let buckets = Buckets::of("k".to_owned());
        let newest = 1_795_262_400;
        let of_ever = buckets.read(&(0..=u64::MAX), newest);
        assert!(of_ever.len() < 60, "{}", of_ever.len());
        let of_an_hour = buckets.read(&(newest - HOUR..=newest), newest);
        assert!((2..=4).contains(&of_an_hour.len()), "{}", of_an_hour.len());
        assert!(
            buckets
                .read(&(newest + DAY..=newest + 2 * DAY), newest)
                .len()
                < 2
        );
        assert_eq!(buckets.read(&(0..=10), 5).len(), 2);
    }

    #[test]
    fn points_are_merged_by_second() {
        let fields = [
            ("498684", "1795262460 7"),
            ("1795262460", "7"),
            ("1795262400", "6"),
        ];
        let fields = fields.map(|(field, value)| (field.to_owned(), value.to_owned()));
        let read = points(fields.clone(), &(1_795_262_400..=1_795_262_460)).unwrap();
        let read: Vec<_> = read
            .iter()
            .map(|it| (it.as_of.as_second(), it.users))
            .collect();
        assert_eq!(read, [(1_795_262_400, 6), (1_795_262_460, 7)]);
        assert_eq!(points(fields, &(0..=5)).unwrap(), []);
        let bad = [("x".to_owned(), "y".to_owned())];
        assert_eq!(points(bad, &(0..=5)), None);
    }
}
