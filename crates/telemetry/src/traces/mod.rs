//! Traces of requests, sent to an OpenTelemetry collector over OTLP/HTTP.
//!
//! Spans are those of `tracing` with the target [`TARGET`] and level debug. Without a collector, and with the default filter of
//! logs, they are disabled where they are created: that costs the comparison of two integers.

mod client;
mod context;
mod pipeline;
mod spans;
mod tracer;

use std::sync::atomic::{AtomicBool, Ordering};

use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::level_filters::LevelFilter;
use tracing::{Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::FilterFn;
use tracing_subscriber::registry::LookupSpan;

use self::tracer::RequestTracer;
pub use context::{answered, begin_request, continue_elsewhere, outgoing};
pub use pipeline::TracesError;
pub(super) use spans::Totals;

/// The target of the spans that are part of traces.
pub const TARGET: &str = "headcount::traces";

/// The name of the span of a request. Log lines within it have its fields.
pub const REQUEST: &str = "request";

/// Where traces go.
#[derive(Debug, Clone)]
pub struct TraceSettings {
    /// The base URL of the collector; `/v1/traces` is appended.
    pub endpoint: String,
    /// The share of the traces that begin here and are sent, 0 to 1.
    pub ratio: f64,
}

static ARE_ON: AtomicBool = AtomicBool::new(false);

/// Whether this process makes traces.
pub fn are_on() -> bool {
    ARE_ON.load(Ordering::Relaxed)
}

/// The spans of all outcomes so far.
pub(super) fn totals() -> Totals {
    spans::totals()
}

/// The provider of tracers. Its thread sends the spans of this process.
#[derive(Debug)]
pub(super) struct Traces(SdkTracerProvider);

impl Traces {
    pub(super) fn open(settings: &TraceSettings, role: &str) -> Result<Self, TracesError> {
        let provider = pipeline::provider(settings, role)?;
        ARE_ON.store(true, Ordering::Relaxed);
        Ok(Self(provider))
    }

    /// The layer that makes spans part of traces.
    pub(super) fn layer<S>(&self) -> impl Layer<S> + Send + Sync + use<S>
    where
        S: Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
    {
        tracing_opentelemetry::layer()
            .with_tracer(RequestTracer(self.0.tracer("headcount")))
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_level(false)
            .with_tracked_inactivity(false)
            .with_filter(FilterFn::new(is_traced).with_max_level_hint(LevelFilter::DEBUG))
    }

    /// Sends what is queued, and waits for that a moment at most.
    pub(super) fn end(&self) {
        pipeline::end(&self.0);
    }
}

/// Events are no part of traces: the log has them.
fn is_traced(metadata: &Metadata<'_>) -> bool {
    metadata.is_span() && metadata.target() == TARGET
}

/// Whether log lines have the fields of this span whatever the filter of logs is.
pub(super) fn is_request(metadata: &Metadata<'_>) -> bool {
    is_traced(metadata) && metadata.name() == REQUEST
}
