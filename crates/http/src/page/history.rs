//! The history of segments in the table: changes of the count, and a sparkline of the last week.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream;
use jiff::SignedDuration;
use tokio::time::{Instant, timeout_at};

use super::chart::{self, Point};
use domain::text::grouped;
use domain::{Count, Segment, Timestamp};
use engine::Headcount;

/// How long a history is cached: most services add a point once a minute.
const CACHE_TTL: Duration = Duration::from_secs(60);
const CACHE_CAPACITY: u64 = 10_000;
/// Histories that are loaded concurrently.
const PARALLELISM: usize = 8;
/// How long a page waits for histories. After that it is rendered without the missing ones.
const LOAD_TIMEOUT: Duration = Duration::from_secs(2);
/// Seconds per point of the sparkline: 56 points in a week.
const SPARK_STEP: i64 = 3 * 3_600;

/// A time span over which the table shows the change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Span {
    Hour,
    Day,
    Week,
}

/// The history of one segment.
#[derive(Debug, Clone, Default)]
pub(super) struct SegmentHistory {
    before: [Option<u64>; 3],
    line: Vec<Point>,
}

/// A change in the form of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Change {
    /// `+1,234`, `−5`, `0`, or a dash.
    pub(super) text: String,
    /// `up`, `down`, `same`, `unknown` if no count of that time is stored, or `failed`.
    pub(super) kind: &'static str,
}

/// Loads and caches histories.
#[derive(Debug)]
pub(super) struct History {
    cache: moka::sync::Cache<Segment, Arc<SegmentHistory>>,
}

impl Span {
    const ALL: [Self; 3] = [Self::Hour, Self::Day, Self::Week];

    fn seconds(self) -> i64 {
        match self {
            Self::Hour => 3_600,
            Self::Day => 86_400,
            Self::Week => 7 * 86_400,
        }
    }

    /// How much older than the span a count may be: stores downsample old points to one an hour, and refreshes may be
    /// rare.
    fn tolerance(self) -> i64 {
        match self {
            Self::Hour => 1_800,
            Self::Day => 2 * 3_600,
            Self::Week => 6 * 3_600,
        }
    }
}

impl Default for History {
    fn default() -> Self {
        let cache = moka::sync::Cache::builder()
            .max_capacity(CACHE_CAPACITY)
            .time_to_live(CACHE_TTL)
            .build();
        Self { cache }
    }
}

impl History {
    /// The histories of `segments`, without those that can't be loaded in time.
    pub(super) async fn of(
        &self,
        app: &Headcount,
        segments: impl IntoIterator<Item = Segment>,
    ) -> HashMap<Segment, Arc<SegmentHistory>> {
        let deadline = Instant::now() + LOAD_TIMEOUT;
        let mut asked = stream::iter(segments)
            .map(|segment| async move {
                let history = match self.cache.get(&segment) {
                    Some(history) => Some(history),
                    None => self.load(app, &segment).await,
                };
                Some((segment, history?))
            })
            .buffer_unordered(PARALLELISM);
        let mut found = HashMap::new();
        while let Ok(Some(history)) = timeout_at(deadline, asked.next()).await {
            found.extend(history);
        }
        found
    }

    async fn load(&self, app: &Headcount, segment: &Segment) -> Option<Arc<SegmentHistory>> {
        let now = app.clock().now();
        let longest = Span::Week.seconds() + Span::Week.tolerance();
        let from = now.checked_sub(SignedDuration::from_secs(longest)).ok()?;
        let window = app.counts().window_of(segment);
        // A history that can't be loaded is missing, and the table shows that.
        let points = app
            .counts()
            .trend(segment, window, from, now, None)
            .await
            .ok()?;
        let history = Arc::new(SegmentHistory::new(&points, now));
        self.cache.insert(segment.clone(), Arc::clone(&history));
        Some(history)
    }
}

impl SegmentHistory {
    fn new(points: &[Count], now: Timestamp) -> Self {
        let before = Span::ALL.map(|span| {
            let then = now.as_second() - span.seconds();
            let until = points.partition_point(|point| point.as_of.as_second() <= then);
            let last = points.get(until.checked_sub(1)?)?;
            (last.as_of.as_second() >= then - span.tolerance()).then_some(last.users)
        });
        let begin = now.as_second() - Span::Week.seconds();
        let mut line: Vec<Point> = Vec::new();
        for point in points {
            let (at, users) = (point.as_of.as_second(), point.users);
            if at < begin {
                continue;
            }
            match line.last_mut() {
                Some(last) if last.0 / SPARK_STEP == at / SPARK_STEP => *last = (at, users),
                _ => line.push((at, users)),
            }
        }
        Self { before, line }
    }

    /// The difference between `users` and the count of `span` ago.
    pub(super) fn change(&self, span: Span, users: u64) -> Option<i64> {
        let before = self.before[span as usize]?;
        i64::try_from(users)
            .ok()?
            .checked_sub(i64::try_from(before).ok()?)
    }

    /// The line of the last week, up to `users` at `now`.
    pub(super) fn line(&self, users: u64, now: Timestamp) -> Vec<Point> {
        let mut line = self.line.clone();
        line.push((now.as_second(), users));
        line
    }
}

/// The sparkline, and a text alternative for screen readers. `None` for fewer than three points.
pub(super) fn drawn(line: &[Point]) -> Option<(String, String)> {
    let (first, last) = (line.first()?, line.last()?);
    if line.len() < 3 {
        return None;
    }
    let users = || line.iter().map(|(_, users)| *users);
    let label = format!(
        "last week: from {} to {} users, between {} and {}",
        grouped(first.1),
        grouped(last.1),
        grouped(users().min()?),
        grouped(users().max()?),
    );
    Some((chart::spark(line), label))
}

impl Change {
    /// The change of a history that could not be loaded.
    pub(super) fn failed() -> Self {
        Self {
            text: "–".to_owned(),
            kind: "failed",
        }
    }

    /// A change as a number, or a dash if it is unknown.
    pub(super) fn new(change: Option<i64>) -> Self {
        let (text, kind) = match change {
            None => ("–".to_owned(), "unknown"),
            Some(0) => ("0".to_owned(), "same"),
            Some(more @ 1..) => (format!("+{}", grouped(more.unsigned_abs())), "up"),
            Some(less) => (format!("−{}", grouped(less.unsigned_abs())), "down"),
        };
        Self { text, kind }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_told_where_a_count_of_then_is_known() {
        let now = 1_795_262_400;
        let count = |ago: i64, users| Count {
            users,
            as_of: Timestamp::from_second(now - ago).unwrap(),
        };
        let points = [
            count(8 * 86_400, 1),
            count(86_500, 100),
            count(3_700, 150),
            count(60, 170),
        ];
        let history = SegmentHistory::new(&points, Timestamp::from_second(now).unwrap());
        assert_eq!(history.change(Span::Hour, 160), Some(10));
        assert_eq!(history.change(Span::Day, 90), Some(-10));
        assert_eq!(
            history.change(Span::Week, 90),
            None,
            "eight days are no week"
        );
        assert_eq!(history.line.len(), 2, "one point each three hours");
        let texts = [None, Some(0), Some(1_234), Some(-5)].map(|change| Change::new(change).text);
        assert_eq!(texts, ["–", "0", "+1,234", "−5"]);
    }
}
