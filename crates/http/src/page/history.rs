//! The history of segments in the table: the change of the count over the range, and a sparkline.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream;
use tokio::time::{Instant, timeout_at};

use super::chart::{self, Track};
use super::period::Period;
use domain::text::grouped;
use domain::{Segment, Timestamp, Window};
use engine::Headcount;
use engine::counts::ShownCount;

/// How long a history is cached: most services add a point once a minute.
const CACHE_TTL: Duration = Duration::from_secs(60);
const CACHE_CAPACITY: u64 = 10_000;
/// Histories that are loaded concurrently.
const PARALLELISM: usize = 8;
/// How long a page waits for histories. After that it is rendered without the missing ones.
const LOAD_TIMEOUT: Duration = Duration::from_secs(2);
/// Points of a sparkline.
const POINTS: i64 = 56;
/// How much older than the beginning of the range a count may be: stores downsample old points to one an hour, and
/// refreshes may be rare. At most half of the range.
const MIN_TOLERANCE: i64 = 2 * 3_600;

/// The history of one segment.
#[derive(Debug, Clone, Default)]
pub(super) struct SegmentHistory {
    /// The count at the beginning of the range, if it is stored.
    pub(super) before: Option<u64>,
    track: Track,
}

/// A history is identified by its segment, its window, the length of its range, and the end unless that is now.
type Key = (Segment, Window, i64, Option<i64>);

/// Loads and caches histories.
#[derive(Debug)]
pub(super) struct History {
    cache: moka::sync::Cache<Key, Arc<SegmentHistory>>,
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
    /// The histories of segments, each over its window, over the range of `period`. Those that can't be loaded in time are
    /// missing.
    pub(super) async fn of(
        &self,
        app: &Headcount,
        segments: impl IntoIterator<Item = (Segment, Window)>,
        period: &Period,
    ) -> HashMap<Segment, Arc<SegmentHistory>> {
        let deadline = Instant::now() + LOAD_TIMEOUT;
        let mut asked = stream::iter(segments)
            .map(|(segment, window)| async move {
                let span = &period.span;
                let end = (!period.ends_now).then_some(span.end);
                let key = (segment, window, span.end - span.start, end);
                let history = match self.cache.get(&key) {
                    Some(history) => Some(history),
                    None => self.load(app, &key, period).await,
                };
                Some((key.0, history?))
            })
            .buffer_unordered(PARALLELISM);
        let mut found = HashMap::new();
        while let Ok(Some(history)) = timeout_at(deadline, asked.next()).await {
            found.extend(history);
        }
        found
    }

    async fn load(
        &self,
        app: &Headcount,
        key: &Key,
        period: &Period,
    ) -> Option<Arc<SegmentHistory>> {
        let span = &period.span;
        let at = |seconds| Timestamp::from_second(seconds).ok();
        let from = at(span.start - tolerance(span))?;
        let step = Duration::from_secs(step(span).unsigned_abs());
        // A history that can't be loaded is missing, and the table shows that.
        let points = app
            .counts()
            .past_counts(&key.0, key.1, from, at(span.end)?, Some(step))
            .await
            .ok()?;
        let history = Arc::new(SegmentHistory::new(&points, span));
        self.cache.insert(key.clone(), Arc::clone(&history));
        Some(history)
    }
}

fn step(span: &Range<i64>) -> i64 {
    ((span.end - span.start) / POINTS).max(1)
}

fn tolerance(span: &Range<i64>) -> i64 {
    let length = span.end - span.start;
    (2 * step(span)).max(MIN_TOLERANCE.min(length / 2))
}

impl SegmentHistory {
    fn new(counts: &[ShownCount], span: &Range<i64>) -> Self {
        let until = counts.partition_point(|count| count.as_of.as_second() <= span.start);
        let last = until.checked_sub(1).and_then(|last| counts.get(last));
        let before = last.filter(|last| last.as_of.as_second() >= span.start - tolerance(span));
        Self {
            before: before.and_then(|before| before.users),
            track: counts.iter().skip(until).copied().collect(),
        }
    }

    /// The difference between `users` and the count at the beginning.
    pub(super) fn change(&self, users: u64) -> Option<i64> {
        let before = i64::try_from(self.before?).ok()?;
        i64::try_from(users).ok()?.checked_sub(before)
    }

    /// The change in parts per million of the count at the beginning.
    pub(super) fn relative_change(&self, users: u64) -> Option<i128> {
        let before = self.before.filter(|before| *before > 0)?;
        Some(i128::from(self.change(users)?) * 1_000_000 / i128::from(before))
    }

    /// The line of the range, up to `users` at its end.
    pub(super) fn line(&self, users: Option<u64>, period: &Period) -> Track {
        let mut track = self.track.clone();
        if let Some(users) = users
            && period.ends_now
        {
            track.points.push((period.span.end, users));
        }
        track
    }
}

/// The sparkline, and a text alternative for screen readers. `None` for fewer than three points.
pub(super) fn drawn(track: &Track) -> Option<(String, String)> {
    let line = &track.points;
    let (first, last) = (line.first()?, line.last()?);
    if line.len() < 3 {
        return None;
    }
    let users = || line.iter().map(|(_, users)| *users);
    let label = format!(
        "from {} to {} users, between {} and {}",
        grouped(first.1),
        grouped(last.1),
        grouped(users().min()?),
        grouped(users().max()?),
    );
    Some((chart::spark(track), label))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_known_where_a_count_of_then_is_stored() {
        let now = 1_795_262_400;
        let count = |ago: i64, users| ShownCount {
            users: Some(users),
            as_of: Timestamp::from_second(now - ago).unwrap(),
        };
        let points = [
            count(8 * 86_400, 1),
            count(86_500, 100),
            count(3_700, 150),
            count(60, 170),
        ];
        let history = |seconds| SegmentHistory::new(&points, &(now - seconds..now));
        assert_eq!(history(3_600).change(160), Some(10));
        assert_eq!(history(86_400).change(90), Some(-10));
        assert_eq!(history(86_400).relative_change(90), Some(-100_000));
        let week = history(7 * 86_400);
        assert_eq!(week.change(90), None, "eight days are no week");
        assert_eq!(week.track.points.len(), 3);
    }
}
