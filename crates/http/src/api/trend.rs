//! `GET /v1/segments/{segment}/trend`: past counts of one segment.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use utoipa::ToSchema;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::Request;
use crate::access::Access;
use crate::auth::Scope;
use crate::covered::CoveredFields;
use crate::document::{Document, tagged};
use crate::openapi::{Described, codes, parameters};
use crate::problem::Problem;
use crate::query::Query;
use crate::reply::rfc3339;
use crate::resource::{Kind, Names, Operation, Resource};
use domain::{Flow, Segment, Timestamp, Window};
use engine::Headcount;
use engine::counts::ShownCount;

pub(super) static TREND: Resource = Resource {
    template: "/v1/segments/{segment}/trend",
    parameters: &["window", "from", "to", "step", "segment"],
    operations: &[Operation::get(Access::Needs(Scope::Read))
        .names(Names::InPath(2))
        .by_cookie()
        .also_as_csv()
        .described(describe)],
    kind: Kind::Plain,
};

/// Most points of a response: more than the pixels of a chart. Without a limit, a year of minutes would be 30 MB.
const MAX_POINTS: usize = 10_000;

/// The history of a count, oldest first.
#[derive(Serialize, Hash, ToSchema)]
#[schema(as = Trend)]
pub(super) struct TrendResponse<'a> {
    segment: &'a str,
    window_seconds: u64,
    pub(super) points: Vec<Point>,
    /// False if no pair was received within the configured window and no point is kept: perhaps the name is misspelled.
    known: bool,
    #[serde(flatten)]
    covered: CoveredFields,
}

/// A past count.
#[derive(Serialize, Hash, ToSchema)]
#[schema(as = TrendPoint)]
pub(super) struct Point {
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    /// Null if the count is withheld, because it would reveal a group of fewer than `min_users` users.
    #[schema(required)]
    users: Option<u64>,
    /// How many users entered the segment since the previous point; for the first point, in its own step. Without `step`, a
    /// slot of the resolution is a step. Null if it is not known: over another window than the configured one, before
    /// counting began, with a store that does not count it, with `min_users`, for an old step that is not of whole hours, or
    /// for the second point in a step.
    #[schema(required)]
    entered: Option<u64>,
    /// How many users left the segment in that time, or were erased. Null under the same conditions as `entered`.
    #[schema(required)]
    left: Option<u64>,
}

/// The columns of the CSV of one or many trends.
pub(super) const COLUMNS: &[&str] = &[
    "segment",
    "window_seconds",
    "at",
    "users",
    "entered",
    "left",
];

impl Document for TrendResponse<'_> {
    const COLUMNS: &'static [&'static str] = COLUMNS;

    fn rows(&self) -> impl Iterator<Item: Serialize> {
        self.points.iter().map(|point| {
            let Point {
                at,
                users,
                entered,
                left,
            } = point;
            let window = self.window_seconds;
            (self.segment, window, at.to_string(), users, entered, left)
        })
    }

    fn covered(&self) -> Option<CoveredFields> {
        Some(self.covered)
    }

    fn file_name(&self) -> String {
        format!("trend-{}", self.segment)
    }
}

/// What is read of a trend: the same for one segment and for many.
pub(super) struct Range {
    from: Timestamp,
    to: Timestamp,
    step: Option<Duration>,
}

impl Range {
    pub(super) fn of(query: &Query, app: &Headcount) -> Result<Self, Problem> {
        let (from, to) = query.time_range(app.clock().now())?;
        let step = query.step("step")?;
        Ok(Self { from, to, step })
    }

    /// The trend of `segment` over `window`.
    pub(super) async fn trend<'a>(
        &self,
        app: &Headcount,
        segment: &'a Segment,
        window: Window,
    ) -> Result<TrendResponse<'a>, Problem> {
        let (from, to) = (self.from, self.to);
        let counted = app.counts();
        let counts = counted
            .past_counts(segment, window, from, to, self.step)
            .await?;
        if counts.len() > MAX_POINTS {
            return Err(too_many_points("the trend", counts.len(), MAX_POINTS));
        }
        let flows = counted.flow_of_trend(segment, window, &counts, self.step);
        let flows = flows.await;
        Ok(TrendResponse {
            segment: segment.as_str(),
            window_seconds: window.seconds(),
            points: counts.iter().zip(flows).map(point).collect(),
            known: !counts.is_empty() || app.knows(segment).await,
            covered: CoveredFields::of_all(app, counts.iter().map(|point| (window, point.as_of))),
        })
    }
}

/// Refuses a window over which no trend of `segment` is kept, if no point was found: there may be points of a time when it was.
pub(super) fn check_is_kept(
    app: &Headcount,
    segment: &Segment,
    window: Window,
) -> Result<(), Problem> {
    let kept = app.refreshed_windows(segment);
    match kept.contains(&window) {
        true => Ok(()),
        false => Err(Problem::bad_request("invalid_window", not_kept(&kept))),
    }
}

/// The problem of more points than a response may have.
pub(super) fn too_many_points(of: &str, points: usize, limit: usize) -> Problem {
    let detail = format!(
        "{of} has {points} points, the limit is {limit}: use a longer step or a shorter time"
    );
    Problem::bad_request("too_many_points", detail)
}

pub(super) fn handler(app: &Arc<Headcount>) -> BoxedFilter<(Response,)> {
    super::on(warp::get(), app, get)
}

async fn get(app: Arc<Headcount>, request: Request) -> Result<Response, Problem> {
    let segment = request.segment()?;
    let window = request.query.window_of_count(&app, &segment)?;
    let range = Range::of(&request.query, &app)?;
    let trend = range.trend(&app, &segment, window).await?;
    if trend.points.is_empty() {
        check_is_kept(&app, &segment, window)?;
    }
    tagged(&trend, request.representation)
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

fn point((count, flow): (&ShownCount, Option<Flow>)) -> Point {
    Point {
        at: count.as_of,
        users: count.users,
        entered: flow.map(|flow| flow.entered),
        left: flow.map(|flow| flow.left),
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
    .answers_tagged::<TrendResponse<'static>>(
        "The points, oldest first.",
        serde_json::json!({
            "segment": "sports", "window_seconds": 1_209_600,
            "points": [{"at": "2026-11-21T08:00:00Z", "users": 123, "entered": 7, "left": 4}], "known": true,
            "covered_since": "2026-11-01T00:00:00Z", "complete": true
        }),
        "segment,window_seconds,at,users,entered,left\r\nsports,1209600,2026-11-21T08:00:00Z,123,7,4\r\n",
    )
    .fails(&[
        codes::INVALID_SEGMENT,
        codes::INVALID_WINDOW,
        codes::INVALID_PARAMETER,
        codes::TOO_MANY_POINTS,
        codes::UNAVAILABLE,
    ])
}
