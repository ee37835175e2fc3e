//! The counts of the past that a page draws.

use std::ops::Range;
use std::time::Duration;

use super::chart::Point;
use super::period::{Period, lengths};
use domain::store::StoreError;
use domain::{Segment, Timestamp, Window};
use engine::Headcount;

/// Most points of a line: a screen can't show more.
const POINTS: u64 = 360;

/// The points of a segment, and those of the period before.
#[derive(Debug, Default)]
pub(super) struct Trend {
    pub(super) points: Vec<Point>,
    /// At the times of this period.
    pub(super) before: Vec<Point>,
}

/// The points of `segment`. The count of now, `users`, is the last one of a period that ends now.
pub(super) async fn trend(
    app: &Headcount,
    segment: &Segment,
    period: &Period,
    users: Option<u64>,
    with_before: bool,
) -> Result<Trend, StoreError> {
    let mut points = points(app, segment, period.window, &period.span).await?;
    // Without any point of the past there is nothing to compare.
    if let Some(users) = users
        && period.ends_now
        && !points.is_empty()
    {
        points.retain(|point| point.0 < period.span.end);
        points.push((period.span.end, users));
    }
    let before = match with_before {
        true => {
            let before = period.before();
            let length = before.end - before.start;
            let points = self::points(app, segment, period.window, &before).await?;
            points
                .into_iter()
                .map(|(at, users)| (at + length, users))
                .collect()
        }
        false => Vec::new(),
    };
    Ok(Trend { points, before })
}

/// Why there is no past of the window: only those of some windows are recorded. `None` if there may be one.
pub(super) fn unrecorded(app: &Headcount, period: &Period) -> Option<String> {
    let recorded = app.counts().refreshed_windows();
    if recorded.contains(&period.window) {
        return None;
    }
    Some(format!(
        "Changes and charts are recorded for windows of {} only (setting refresh_windows).",
        lengths(recorded)
    ))
}

/// The seconds for which a line has one point.
pub(super) fn step(span: &Range<i64>) -> u64 {
    (span.end.abs_diff(span.start) / POINTS).max(1)
}

async fn points(
    app: &Headcount,
    segment: &Segment,
    window: Window,
    span: &Range<i64>,
) -> Result<Vec<Point>, StoreError> {
    let at = |seconds| Timestamp::from_second(seconds).unwrap_or_default();
    let (from, to) = (at(span.start), at(span.end));
    let step = Duration::from_secs(step(span));
    let counts = app.counts();
    let mut points = counts.trend(segment, window, from, to, Some(step)).await?;
    if points.len() < 2 {
        // A new service has its few points within one step.
        points = counts.trend(segment, window, from, to, None).await?;
    }
    let points = points.iter();
    Ok(points
        .map(|count| (count.as_of.as_second(), count.users))
        .collect())
}

/// The mean of the users of `points`; `None` without points.
pub(super) fn mean(points: &[Point]) -> Option<u64> {
    let sum: u128 = points.iter().map(|point| u128::from(point.1)).sum();
    let number = u128::try_from(points.len()).ok()?;
    let mean = (sum + number / 2).checked_div(number)?;
    u64::try_from(mean).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mean_is_rounded() {
        assert_eq!(mean(&[]), None);
        assert_eq!(mean(&[(0, 1), (1, 2)]), Some(2));
        assert_eq!(mean(&[(0, u64::MAX), (1, u64::MAX)]), Some(u64::MAX));
        assert_eq!(step(&(0..86_400)), 240);
        assert_eq!(step(&(0..60)), 1);
    }
}
