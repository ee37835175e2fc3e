//! `GET /segments/{segment}`: one segment's count over any window, its trend, and how many users remain in it over time if
//! none is seen again.

use std::ops::Range;
use std::time::Duration;

use askama::Template;
use humantime_serde::re::humantime;
use warp::http::StatusCode;
use warp::reply::Response;

use super::chart::{Point, chart};
use super::health::{Health, Numbers};
use super::shown::Shown;
use super::state::{State, state};
use super::{Pages, Shell, html};
use crate::path;
use crate::problem::Problem;
use crate::query::Query;
use domain::store::StoreError;
use domain::text::{grouped, rounded};
use domain::{Segment, TimeFrame, Timestamp, Window, shown};
use engine::Headcount;
use engine::counts::{CountError, CountResult};

const HOUR: u64 = 3_600;
const DAY: u64 = 24 * HOUR;
/// The ranges of the trend chart: names in addresses, titles and seconds.
const RANGES: [(&str, &str, u64); 5] = [
    ("6h", "6 hours", 6 * HOUR),
    ("1d", "Day", DAY),
    ("7d", "Week", 7 * DAY),
    ("14d", "2 weeks", 14 * DAY),
    ("90d", "90 days", 90 * DAY),
];
/// The default range.
const USUAL: &str = "7d";
/// Most points of the trend line: a screen can't show more.
const POINTS: u64 = 360;
/// The rows of the table of leaving users: seconds from now.
const HORIZONS: [u64; 6] = [HOUR, 6 * HOUR, DAY, 3 * DAY, 7 * DAY, 10 * DAY];
/// Additional points of the line of remaining users, with a store that counts at no cost.
const FREE_POINTS: u64 = 56;
/// Most stops of the slider: more are too fine for a thumb.
const STOPS: u64 = 1_000;

/// Remaining users by seconds from now.
type Staying = Vec<(u64, u64)>;

#[derive(Template)]
#[template(path = "segment.html")]
struct Page {
    shell: Shell,
    health: Health,
    state: State,
    /// The exact name, for forms and the page's script.
    name: String,
    /// The name with invisible characters escaped.
    shown: String,
    api: String,
    /// Whether forms need the segment as a parameter, because it can't be in their path.
    beside: bool,
    link: String,
    users: Option<String>,
    told: String,
    /// Whether no pair named the segment within the window, so that the name may be a typo.
    never_seen: bool,
    slider: Slider,
    chosen: Option<Chosen>,
    ranges: Vec<Choice>,
    from: String,
    to: String,
    trend: Shown<Drawing>,
    leaving: Shown<Vec<(String, String)>>,
    staying: Shown<Drawing>,
    window: String,
}

struct Slider {
    step: u64,
    max: u64,
    value: u64,
    text: String,
}

/// The count over the requested window.
struct Chosen {
    trouble: bool,
    words: String,
    /// Whether it is the last known number.
    stale: bool,
}

struct Choice {
    title: &'static str,
    link: String,
    current: bool,
}

#[derive(Debug)]
struct Drawing {
    svg: String,
    label: String,
}

pub(super) async fn get(pages: &Pages, name: &str, query: &Query) -> Result<Response, Problem> {
    let app = &pages.app;
    let segment = path::segment(name, query)?;
    let now = app.clock().now();
    let (chosen_range, span) = span(query, now)?;
    let own = app.counts().window_of(&segment);
    let asked = query.text("window")?.map(str::trim);
    let asked = asked.filter(|text| !text.is_empty());
    let window = asked.map(|text| window(app.frame(), text));
    let (now_count, readiness, trend, chosen) = tokio::join!(
        app.counts().get(&segment, own, false),
        pages.readiness(),
        trend(app, &segment, &span),
        chosen(app, &segment, window.as_ref()),
    );
    let staying = staying(app, &segment, now_count.as_ref().ok()).await;
    let never_seen = match &now_count {
        Ok(answer) => answer.count.users == 0 && !app.knows(&segment).await,
        Err(_) => false,
    };
    let numbers = match &now_count {
        Err(_) => Numbers::Failed,
        Ok(answer) if answer.stale => Numbers::Old(age(answer, now)),
        Ok(_) if trend.is_failed() || staying.is_failed() => Numbers::Partly,
        Ok(_) if chosen.as_ref().is_some_and(|chosen| chosen.stale) => Numbers::Partly,
        Ok(_) => Numbers::Good,
    };
    let status = match now_count {
        Ok(_) => StatusCode::OK,
        Err(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    let link = path::of_segment("/segments", segment.as_str(), "");
    let value = window.and_then(Result::ok).unwrap_or(own);
    let health = Health::of(app, &readiness, numbers);
    let page = Page {
        shell: pages.shell(),
        state: state(app, &readiness, now_count.is_ok()),
        name: segment.to_string(),
        shown: shown(segment.as_str()),
        api: path::of_segment("/v1/segments", segment.as_str(), "/count"),
        beside: path::needs_a_query(segment.as_str()),
        users: now_count.as_ref().ok().map(|now| grouped(now.count.users)),
        told: told(now_count.as_ref(), now),
        // While the store does not respond, the store may know a name that is unknown here.
        never_seen: never_seen && health.kind == "good",
        slider: slider(app.frame(), value),
        chosen,
        ranges: RANGES
            .iter()
            .map(|(name, title, _)| Choice {
                title,
                link: path::with(&link, &format!("range={name}")),
                current: chosen_range == Some(*name),
            })
            .collect(),
        link,
        from: for_input(span.start),
        to: for_input(span.end),
        trend,
        leaving: leaving(&staying),
        staying: staying.and_then(|staying| drawn_staying(&staying, now)),
        window: length(own.seconds()),
        health,
    };
    html(status, &page)
}

/// The range of the trend in unix seconds, and its name if it has one.
fn span(query: &Query, now: Timestamp) -> Result<(Option<&'static str>, Range<i64>), Problem> {
    let now = now.as_second();
    let from = instant(query.text("from")?);
    let to = instant(query.text("to")?).unwrap_or(now);
    if let Some(from) = from.filter(|from| *from < to) {
        return Ok((None, from..to));
    }
    let asked = query.text("range")?.unwrap_or(USUAL);
    let known = |name: &str| RANGES.iter().find(|range| range.0 == name);
    let range = known(asked).or_else(|| known(USUAL)).unwrap_or(&RANGES[0]);
    let seconds = i64::try_from(range.2).unwrap_or(0);
    Ok((Some(range.0), now - seconds..now))
}

/// Parses the value of a `datetime-local` input as UTC.
fn instant(text: Option<&str>) -> Option<i64> {
    let text = text?;
    let seconds = if text.len() == 16 { ":00Z" } else { "Z" };
    let at: Timestamp = format!("{text}{seconds}").parse().ok()?;
    // From 1970, to the end of years with four digits.
    (0..=253_370_000_000)
        .contains(&at.as_second())
        .then_some(at.as_second())
}

fn for_input(seconds: i64) -> String {
    let at = Timestamp::from_second(seconds).unwrap_or_default();
    at.strftime("%Y-%m-%dT%H:%M").to_string()
}

fn window(frame: &TimeFrame, text: &str) -> Result<Window, String> {
    let length = humantime::parse_duration(text)
        .map_err(|_| "a window is written like 7d, 36h or 1d 6h".to_owned())?;
    frame.window(length).map_err(|error| error.to_string())
}

async fn chosen(
    app: &Headcount,
    segment: &Segment,
    window: Option<&Result<Window, String>>,
) -> Option<Chosen> {
    let bad = |words: String| Chosen {
        trouble: true,
        words,
        stale: false,
    };
    Some(match window? {
        Err(words) => bad(format!("Invalid window: {words}.")),
        Ok(window) => match app.counts().get(segment, *window, false).await {
            Ok(answer) => Chosen {
                trouble: answer.stale,
                words: format!(
                    "{} users in the last {}{}",
                    grouped(answer.count.users),
                    length(window.seconds()),
                    if answer.stale {
                        ": the last known count, because no source responds"
                    } else {
                        ""
                    }
                ),
                stale: answer.stale,
            },
            Err(_) => bad("This can't be counted right now.".to_owned()),
        },
    })
}

fn age(answer: &CountResult, now: Timestamp) -> Duration {
    let age = now.duration_since(answer.count.as_of);
    Duration::try_from(age).unwrap_or_default()
}

/// The text about the age of the count.
fn told(answer: Result<&CountResult, &CountError>, now: Timestamp) -> String {
    let Ok(answer) = answer else {
        return "The count is not available right now. This page retries automatically.".to_owned();
    };
    let age = rounded(age(answer, now));
    match answer.stale {
        true => format!("The last known count, from {age} ago, because no source responds."),
        false => format!("Exact as of {age} ago."),
    }
}

async fn trend(app: &Headcount, segment: &Segment, span: &Range<i64>) -> Shown<Drawing> {
    match points(app, segment, span).await {
        Ok(points) => drawn_trend(&points, span).into(),
        Err(error) => {
            tracing::warn!(%error, "the page has no trend to show");
            Shown::Failed
        }
    }
}

async fn points(
    app: &Headcount,
    segment: &Segment,
    span: &Range<i64>,
) -> Result<Vec<Point>, StoreError> {
    let at = |seconds| Timestamp::from_second(seconds).unwrap_or_default();
    let (from, to) = (at(span.start), at(span.end));
    let length = span.end.saturating_sub(span.start).unsigned_abs();
    let step = Duration::from_secs((length / POINTS).max(1));
    let window = app.counts().window_of(segment);
    let mut points = app
        .counts()
        .trend(segment, window, from, to, Some(step))
        .await?;
    if points.len() < 2 {
        // A new service has its few points within one step.
        points = app.counts().trend(segment, window, from, to, None).await?;
    }
    let points = points.iter();
    Ok(points
        .map(|count| (count.as_of.as_second(), count.users))
        .collect())
}

fn drawn_trend(points: &[Point], span: &Range<i64>) -> Option<Drawing> {
    let (first, last) = (points.first()?, points.last()?);
    let users = || points.iter().map(|(_, users)| *users);
    let label = format!(
        "From {} to {} users; between {} and {}.",
        grouped(first.1),
        grouped(last.1),
        grouped(users().min()?),
        grouped(users().max()?)
    );
    (points.len() > 1).then(|| Drawing {
        svg: chart(points, span.clone(), false),
        label,
    })
}

/// How many of the current users remain after some seconds, if none is seen again: those who were seen within the rest of
/// the window. Nothing for an empty segment.
async fn staying(app: &Headcount, segment: &Segment, now: Option<&CountResult>) -> Shown<Staying> {
    let frame = app.frame();
    let Some(now) = now else {
        return Shown::Failed;
    };
    let (full, step) = (
        now.window.seconds(),
        u64::from(frame.resolution().seconds()),
    );
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
    let mut staying = vec![(0, now.count.users)];
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
        let most = staying.last().map_or(u64::MAX, |last| last.1);
        staying.push((after, answer.count.users.min(most)));
    }
    staying.push((full, 0));
    Shown::Something(staying)
}

/// The table of leaving users: time spans and numbers.
fn leaving(staying: &Shown<Staying>) -> Shown<Vec<(String, String)>> {
    let staying = match staying {
        Shown::Something(staying) => staying,
        Shown::Nothing => return Shown::Nothing,
        Shown::Failed => return Shown::Failed,
    };
    let (Some(now), Some(last)) = (staying.first(), staying.last()) else {
        return Shown::Nothing;
    };
    let told = |(after, _): &&(u64, u64)| HORIZONS.contains(after) || *after == last.0;
    let rows = staying.iter().skip(1).filter(told);
    let rows = rows.map(|(after, users)| (length(*after), grouped(now.1 - users)));
    Shown::Something(rows.collect())
}

fn drawn_staying(staying: &[(u64, u64)], now: Timestamp) -> Shown<Drawing> {
    let (Some(first), Some(last)) = (staying.first(), staying.last()) else {
        return Shown::Nothing;
    };
    let begin = now.as_second();
    let at = |after: u64| begin + i64::try_from(after).unwrap_or(0);
    let points: Vec<Point> = staying
        .iter()
        .map(|(after, users)| (at(*after), *users))
        .collect();
    let label = format!(
        "From {} users now to none after {}. The table has the figures.",
        grouped(first.1),
        length(last.0)
    );
    Shown::Something(Drawing {
        svg: chart(&points, begin..at(last.0), true),
        label,
    })
}

fn slider(frame: &TimeFrame, value: Window) -> Slider {
    let resolution = u64::from(frame.resolution().seconds());
    let full = frame.full_window().seconds();
    let slots = full / resolution;
    // The step divides the window, so that the last stop is the whole window.
    let apart = (1..=slots).find(|apart| slots.is_multiple_of(*apart) && slots / apart <= STOPS);
    let step = apart.unwrap_or(1) * resolution;
    Slider {
        step,
        max: full,
        value: value.seconds(),
        text: humantime::format_duration(Duration::from_secs(value.seconds())).to_string(),
    }
}

/// A duration in the largest unit that divides it: `1 hour`, `3 days`, `90 minutes`.
fn length(seconds: u64) -> String {
    let units = [(DAY, "day"), (HOUR, "hour"), (60, "minute"), (1, "second")];
    let whole = units.iter().find(|(unit, _)| seconds.is_multiple_of(*unit));
    let (unit, name) = whole.copied().unwrap_or((1, "second"));
    match seconds / unit {
        1 => format!("1 {name}"),
        many => format!("{many} {name}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_and_fields() {
        let texts = [3_600, 259_200, 5_400, 61].map(length);
        assert_eq!(texts, ["1 hour", "3 days", "90 minutes", "61 seconds"]);
        let noon = 1_795_262_400;
        assert_eq!(for_input(noon), "2026-11-21T12:00");
        assert_eq!(instant(Some(&for_input(noon))), Some(noon));
        assert_eq!(instant(Some("2026-11-21T12:00:00")), Some(noon));
        for bad in ["", "now", "1969-01-01T00:00", "2026-11-21"] {
            assert_eq!(instant(Some(bad)), None, "{bad}");
        }
    }

    #[test]
    fn who_leaves_is_who_does_not_stay() {
        let staying = vec![
            (0, 100),
            (3_600, 98),
            (7_200, 97),
            (86_400, 40),
            (1_209_600, 0),
        ];
        let Shown::Something(rows) = leaving(&Shown::Something(staying)) else {
            panic!("nobody leaves");
        };
        let rows: Vec<_> = rows
            .iter()
            .map(|(within, users)| (within.as_str(), users.as_str()))
            .collect();
        assert_eq!(rows, [("1 hour", "2"), ("1 day", "60"), ("14 days", "100")]);
        assert_eq!(leaving(&Shown::Nothing), Shown::Nothing);
        assert_eq!(leaving(&Shown::Failed), Shown::Failed);
    }

    #[test]
    fn every_stop_of_the_slider_is_a_window() {
        for (window, resolution) in [(1_209_600, 60), (600, 60), (7 * 86_400 + 3_600, 3_600)] {
            let [window, resolution] = [window, resolution].map(Duration::from_secs);
            let frame = TimeFrame::new(window, resolution, Duration::ZERO).unwrap();
            let slider = slider(&frame, frame.full_window());
            assert!(slider.max.is_multiple_of(slider.step));
            for stop in (slider.step..=slider.max).step_by(usize::try_from(slider.step).unwrap()) {
                frame.window(Duration::from_secs(stop)).unwrap();
            }
        }
    }
}
