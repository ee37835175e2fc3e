//! `POST /v1/pairs` and `/v1/pairs/ndjson`: ingestion of pairs.

mod openapi;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use utoipa::ToSchema;
use warp::filters::BoxedFilter;
use warp::http::StatusCode;
use warp::reply::{Reply, Response};

use super::intake::{Intake, Taken};
use crate::access::Access;
use crate::auth::Scope;
use crate::media::Format;
use crate::openapi::schema;
use crate::parse::ItemError;
use crate::problem::Problem;
use crate::reply::json_with;
use crate::resource::{Kind, Names, Operation, Resource};
use engine::ingest::Durability;

pub(super) static PAIRS: Resource = Resource {
    template: "/v1/pairs",
    parameters: &[],
    operations: &[Operation::post(Access::Needs(Scope::Write))
        .names(Names::Filtered)
        .described(openapi::describe)],
    kind: Kind::Plain,
};

/// NDJSON with any content type: clients that are generated from the document can't send two kinds of body to one path.
pub(super) static NDJSON: Resource = Resource {
    template: "/v1/pairs/ndjson",
    parameters: &[],
    operations: &[Operation::post(Access::Needs(Scope::Write))
        .names(Names::Filtered)
        .described(openapi::describe_ndjson)],
    kind: Kind::Plain,
};

/// The result of storing the pairs of a request.
#[derive(Serialize, ToSchema)]
#[schema(as = Accepted)]
pub(super) struct PairsResponse<'a> {
    /// Pairs that are durable now.
    accepted: usize,
    /// Items that were rejected.
    rejected: usize,
    /// `spooled` when the pairs wait on this instance's disk for the store; `stored` when the store has them, and live counts include
    /// them later.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = schema::durable)]
    durable: Option<&'static str>,
    /// Why items were rejected: the first hundred errors.
    errors: &'a [ItemError],
    /// The number of rejected items by code, also of those that `errors` does not list.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(required = false)]
    codes: BTreeMap<&'static str, usize>,
    /// Warnings about accepted items that are probably wrong, such as a time in another field than `at`.
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    #[schema(required = false)]
    warnings: &'a [String],
}

pub(super) fn handler(intake: &Arc<Intake>) -> BoxedFilter<(Response,)> {
    intake.handler(|headers: &_, _: &_| Format::of(headers), respond)
}

pub(super) fn ndjson_handler(intake: &Arc<Intake>) -> BoxedFilter<(Response,)> {
    intake.handler(|_: &_, _: &_| Ok(Format::Lines), respond)
}

fn respond(taken: Result<Taken, Problem>) -> Response {
    taken.map_or_else(Problem::into_response, |taken| report(&taken))
}

fn report(taken: &Taken) -> Response {
    let report = &taken.report;
    if taken.accepted == 0 {
        return refusal(taken).into_response();
    }
    let (status, durable) = match taken.durability {
        Durability::Stored => (StatusCode::OK, None),
        Durability::Uncounted => (StatusCode::ACCEPTED, Some("stored")),
        Durability::Spooled => (StatusCode::ACCEPTED, Some("spooled")),
    };
    let answer = PairsResponse {
        accepted: taken.accepted,
        rejected: report.rejected(),
        durable,
        errors: &report.errors,
        codes: taken.codes(),
        warnings: &report.warnings,
    };
    json_with(status, &answer)
}

pub(super) fn refusal(taken: &Taken) -> Problem {
    let report = &taken.report;
    let (code, detail) = if report.items == 0 {
        ("empty", "the body has no pairs")
    } else {
        (
            "nothing_accepted",
            "no pair in the body was accepted: see errors for the reasons",
        )
    };
    let errors = serde_json::to_value(&report.errors).unwrap_or_default();
    let codes = serde_json::to_value(taken.codes()).unwrap_or_default();
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, code, detail)
        .member("accepted", 0)
        .member("rejected", report.rejected())
        .member("errors", errors)
        .member("codes", codes)
}
