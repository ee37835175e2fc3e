//! Every metric by name. None has a user as a label.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

type Labels<const N: usize> = [(&'static str, &'static str); N];
type Durations<const N: usize> = Family<Labels<N>, Histogram, fn() -> Histogram>;

/// What the service measures of itself.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    pending_dropped: Counter,
    cache_fallbacks: Counter,
    stale_answers: Counter,
    refreshes: Durations<1>,
    store_calls: Durations<2>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("headcount");
        let metrics = Self {
            pending_dropped: Counter::default(),
            cache_fallbacks: Counter::default(),
            stale_answers: Counter::default(),
            refreshes: Family::new_with_constructor(seconds),
            store_calls: Family::new_with_constructor(seconds),
            registry: Registry::default(),
        };
        let Self {
            pending_dropped,
            cache_fallbacks,
            stale_answers,
            refreshes,
            store_calls,
            ..
        } = &metrics;
        registry.register(
            "pending_dropped",
            "Acknowledged pairs that the cache was away to be told of",
            pending_dropped.clone(),
        );
        registry.register(
            "cache_fallbacks",
            "Calls that went on without the cache",
            cache_fallbacks.clone(),
        );
        registry.register(
            "stale_answers",
            "Counts answered from the last known number because every source failed",
            stale_answers.clone(),
        );
        registry.register_with_unit(
            "refresh_duration",
            "Refreshes by outcome",
            Unit::Seconds,
            refreshes.clone(),
        );
        registry.register_with_unit(
            "store_call_duration",
            "Calls of the store by operation and outcome",
            Unit::Seconds,
            store_calls.clone(),
        );
        Self {
            registry,
            ..metrics
        }
    }
}

impl Metrics {
    /// Pairs whose note in the cache was dropped.
    pub fn pending_dropped(&self, pairs: u64) {
        self.pending_dropped.inc_by(pairs);
    }

    /// A call went on without the cache.
    pub fn cache_fallback(&self) {
        self.cache_fallbacks.inc();
    }

    /// A count was answered from the last known number.
    pub fn stale_answer(&self) {
        self.stale_answers.inc();
    }

    /// A refresh ended.
    pub fn refresh(&self, outcome: &'static str, took: Duration) {
        self.refreshes
            .get_or_create(&[("outcome", outcome)])
            .observe(took.as_secs_f64());
    }

    /// A call of the store ended.
    pub fn store_call(&self, operation: &'static str, outcome: &'static str, took: Duration) {
        let labels = [("operation", operation), ("outcome", outcome)];
        self.store_calls
            .get_or_create(&labels)
            .observe(took.as_secs_f64());
    }

    /// Where further metrics are registered and all are read.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }
}

/// From a tenth of a millisecond to about 100 seconds.
fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.0001, 2.5, 16))
}
