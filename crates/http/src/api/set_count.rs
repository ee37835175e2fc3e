//! `GET /v1/count`: the count of a set of users.

use std::hash::{Hash, Hasher};
use std::iter;
use std::sync::Arc;

use serde::Serialize;
use utoipa::ToSchema;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::reply::{Reply, Response};

use super::overlap;
use crate::access::Access;
use crate::auth::Scope;
use crate::covered::CoveredFields;
use crate::document::{Document, tagged};
use crate::openapi::{Described, codes, parameters, schema};
use crate::problem::Problem;
use crate::query::{Query, query};
use crate::reply::{age_seconds, rfc3339};
use crate::representation::Representation;
use crate::resource::{Kind, Names, Operation, Resource};
use domain::Timestamp;
use engine::Headcount;

pub(super) static SET_COUNT: Resource = Resource {
    template: "/v1/count",
    parameters: &["expr", "window", "fresh", "min_users"],
    operations: &[Operation::get(Access::Needs(Scope::Read))
        .names(Names::InExpression)
        .by_cookie()
        .also_as_csv()
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
    #[serde(flatten)]
    covered: CoveredFields,
}

/// A row of the CSV.
#[derive(Serialize)]
struct Row<'a> {
    expr: &'a str,
    users: Option<u64>,
    window_seconds: u64,
    #[serde(serialize_with = "rfc3339")]
    as_of: Timestamp,
    age_seconds: f64,
    source: &'static str,
    stale: bool,
    /// The names as a JSON array.
    unknown: String,
}

/// Without instant, age and source, as in the tag of a segment's count.
impl Hash for SetCountResponse<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Self {
            expr,
            users,
            window_seconds,
            as_of: _,
            age_seconds: _,
            source: _,
            stale,
            unknown,
            covered,
        } = self;
        (expr, users, window_seconds, stale, unknown, covered).hash(state);
    }
}

impl Document for SetCountResponse<'_> {
    const COLUMNS: &'static [&'static str] = &[
        "expr",
        "users",
        "window_seconds",
        "as_of",
        "age_seconds",
        "source",
        "stale",
        "unknown",
    ];

    fn rows(&self) -> impl Iterator<Item: Serialize> {
        iter::once(Row {
            expr: &self.expr,
            users: self.users,
            window_seconds: self.window_seconds,
            as_of: self.as_of,
            age_seconds: self.age_seconds,
            source: self.source,
            stale: self.stale,
            unknown: serde_json::Value::from(self.unknown.clone()).to_string(),
        })
    }

    fn covered(&self) -> Option<CoveredFields> {
        Some(self.covered)
    }

    fn file_name(&self) -> String {
        "count".to_owned()
    }

    fn as_of(&self) -> Option<Timestamp> {
        Some(self.as_of)
    }
}

pub(super) fn handler(app: &Arc<Headcount>) -> BoxedFilter<(Response,)> {
    let app = Arc::clone(app);
    warp::get()
        .and(query())
        .and(super::representation())
        .then(move |query: Query, representation| {
            let app = Arc::clone(&app);
            async move {
                let response = get(&app, &query, representation).await;
                response.unwrap_or_else(Reply::into_response)
            }
        })
        .boxed()
}

async fn get(
    app: &Headcount,
    query: &Query,
    representation: Representation,
) -> Result<Response, Problem> {
    let expression = query.expression("expr")?;
    let floor = query.floor(app.counts().floor())?;
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
    let document = SetCountResponse {
        expr: expression.to_string(),
        users: counted.value,
        window_seconds: counted.window.seconds(),
        as_of: counted.as_of,
        age_seconds: age_seconds(counted.as_of, app.clock().now()),
        source: counted.source.as_str(),
        stale: counted.stale,
        unknown,
        covered: CoveredFields::of(app, window, counted.as_of),
    };
    tagged(&document, representation)
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
    .takes(parameters::window_of_sets())
    .takes(parameters::fresh())
    .takes(parameters::min_users())
    .answers_tagged::<SetCountResponse<'static>>(
        "The count.",
        serde_json::json!({
            "expr": "\"front page\" AND (news OR sports) AND NOT \"Black Friday\"", "users": 123,
            "window_seconds": 1_209_600, "as_of": "2026-11-21T08:00:00Z", "age_seconds": 0.8, "source": "store",
            "stale": false, "unknown": [],
            "covered_since": "2026-11-01T00:00:00Z", "complete": true
        }),
        "expr,users,window_seconds,as_of,age_seconds,source,stale,unknown\r\n\
         news AND sports,123,1209600,2026-11-21T08:00:00Z,0.8,store,false,[]\r\n",
    )
    .fails(&[codes::INVALID_EXPRESSION, codes::INVALID_WINDOW, codes::INVALID_PARAMETER, codes::UNAVAILABLE, codes::NO_SETS])
}
