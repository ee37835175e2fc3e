//! Every metric by name. Names end in their unit, and none has a user as a label.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use super::exposition;
use super::names::Names;
use super::process::Process;
use crate::version::{COMMIT, VERSION};

pub(super) type Labels<const N: usize> = [(&'static str, &'static str); N];
pub(super) type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;
type Hook = Box<dyn Fn(&Metrics) + Send + Sync>;

/// What the service measures of itself.
pub struct Metrics {
    registry: Registry,
    process: Process,
    hooks: Mutex<Vec<Hook>>,
    snapshot: Mutex<Option<Instant>>,
    spool_oldest: Mutex<Option<Instant>>,

    requests: Family<RequestLabels, Counter>,
    request_seconds: Histograms<Labels<2>>,
    connections: Gauge,
    accept_errors: Counter,
    connections_cut: Counter,
    panics: Counter,
    task_panics: Family<Labels<1>, Counter>,
    all_panics: Counter,
    clock_ahead: Gauge<f64, std::sync::atomic::AtomicU64>,
    auth_refusals: Family<Labels<1>, Counter>,
    auth_limited: Family<Labels<1>, Counter>,
    tokens: Gauge,
    tokens_file_errors: Counter,
    auth_file_broken: Family<Labels<1>, Gauge>,
    event_clients: Gauge,
    events: Counter,
    event_resets: Counter,

    pairs_accepted: Family<Labels<1>, Counter>,
    pairs_rejected: Family<Labels<1>, Counter>,
    request_pairs: Histogram,
    queue_pairs: Gauge,
    pending_dropped: Counter,

    fsync_seconds: Histogram,
    fsyncs: Family<Labels<1>, Counter>,
    group_records: Histogram,
    group_bytes: Histogram,
    log_bytes: Gauge,
    snapshot_age: Gauge<f64, std::sync::atomic::AtomicU64>,
    snapshot_failures: Counter,
    segments: Gauge,
    pairs: Gauge,
    index_bytes: Gauge,

    refresh_seconds: Histograms<Labels<1>>,
    refreshed_at: Gauge<f64, std::sync::atomic::AtomicU64>,
    count_age: Histogram,
    store_seconds: Histograms<Labels<2>>,
    cache_fallbacks: Counter,
    stale_answers: Counter,

    spool_pairs: Gauge,
    spool_quarantined: Gauge,
    spool_bytes: Gauge,
    spool_limit: Gauge,
    spool_age: Gauge<f64, std::sync::atomic::AtomicU64>,
    dead_letters: Counter,
    store_lines: Family<Labels<1>, Counter>,
    store_retries: Counter,
    store_persistence: Family<Labels<1>, Gauge>,
    store_connections: Family<Labels<2>, Gauge>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    route: &'static str,
    method: &'static str,
    status: u16,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut names = Names::new("headcount");
        let build: Family<Labels<2>, Gauge> =
            names.gauge("build_info", "The build that runs; always 1");
        build
            .get_or_create(&[("version", VERSION), ("commit", COMMIT)])
            .set(1);
        Self {
            process: Process::default(),
            hooks: Mutex::default(),
            snapshot: Mutex::default(),
            spool_oldest: Mutex::default(),

            requests: names.counters("http_requests", "Requests answered"),
            request_seconds: names.seconds(
                "http_request_duration",
                "From a request's head to its answer's",
                || Histogram::new(exponential_buckets(0.000_05, 3.0, 13)),
            ),
            connections: names.gauge("http_connections", "Connections open"),
            accept_errors: names.counter("http_accept_errors", "Connections not accepted"),
            connections_cut: names.counter(
                "http_connections_abandoned",
                "Connections cut because they outlasted the drain",
            ),
            panics: names.counter("http_panics", "Handlers that panicked; each is a defect"),
            all_panics: names.counter(
                "panics",
                "Panics in any thread of the process, those of handlers and tasks among them; each is a defect",
            ),
            task_panics: names.counters(
                "task_panics",
                "Background tasks that panicked and were started again, by task; each is a defect",
            ),
            clock_ahead: names.gauge(
                "clock_ahead_seconds",
                "How far the clock of the counts is ahead of the system's, which is wrong or was; 0 as a rule",
            ),
            auth_refusals: names.counters(
                "auth_refusals",
                "Requests refused for want of a right token, by reason",
            ),
            auth_limited: names.counters(
                "auth_limited",
                "Requests refused because a token's limit was reached, by what was limited",
            ),
            tokens: names.gauge("tokens", "Tokens known from the tokens file"),
            tokens_file_errors: names.counter(
                "tokens_file_errors",
                "Changes of the tokens file that could not be taken up",
            ),
            auth_file_broken: names.gauge(
                "auth_file_broken",
                "1 while a file of tokens or keys can't be used and what was read before stays valid, by setting",
            ),
            event_clients: names.gauge("event_clients", "Clients that listen for events"),
            events: names.counter("events", "Changes of counts told to whoever listens"),
            event_resets: names.counter(
                "event_resets",
                "Times that a client missed events and was told to read the counts anew",
            ),

            pairs_accepted: names.counters("pairs_accepted", "Pairs made durable, by where"),
            pairs_rejected: names.counters("pairs_rejected", "Pairs refused, by code"),
            request_pairs: names.histogram(
                "request_pairs",
                "Pairs accepted per request",
                exponential_buckets(1.0, 4.0, 10),
            ),
            queue_pairs: names.gauge("queue_pairs", "Pairs received and not yet durable"),
            pending_dropped: names.counter(
                "pending_dropped",
                "Acknowledged pairs that the cache was away to be told of",
            ),

            fsync_seconds: names.second(
                "log_fsync_duration",
                "Time per fsync of the log",
                exponential_buckets(0.000_05, 2.5, 14),
            ),
            fsyncs: names.counters("log_fsyncs", "Fsyncs of the log, by outcome"),
            group_records: names.histogram(
                "log_group_records",
                "Requests that shared an fsync",
                exponential_buckets(1.0, 2.0, 12),
            ),
            group_bytes: names.histogram(
                "log_group_bytes",
                "Bytes written per fsync",
                exponential_buckets(64.0, 4.0, 12),
            ),
            log_bytes: names.gauge("log_bytes", "Size of the log on disk, without snapshots"),
            snapshot_age: names.gauge(
                "snapshot_age_seconds",
                "Time since the latest snapshot was taken; NaN before the first",
            ),
            snapshot_failures: names.counter(
                "snapshot_failures",
                "Snapshots that could not be taken; the log grows until one can",
            ),
            segments: names.gauge("segments", "Segments held"),
            pairs: names.gauge("pairs", "(user, segment) pairs held"),
            index_bytes: names.gauge("index_bytes", "Memory that the index asked for"),

            refresh_seconds: names.seconds("refresh_duration", "Refreshes by outcome", long),
            refreshed_at: names.gauge(
                "refresh_last_success_timestamp_seconds",
                "When this process last recounted every segment without a failure; 0 before the first time",
            ),
            count_age: names.second(
                "count_age",
                "Age of the counts that were answered",
                COUNT_AGES.into_iter(),
            ),
            store_seconds: names.seconds(
                "store_call_duration",
                "Calls of the store by operation and outcome; count is of one segment, count_many of a group",
                long,
            ),
            cache_fallbacks: names
                .counter("cache_fallbacks", "Calls that went on without the cache"),
            stale_answers: names.counter(
                "stale_answers",
                "Counts answered from the last known number because every source failed",
            ),

            spool_pairs: names.gauge("spool_pairs", "Pairs that wait in the spool"),
            spool_quarantined: names.gauge(
                "spool_quarantined_pairs",
                "Pairs in the spool that the store did not take while it took others",
            ),
            spool_bytes: names.gauge("spool_bytes", "Size of the spool on disk"),
            spool_limit: names.gauge(
                "spool_limit_bytes",
                "Size of the spool from which pairs are answered with 503; 0 without a spool",
            ),
            spool_age: names.gauge(
                "spool_oldest_age_seconds",
                "Time since the oldest waiting pairs were spooled; 0 when none wait",
            ),
            dead_letters: names
                .counter("dead_letter_pairs", "Pairs that the store refused for good"),
            store_lines: names.counters(
                "store_lines",
                "Lines sent to a store on the network, by what became of them",
            ),
            store_retries: names.counter("store_retries", "Writes to a store that were repeated"),
            store_connections: names.gauge(
                "store_connections",
                "Connections to a store in use, and callers that wait for one, by their work",
            ),
            store_persistence: names.gauge(
                "store_persistence",
                "How the store's server says that it keeps what it was told; 1 for the way that holds",
            ),
            registry: names.finish(),
        }
    }
}

/// Brings a counter up to a total that is kept elsewhere.
fn set(counter: &Counter, total: u64) {
    counter
        .inner()
        .store(total, std::sync::atomic::Ordering::Relaxed);
}

/// From a second to two hours. The default of `cache_ttl`, 15 minutes, is among them, so that an alert on counts
/// older than it is exact.
const COUNT_AGES: [f64; 11] = [
    1.0, 5.0, 15.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1800.0, 3600.0, 7200.0,
];

/// From a tenth of a millisecond to about 100 seconds.
fn long() -> Histogram {
    Histogram::new(exponential_buckets(0.000_1, 2.5, 16))
}

impl Metrics {
    /// A request was answered; `route` is a template, never a path.
    pub fn request(&self, route: &'static str, method: &'static str, status: u16, took: Duration) {
        let labels = RequestLabels {
            route,
            method,
            status,
        };
        self.requests.get_or_create(&labels).inc();
        self.request_seconds
            .get_or_create(&[("route", route), ("method", method)])
            .observe(took.as_secs_f64());
    }

    /// Connections that are open now.
    pub fn connections(&self, open: usize) {
        self.connections.set(gauge(open));
    }

    /// A connection could not be accepted.
    pub fn accept_error(&self) {
        self.accept_errors.inc();
    }

    /// Connections were cut at the end of the drain.
    pub fn connections_abandoned(&self, connections: usize) {
        self.connections_cut.inc_by(connections as u64);
    }

    /// A handler panicked.
    pub fn panic(&self) {
        self.panics.inc();
    }

    /// How far the clock of the counts is ahead of the system's.
    pub fn clock_ahead(&self, ahead: Duration) {
        self.clock_ahead.set(ahead.as_secs_f64());
    }

    /// Counts panics of background tasks, by task.
    pub fn panic_counter(self: &Arc<Self>) -> Arc<dyn Fn(&'static str, u64) + Send + Sync> {
        let metrics = Arc::clone(self);
        Arc::new(move |task, panics| metrics.task_panics(task, panics))
    }

    /// A background task panicked so many times more.
    pub fn task_panics(&self, task: &'static str, more: u64) {
        self.task_panics
            .get_or_create(&[("task", task)])
            .inc_by(more);
    }

    /// A request was refused for want of a right token.
    pub fn auth_refused(&self, reason: &'static str) {
        self.auth_refusals
            .get_or_create(&[("reason", reason)])
            .inc();
    }

    /// A request was refused because a limit of its token was reached: on `requests` or `pairs`.
    pub fn auth_limited(&self, what: &'static str) {
        self.auth_limited.get_or_create(&[("what", what)]).inc();
    }

    /// Tokens that are known from the tokens file.
    pub fn tokens(&self, tokens: usize) {
        self.tokens.set(gauge(tokens));
    }

    /// A change of the tokens file could not be taken up.
    pub fn tokens_file_error(&self) {
        self.tokens_file_errors.inc();
    }

    /// Whether the file that the setting `file` names can't be used as it is.
    pub fn auth_file_broken(&self, file: &'static str, broken: bool) {
        self.auth_file_broken
            .get_or_create(&[("file", file)])
            .set(gauge(u8::from(broken)));
    }

    /// Clients that listen for events now.
    pub fn event_clients(&self, clients: usize) {
        self.event_clients.set(gauge(clients));
    }

    /// So many changes of counts were told.
    pub fn events(&self, changes: usize) {
        self.events.inc_by(changes as u64);
    }

    /// A client missed events.
    pub fn event_reset(&self) {
        self.event_resets.inc();
    }

    /// The pairs of one request were made durable: in the store, or in the spool.
    pub fn pairs_accepted(&self, pairs: usize, spooled: bool) {
        let to = if spooled { "spool" } else { "store" };
        self.pairs_accepted
            .get_or_create(&[("to", to)])
            .inc_by(pairs as u64);
        self.request_pairs.observe(pairs as f64);
    }

    /// Pairs were refused for the reason that `code` names.
    pub fn pairs_rejected(&self, code: &'static str, pairs: usize) {
        self.pairs_rejected
            .get_or_create(&[("code", code)])
            .inc_by(pairs as u64);
    }

    /// Pairs received and not yet durable.
    pub fn queue_depth(&self, pairs: usize) {
        self.queue_pairs.set(gauge(pairs));
    }

    /// Pairs whose note in the cache was dropped.
    pub fn pending_dropped(&self, pairs: u64) {
        self.pending_dropped.inc_by(pairs);
    }

    /// A group of records was written and synced.
    pub fn fsync(&self, records: usize, bytes: usize, took: Duration) {
        self.fsyncs.get_or_create(&[("outcome", "ok")]).inc();
        self.fsync_seconds.observe(took.as_secs_f64());
        self.group_records.observe(records as f64);
        self.group_bytes.observe(bytes as f64);
    }

    /// A group of records could not be written or synced.
    pub fn fsync_failed(&self) {
        self.fsyncs.get_or_create(&[("outcome", "failed")]).inc();
    }

    /// The size of the log's files.
    pub fn log_bytes(&self, bytes: u64) {
        self.log_bytes.set(gauge(bytes));
    }

    /// The latest snapshot is `age` old; from here on it ages by itself.
    pub fn snapshot_age(&self, age: Duration) {
        *self.snapshot.lock() = Instant::now().checked_sub(age);
    }

    /// Snapshots that failed so far.
    pub fn snapshot_failures(&self, failures: u64) {
        set(&self.snapshot_failures, failures);
    }

    /// What the index holds now.
    pub fn held(&self, segments: u64, pairs: u64, bytes: u64) {
        self.segments.set(gauge(segments));
        self.pairs.set(gauge(pairs));
        self.index_bytes.set(gauge(bytes));
    }

    /// A refresh ended.
    pub fn refresh(&self, outcome: &'static str, took: Duration) {
        self.refresh_seconds
            .get_or_create(&[("outcome", outcome)])
            .observe(took.as_secs_f64());
    }

    /// Every segment was recounted, without a failure, at this unix time in seconds.
    pub fn refreshed_all(&self, at: f64) {
        self.refreshed_at.set(at);
    }

    /// A count of this age in seconds was answered.
    pub fn count_age(&self, seconds: f64) {
        self.count_age.observe(seconds);
    }

    /// A call of the store ended.
    pub fn store_call(&self, operation: &'static str, outcome: &'static str, took: Duration) {
        self.store_seconds
            .get_or_create(&[("operation", operation), ("outcome", outcome)])
            .observe(took.as_secs_f64());
    }

    /// A call went on without the cache.
    pub fn cache_fallback(&self) {
        self.cache_fallbacks.inc();
    }

    /// A count was answered from the last known number.
    pub fn stale_answer(&self) {
        self.stale_answers.inc();
    }

    /// What waits in the spool; `oldest` is how long the oldest of it has waited.
    pub fn spool(&self, pairs: u64, bytes: u64, oldest: Option<Duration>) {
        self.spool_pairs.set(gauge(pairs));
        self.spool_bytes.set(gauge(bytes));
        *self.spool_oldest.lock() = oldest.and_then(|age| Instant::now().checked_sub(age));
    }

    /// How many pairs in the spool the store did not take while it took others.
    pub fn spool_quarantined(&self, pairs: u64) {
        self.spool_quarantined.set(gauge(pairs));
    }

    /// The most that the spool may take on disk.
    pub fn spool_limit(&self, bytes: u64) {
        self.spool_limit.set(gauge(bytes));
    }

    /// Pairs that the store refused for good, since it was opened.
    pub fn dead_letters(&self, pairs: u64) {
        set(&self.dead_letters, pairs);
    }

    /// What became of the lines sent to the store, since it was opened: `written`, `expired`, `refused`, or
    /// `lost` (refused, and not in a dead-letter file either).
    pub fn store_lines(&self, outcome: &'static str, lines: u64) {
        set(
            &self.store_lines.get_or_create(&[("outcome", outcome)]),
            lines,
        );
    }

    /// Writes to the store that were repeated, since it was opened.
    pub fn store_retries(&self, retries: u64) {
        set(&self.store_retries, retries);
    }

    /// Connections to the store that are used for `work`, and callers that wait for one.
    pub fn store_connections(&self, work: &'static str, in_use: usize, waiting: usize) {
        for (state, number) in [("in_use", in_use), ("waiting", waiting)] {
            let labels = [("work", work), ("state", state)];
            self.store_connections
                .get_or_create(&labels)
                .set(gauge(number));
        }
    }

    /// How the store's server keeps what it was told.
    pub fn store_persistence(&self, kind: &'static str) {
        self.store_persistence.clear();
        self.store_persistence
            .get_or_create(&[("kind", kind)])
            .set(1);
    }

    /// Calls `hook` before each rendering, so that gauges which cost nothing to read are never out of date.
    pub fn before_render(&self, hook: impl Fn(&Self) + Send + Sync + 'static) {
        self.hooks.lock().push(Box::new(hook));
    }

    /// All metrics in the text format 0.0.4 of Prometheus.
    pub fn render_plain(&self) -> Result<String, fmt::Error> {
        self.render().map(|text| exposition::plain(&text))
    }

    /// All metrics as OpenMetrics text.
    pub fn render(&self) -> Result<String, fmt::Error> {
        set(&self.all_panics, super::panics::count());
        for hook in self.hooks.lock().iter() {
            hook(self);
        }
        let age =
            |since: &Mutex<Option<Instant>>| since.lock().map(|at| at.elapsed().as_secs_f64());
        self.snapshot_age
            .set(age(&self.snapshot).unwrap_or(f64::NAN));
        self.spool_age.set(age(&self.spool_oldest).unwrap_or(0.0));
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

fn gauge(value: impl TryInto<i64>) -> i64 {
    value.try_into().unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_is_rendered_under_its_name() {
        let metrics = Metrics::default();
        let millisecond = Duration::from_millis(1);
        metrics.request("/v1/pairs", "POST", 200, millisecond);
        metrics.pairs_accepted(3, false);
        metrics.pairs_rejected("malformed", 2);
        metrics.fsync(4, 4096, millisecond);
        metrics.snapshot_age(Duration::from_secs(5));
        metrics.store_call("count", "ok", millisecond);
        metrics.refresh("ok", millisecond);
        metrics.refreshed_all(1_795_262_400.5);
        metrics.count_age(61.0);
        metrics.spool_limit(1 << 30);
        metrics.before_render(|metrics| metrics.held(7, 8, 9));
        let text = metrics.render().unwrap();
        for line in [
            r#"headcount_http_requests_total{route="/v1/pairs",method="POST",status="200"} 1"#,
            r#"headcount_http_request_duration_seconds_count{route="/v1/pairs",method="POST"} 1"#,
            r#"headcount_pairs_accepted_total{to="store"} 3"#,
            r#"headcount_pairs_rejected_total{code="malformed"} 2"#,
            r#"headcount_log_fsyncs_total{outcome="ok"} 1"#,
            "headcount_log_fsync_duration_seconds_count 1",
            "headcount_log_group_bytes_sum 4096.0",
            "headcount_segments 7",
            "headcount_pairs 8",
            "headcount_index_bytes 9",
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
        let age = text
            .lines()
            .find_map(|line| line.strip_prefix("headcount_snapshot_age_seconds "));
        // It has grown since, by however long this took.
        assert!(
            age.is_some_and(|age| age.parse::<f64>().unwrap() >= 5.0),
            "{age:?}"
        );
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
