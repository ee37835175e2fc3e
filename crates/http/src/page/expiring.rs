//! How many users of a segment expire within some time, and how many remain, if none is seen again. And by when they were
//! last seen.

use std::time::Duration;

use super::chart::Track;
use super::shown::Shown;
use super::words::{length, percent};
use domain::text::grouped;
use domain::{Segment, Timestamp, Window};
use engine::Headcount;
use engine::counts::CountResult;

const HOUR: u64 = 3_600;
const DAY: u64 = 24 * HOUR;
/// The rows of the table of expiring users: seconds from now.
const HORIZONS: [u64; 6] = [HOUR, 6 * HOUR, DAY, 3 * DAY, 7 * DAY, 10 * DAY];
/// Additional points of the line of remaining users, with a store that counts at no cost.
const FREE_POINTS: u64 = 56;
/// The rows of the table of last visits: seconds before now.
const LAST_SEEN: [u64; 6] = [HOUR, 6 * HOUR, DAY, 3 * DAY, 7 * DAY, 10 * DAY];

/// Remaining users by seconds from now. The first is now, the last when nobody remains.
pub(super) type Remaining = Vec<(u64, u64)>;

/// A row of a table: a time span, users, and their share of all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) within: String,
    pub(super) users: String,
    pub(super) share: String,
}

impl Part {
    fn of(seconds: u64, users: u64, all: u64) -> Self {
        Self {
            within: length(seconds),
            users: grouped(users),
            share: percent(users, all).unwrap_or_default(),
        }
    }
}

/// How many of the current users remain after some seconds, if none is seen again: those who were seen within the rest of
/// `window`. Nothing for an empty segment.
pub(super) async fn remaining(
    app: &Headcount,
    segment: &Segment,
    window: Window,
    now: Option<&CountResult>,
) -> Shown<Remaining> {
    let frame = app.frame();
    let (full, step) = (window.seconds(), u64::from(frame.resolution().seconds()));
    let Some(now) = now else {
        return Shown::Failed;
    };
    if now.count.users == 0 {
        return Shown::Nothing;
    }
    let mut after: Vec<u64> = HORIZONS.to_vec();
    if app.is_live() {
        after.extend((1..FREE_POINTS).map(|index| full * index / FREE_POINTS / step * step));
    }
    after.retain(|after| *after > 0 && *after < full && after.is_multiple_of(step));
    after.sort_unstable();
    after.dedup();
    let mut remaining = vec![(0, now.count.users)];
    for after in after {
        let Ok(window) = frame.window(Duration::from_secs(full - after)) else {
            continue;
        };
        let Ok(answer) = app.counts().get(segment, window, false).await else {
            return Shown::Failed;
        };
        if answer.stale && !now.stale {
            // The difference of counts at different times has no meaning.
            return Shown::Failed;
        }
        // Clamped, because a shorter window may have been counted a little later.
        let most = remaining.last().map_or(u64::MAX, |last| last.1);
        remaining.push((after, answer.count.users.min(most)));
    }
    remaining.push((full, 0));
    Shown::Something(remaining)
}

/// The table of expiring users.
pub(super) fn expiring(remaining: &Shown<Remaining>) -> Shown<Vec<Part>> {
    let remaining = match remaining {
        Shown::Something(remaining) => remaining,
        Shown::Nothing => return Shown::Nothing,
        Shown::Failed => return Shown::Failed,
    };
    let (Some(now), Some(last)) = (remaining.first(), remaining.last()) else {
        return Shown::Nothing;
    };
    let listed = |(after, _): &&(u64, u64)| HORIZONS.contains(after) || *after == last.0;
    let rows = remaining.iter().skip(1).filter(listed);
    let rows = rows.map(|(after, users)| Part::of(*after, now.1 - users, now.1));
    Shown::Something(rows.collect())
}

/// The users who expire within a day of a longer window.
pub(super) fn expiring_today(remaining: &Shown<Remaining>) -> Option<Part> {
    let Shown::Something(remaining) = remaining else {
        return None;
    };
    let now = remaining.first()?.1;
    let then = remaining.iter().find(|(after, _)| *after == DAY)?.1;
    Some(Part::of(DAY, now - then, now))
}

/// The points of the line of remaining users.
pub(super) fn line(remaining: &[(u64, u64)], now: Timestamp) -> Track {
    let begin = now.as_second();
    let at = |after: u64| begin + i64::try_from(after).unwrap_or(0);
    let points = remaining.iter();
    Track::of(points.map(|(after, users)| (at(*after), *users)).collect())
}

/// How many users were last seen within some time. Only with a store that counts at no cost.
pub(super) async fn last_seen(
    app: &Headcount,
    segment: &Segment,
    window: Window,
    users: u64,
) -> Vec<Part> {
    let mut rows = Vec::new();
    if !app.is_live() || users == 0 {
        return rows;
    }
    let shorter = LAST_SEEN
        .into_iter()
        .filter(|seconds| *seconds < window.seconds());
    for seconds in shorter {
        let Ok(window) = app.frame().window(Duration::from_secs(seconds)) else {
            continue;
        };
        if let Ok(answer) = app.counts().get(segment, window, false).await {
            // A user may have come since `users` were counted.
            rows.push(Part::of(seconds, answer.count.users.min(users), users));
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_expires_is_who_does_not_remain() {
        let remaining = Shown::Something(vec![
            (0, 100),
            (3_600, 98),
            (7_200, 97),
            (86_400, 40),
            (1_209_600, 0),
        ]);
        let Shown::Something(rows) = expiring(&remaining) else {
            panic!("nobody expires");
        };
        let rows: Vec<_> = rows
            .iter()
            .map(|row| (row.within.as_str(), row.users.as_str(), row.share.as_str()))
            .collect();
        assert_eq!(
            rows,
            [
                ("1 hour", "2", "2.0%"),
                ("24 hours", "60", "60.0%"),
                ("14 days", "100", "100%")
            ]
        );
        assert_eq!(expiring_today(&remaining).unwrap().users, "60");
        assert_eq!(expiring(&Shown::Nothing), Shown::Nothing);
        assert_eq!(expiring(&Shown::Failed), Shown::Failed);
        assert_eq!(expiring_today(&Shown::Failed), None);
    }
}
