//! From a span that ended to the collector: sampling, the queue, the thread that sends.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use opentelemetry::trace::{Link, SpanKind, TraceContextExt, TraceId};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::resource::{EnvResourceDetector, TelemetryResourceDetector};
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Sampler, SamplingDecision, SamplingResult,
    SdkTracerProvider, ShouldSample,
};
use reqwest::Url;

use super::TraceSettings;
use super::client::Client;
use super::spans::{Bounded, Counted, totals};
use crate::version::VERSION;

/// Spans that wait for the collector at most: about 2 MB. The default of OpenTelemetry.
const QUEUE: usize = 2048;
/// How long the end of the process waits for the collector.
const LAST_BATCHES: Duration = Duration::from_secs(3);
/// Where a collector takes traces.
const PATH: &str = "v1/traces";

/// Why no traces can be sent.
#[derive(Debug, thiserror::Error)]
#[error("otlp_endpoint: {0}")]
pub struct TracesError(String);

impl TracesError {
    fn because(error: impl ToString) -> Self {
        Self(error.to_string())
    }
}

pub(super) fn provider(
    settings: &TraceSettings,
    role: &str,
) -> Result<SdkTracerProvider, TracesError> {
    let endpoint = format!("{}/{PATH}", settings.endpoint.trim_end_matches('/'));
    let url = Url::parse(&endpoint).map_err(TracesError::because)?;
    let exporter = SpanExporter::builder()
        .with_http()
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(endpoint)
        .with_http_client(Client::new(&url).map_err(TracesError::because)?)
        .build()
        .map_err(TracesError::because)?;
    let waiting = Arc::<AtomicUsize>::default();
    let config = BatchConfigBuilder::default().with_max_queue_size(QUEUE);
    let exporter = Counted::new(exporter, Arc::clone(&waiting));
    let queue = BatchSpanProcessor::new(exporter, config.build());
    Ok(SdkTracerProvider::builder()
        .with_span_processor(Bounded {
            queue,
            waiting,
            limit: QUEUE,
        })
        .with_sampler(Sampler::ParentBased(Box::new(Requests(
            Sampler::TraceIdRatioBased(settings.ratio),
        ))))
        .with_resource(resource(role, |name| std::env::var(name).ok()))
        .build())
}

pub(super) fn end(provider: &SdkTracerProvider) {
    if let Err(error) = provider.shutdown_with_timeout(LAST_BATCHES) {
        let spans = totals();
        tracing::warn!(
            %error,
            failed = spans.failed,
            dropped = spans.dropped,
            "the last traces were not sent"
        );
    }
}

/// What this process is. The variables `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` win.
fn resource(role: &str, variable: impl Fn(&str) -> Option<String>) -> Resource {
    let random = fastrand::u128(..);
    let mut resource = Resource::builder_empty()
        .with_attributes([
            KeyValue::new("service.name", "headcount"),
            KeyValue::new("service.version", VERSION),
            KeyValue::new("service.instance.id", format!("{random:032x}")),
            KeyValue::new("headcount.role", role.to_owned()),
        ])
        .with_detector(Box::new(TelemetryResourceDetector))
        .with_detector(Box::new(EnvResourceDetector::new()));
    if let Some(name) = variable("OTEL_SERVICE_NAME").filter(|name| !name.is_empty()) {
        resource = resource.with_service_name(name);
    }
    resource.build()
}

/// Only requests begin traces: background work would fill the collector.
#[derive(Debug, Clone)]
struct Requests(Sampler);

impl ShouldSample for Requests {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace_id: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        if *kind == SpanKind::Server {
            return self
                .0
                .should_sample(parent, trace_id, name, kind, attributes, links);
        }
        let state = parent.map(|parent| parent.span().span_context().trace_state().clone());
        SamplingResult {
            decision: SamplingDecision::Drop,
            attributes: Vec::new(),
            trace_state: state.unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_rename_the_service() {
        let named = |name: Option<&str>| {
            let resource = resource("serve", |_| name.map(str::to_owned));
            let value = resource.get(&"service.name".into());
            value.map(|value| value.as_str().into_owned())
        };
        assert_eq!(named(None).as_deref(), Some("headcount"));
        assert_eq!(named(Some("")).as_deref(), Some("headcount"));
        assert_eq!(named(Some("counts")).as_deref(), Some("counts"));
    }

    #[test]
    fn only_requests_begin_traces() {
        let sampler = Requests(Sampler::AlwaysOn);
        let decision = |kind: SpanKind| {
            let id = TraceId::from_bytes([1; 16]);
            let result = sampler.should_sample(None, id, "span", &kind, &[], &[]);
            result.decision
        };
        assert_eq!(
            decision(SpanKind::Server),
            SamplingDecision::RecordAndSample
        );
        assert_eq!(decision(SpanKind::Internal), SamplingDecision::Drop);
    }
}
