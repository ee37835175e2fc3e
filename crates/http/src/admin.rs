//! `POST /v1/admin/...`: jobs that a scheduler starts. Each job may run twice, or not at all.

use std::sync::Arc;

use serde::Serialize;
use utoipa::ToSchema;
use warp::filters::BoxedFilter;
use warp::http::StatusCode;
use warp::reply::{Reply, Response};
use warp::{Filter, path};

use super::audit::AuditOutcome;
use super::problem::{Problem, RETRY_UNAVAILABLE};
use super::query::{Query, query};
use super::reply::json;
use engine::Headcount;
use engine::refresher::{Outcome, Skip};

/// What a refresh came to.
#[derive(Default, Serialize, ToSchema)]
pub(super) struct Refreshed {
    /// Counts that were renewed.
    refreshed: u64,
    /// Counts that could not be.
    failed: u64,
    #[schema(minimum = 0)]
    took_seconds: f64,
    /// Why nothing was done, if nothing was.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    skipped: Option<&'static str>,
}

/// What an archive run came to.
#[derive(Serialize, ToSchema)]
pub(super) struct Removed {
    /// Pairs, or points, that no window could reach any more.
    removed: u64,
}

pub(super) fn route(app: &Arc<Headcount>) -> BoxedFilter<(Response,)> {
    let (refresher, archiver) = (Arc::clone(app), Arc::clone(app));
    let refresh = path!("v1" / "admin" / "refresh")
        .and(warp::post())
        .and(query())
        .then(move |query: Query| {
            let app = Arc::clone(&refresher);
            async move {
                refresh(&app, &query)
                    .await
                    .unwrap_or_else(Reply::into_response)
            }
        });
    let archive = path!("v1" / "admin" / "archive")
        .and(warp::post())
        .then(move || {
            let app = Arc::clone(&archiver);
            async move { archive(&app).await.unwrap_or_else(Reply::into_response) }
        });
    refresh.or(archive).unify().boxed()
}

async fn refresh(app: &Headcount, query: &Query) -> Result<Response, Problem> {
    let only = query.segment("segment")?;
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
    let done = match refreshed.skipped {
        Some(_) => "skipped".to_owned(),
        None => format!(
            "refreshed={} failed={}",
            refreshed.refreshed, refreshed.failed
        ),
    };
    Ok(with(json(&refreshed), done))
}

async fn archive(app: &Headcount) -> Result<Response, Problem> {
    let removed = app.archive().await?;
    Ok(with(
        json(&Removed { removed }),
        format!("removed={removed}"),
    ))
}

/// The response, with its outcome for the audit trail.
fn with(mut response: Response, done: String) -> Response {
    response.extensions_mut().insert(AuditOutcome(done));
    response
}
