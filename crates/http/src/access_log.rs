//! The span, the metrics and the log line of each request.

use std::sync::Arc;
use std::time::Duration;

use tower_http::request_id::RequestId;
use tower_http::trace::OnResponse;
use tracing::Span;
use warp::http::{Request, Response};

use super::problem::Cause;
use super::request_id::{self, REQUEST_ID};
use super::resource::Kind;
use super::service::{Handled, RequestContext, name_of};
use telemetry::{Metrics, traces};

/// Records each response. Cloning is cheap.
#[derive(Clone)]
pub(super) struct AccessLog {
    metrics: Arc<Metrics>,
}

/// The span of `request`, which has the extensions [`RequestContext`] and [`RequestId`].
pub(super) fn span<B>(request: &Request<B>) -> Span {
    let extensions = request.extensions();
    let request_id = extensions.get().map(RequestId::header_value);
    let request_id = request_id::as_str(request_id);
    let method = name_of(request.method());
    let route = extensions.get::<RequestContext>().map(|it| it.route);
    let template = route.map_or("", |route| route.template);
    // Probes would be most of the traces.
    if !traces::are_on() || route.is_some_and(|route| route.kind == Kind::Probe) {
        return tracing::debug_span!("request", request_id, method, route = template);
    }
    let span = tracing::debug_span!(
        target: traces::TARGET,
        traces::REQUEST,
        request_id,
        method,
        route = template,
        trace_id = tracing::field::Empty,
    );
    let header = |name| request.headers().get(name)?.to_str().ok();
    traces::begin_request(&span, header("traceparent"), header("tracestate"));
    span
}

impl AccessLog {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics }
    }
}

impl<B> OnResponse<B> for AccessLog {
    fn on_response(self, response: &Response<B>, took: Duration, span: &Span) {
        let handled = response.extensions().get::<Handled>();
        // The CORS layer responds to preflights on its own.
        let (route, method) = handled.map_or(("preflight", "OPTIONS"), |handled| {
            (handled.route.template, handled.method)
        });
        let status = response.status().as_u16();
        self.metrics.http.request(route, method, status, took);
        traces::answered(span, status);
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let request_id = request_id::as_str(response.headers().get(REQUEST_ID));
        let caller = handled.and_then(|handled| handled.caller.as_deref());
        let caller = caller.unwrap_or("-");
        if response.status().is_server_error() {
            let cause = response.extensions().get::<Cause>();
            let cause = cause.map_or("", |Cause(cause)| cause.as_str());
            tracing::warn!(
                request_id,
                method,
                route,
                status,
                took_us,
                caller,
                cause,
                "request failed"
            );
        } else {
            tracing::debug!(
                request_id,
                method,
                route,
                status,
                took_us,
                caller,
                "request completed"
            );
        }
    }
}
