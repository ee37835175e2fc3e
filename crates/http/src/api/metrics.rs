//! `/metrics`, for Prometheus and compatible scrapers.

use std::fmt;
use std::sync::Arc;

use warp::Filter;
use warp::filters::BoxedFilter;
use warp::http::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue, VARY};
use warp::reply::{Reply, Response};

use crate::access::Access;
use crate::openapi::Described;
use crate::problem::Problem;
use crate::resource::{Kind, Operation, Resource};
use engine::Headcount;

pub(super) static METRICS: Resource = Resource {
    template: "/metrics",
    parameters: &[],
    operations: &[Operation::get(Access::Metrics).described(describe)],
    kind: Kind::Plain,
};

/// An exposition format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exposition {
    /// OpenMetrics 1.0.0.
    OpenMetrics,
    /// Prometheus text format 0.0.4.
    Plain,
}

pub(super) fn handler(app: &Arc<Headcount>) -> BoxedFilter<(Response,)> {
    let app = Arc::clone(app);
    warp::get()
        .and(warp::header::headers_cloned())
        .map(move |headers: HeaderMap| get(&app, &headers))
        .boxed()
}

fn get(app: &Headcount, headers: &HeaderMap) -> Response {
    let queued = app.ingest().queued_pairs();
    let form = wanted(headers);
    let metrics = app.metrics();
    metrics.ingest.queue_pairs.set(queued as u64);
    form.respond(match form {
        Exposition::OpenMetrics => metrics.render(),
        Exposition::Plain => metrics.render_plain(),
    })
}

impl Exposition {
    /// 200 with what was rendered in this format.
    pub(super) fn respond(self, rendered: Result<String, fmt::Error>) -> Response {
        let text = match rendered {
            Ok(text) => text,
            Err(error) => return Problem::internal().caused_by(&error).into_response(),
        };
        let mut response = warp::http::Response::new(text).into_response();
        let kind = match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Plain => "text/plain; version=0.0.4; charset=utf-8",
        };
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert(VARY, HeaderValue::from_static("accept"));
        response
    }
}

/// The format that the client prefers. OpenMetrics only if `Accept` names it, because every scraper reads the other.
pub(super) fn wanted(headers: &HeaderMap) -> Exposition {
    let (mut open, mut plain) = (0.0_f32, 0.0_f32);
    let given = headers.get_all(ACCEPT).iter();
    let given = given.filter_map(|value| value.to_str().ok());
    for range in given.flat_map(|value| value.split(',')) {
        let mut parts = range.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
        let (mut quality, mut version) = (1.0, None);
        for parameter in parts {
            match parameter.split_once('=') {
                Some(("q", value)) => quality = value.parse().unwrap_or(0.0),
                Some(("version", value)) => version = Some(value.trim_matches('"')),
                _ => {}
            }
        }
        match kind.as_str() {
            "application/openmetrics-text" if version.is_none_or(|version| version == "1.0.0") => {
                open = open.max(quality);
            }
            "text/plain" => plain = plain.max(quality),
            _ => {}
        }
    }
    match open > 0.0 && open >= plain {
        true => Exposition::OpenMetrics,
        false => Exposition::Plain,
    }
}

fn describe() -> Described {
    Described::new(
        "getMetrics",
        "operations",
        "Get metrics for Prometheus",
        "Open without a token, unless the service is configured to require scope `read`.",
    )
    .answers_with(
        200,
        "All metrics: in OpenMetrics if `Accept` prefers it, else in the text format 0.0.4.",
        &["text/plain", "application/openmetrics-text"],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_names_open_metrics_gets_it() {
        // Of Prometheus 2.49 and 3.
        let two = "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,\
                   text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        let three = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
                     application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
                     text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for (accept, expected) in [
            (None, Exposition::Plain),
            (Some("*/*"), Exposition::Plain),
            (Some("text/plain"), Exposition::Plain),
            (Some("text/html,*/*;q=0.8"), Exposition::Plain),
            (
                Some("text/plain, application/openmetrics-text;q=0.5"),
                Exposition::Plain,
            ),
            (Some("application/openmetrics-text;q=0"), Exposition::Plain),
            (
                Some("application/openmetrics-text;version=0.0.1"),
                Exposition::Plain,
            ),
            (
                Some("application/openmetrics-text"),
                Exposition::OpenMetrics,
            ),
            (
                Some("Application/OpenMetrics-Text; version=1.0.0"),
                Exposition::OpenMetrics,
            ),
            (Some(two), Exposition::OpenMetrics),
            (Some(three), Exposition::OpenMetrics),
        ] {
            let headers = accept.map(|text| (ACCEPT, text.parse().unwrap()));
            let headers = HeaderMap::from_iter(headers);
            assert_eq!(wanted(&headers), expected, "{accept:?}");
        }
    }
}
