//! All metrics. The name, help, kind and labels of a metric are one row of a table in the file of its area. Names end in
//! their unit, and no label contains a user. Only [`SegmentMetrics`] have a segment as a label; they are not in the registry.

mod auth;
mod counts;
mod events;
mod exposition;
mod http;
mod index;
mod ingest;
mod kinds;
mod live;
mod process;
mod refresh;
mod runtime;
mod segments;
mod spool;
mod store;
mod traces;
mod wal;

use std::fmt;

use parking_lot::Mutex;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::registry::Registry;

pub use auth::Auth;
pub use counts::Counts;
pub use events::Events;
pub use http::Http;
pub use index::Index;
pub use ingest::Ingest;
pub use kinds::{
    Buckets, Counter, Counters, FloatGauge, Gauge, Gauges, Histogram, Histograms, Labelled,
    set_total,
};
pub use live::Live;
use process::Process;
pub use refresh::Refresh;
pub use runtime::Runtime;
pub use segments::{LeftOut, SegmentMetrics, SegmentSample, WindowSample};
pub use spool::Spool;
pub use store::Store;
pub use traces::Traces;
pub use wal::Wal;

type Hook = Box<dyn Fn(&Metrics) + Send + Sync>;

/// All metrics of the service, by area.
#[allow(missing_docs, reason = "the type of each area is documented")]
pub struct Metrics {
    registry: Registry,
    process: Process,
    hooks: Mutex<Vec<Hook>>,
    pub auth: Auth,
    pub counts: Counts,
    pub events: Events,
    pub http: Http,
    pub index: Index,
    pub ingest: Ingest,
    pub live: Live,
    pub refresh: Refresh,
    pub runtime: Runtime,
    pub spool: Spool,
    pub store: Store,
    pub traces: Traces,
    pub wal: Wal,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("headcount");
        Self {
            auth: Auth::register(&mut registry),
            counts: Counts::register(&mut registry),
            events: Events::register(&mut registry),
            http: Http::register(&mut registry),
            index: Index::register(&mut registry),
            ingest: Ingest::register(&mut registry),
            live: Live::register(&mut registry),
            refresh: Refresh::register(&mut registry),
            runtime: Runtime::register(&mut registry),
            spool: Spool::register(&mut registry),
            store: Store::register(&mut registry),
            traces: Traces::register(&mut registry),
            wal: Wal::register(&mut registry),
            process: Process::default(),
            hooks: Mutex::default(),
            registry,
        }
    }
}

impl Metrics {
    /// Calls `hook` before each rendering, so that gauges that are cheap to read are always up to date.
    pub fn before_render(&self, hook: impl Fn(&Self) + Send + Sync + 'static) {
        self.hooks.lock().push(Box::new(hook));
    }

    /// Renders all metrics in the Prometheus text format 0.0.4.
    pub fn render_plain(&self) -> Result<String, fmt::Error> {
        self.render().map(|text| exposition::plain(&text))
    }

    /// Renders all metrics as OpenMetrics text.
    pub fn render(&self) -> Result<String, fmt::Error> {
        self.runtime.update();
        self.traces.update();
        for hook in self.hooks.lock().iter() {
            hook(self);
        }
        let mut text = String::with_capacity(16 * 1024);
        encode_registry(&mut text, &self.registry)?;
        self.process.render(&mut text)?;
        encode_eof(&mut text)?;
        Ok(text)
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::version::{COMMIT, VERSION};

    #[test]
    fn every_metric_is_rendered_under_its_name() {
        let metrics = Metrics::default();
        let millisecond = Duration::from_millis(1);
        metrics.http.request("/v1/pairs", "POST", 200, millisecond);
        metrics.ingest.accepted(3, false);
        metrics.ingest.rejected.with(["malformed"]).inc_by(2);
        metrics.wal.synced(4, 4096, millisecond);
        metrics.wal.bytes.set(5);
        metrics.store.call("count", "ok", millisecond);
        metrics.refresh.ended("ok", millisecond);
        metrics.refresh.last_success.set(1_795_262_400.5);
        metrics.counts.age.observe(61.0);
        metrics.spool.limit.set(1 << 30);
        metrics.before_render(|metrics| {
            metrics.index.pairs.set(8);
        });
        let text = metrics.render().unwrap();
        for line in [
            r#"headcount_http_requests_total{route="/v1/pairs",method="POST",status="200"} 1"#,
            r#"headcount_http_request_duration_seconds_count{route="/v1/pairs",method="POST"} 1"#,
            r#"headcount_pairs_accepted_total{to="store"} 3"#,
            r#"headcount_pairs_rejected_total{code="malformed"} 2"#,
            r#"headcount_log_fsyncs_total{outcome="ok"} 1"#,
            "headcount_log_fsync_duration_seconds_count 1",
            "headcount_log_group_bytes_sum 4096.0",
            "headcount_snapshot_age_seconds NaN",
            "headcount_log_bytes 5",
            "headcount_pairs 8",
            r#"headcount_store_call_duration_seconds_count{operation="count",outcome="ok"} 1"#,
            r#"headcount_refresh_duration_seconds_count{outcome="ok"} 1"#,
            "headcount_stale_answers_total 0",
            "headcount_refresh_last_success_timestamp_seconds 1795262400.5",
            r#"headcount_count_age_seconds_bucket{le="60.0"} 0"#,
            r#"headcount_count_age_seconds_bucket{le="120.0"} 1"#,
            "headcount_spool_limit_bytes 1073741824",
            &format!(r#"headcount_build_info{{version="{VERSION}",commit="{COMMIT}"}} 1"#),
        ] {
            assert!(text.contains(&format!("\n{line}\n")), "{line} in {text}");
        }
        assert!(text.ends_with("# EOF\n"));
        let plain = metrics.render_plain().unwrap();
        assert!(
            plain.contains("\n# TYPE headcount_stale_answers_total counter\n"),
            "{plain}"
        );
        assert!(
            !plain.contains("# EOF") && !plain.contains("# UNIT"),
            "{plain}"
        );
    }
}
