//! `GET /v1/segments/{segment}/count`: the count of one segment.

use std::sync::Arc;

use serde::Serialize;
use utoipa::ToSchema;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use crate::access::Access;
use crate::auth::Scope;
use crate::openapi::{Described, codes, parameters, schema};
use crate::problem::Problem;
use crate::query::Query;
use crate::reply::{json, rfc3339};
use crate::resource::{Kind, Names, Operation, Resource};
use domain::{Segment, Timestamp};
use engine::Headcount;
use engine::counts::CountResult;

pub(super) static COUNT: Resource = Resource {
    template: "/v1/segments/{segment}/count",
    parameters: &["window", "fresh", "segment"],
    operations: &[Operation::get(Access::Needs(Scope::Read))
        .names(Names::InPath(2))
        .by_cookie()
        .described(describe)],
    kind: Kind::Plain,
};

/// A count, with its age and its source.
#[derive(Serialize, ToSchema)]
#[schema(as = Count)]
pub(super) struct CountResponse<'a> {
    segment: &'a str,
    /// Distinct users, exact as of `as_of`.
    users: u64,
    window_seconds: u64,
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    as_of: Timestamp,
    /// How long ago `as_of` was, to the millisecond.
    #[schema(minimum = 0)]
    age_seconds: f64,
    /// Where the number came from.
    #[schema(schema_with = schema::source)]
    source: &'static str,
    /// Whether every source failed, so that this is the last known count.
    stale: bool,
    /// False if no pair of this segment was received within the configured window: perhaps the name is misspelled.
    known: bool,
}

pub(super) fn handler(app: &Arc<Headcount>) -> BoxedFilter<(Response,)> {
    super::of_segment(app, get)
}

async fn get(app: Arc<Headcount>, name: String, query: Query) -> Result<Response, Problem> {
    let segment = crate::path::segment(&name, &query)?;
    let window = query.given_window(app.frame())?;
    let window = window.unwrap_or_else(|| app.counts().window_of(&segment));
    let fresh = query.flag("fresh")?;
    let at_once = if fresh {
        None
    } else {
        app.counts().get_now(&segment, window)
    };
    let answer = match at_once {
        Some(answer) => answer,
        None => app.counts().get(&segment, window, fresh).await?,
    };
    let known = answer.count.users > 0 || app.knows(&segment).await;
    let document = document(&segment, &answer, known, app.clock().now());
    app.metrics().counts.age.observe(document.age_seconds);
    Ok(json(&document))
}

fn document<'a>(
    segment: &'a Segment,
    answer: &CountResult,
    known: bool,
    now: Timestamp,
) -> CountResponse<'a> {
    CountResponse {
        segment: segment.as_str(),
        users: answer.count.users,
        window_seconds: answer.window.seconds(),
        as_of: answer.count.as_of,
        age_seconds: answer.age_at(now),
        source: answer.source.as_str(),
        stale: answer.stale,
        known,
    }
}

fn describe() -> Described {
    Described::new(
        "getCount",
        "counts",
        "Count the users of a segment",
        "The count of an unknown segment is 0.",
    )
    .takes(parameters::segment())
    .takes(parameters::segment_beside())
    .takes(parameters::window())
    .takes(parameters::fresh())
    .answers::<CountResponse<'static>>(
        200,
        "The count.",
        serde_json::json!({
            "segment": "sports", "users": 123, "window_seconds": 1_209_600, "as_of": "2026-11-21T08:00:00Z",
            "age_seconds": 0.8, "source": "memory", "stale": false, "known": true
        }),
    )
    .fails(&[codes::INVALID_SEGMENT, codes::INVALID_WINDOW, codes::INVALID_PARAMETER, codes::UNAVAILABLE])
}
