//! The W3C trace context of requests: `traceparent` and `tracestate`.

use std::collections::HashMap;

use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::{Status, TraceContextExt};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// The limit of the W3C recommendation, which a longer `tracestate` exceeds.
const MAX_STATE_BYTES: usize = 512;

/// The headers of a request that name a trace.
struct Headers<'h> {
    parent: Option<&'h str>,
    state: Option<&'h str>,
}

impl Extractor for Headers<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        match name {
            "traceparent" => self.parent,
            "tracestate" => self.state,
            _ => None,
        }
    }

    fn keys(&self) -> Vec<&str> {
        vec!["traceparent", "tracestate"]
    }
}

/// Makes `span`, the new span of a request, part of the trace that the request's headers name, and records its field `trace_id`.
/// Without a valid `traceparent` the span begins a trace.
pub fn begin_request(span: &Span, traceparent: Option<&str>, tracestate: Option<&str>) {
    let headers = Headers {
        parent: traceparent,
        state: tracestate.filter(|state| state.len() <= MAX_STATE_BYTES),
    };
    let parent = TraceContextPropagator::new().extract(&headers);
    if parent.span().span_context().is_valid() {
        // Fails only without traces.
        let _ = span.set_parent(parent);
    }
    let context = span.context();
    let trace_id = context.span().span_context().trace_id();
    span.record("trace_id", tracing::field::display(trace_id));
}

/// Notes the status of the response in the span of a request.
pub fn answered(span: &Span, status: u16) {
    if !super::are_on() {
        return;
    }
    span.set_attribute("http.response.status_code", i64::from(status));
    if status >= 500 {
        span.set_status(Status::error(""));
    }
}

/// Makes `span`, which is new, part of the current trace, for work that may outlast the current span. A child would keep its parent
/// open.
pub fn continue_elsewhere(span: &Span) {
    if super::are_on() {
        let current = Span::current().context();
        if current.span().span_context().is_valid() {
            let _ = span.set_parent(current);
        }
    }
}

/// The headers that continue the current trace in another service. Empty without traces.
pub fn outgoing() -> HashMap<String, String> {
    let mut headers = HashMap::new();
    if super::are_on() {
        let context = Span::current().context();
        if context.span().span_context().is_valid() {
            TraceContextPropagator::new().inject_context(&context, &mut headers);
        }
    }
    headers
}
