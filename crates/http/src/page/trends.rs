//! The counts of the past that a page draws.

use std::ops::Range;
use std::time::Duration;

use super::chart::{Point, Track};
use super::period::{Period, lengths};
use domain::store::StoreError;
use domain::{Segment, Timestamp, Window};
use engine::Headcount;
use engine::counts::ShownCount;

/// Most points of a line: a screen can't show more.
const POINTS: u64 = 360;

/// The counts of a segment over a period, and those of the period before.
#[derive(Debug, Default)]
pub(super) struct Trend {
    pub(super) track: Track,
    /// At the times of this period.
    pub(super) before: Track,
}

impl Trend {
    pub(super) fn points(&self) -> &[Point] {
        &self.track.points
    }
}

/// The points of `segment`. The count of now, `users`, is the last one of a period that ends now.
pub(super) async fn trend(
    app: &Headcount,
    segment: &Segment,
    period: &Period,
    users: Option<u64>,
    with_before: bool,
) -> Result<Trend, StoreError> {
    let mut track = track(app, segment, period.window, &period.span).await?;
    let points = &mut track.points;
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
            let mut track = self::track(app, segment, period.window, &before).await?;
            let times = track.points.iter_mut().map(|point| &mut point.0);
            times.chain(&mut track.gaps).for_each(|at| *at += length);
            track
        }
        false => Track::default(),
    };
    Ok(Trend { track, before })
}

/// Why there is no past of the window: only those of the windows in `recorded` are recorded. `None` if there may be one.
pub(super) fn unrecorded(recorded: &[Window], period: &Period) -> Option<String> {
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

async fn track(
    app: &Headcount,
    segment: &Segment,
    window: Window,
    span: &Range<i64>,
) -> Result<Track, StoreError> {
    let at = |seconds| Timestamp::from_second(seconds).unwrap_or_default();
    let (from, to) = (at(span.start), at(span.end));
    let step = Duration::from_secs(step(span));
    let counts = app.counts();
    let mut past = counts
        .past_counts(segment, window, from, to, Some(step))
        .await?;
    if past.len() < 2 {
        // A new service has its few points within one step.
        past = counts.past_counts(segment, window, from, to, None).await?;
    }
    Ok(past.into_iter().collect())
}

impl FromIterator<ShownCount> for Track {
    fn from_iter<I: IntoIterator<Item = ShownCount>>(counts: I) -> Self {
        let mut track = Self::default();
        for ShownCount { users, as_of } in counts {
            let at = as_of.as_second();
            match users {
                Some(users) => track.points.push((at, users)),
                None => track.gaps.push(at),
            }
        }
        track
    }
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
