//! `GET /segments/{segment}`: the count of one segment, its history, its count over any window, and its expiring users.

use std::ops::Range;
use std::time::Duration;

use askama::Template;
use warp::http::StatusCode;
use warp::reply::Response;

use super::chart::Base;
use super::expiring::{self, Part};
use super::graph::{Graph, Moment, Series};
use super::health::{Health, Numbers};
use super::look::Look;
use super::period::{Choice, Period};
use super::shown::Shown;
use super::slider::Slider;
use super::trends::{self, Trend, mean};
use super::words::{Change, percent};
use super::{Pages, Place, Shell, html};
use crate::path;
use crate::problem::Problem;
use crate::query::Query;
use domain::text::{grouped, rounded};
use domain::{Reach, Timestamp, shown};
use engine::counts::CountResult;

/// Most bars of the chart of users who entered and left.
const BARS: i64 = 60;
/// The possible seconds of a bar.
const BAR_SECONDS: [i64; 12] = [
    60, 300, 600, 1_800, HOUR, 10_800, 21_600, 43_200, DAY, 172_800, 604_800, 2_592_000,
];
const HOUR: i64 = 3_600;
const DAY: i64 = 24 * HOUR;

#[derive(Template)]
#[template(path = "segment.html")]
struct Page {
    shell: Shell,
    health: Health,
    /// The exact name, for forms and the page's script.
    name: String,
    /// The name with invisible characters escaped.
    shown: String,
    api: String,
    /// Whether forms need the segment as a parameter, because it can't be in their path.
    beside: bool,
    link: String,
    description: Option<String>,
    /// The name of its group, and the address of the segments of that.
    group: Option<(String, String)>,
    now: Option<Now>,
    /// Why the count is withheld, if it is.
    withheld: String,
    /// The privacy floor, if there is one.
    floor: Option<String>,
    /// Whether no pair named the segment within the window, so that the name may be a typo.
    never_seen: bool,
    change: Option<ChangeTile>,
    average: Option<AverageTile>,
    expiring_today: Option<Part>,
    slider: Slider,
    /// The window as it was typed, and why it is invalid.
    typed: String,
    trouble: Option<String>,
    unrecorded: Option<String>,
    last_seen: Vec<Part>,
    ranges: Vec<Choice>,
    windows: Vec<Choice>,
    from: String,
    to: String,
    range_fields: Vec<(&'static str, String)>,
    window_field: Option<(&'static str, String)>,
    fields: Vec<(&'static str, String)>,
    range: String,
    before_words: String,
    window: String,
    before: Toggle,
    /// Whether the period before is asked for and has no points.
    no_before: bool,
    base: Toggle,
    trend: Shown<Graph>,
    /// What the page's script asks for who entered and left. Only for the configured window.
    flow: Option<String>,
    expiring: Shown<Vec<Part>>,
    remaining: Shown<Graph>,
    csv: String,
    curl: String,
}

/// The count of now.
struct Now {
    /// `None` if the count is withheld.
    users: Option<String>,
    noun: &'static str,
    as_of: Moment,
    /// The share of the users in any segment, if that is known.
    share: Option<String>,
    /// The age of the count if it is the last known one.
    last_known: Option<String>,
}

/// The change over the range, or since the first point of a young service.
struct ChangeTile {
    change: Change,
    since: Option<Moment>,
}

/// The mean of the points, with the one of the period before where it is drawn.
struct AverageTile {
    users: String,
    lowest: String,
    highest: String,
    change: Option<Change>,
}

/// A link that switches something.
pub(super) struct Toggle {
    pub(super) on: bool,
    pub(super) link: String,
}

pub(super) async fn get(
    pages: &Pages,
    name: &str,
    query: &Query,
    reach: &Reach,
) -> Result<Response, Problem> {
    let app = &pages.app;
    let segment = path::segment(name, query)?;
    let now = app.clock().now();
    let own = app.counts().window_of(&segment);
    let period = pages.period_with(own, query)?;
    let look = Look::of(query)?;
    let count = app.counts().get(&segment, period.window, false).await.ok();
    let readiness = pages.readiness();
    let users = match &count {
        Some(answer) => app.counts().shown(&segment, answer).await,
        None => None,
    };
    let has_floor = pages.floor.is_on();
    let (trend, history, remaining, last_seen, all) = tokio::join!(
        trends::trend(app, &segment, &period, users, look.before),
        pages
            .history
            .of(app, [(segment.clone(), period.window)], &period),
        async {
            match has_floor {
                // Counts over many windows would reveal small groups.
                true => Shown::Nothing,
                false => expiring::remaining(app, &segment, period.window, count.as_ref()).await,
            }
        },
        async {
            match users.filter(|_| !has_floor) {
                Some(users) => expiring::last_seen(app, &segment, period.window, users).await,
                None => Vec::new(),
            }
        },
        pages
            .everybody
            .users(app, period.window, reach, pages.floor),
    );
    let begin = history.get(&segment).and_then(|history| history.before);
    let never_seen = match &count {
        Some(answer) => answer.count.users == 0 && !app.knows(&segment).await,
        None => false,
    };
    let numbers = match &count {
        None => Numbers::Failed,
        Some(answer) if answer.stale => Numbers::Old(age(answer, now)),
        Some(_) if trend.is_err() || remaining.is_failed() => Numbers::Partly,
        Some(_) => Numbers::Good,
    };
    let status = match count {
        Some(_) => StatusCode::OK,
        None => StatusCode::SERVICE_UNAVAILABLE,
    };
    let link = path::of_segment("/segments", segment.as_str(), "");
    let address = look.link(&link);
    let toggle = |on, other: Look| Toggle {
        on,
        link: period.link(&other.link(&link)),
    };
    let api = |after| path::of_segment("/v1/segments", segment.as_str(), after);
    let named = format!("segment={}", path::encode(segment.as_str()));
    let settings = app.segments().settings(&segment);
    let group = settings.group().map(|name| {
        let link = period.link(&format!("/?group={}", path::encode(name)));
        (name.to_owned(), link)
    });
    let health = Health::of(&readiness, numbers);
    let (from, to) = period.inputs();
    let page = Page {
        shell: pages.shell_with(Place::Segments, &period, &readiness, count.is_some()),
        name: segment.to_string(),
        shown: shown(segment.as_str()),
        api: api("/count"),
        description: settings.description().map(str::to_owned),
        group,
        beside: path::needs_a_query(segment.as_str()),
        now: count.as_ref().map(|answer| of_now(answer, users, all, now)),
        withheld: pages.withheld(&period),
        floor: has_floor.then(|| grouped(pages.floor.users())),
        // While the store does not respond, the store may know a name that is unknown here.
        never_seen: never_seen && health.kind == "good",
        change: match (&trend, &count, users) {
            // The last point is not the count of now.
            (_, Some(_), None) => None,
            (Ok(trend), ..) => change(trend, begin, &period),
            (Err(_), ..) => None,
        },
        average: trend.as_ref().ok().and_then(average),
        expiring_today: expiring::expiring_today(&remaining),
        slider: Slider::of(app.frame(), period.window),
        typed: period.typed.clone(),
        trouble: period.trouble.clone(),
        unrecorded: trends::unrecorded(&app.refreshed_windows(&segment), &period),
        last_seen,
        ranges: period.ranges(&address),
        windows: period.windows(&address),
        from,
        to,
        range_fields: period.range_fields(),
        window_field: period.window_field(),
        fields: period.fields(),
        range: period.range_words(),
        before_words: period.before_words(),
        window: period.window_words(),
        no_before: look.before
            && trend
                .as_ref()
                .is_ok_and(|trend| trend.before.points.is_empty()),
        before: toggle(look.before, look.with_other_before()),
        base: toggle(look.base == Base::Lowest, look.with_other_base()),
        trend: match trend {
            Ok(trend) => drawn(trend, begin.is_some(), &period, look).into(),
            Err(error) => {
                tracing::warn!(%error, "the page has no trend to show");
                Shown::Failed
            }
        },
        flow: (period.is_full_window() && !has_floor).then(|| {
            let resolution = i64::from(app.frame().resolution().seconds());
            flow(&api("/flow"), &period, resolution, now)
        }),
        expiring: expiring::expiring(&remaining),
        remaining: remaining.and_then(|remaining| drawn_remaining(&remaining, now).into()),
        csv: period.link_of_window(&format!("/trends.csv?{named}")),
        curl: path::with(
            &api("/count"),
            &format!("window={}", period.window.seconds()),
        ),
        link,
        health,
    };
    html(status, &page)
}

impl Page {
    fn is_withheld(&self) -> bool {
        self.now.as_ref().is_some_and(|now| now.users.is_none())
    }
}

/// The request for who entered and left, in about as many steps as bars fit.
fn flow(api: &str, period: &Period, resolution: i64, now: Timestamp) -> String {
    let (from, to) = (period.span.start, period.span.end);
    let seconds = bar_seconds(&period.span, resolution, now);
    path::with(api, &format!("from={from}&to={to}&step={seconds}s"))
}

/// The seconds of a bar: a multiple of the resolution, and whole hours for what is older than a day, of which minutes are not
/// known.
fn bar_seconds(span: &Range<i64>, resolution: i64, now: Timestamp) -> i64 {
    let is_old = span.start < now.as_second() - DAY;
    let shortest = if is_old { HOUR } else { resolution };
    let shortest = shortest.max((span.end - span.start) / BARS);
    let mut possible = BAR_SECONDS.into_iter();
    let seconds = possible.find(|seconds| *seconds >= shortest);
    let seconds = seconds.unwrap_or(shortest);
    (seconds + resolution - 1) / resolution * resolution
}

fn age(answer: &CountResult, now: Timestamp) -> Duration {
    let age = now.duration_since(answer.count.as_of);
    Duration::try_from(age).unwrap_or_default()
}

fn of_now(answer: &CountResult, users: Option<u64>, all: Option<u64>, now: Timestamp) -> Now {
    let share = |users| percent(users, all?).filter(|_| all.is_some_and(|all| users <= all));
    Now {
        share: users.and_then(share),
        users: users.map(grouped),
        noun: if users == Some(1) { "user" } else { "users" },
        as_of: Moment::of(answer.count.as_of.as_second()),
        last_known: answer.stale.then(|| rounded(age(answer, now))),
    }
}

/// The change since the count at the beginning of the range, `begin`, as in the table of segments.
fn change(trend: &Trend, begin: Option<u64>, period: &Period) -> Option<ChangeTile> {
    let points = trend.points();
    let (first, last) = (points.first()?, points.last()?);
    if begin.is_some() {
        return Some(ChangeTile {
            change: Change::between(begin, last.1),
            since: None,
        });
    }
    if points.len() < 2 {
        return None;
    }
    let late = first.0 - period.span.start;
    let is_young = late > (period.span.end - period.span.start) / 20;
    Some(ChangeTile {
        change: Change::between(Some(first.1), last.1),
        since: is_young.then(|| Moment::of(first.0)),
    })
}

fn average(trend: &Trend) -> Option<AverageTile> {
    let users = || trend.points().iter().map(|point| point.1);
    if trend.points().len() < 2 {
        return None;
    }
    let now = mean(trend.points())?;
    let before = mean(&trend.before.points);
    Some(AverageTile {
        users: grouped(now),
        lowest: grouped(users().min()?),
        highest: grouped(users().max()?),
        change: before.map(|before| Change::between(Some(before), now)),
    })
}

fn drawn(trend: Trend, is_older: bool, period: &Period, look: Look) -> Option<Graph> {
    let mut series = vec![Series {
        class: "s0".to_owned(),
        name: "Users".to_owned(),
        track: trend.track,
    }];
    if !trend.before.points.is_empty() {
        series.push(Series {
            class: "before".to_owned(),
            name: format!("The {}", period.before_words()),
            track: trend.before,
        });
    }
    Graph::draw(
        "trend",
        series,
        &period.span,
        trends::step(&period.span),
        look.base,
        is_older,
    )
}

fn drawn_remaining(remaining: &[(u64, u64)], now: Timestamp) -> Option<Graph> {
    let track = expiring::line(remaining, now);
    let span = track.points.first()?.0..track.points.last()?.0;
    let series = Series {
        class: "s0".to_owned(),
        name: "Users who remain".to_owned(),
        track,
    };
    Graph::draw("remaining", vec![series], &span, 1, Base::Zero, false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_multiples_of_the_resolution() {
        let now = Timestamp::from_second(2_000 * DAY).unwrap();
        let bar = |from: i64, to: i64, resolution| {
            let end = now.as_second();
            bar_seconds(&(end - from..end - to), resolution, now)
        };
        assert_eq!(bar(HOUR, 0, 60), 60);
        assert_eq!(bar(DAY, 0, 60), 1_800);
        assert_eq!(bar(14 * DAY, 0, 60), 21_600);
        assert_eq!(bar(90 * DAY, 0, 60), 172_800);
        assert_eq!(bar(8 * DAY, 7 * DAY, 60), HOUR, "minutes are not known");
        assert_eq!(bar(HOUR, 0, 7), 63);
        assert_eq!(bar(9_999 * DAY, 0, 60) % 60, 0);
    }
}
