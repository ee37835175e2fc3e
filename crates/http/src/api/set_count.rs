//! `GET /v1/count`: the count of a set of users.

use std::sync::Arc;

use serde::Serialize;
use utoipa::ToSchema;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::http::StatusCode;
use warp::reply::{Reply, Response};

use crate::access::Access;
use crate::auth::Scope;
use crate::covered::CoveredFields;
use crate::openapi::{Described, codes, parameters, schema};
use crate::problem::Problem;
use crate::query::{Query, query};
use crate::reply::{json, rfc3339};
use crate::resource::{Kind, Names, Operation, Resource};
use domain::Timestamp;
use domain::store::StoreError;
use engine::Headcount;

pub(super) static SET_COUNT: Resource = Resource {
    template: "/v1/count",
    parameters: &["expr", "window", "fresh"],
    operations: &[Operation::get(Access::Needs(Scope::Read))
        .names(Names::InExpression)
        .by_cookie()
        .described(describe)],
    kind: Kind::Plain,
};

/// The count of a set of users, with its age and its source.
#[derive(Serialize, ToSchema)]
#[schema(as = SetCount)]
struct SetCountResponse<'a> {
    /// The expression in its canonical form.
    expr: String,
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
    /// The names in the expression of which no pair was received within the configured window: perhaps they are misspelled.
    /// They are counted as segments without users.
    unknown: Vec<&'a str>,
    #[serde(flatten)]
    covered: CoveredFields,
}

pub(super) fn handler(app: &Arc<Headcount>) -> BoxedFilter<(Response,)> {
    let app = Arc::clone(app);
    warp::get()
        .and(query())
        .then(move |query: Query| {
            let app = Arc::clone(&app);
            async move { get(&app, &query).await.unwrap_or_else(Reply::into_response) }
        })
        .boxed()
}

async fn get(app: &Headcount, query: &Query) -> Result<Response, Problem> {
    let expression = query.expression("expr")?;
    let window = query.window(app.frame())?;
    let fresh = query.flag("fresh")?;
    let counted = app.counts().get_set(&expression, window, fresh).await;
    let counted = counted.map_err(problem)?;
    let mut unknown = Vec::new();
    for segment in expression.segments() {
        if !app.has_seen(segment).await {
            unknown.push(segment.as_str());
        }
    }
    Ok(json(&SetCountResponse {
        expr: expression.to_string(),
        users: counted.count.users,
        window_seconds: counted.window.seconds(),
        as_of: counted.count.as_of,
        age_seconds: counted.age_at(app.clock().now()),
        source: counted.source.as_str(),
        stale: counted.stale,
        unknown,
        covered: CoveredFields::of(app, window, counted.count.as_of),
    }))
}

/// The problem of a question about sets of users.
pub(super) fn problem(error: StoreError) -> Problem {
    match error {
        StoreError::Unsupported(_) => Problem::new(
            StatusCode::NOT_IMPLEMENTED,
            "unsupported",
            "this store can't compare the users of segments; the embedded store can, and so can any other store with live \
             counts (the setting `live`)",
        ),
        error => error.into(),
    }
}

fn describe() -> Described {
    Described::new(
        "getSetCount",
        "counts",
        "Count a set of users",
        "The users in several segments at once, in any of them, or in one and not in another. It needs the embedded store or \
         live counts.",
    )
    .takes(parameters::expr())
    .takes(parameters::window())
    .takes(parameters::fresh())
    .answers::<SetCountResponse<'static>>(
        200,
        "The count.",
        serde_json::json!({
            "expr": "\"front page\" AND (news OR sports) AND NOT \"Black Friday\"", "users": 123,
            "window_seconds": 1_209_600, "as_of": "2026-11-21T08:00:00Z", "age_seconds": 0.8, "source": "store",
            "stale": false, "unknown": [],
            "covered_since": "2026-11-01T00:00:00Z", "complete": true
        }),
    )
    .fails(&[codes::INVALID_EXPRESSION, codes::INVALID_WINDOW, codes::INVALID_PARAMETER, codes::UNAVAILABLE, codes::NO_SETS])
}
