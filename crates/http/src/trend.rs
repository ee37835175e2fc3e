//! `GET /v1/segments/{segment}/trend`: past counts of one segment.

use std::sync::Arc;

use jiff::SignedDuration;
use serde::Serialize;
use utoipa::ToSchema;
use warp::filters::BoxedFilter;
use warp::reply::{Reply, Response};
use warp::{Filter, path};

use super::problem::Problem;
use super::query::{Query, query};
use super::reply::{json, rfc3339};
use domain::{Count, Timestamp};
use engine::Headcount;

/// The length of a trend without `from`.
const DEFAULT_LENGTH: SignedDuration = SignedDuration::from_hours(24);
/// Most points of a response: more than the pixels of a chart. Without a limit, a year of minutes would be 30 MB.
const MAX_POINTS: usize = 10_000;

/// How the count of a segment came about, oldest first.
#[derive(Serialize, ToSchema)]
#[schema(as = Trend)]
pub(super) struct TrendResponse<'a> {
    segment: &'a str,
    window_seconds: u64,
    points: Vec<Point>,
    /// False for a name of which no pair came within the configured window and of which no point is kept: a slip of the
    /// pen has no past, as a new segment has none.
    known: bool,
}

/// A count of the past.
#[derive(Serialize, ToSchema)]
#[schema(as = TrendPoint)]
struct Point {
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    users: u64,
}

pub(super) fn route(app: &Arc<Headcount>) -> BoxedFilter<(Response,)> {
    let app = Arc::clone(app);
    path!("v1" / "segments" / String / "trend")
        .and(warp::get())
        .and(query())
        .then(move |name: String, query: Query| {
            let app = Arc::clone(&app);
            async move {
                get(&app, &name, &query)
                    .await
                    .unwrap_or_else(Reply::into_response)
            }
        })
        .boxed()
}

async fn get(app: &Headcount, name: &str, query: &Query) -> Result<Response, Problem> {
    let segment = super::path::segment(name, query)?;
    let window = query.window(app.frame())?;
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
    if counts.is_empty() && !app.refreshed_windows().contains(&window) {
        return Err(Problem::bad_request("invalid_window", not_kept(app)));
    }
    Ok(json(&TrendResponse {
        segment: segment.as_str(),
        window_seconds: window.seconds(),
        points: counts.iter().map(point).collect(),
        known: !counts.is_empty() || app.knows(&segment).await,
    }))
}

/// The message for a window without a trend. An empty trend would look like a segment that never had users.
fn not_kept(app: &Headcount) -> String {
    let windows = app.refreshed_windows().iter();
    let windows: Vec<_> = windows
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
