//! Gives the spans of requests the names and attributes of OpenTelemetry. Log lines have shorter ones.

use opentelemetry::Context;
use opentelemetry::trace::{SpanBuilder, SpanKind, Tracer};
use opentelemetry_sdk::trace::{SdkTracer, Span};

use super::REQUEST;

/// Names of fields in `tracing`, and what they are called in OpenTelemetry.
const ATTRIBUTES: [(&str, &str); 2] = [("method", "http.request.method"), ("route", "http.route")];

#[derive(Debug)]
pub(super) struct RequestTracer(pub(super) SdkTracer);

impl Tracer for RequestTracer {
    type Span = Span;

    fn build_with_context(&self, mut builder: SpanBuilder, parent: &Context) -> Span {
        if builder.name == REQUEST {
            name(&mut builder);
        }
        self.0.build_with_context(builder, parent)
    }
}

/// A span of a server is named by its method and route.
fn name(builder: &mut SpanBuilder) {
    builder.span_kind = Some(SpanKind::Server);
    let mut parts = Vec::new();
    for attribute in builder.attributes.iter_mut().flatten() {
        let renamed = ATTRIBUTES
            .iter()
            .find(|(name, _)| *name == attribute.key.as_str());
        if let Some((_, name)) = renamed {
            parts.push(attribute.value.as_str().into_owned());
            attribute.key = (*name).into();
        }
    }
    builder.name = parts.join(" ").into();
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry::KeyValue;

    #[test]
    fn a_request_is_named_by_its_method_and_route() {
        let mut builder = SpanBuilder::from_name(REQUEST).with_attributes([
            KeyValue::new("request_id", "r1"),
            KeyValue::new("method", "POST"),
            KeyValue::new("route", "/v1/pairs"),
        ]);
        name(&mut builder);
        assert_eq!(builder.name, "POST /v1/pairs");
        assert_eq!(builder.span_kind, Some(SpanKind::Server));
        let attributes = builder.attributes.unwrap();
        let names: Vec<_> = attributes.iter().map(|it| it.key.as_str()).collect();
        assert_eq!(names, ["request_id", "http.request.method", "http.route"]);
    }
}
