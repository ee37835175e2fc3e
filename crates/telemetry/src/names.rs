//! Registers metrics as they are made.

use std::fmt::Debug;
use std::hash::Hash;

use prometheus_client::encoding::{EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::TypedMetric;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::metrics::Histograms;

/// A registry under construction. Counters get `_total` and durations get `_seconds` when they are rendered.
pub(super) struct Names(Registry);

impl Names {
    pub(super) fn new(prefix: &str) -> Self {
        Self(Registry::with_prefix(prefix))
    }

    pub(super) fn counter(&mut self, name: &str, help: &str) -> Counter {
        self.register(name, help)
    }

    pub(super) fn counters<L>(&mut self, name: &str, help: &str) -> Family<L, Counter>
    where
        L: EncodeLabelSet + Clone + Debug + Hash + Eq + Send + Sync + 'static,
    {
        self.register(name, help)
    }

    pub(super) fn gauge<G>(&mut self, name: &str, help: &str) -> G
    where
        G: EncodeMetric + TypedMetric + Default + Clone + Debug + Send + Sync + 'static,
    {
        self.register(name, help)
    }

    pub(super) fn histogram(
        &mut self,
        name: &str,
        help: &str,
        buckets: impl Iterator<Item = f64>,
    ) -> Histogram {
        let metric = Histogram::new(buckets);
        self.0.register(name, help, metric.clone());
        metric
    }

    pub(super) fn second(
        &mut self,
        name: &str,
        help: &str,
        buckets: impl Iterator<Item = f64>,
    ) -> Histogram {
        let metric = Histogram::new(buckets);
        self.0
            .register_with_unit(name, help, Unit::Seconds, metric.clone());
        metric
    }

    pub(super) fn seconds<L>(
        &mut self,
        name: &str,
        help: &str,
        make: fn() -> Histogram,
    ) -> Histograms<L>
    where
        L: EncodeLabelSet + Clone + Debug + Hash + Eq + Send + Sync + 'static,
    {
        let metric = Family::new_with_constructor(make);
        self.0
            .register_with_unit(name, help, Unit::Seconds, metric.clone());
        metric
    }

    pub(super) fn finish(self) -> Registry {
        self.0
    }

    pub(super) fn register<M>(&mut self, name: &str, help: &str) -> M
    where
        M: EncodeMetric + Default + Clone + Debug + Send + Sync + 'static,
    {
        let metric = M::default();
        self.0.register(name, help, metric.clone());
        metric
    }
}
