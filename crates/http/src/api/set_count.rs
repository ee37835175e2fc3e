//! `GET /v1/count`: the count of a set of users.

use std::sync::Arc;

use serde::Serialize;
use utoipa::ToSchema;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::reply::{Reply, Response};

use super::overlap;
use crate::access::Access;
use crate::auth::Scope;
use crate::openapi::{Described, codes, parameters, schema};
use crate::problem::Problem;
use crate::query::{Query, query};
use crate::reply::{age_seconds, json, rfc3339};
use crate::resource::{Kind, Names, Operation, Resource};
use domain::{Floor, Timestamp};
use engine::Headcount;

pub(super) static SET_COUNT: Resource = Resource {
    template: "/v1/count",
    parameters: &["expr", "window", "fresh", "min_users"],
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
    /// Distinct users, exact as of `as_of`. Null if it is withheld, because it would tell a group of fewer than `min_users`
    /// users apart.
    #[schema(required)]
    users: Option<u64>,
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
}

pub(super) fn handler(app: &Arc<Headcount>, floor: Floor) -> BoxedFilter<(Response,)> {
    let app = Arc::clone(app);
    warp::get()
        .and(query())
        .then(move |query: Query| {
            let app = Arc::clone(&app);
            async move {
                get(&app, floor, &query)
                    .await
                    .unwrap_or_else(Reply::into_response)
            }
        })
        .boxed()
}

async fn get(app: &Headcount, floor: Floor, query: &Query) -> Result<Response, Problem> {
    let expression = query.expression("expr")?;
    let floor = query.floor(floor)?;
    let window = query.window_of_sets(app.frame(), floor)?;
    let fresh = query.flag("fresh")?;
    let counts = app.counts();
    let counted = counts.get_set(&expression, window, floor, fresh).await;
    let counted = counted.map_err(overlap::problem)?;
    let mut unknown = Vec::new();
    for segment in expression.segments() {
        if !app.has_seen(segment).await {
            unknown.push(segment.as_str());
        }
    }
    Ok(json(&SetCountResponse {
        expr: expression.to_string(),
        users: counted.value,
        window_seconds: counted.window.seconds(),
        as_of: counted.as_of,
        age_seconds: age_seconds(counted.as_of, app.clock().now()),
        source: counted.source.as_str(),
        stale: counted.stale,
        unknown,
    }))
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
    .takes(parameters::min_users())
    .answers::<SetCountResponse<'static>>(
        200,
        "The count.",
        serde_json::json!({
            "expr": "\"front page\" AND (news OR sports) AND NOT \"Black Friday\"", "users": 123,
            "window_seconds": 1_209_600, "as_of": "2026-11-21T08:00:00Z", "age_seconds": 0.8, "source": "store",
            "stale": false, "unknown": []
        }),
    )
    .fails(&[codes::INVALID_EXPRESSION, codes::INVALID_WINDOW, codes::INVALID_PARAMETER, codes::UNAVAILABLE, codes::NO_SETS])
}
