//! `POST /v1/admin/...`: work that a scheduler starts. All of it may be started twice or not at all.

use std::sync::Arc;

use serde::Serialize;
use warp::filters::BoxedFilter;
use warp::reply::{Reply, Response};
use warp::{Filter, path};

use super::problem::Problem;
use super::query::{Query, query};
use super::reply::json;
use crate::app::Headcount;
use crate::refresher::Outcome;

#[derive(Default, Serialize)]
struct Refreshed {
    refreshed: u64,
    failed: u64,
    took_seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    skipped: Option<&'static str>,
}

#[derive(Serialize)]
struct Removed {
    removed: u64,
}

/// The routes.
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
        Outcome::Skipped => Refreshed {
            skipped: Some("another refresh is under way"),
            ..Refreshed::default()
        },
        Outcome::Done(report) => Refreshed {
            refreshed: report.refreshed,
            failed: report.failed,
            took_seconds: report.took.as_secs_f64(),
            skipped: None,
        },
    };
    Ok(json(&refreshed))
}

async fn archive(app: &Headcount) -> Result<Response, Problem> {
    let removed = app.archive().await?;
    Ok(json(&Removed { removed }))
}
