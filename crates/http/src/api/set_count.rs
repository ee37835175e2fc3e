//! `GET /v1/count`: the count of a set of users.

use std::iter;
use std::sync::Arc;

use serde::Serialize;
use utoipa::ToSchema;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::{Request, overlap};
use crate::access::Access;
use crate::auth::Scope;
use crate::certificate::Certificate;
use crate::covered::CoveredFields;
use crate::document::{Document, tagged};
use crate::openapi::{Described, codes, parameters};
use crate::problem::Problem;
use crate::resource::{Kind, Names, Operation, Resource};
use domain::{Segment, Timestamp};
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
#[derive(Serialize, Hash, ToSchema)]
#[schema(as = SetCount)]
struct SetCountResponse<'a> {
    /// The expression in its canonical form.
    expr: String,
    /// Distinct users, exact as of `as_of`. Null if it is withheld, because it would reveal a group of fewer than
    /// `min_users` users.
    #[schema(required)]
    users: Option<u64>,
    /// Whether it is withheld.
    withheld: bool,
    #[serde(flatten)]
    certificate: Certificate,
    /// The names in the expression of which no pair was received within the configured window: perhaps they are misspelled.
    /// They are counted as segments without users.
    unknown: Vec<&'a str>,
    #[serde(flatten)]
    covered: CoveredFields,
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
        "withheld",
    ];

    fn rows(&self) -> impl Iterator<Item: Serialize> {
        let certificate = &self.certificate;
        iter::once((
            &self.expr,
            self.users,
            certificate.window_seconds,
            certificate.as_of.to_string(),
            certificate.age_seconds,
            certificate.source,
            certificate.stale,
            // A JSON array.
            serde_json::Value::from(self.unknown.clone()).to_string(),
            self.withheld,
        ))
    }

    fn covered(&self) -> Option<CoveredFields> {
        Some(self.covered)
    }

    fn file_name(&self) -> String {
        "count".to_owned()
    }

    fn as_of(&self) -> Option<Timestamp> {
        Some(self.certificate.as_of)
    }
}

pub(super) fn handler(app: &Arc<Headcount>) -> BoxedFilter<(Response,)> {
    super::on(warp::get(), app, get)
}

async fn get(app: Arc<Headcount>, request: Request) -> Result<Response, Problem> {
    let query = &request.query;
    let expression = query.expression("expr")?;
    let floor = query.floor(app.counts().floor())?;
    let window = query.window_of_sets(app.frame(), floor)?;
    let fresh = query.flag("fresh")?;
    let counts = app.counts();
    let counted = counts.get_set(&expression, window, floor, fresh).await;
    let counted = counted.map_err(overlap::problem)?;
    let unknown = app.unseen(expression.segments()).await;
    let document = SetCountResponse {
        expr: expression.to_string(),
        users: counted.value,
        withheld: counted.value.is_none(),
        certificate: Certificate::of(&counted, app.clock().now()),
        unknown: unknown.into_iter().map(Segment::as_str).collect(),
        covered: CoveredFields::of(&app, window, counted.as_of),
    };
    tagged(&document, request.representation)
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
            "expr": "\"front page\" AND (news OR sports) AND NOT \"Black Friday\"", "users": 123, "withheld": false,
            "window_seconds": 1_209_600, "as_of": "2026-11-21T08:00:00Z", "age_seconds": 0.8, "source": "store",
            "stale": false, "unknown": [],
            "covered_since": "2026-11-01T00:00:00Z", "complete": true
        }),
        "expr,users,window_seconds,as_of,age_seconds,source,stale,unknown,withheld\r\n\
         news AND sports,123,1209600,2026-11-21T08:00:00Z,0.8,store,false,[],false\r\n",
    )
    .fails(&[codes::INVALID_EXPRESSION, codes::INVALID_WINDOW, codes::INVALID_PARAMETER, codes::UNAVAILABLE, codes::NO_SETS])
}
