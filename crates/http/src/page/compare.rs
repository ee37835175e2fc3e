//! `GET /compare`: several segments in one chart, and which users they share.

use askama::Template;
use futures::future::join_all;
use warp::http::StatusCode;
use warp::reply::Response;

use super::chart::Base;
use super::graph::{Graph, Series};
use super::health::{Health, Numbers};
use super::look::Look;
use super::period::{Choice, Period};
use super::segment::Toggle;
use super::shown::Shown;
use super::trends::{self, Trend};
use super::words::{Change, length, plural};
use super::{Pages, Place, Shell, html};
use crate::path::{encode, of_segment};
use crate::problem::Problem;
use crate::query::Query;
use domain::Reach;
use domain::text::grouped;
use domain::{Segment, shown};
use engine::counts::CountResult;

/// Most segments of a chart: as many colours as can be told apart.
pub(super) const MAX_COMPARED: usize = 8;
/// The segments that are offered.
const OFFERED: usize = 12;

#[derive(Template)]
#[template(path = "compare.html")]
struct Page {
    shell: Shell,
    health: Health,
    compared: Vec<Compared>,
    /// The largest segments that are not compared yet: name and address.
    offered: Vec<(String, String)>,
    is_full: bool,
    limit: usize,
    ranges: Vec<Choice>,
    windows: Vec<Choice>,
    trouble: Option<String>,
    unrecorded: Option<String>,
    fields: Vec<(&'static str, String)>,
    range: String,
    window: String,
    base: Toggle,
    trend: Shown<Graph>,
    csv: String,
    curl: String,
    /// What the page's script asks for the users that the segments share.
    overlap: String,
    /// The window of those users, if it is another one.
    overlap_window: Option<String>,
    /// Why a count is withheld.
    withheld: String,
}

/// A segment of the chart.
struct Compared {
    class: String,
    name: String,
    shown: String,
    link: String,
    /// The address without it.
    without: String,
    users: Option<String>,
    is_withheld: bool,
    /// Whether events have its count over another window, its own.
    has_other_window: bool,
    change: Change,
}

pub(super) async fn get(pages: &Pages, query: &Query, reach: &Reach) -> Result<Response, Problem> {
    let app = &pages.app;
    let period = pages.period(query)?;
    let look = Look::of(query)?;
    let mut segments = Vec::new();
    for segment in given(query)? {
        if !segments.contains(&segment) {
            segments.push(segment);
        }
    }
    if segments
        .iter()
        .any(|segment| !reach.covers(segment.as_str()))
    {
        return Err(crate::authorization::forbidden_segment());
    }
    segments.truncate(MAX_COMPARED);
    let counted = join_all(
        segments
            .iter()
            .map(|segment| app.counts().get(segment, period.window, false)),
    );
    let counts = counted.await.into_iter();
    let readiness = pages.readiness();
    let counts: Vec<Option<CountResult>> = counts.map(Result::ok).collect();
    let shown_users = join_all(segments.iter().zip(&counts).map(async |(segment, count)| {
        let counts = app.counts();
        counts.shown(segment, count.as_ref()?).await
    }));
    let shown_users = shown_users.await;
    let trends = join_all(
        segments
            .iter()
            .zip(&shown_users)
            .map(|(segment, users)| trends::trend(app, segment, &period, *users, false)),
    );
    let keys = segments.iter().cloned();
    let keys: Vec<_> = keys.map(|segment| (segment, period.window)).collect();
    let (trends, histories) = tokio::join!(trends, pages.history.of(app, keys, &period));
    let trends: Result<Vec<Trend>, _> = trends.into_iter().collect();
    let begin = |segment: &Segment| histories.get(segment).and_then(|history| history.before);
    let numbers = numbers(&counts, trends.is_err(), app.clock().now());
    let address = look.link(&link(&segments));
    let without = |place: usize| {
        let mut others = segments.clone();
        others.remove(place);
        period.link(&look.link(&link(&others)))
    };
    let is_withheld = |place: usize| {
        let users = shown_users.get(place).copied().flatten();
        counts.get(place).is_some_and(Option::is_some) && users.is_none()
    };
    let changes: Vec<Change> = match &trends {
        Ok(trends) => {
            let each = segments.iter().zip(trends);
            each.map(|(segment, trend)| change(trend, begin(segment)))
                .collect()
        }
        Err(_) => Vec::new(),
    };
    let compared = segments
        .iter()
        .enumerate()
        .map(|(place, segment)| Compared {
            class: format!("s{place}"),
            name: segment.to_string(),
            shown: shown(segment.as_str()),
            link: period.link(&of_segment("/segments", segment.as_str(), "")),
            without: without(place),
            users: shown_users.get(place).copied().flatten().map(grouped),
            is_withheld: is_withheld(place),
            has_other_window: app.counts().window_of(segment) != period.window,
            change: match (is_withheld(place), changes.get(place)) {
                (true, _) => Change::withheld(),
                (false, Some(change)) => change.clone(),
                (false, None) => Change::failed(),
            },
        });
    let compared: Vec<_> = compared.collect();
    let failed = numbers == Numbers::Failed;
    // With a floor, sets of users are counted over the configured window.
    let overlap_window = match pages.floor.is_on() {
        true => app.frame().full_window(),
        false => period.window,
    };
    let overlap = crate::path::with(
        &to("/v1/overlap", &segments),
        &format!("window={}", overlap_window.seconds()),
    );
    let page = Page {
        shell: pages.shell_with(Place::Compare, &period, &readiness, !failed),
        health: Health::of(&readiness, numbers),
        compared,
        offered: offered(pages, &period, &look, &segments, reach).await,
        is_full: segments.len() == MAX_COMPARED,
        limit: MAX_COMPARED,
        ranges: period.ranges(&address),
        windows: period.windows(&address),
        trouble: period.trouble.clone(),
        unrecorded: trends::unrecorded(app.counts().refreshed_windows(), &period),
        fields: period.fields(),
        range: period.range_words(),
        window: period.window_words(),
        base: Toggle {
            on: look.base == Base::Lowest,
            link: period.link(&look.with_other_base().link(&link(&segments))),
        },
        trend: match trends {
            Ok(trends) => {
                let is_older = segments.iter().any(|segment| begin(segment).is_some());
                drawn(&segments, trends, is_older, &period, look).into()
            }
            Err(error) => {
                tracing::warn!(%error, "the page has no trends to show");
                Shown::Failed
            }
        },
        csv: period.link(&to("/trends.csv", &segments)),
        curl: overlap.clone(),
        overlap,
        overlap_window: (overlap_window != period.window).then(|| length(overlap_window.seconds())),
        withheld: pages.withheld(&period),
    };
    let status = match failed {
        true => StatusCode::SERVICE_UNAVAILABLE,
        false => StatusCode::OK,
    };
    html(status, &page)
}

/// The segments of the query. An empty field of the form is ignored.
fn given(query: &Query) -> Result<Vec<Segment>, Problem> {
    let names = query.all("segment").filter(|name| !name.trim().is_empty());
    names
        .map(|name| {
            Segment::new(name.trim())
                .map_err(|error| Problem::bad_request("invalid_segment", error.to_string()))
        })
        .collect()
}

fn numbers(counts: &[Option<CountResult>], partly: bool, now: domain::Timestamp) -> Numbers {
    let known = || counts.iter().flatten();
    if !counts.is_empty() && known().next().is_none() {
        return Numbers::Failed;
    }
    let stale = known().filter(|count| count.stale);
    if let Some(oldest) = stale.map(|count| count.count.as_of).min() {
        return Numbers::Old(now.duration_since(oldest).unsigned_abs());
    }
    match partly || counts.contains(&None) {
        true => Numbers::Partly,
        false => Numbers::Good,
    }
}

/// The change since the count at the beginning of the range, `begin`, or else since the first one.
fn change(trend: &Trend, begin: Option<u64>) -> Change {
    let (Some(first), Some(last)) = (trend.points().first(), trend.points().last()) else {
        return Change::between(None, 0);
    };
    let first = (trend.points().len() > 1).then_some(first.1);
    Change::between(begin.or(first), last.1)
}

fn drawn(
    segments: &[Segment],
    trends: Vec<Trend>,
    is_older: bool,
    period: &Period,
    look: Look,
) -> Option<Graph> {
    let series = segments.iter().zip(trends).enumerate();
    let series = series.map(|(place, (segment, trend))| Series {
        class: format!("s{place}"),
        name: shown(segment.as_str()),
        track: trend.track,
    });
    let step = trends::step(&period.span);
    let series = series.collect();
    Graph::draw("trend", series, &period.span, step, look.base, is_older)
}

fn link(segments: &[Segment]) -> String {
    to("/compare", segments)
}

fn to(path: &str, segments: &[Segment]) -> String {
    let names = segments.iter();
    let names = names.map(|segment| format!("segment={}", encode(segment.as_str())));
    match segments.is_empty() {
        true => path.to_owned(),
        false => format!("{path}?{}", names.collect::<Vec<_>>().join("&")),
    }
}

/// The largest segments that are not compared yet: name and address.
async fn offered(
    pages: &Pages,
    period: &Period,
    look: &Look,
    segments: &[Segment],
    reach: &Reach,
) -> Vec<(String, String)> {
    let Ok(list) = pages.app.counts().list(period.window).await else {
        return Vec::new();
    };
    let mut others: Vec<_> = list
        .iter()
        .filter(|listed| reach.covers(listed.segment.as_str()))
        .filter(|listed| !segments.contains(&listed.segment))
        .collect();
    others.sort_by_key(|listed| std::cmp::Reverse(listed.count.map_or(0, |count| count.users)));
    let offer = |segment: &Segment| {
        let mut more = segments.to_vec();
        more.push(segment.clone());
        (
            shown(segment.as_str()),
            period.link(&look.link(&link(&more))),
        )
    };
    let others = others.into_iter().take(OFFERED);
    others.map(|listed| offer(&listed.segment)).collect()
}

impl Page {
    /// `3 segments`.
    fn number(&self) -> String {
        plural(self.compared.len() as u64, "segment")
    }
}
