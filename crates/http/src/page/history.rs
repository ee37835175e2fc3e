//! What the table says of a segment's past: how the count changed, and a line of the last week.

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

/// A past is looked up again after this time; a minute is how often most services add to it.
const KEPT: Duration = Duration::from_secs(60);
const MAX_KEPT: u64 = 10_000;
/// Pasts looked up at once, and for how long a page waits for them: it comes without the rest, which the next one has.
const PARALLELISM: usize = 8;
const PATIENCE: Duration = Duration::from_secs(2);
/// A point of the line stands for so many seconds: 56 of them in a week.
const SPARK_STEP: i64 = 3 * 3_600;

/// A length of time over which the table tells the change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Span {
    Hour,
    Day,
    Week,
}

/// What is known of a segment's past.
#[derive(Debug, Clone, Default)]
pub(super) struct Past {
    before: [Option<u64>; 3],
    line: Vec<Point>,
}

/// A change as the table shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Change {
    /// `+1,234`, `−5`, `0`, or a dash.
    pub(super) text: String,
    /// `up`, `down`, `same`, `unknown` where no count of then is kept, or `failed`.
    pub(super) kind: &'static str,
}

/// Looks pasts up, and remembers them for a while.
#[derive(Debug)]
pub(super) struct History {
    kept: moka::sync::Cache<Segment, Arc<Past>>,
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

    /// How much older than its length a count may be: stores thin old points out to one an hour, and refreshes
    /// may be rare.
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
        let kept = moka::sync::Cache::builder()
            .max_capacity(MAX_KEPT)
            .time_to_live(KEPT)
            .build();
        Self { kept }
    }
}

impl History {
    /// The pasts of `segments`, but for those that can't be had in time.
    pub(super) async fn of(
        &self,
        app: &Headcount,
        segments: impl IntoIterator<Item = Segment>,
    ) -> HashMap<Segment, Arc<Past>> {
        let deadline = Instant::now() + PATIENCE;
        let mut asked = stream::iter(segments)
            .map(|segment| async move {
                let past = match self.kept.get(&segment) {
                    Some(past) => Some(past),
                    None => self.look_up(app, &segment).await,
                };
                Some((segment, past?))
            })
            .buffer_unordered(PARALLELISM);
        let mut found = HashMap::new();
        while let Ok(Some(past)) = timeout_at(deadline, asked.next()).await {
            found.extend(past);
        }
        found
    }

    async fn look_up(&self, app: &Headcount, segment: &Segment) -> Option<Arc<Past>> {
        let now = app.clock().now();
        let longest = Span::Week.seconds() + Span::Week.tolerance();
        let from = now.checked_sub(SignedDuration::from_secs(longest)).ok()?;
        let window = app.frame().full_window();
        // A past that can't be read is missing, and the table says so.
        let points = app
            .counts()
            .trend(segment, window, from, now, None)
            .await
            .ok()?;
        let past = Arc::new(Past::new(&points, now));
        self.kept.insert(segment.clone(), Arc::clone(&past));
        Some(past)
    }
}

impl Past {
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

    /// By how many users the count differs from that of `span` ago.
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

/// The line as a drawing, and in words for who does not see it. One point is no line.
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
    /// One of a past that could not be read.
    pub(super) fn failed() -> Self {
        Self {
            text: "–".to_owned(),
            kind: "failed",
        }
    }

    /// A change in figures.
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
        let past = Past::new(&points, Timestamp::from_second(now).unwrap());
        assert_eq!(past.change(Span::Hour, 160), Some(10));
        assert_eq!(past.change(Span::Day, 90), Some(-10));
        assert_eq!(past.change(Span::Week, 90), None, "eight days are no week");
        assert_eq!(past.line.len(), 2, "one point each three hours");
        let texts = [None, Some(0), Some(1_234), Some(-5)].map(|change| Change::new(change).text);
        assert_eq!(texts, ["–", "0", "+1,234", "−5"]);
    }
}
