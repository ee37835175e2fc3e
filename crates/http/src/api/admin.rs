//! `POST /v1/admin/...`: jobs that a scheduler starts. Each job may run twice, or not at all.

use std::sync::Arc;

use serde::Serialize;
use utoipa::ToSchema;
use warp::filters::BoxedFilter;
use warp::http::StatusCode;
use warp::reply::Response;

use super::Request;
use crate::access::Access;
use crate::audit::AuditOutcome;
use crate::auth::Scope;
use crate::openapi::{Described, codes, parameters};
use crate::problem::{Problem, RETRY_UNAVAILABLE};
use crate::reply::json;
use crate::resource::{Audited, Kind, Names, Operation, Resource};
use engine::Headcount;
use engine::refresher::{Outcome, Skip};

pub(super) static REFRESH: Resource = Resource {
    template: "/v1/admin/refresh",
    parameters: &["segment"],
    operations: &[Operation::post(Access::Needs(Scope::Admin))
        .names(Names::InQuery)
        .audited(Audited::Refresh)
        .described(describe_refresh)],
    kind: Kind::Plain,
};

pub(super) static ARCHIVE: Resource = Resource {
    template: "/v1/admin/archive",
    parameters: &[],
    operations: &[Operation::post(Access::Needs(Scope::Admin))
        .names(Names::Everything)
        .audited(Audited::Archive)
        .described(describe_archive)],
    kind: Kind::Plain,
};

/// The result of a refresh.
#[derive(Default, Serialize, ToSchema)]
pub(super) struct Refreshed {
    /// Counts that were renewed.
    refreshed: u64,
    /// Counts that could not be renewed.
    failed: u64,
    /// If counts are live, they are not renewed but compared with the store's own: how many differed by more than the store
    /// explains, and were read from it again.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    differences: Option<u64>,
    #[schema(minimum = 0)]
    took_seconds: f64,
    /// Why nothing was recounted, if nothing was.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    skipped: Option<&'static str>,
}

/// The result of an archive run.
#[derive(Serialize, ToSchema)]
pub(super) struct Removed {
    /// The number of pairs or points that were removed because no window includes them.
    removed: u64,
}

pub(super) fn refresh_handler(app: &Arc<Headcount>) -> BoxedFilter<(Response,)> {
    super::on(warp::post(), app, refresh)
}

pub(super) fn archive_handler(app: &Arc<Headcount>) -> BoxedFilter<(Response,)> {
    super::on(warp::post(), app, archive)
}

async fn refresh(app: Arc<Headcount>, request: Request) -> Result<Response, Problem> {
    let only = request.query.segment("segment")?;
    let refreshed = match app.refresh(only.as_ref()).await? {
        Outcome::Skipped(Skip::NoCache) => {
            let detail = "nothing was recounted: the cache is unavailable";
            return Err(Problem::unavailable(detail, RETRY_UNAVAILABLE));
        }
        Outcome::Skipped(Skip::UnderWay | Skip::Recent { .. }) => Refreshed {
            skipped: Some("another refresh is under way"),
            ..Refreshed::default()
        },
        Outcome::Done(report) => Refreshed {
            refreshed: report.refreshed,
            failed: report.failed,
            differences: report.differences,
            took_seconds: report.took.as_secs_f64(),
            skipped: None,
        },
        Outcome::Unknown => {
            let detail = "no pair of this segment is known, so there is nothing to recount";
            return Err(Problem::new(
                StatusCode::NOT_FOUND,
                "unknown_segment",
                detail,
            ));
        }
    };
    let mut done = match refreshed.skipped {
        Some(_) => "skipped".to_owned(),
        None => format!(
            "refreshed={} failed={}",
            refreshed.refreshed, refreshed.failed
        ),
    };
    if let Some(differences) = refreshed.differences {
        done.push_str(&format!(" differences={differences}"));
    }
    Ok(AuditOutcome::on(json(&refreshed), done))
}

async fn archive(app: Arc<Headcount>, _: Request) -> Result<Response, Problem> {
    let removed = app.archive().await?;
    let done = format!("removed={removed}");
    Ok(AuditOutcome::on(json(&Removed { removed }), done))
}

fn describe_refresh() -> Described {
    Described::new(
        "refresh",
        "admin",
        "Recount segments into the cache",
        "Recounts all segments, or one. Live counts are compared with the store's own instead, and segments that differ are read \
         again. While another refresh is in progress, the request is skipped, which is not an error.",
    )
    .takes(parameters::only_segment())
    .answers::<Refreshed>(
        200,
        "The result of the refresh.",
        serde_json::json!({"refreshed": 12, "failed": 0, "took_seconds": 0.4}),
    )
    .fails(&[
        codes::INVALID_SEGMENT,
        codes::INVALID_PARAMETER,
        codes::UNKNOWN_SEGMENT,
        codes::UNAVAILABLE,
    ])
}

fn describe_archive() -> Described {
    Described::new(
        "archive",
        "admin",
        "Remove expired pairs",
        "The embedded store and InfluxDB also do this automatically. With Postgres or Redis, run it from a scheduler.",
    )
    .answers::<Removed>(200, "The number of removed pairs.", serde_json::json!({"removed": 0}))
    .fails(&[codes::UNAVAILABLE])
}
