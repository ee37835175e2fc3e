//! `/metrics`, for Prometheus.

use std::sync::Arc;

use warp::filters::BoxedFilter;
use warp::http::header::{CONTENT_TYPE, HeaderValue};
use warp::reply::{Reply, Response};
use warp::{Filter, path};

use super::problem::Problem;
use crate::app::Headcount;

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The route.
pub(super) fn route(app: &Arc<Headcount>) -> BoxedFilter<(Response,)> {
    let app = Arc::clone(app);
    path!("metrics")
        .and(warp::get())
        .map(move || get(&app))
        .boxed()
}

fn get(app: &Headcount) -> Response {
    app.metrics().queue_depth(app.ingest().queued_pairs());
    match app.metrics().render() {
        Ok(text) => {
            let mut response = warp::http::Response::new(text).into_response();
            let kind = HeaderValue::from_static(OPEN_METRICS);
            response.headers_mut().insert(CONTENT_TYPE, kind);
            response
        }
        Err(error) => Problem::internal().caused_by(&error).into_response(),
    }
}
