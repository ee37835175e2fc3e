//! The kinds of metrics, and [`area!`], which generates a struct of metrics from a table.

use std::borrow::Cow;
use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::histogram::exponential_buckets;
use prometheus_client::registry::{Metric, Registry, Unit};

pub use prometheus_client::metrics::counter::Counter;
pub use prometheus_client::metrics::histogram::Histogram;

/// An integer gauge.
pub type Gauge = prometheus_client::metrics::gauge::Gauge<u64, AtomicU64>;
/// A floating-point gauge.
pub type FloatGauge = prometheus_client::metrics::gauge::Gauge<f64, AtomicU64>;
/// A counter for each combination of `N` labels.
pub type Counters<const N: usize> = Labelled<Counter, fn() -> Counter, N>;
/// A gauge for each combination of `N` labels.
pub type Gauges<const N: usize> = Labelled<Gauge, fn() -> Gauge, N>;
/// A histogram for each combination of `N` labels.
pub type Histograms<const N: usize> = Labelled<Histogram, Buckets, N>;

/// Generates a struct with one metric per row, and its function `register`. A row is
/// `field: Kind = "name", "help";`. Label names or [`Buckets`] follow the help if the kind needs them. The name omits
/// `_total` of counters and `_seconds` of [`Buckets::seconds`]; both are appended when it is rendered.
macro_rules! area {
    (
        $(#[$about:meta])*
        $visible:vis struct $area:ident {
            $($public:vis $field:ident: $kind:ty = $name:literal, $help:literal $(, $detail:expr)*;)*
        }
    ) => {
        $(#[$about])*
        #[derive(Debug)]
        $visible struct $area {
            $(#[doc = $help] $public $field: $kind,)*
        }

        impl $area {
            pub(super) fn register(registry: &mut prometheus_client::registry::Registry) -> Self {
                use $crate::metrics::kinds::Register;
                Self {
                    $($field: Register::register(registry, $name, $help, ($($detail),*)),)*
                }
            }
        }
    };
}
pub(super) use area;

/// Sets a counter to a total that is counted elsewhere.
pub fn set_total(counter: &Counter, total: u64) {
    counter.inner().store(total, Ordering::Relaxed);
}

/// Metrics of one name with labels. A combination of labels is rendered from its first use on.
#[derive(Debug, Clone)]
pub struct Labelled<M, C, const N: usize> {
    family: Family<Labels<N>, M, C>,
    unset: Labels<N>,
}

type Labels<const N: usize> = [(&'static str, Cow<'static, str>); N];

impl<M: Clone, C: MetricConstructor<M>, const N: usize> Labelled<M, C, N> {
    fn new(names: [&'static str; N], make: C) -> Self {
        Self {
            family: Family::new_with_constructor(make),
            unset: names.map(|name| (name, Cow::Borrowed(""))),
        }
    }

    /// Returns the metric with these label values, in the order of the table.
    pub fn with<V: Into<Cow<'static, str>>>(&self, values: [V; N]) -> M {
        let mut labels = self.unset.clone();
        for (label, value) in labels.iter_mut().zip(values) {
            label.1 = value.into();
        }
        self.family.get_or_create_owned(&labels)
    }

    /// Removes all combinations of labels.
    pub fn clear(&self) {
        self.family.clear();
    }
}

/// The upper bounds of a histogram's buckets, and whether they are seconds.
#[derive(Debug, Clone)]
pub struct Buckets {
    bounds: Vec<f64>,
    seconds: bool,
}

impl Buckets {
    pub(super) fn plain(bounds: impl IntoIterator<Item = f64>) -> Self {
        Self {
            bounds: bounds.into_iter().collect(),
            seconds: false,
        }
    }

    pub(super) fn seconds(bounds: impl IntoIterator<Item = f64>) -> Self {
        Self {
            seconds: true,
            ..Self::plain(bounds)
        }
    }

    /// From a tenth of a millisecond to about 100 seconds.
    pub(super) fn wide_seconds() -> Self {
        Self::seconds(exponential_buckets(0.000_1, 2.5, 16))
    }

    fn register(&self, registry: &mut Registry, name: &str, help: &str, metric: impl Metric) {
        match self.seconds {
            true => registry.register_with_unit(name, help, Unit::Seconds, metric),
            false => registry.register(name, help, metric),
        }
    }
}

impl MetricConstructor<Histogram> for Buckets {
    fn new_metric(&self) -> Histogram {
        Histogram::new(self.bounds.iter().copied())
    }
}

/// Creates and registers a metric in one step. `Detail` is the type of what follows the help in a row of [`area!`].
pub(super) trait Register<Detail> {
    fn register(registry: &mut Registry, name: &str, help: &str, detail: Detail) -> Self;
}

impl<M: Metric + Clone + Default> Register<()> for M {
    fn register(registry: &mut Registry, name: &str, help: &str, (): ()) -> Self {
        let metric = M::default();
        registry.register(name, help, metric.clone());
        metric
    }
}

/// The detail is the initial value.
impl Register<f64> for FloatGauge {
    fn register(registry: &mut Registry, name: &str, help: &str, start: f64) -> Self {
        let metric: Self = Register::register(registry, name, help, ());
        metric.set(start);
        metric
    }
}

impl Register<Buckets> for Histogram {
    fn register(registry: &mut Registry, name: &str, help: &str, buckets: Buckets) -> Self {
        let metric = buckets.new_metric();
        buckets.register(registry, name, help, metric.clone());
        metric
    }
}

impl<M, const N: usize> Register<[&'static str; N]> for Labelled<M, fn() -> M, N>
where
    M: Clone + Default,
    Family<Labels<N>, M, fn() -> M>: Metric,
{
    fn register(
        registry: &mut Registry,
        name: &str,
        help: &str,
        labels: [&'static str; N],
    ) -> Self {
        let metrics = Self::new(labels, M::default);
        registry.register(name, help, metrics.family.clone());
        metrics
    }
}

impl<const N: usize> Register<([&'static str; N], Buckets)> for Histograms<N> {
    fn register(
        registry: &mut Registry,
        name: &str,
        help: &str,
        (labels, buckets): ([&'static str; N], Buckets),
    ) -> Self {
        let metrics = Self::new(labels, buckets.clone());
        buckets.register(registry, name, help, metrics.family.clone());
        metrics
    }
}
