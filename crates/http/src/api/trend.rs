//! `GET /v1/segments/{segment}/trend`: past counts of one segment.

use std::sync::Arc;

use jiff::SignedDuration;
use serde::Serialize;
use utoipa::ToSchema;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use crate::access::Access;
use crate::auth::Scope;
use crate::openapi::{Described, codes, parameters};
use crate::problem::Problem;
use crate::query::Query;
use crate::reply::{json, rfc3339};
use crate::resource::{Kind, Names, Operation, Resource};
use domain::{Count, Timestamp, Window};
use engine::Headcount;

pub(super) static TREND: Resource = Resource {
    template: "/v1/segments/{segment}/trend",
    parameters: &["window", "from", "to", "step", "segment"],
    operations: &[Operation::get(Access::Needs(Scope::Read))
        .names(Names::InPath(2))
        .by_cookie()
        .described(describe)],
    kind: Kind::Plain,
};

/// The length of a trend without `from`.
const DEFAULT_LENGTH: SignedDuration = SignedDuration::from_hours(24);
/// Most points of a response: more than the pixels of a chart. Without a limit, a year of minutes would be 30 MB.
const MAX_POINTS: usize = 10_000;

/// The history of a count, oldest first.
#[derive(Serialize, ToSchema)]
#[schema(as = Trend)]
pub(super) struct TrendResponse<'a> {
    segment: &'a str,
    window_seconds: u64,
    points: Vec<Point>,
    /// False if no pair was received within the configured window and no point is kept: perhaps the name is misspelled.
    known: bool,
}

/// A past count.
#[derive(Serialize, ToSchema)]
#[schema(as = TrendPoint)]
struct Point {
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    users: u64,
}

pub(super) fn handler(app: &Arc<Headcount>) -> BoxedFilter<(Response,)> {
    super::of_segment(app, get)
}

async fn get(app: Arc<Headcount>, name: String, query: Query) -> Result<Response, Problem> {
    let segment = crate::path::segment(&name, &query)?;
    let window = query.given_window(app.frame())?;
    let window = window.unwrap_or_else(|| app.counts().window_of(&segment));
    let to = query.instant("to")?.unwrap_or_else(|| app.clock().now());
    let from = match query.instant("from")? {
        Some(from) => from,
        None => to.checked_sub(DEFAULT_LENGTH).unwrap_or(Timestamp::MIN),
    };
    if from > to {
        return Err(Problem::invalid_parameter("from", "must not be after to"));
    }
    let step = query.step("step")?;
    let counts = app.counts().trend(&segment, window, from, to, step).await?;
    if counts.len() > MAX_POINTS {
        let detail = format!(
            "the trend has {} points, the limit is {MAX_POINTS}: use a longer step or a shorter time",
            counts.len()
        );
        return Err(Problem::bad_request("too_many_points", detail));
    }
    if counts.is_empty() && !app.refreshed_windows(&segment).contains(&window) {
        let kept = app.refreshed_windows(&segment);
        return Err(Problem::bad_request("invalid_window", not_kept(&kept)));
    }
    Ok(json(&TrendResponse {
        segment: segment.as_str(),
        window_seconds: window.seconds(),
        points: counts.iter().map(point).collect(),
        known: !counts.is_empty() || app.knows(&segment).await,
    }))
}

/// The message for a window without a trend. An empty trend would look like a segment that never had users.
fn not_kept(windows: &[Window]) -> String {
    let windows: Vec<_> = windows
        .iter()
        .map(|window| format!("{} s", window.seconds()))
        .collect();
    format!(
        "no trend is kept over this window; it is over {} (setting refresh_windows)",
        windows.join(", ")
    )
}

fn point(count: &Count) -> Point {
    Point {
        at: count.as_of,
        users: count.users,
    }
}

fn describe() -> Described {
    Described::new(
        "getTrend",
        "counts",
        "List past counts",
        "Each refresh adds a point for each window that it recounts. A response has at most 10,000 points. A window that is \
         not recounted and has no points gets 400 `invalid_window`.",
    )
    .takes(parameters::segment())
    .takes(parameters::segment_beside())
    .takes(parameters::window())
    .takes(parameters::from())
    .takes(parameters::to())
    .takes(parameters::step())
    .answers::<TrendResponse<'static>>(
        200,
        "The points, oldest first.",
        serde_json::json!({
            "segment": "sports", "window_seconds": 1_209_600,
            "points": [{"at": "2026-11-21T08:00:00Z", "users": 123}], "known": true
        }),
    )
    .fails(&[
        codes::INVALID_SEGMENT,
        codes::INVALID_WINDOW,
        codes::INVALID_PARAMETER,
        codes::TOO_MANY_POINTS,
        codes::UNAVAILABLE,
    ])
}
