//! `GET /v1/coverage`: since when the store has every pair, and what was lost. `PUT /v1/admin/coverage` states it.

use std::sync::Arc;

use serde::Serialize;
use utoipa::ToSchema;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::Request;
use crate::access::Access;
use crate::audit::AuditOutcome;
use crate::auth::Scope;
use crate::covered::CoveredFields;
use crate::openapi::{Described, codes, parameters, schema};
use crate::problem::Problem;
use crate::reply::{json, rfc3339, rfc3339_or_null};
use crate::resource::{Audited, Kind, Names, Operation, Resource};
use domain::Timestamp;
use domain::coverage::Loss;
use engine::Headcount;
use engine::coverage::StateError;

pub(super) static COVERAGE: Resource = Resource {
    template: "/v1/coverage",
    parameters: &[],
    operations: &[Operation::get(Access::Needs(Scope::Read))
        .by_cookie()
        .described(describe_get)],
    kind: Kind::Plain,
};

/// Below `/v1/admin`, so that a load balancer can expose only the route that reads.
pub(super) static STATEMENT: Resource = Resource {
    template: "/v1/admin/coverage",
    parameters: &["since"],
    operations: &[Operation::put(Access::Needs(Scope::Admin))
        .names(Names::Everything)
        .audited(Audited::Coverage)
        .described(describe_put)],
    kind: Kind::Plain,
};

/// Since when the store has every pair, and the reasons.
#[derive(Serialize, ToSchema)]
#[schema(as = Coverage)]
pub(super) struct CoverageResponse {
    #[serde(flatten)]
    covered: CoveredFields,
    /// The first instant at which counts over the configured window are complete, if no other pair is lost. Null while it is not
    /// known.
    #[serde(serialize_with = "rfc3339_or_null")]
    #[schema(required, value_type = Option<String>, format = DateTime)]
    complete_from: Option<Timestamp>,
    /// When a service first recorded pairs in the store. Null while it is not known.
    #[serde(serialize_with = "rfc3339_or_null")]
    #[schema(required, value_type = Option<String>, format = DateTime)]
    began: Option<Timestamp>,
    /// When an operator last stated since when the store has every pair. Null if that was never stated.
    #[serde(serialize_with = "rfc3339_or_null")]
    #[schema(required, value_type = Option<String>, format = DateTime)]
    stated_at: Option<Timestamp>,
    /// The time that was stated: the store has every pair that was seen since then.
    #[serde(serialize_with = "rfc3339_or_null")]
    #[schema(required, value_type = Option<String>, format = DateTime)]
    stated_since: Option<Timestamp>,
    /// Intervals whose pairs may be missing, and which no statement includes, newest first.
    losses: Vec<LossEntry>,
}

/// An interval whose pairs may be missing.
#[derive(Serialize, ToSchema)]
#[schema(as = Loss)]
struct LossEntry {
    /// The first instant.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    from: Timestamp,
    /// The first instant after it.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    until: Timestamp,
    /// When it was last noted.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    noted: Timestamp,
    /// The number of pairs; one that was sent again counts again. Null if it is not known.
    #[schema(required)]
    pairs: Option<u64>,
    /// Why: `refused` by the store for good; `unavailable`: neither the store nor the spool could take them; `not_running`: no
    /// service was running.
    #[schema(schema_with = schema::loss_reason)]
    reason: &'static str,
}

impl From<&Loss> for LossEntry {
    fn from(loss: &Loss) -> Self {
        Self {
            from: loss.from,
            until: loss.until,
            noted: loss.noted,
            pairs: loss.pairs,
            reason: loss.reason.as_str(),
        }
    }
}

pub(super) fn handler(app: &Arc<Headcount>) -> BoxedFilter<(Response,)> {
    super::on(warp::get(), app, get)
}

async fn get(app: Arc<Headcount>, _: Request) -> Result<Response, Problem> {
    Ok(json(&document(&app)))
}

pub(super) fn statement_handler(app: &Arc<Headcount>) -> BoxedFilter<(Response,)> {
    super::on(warp::put(), app, put)
}

async fn put(app: Arc<Headcount>, request: Request) -> Result<Response, Problem> {
    let Some(since) = request.query.day_or_instant("since")? else {
        return Err(Problem::invalid_parameter("since", "is missing"));
    };
    match app.coverage().state(since).await {
        Ok(()) => {}
        Err(StateError::InFuture) => {
            return Err(Problem::invalid_parameter("since", "is in the future"));
        }
        Err(StateError::Store(error)) => return Err(error.into()),
    }
    let response = json(&document(&app));
    Ok(AuditOutcome::on(response, format!("since={since}")))
}

fn document(app: &Headcount) -> CoverageResponse {
    let (window, now) = (app.frame().full_window(), app.clock().now());
    let covered = app.coverage().of(window, now);
    let history = app.coverage().history();
    let stated = history.as_ref().and_then(|history| history.statement(now));
    let losses = history.iter().flat_map(|history| history.losses_as_of(now));
    let mut losses: Vec<_> = losses.map(LossEntry::from).collect();
    losses.sort_by_key(|loss| std::cmp::Reverse((loss.until, loss.from)));
    CoverageResponse {
        covered: covered.into(),
        complete_from: covered.complete_from(window),
        began: history.as_ref().and_then(|history| history.began),
        stated_at: stated.map(|stated| stated.at),
        stated_since: stated.map(|stated| stated.since),
        losses,
    }
}

fn example() -> serde_json::Value {
    serde_json::json!({
        "covered_since": "2026-11-20T14:05:00Z", "complete": false, "complete_from": "2026-12-04T14:04:00Z",
        "began": "2026-11-15T09:30:00Z", "stated_at": null, "stated_since": null,
        "losses": [{
            "from": "2026-11-20T13:40:00Z", "until": "2026-11-20T14:05:00Z", "noted": "2026-11-20T14:05:12Z", "pairs": 4200,
            "reason": "unavailable"
        }]
    })
}

fn describe_get() -> Described {
    Described::new(
        "getCoverage",
        "counts",
        "Since when the counts are complete",
        "The two members `covered_since` and `complete` of every count, here for the configured window, and the reasons.",
    )
    .answers::<CoverageResponse>(200, "What is known.", example())
}

fn describe_put() -> Described {
    Described::new(
        "putCoverage",
        "admin",
        "State since when the counts are complete",
        "States that the store has every pair that was seen between `since` and now: for example, after its history was loaded. It \
         replaces earlier statements, and losses noted before no longer matter.",
    )
    .takes(parameters::since())
    .answers::<CoverageResponse>(200, "What is known now.", example())
    .fails(&[codes::INVALID_PARAMETER, codes::UNAVAILABLE])
}
