//! Readiness: what the service can do now, and the state of each component.

use std::sync::Arc;
use std::time::Duration;

use crate::clock_watch;
use crate::ingest::spool::Spool;
use crate::live::Live;
use crate::probes::{Probe, Probes};
use crate::refresher::Refresher;
use crate::rounds::Rounds;
use domain::store::PairStore;
use domain::{Clock, Timestamp};
use telemetry::Metrics;

/// The state of the service by component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readiness {
    /// Whether pairs can be recorded.
    pub writes: bool,
    /// Whether counts can be served, if only the last known ones.
    pub reads: bool,
    /// Whether recounts are on time. Always true where this process does not recount by itself.
    pub recounts: bool,
    /// Whether counts are live.
    pub live: bool,
    /// The components.
    pub components: Vec<Component>,
}

/// The components of which the state is reported. Nothing here waits: the store and the cache are probed in the background, and the
/// state of the others is in memory.
#[derive(Debug)]
pub(crate) struct Watched {
    pub(crate) probes: Arc<Probes>,
    pub(crate) store: Arc<dyn PairStore>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) spool: Option<Arc<Spool>>,
    pub(crate) live: Option<Arc<Live>>,
    /// The rounds of the refresher, if this process recounts by itself.
    pub(crate) rounds: Option<Arc<Rounds>>,
    pub(crate) refresher: Arc<Refresher>,
}

impl Watched {
    /// The state now.
    pub(crate) fn readiness(&self) -> Readiness {
        let store = Component::of_probe("store", &self.probes.store);
        let cache = Component::of_probe("cache", &self.probes.cache);
        let live = self.live.as_deref().map(Component::of_live);
        let is_live = live.as_ref().is_some_and(|live| live.ok);
        let (stored, counted) = (store.ok, store.ok || cache.ok || is_live);
        let spool = self.spool.as_deref();
        let spool = spool.map(|spool| Component::of_spool(spool, self.clock.now()));
        let refresher = self.rounds.as_deref().map(Component::of_rounds);
        let components = [store, cache, Component::of_clock(&*self.clock)];
        let strangers = self.store.known_strangers();
        Readiness {
            writes: stored || spool.as_ref().is_some_and(|spool| spool.ok),
            reads: counted || !self.refresher.remembered().is_empty(),
            recounts: refresher.as_ref().is_none_or(|refresher| refresher.ok),
            live: is_live,
            components: components
                .into_iter()
                .chain(spool)
                .chain(live)
                .chain(refresher)
                .chain(Component::of_strangers(strangers))
                .collect(),
        }
    }

    /// Shows the state in the metrics.
    pub(crate) fn observe(self: &Arc<Self>, metrics: &Metrics) {
        let watched = Arc::downgrade(self);
        metrics.before_render(move |metrics| {
            let Some(watched) = watched.upgrade() else {
                return;
            };
            let components = watched.readiness().components.into_iter();
            let states = components.map(|it| (it.name, it.ok, it.age));
            metrics.runtime.components(states);
        });
    }
}

/// The state of one component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Component {
    /// The name: `store`, `cache`, `spool`, `live`, `refresher`, `clock` or `foreign_points`.
    pub name: &'static str,
    /// Whether the component worked when it was last checked.
    pub ok: bool,
    /// The time since then. Zero if its state is in memory.
    pub age: Duration,
    /// Details for any reader if the component works. Otherwise the problem, which may name hosts and quote system
    /// errors.
    pub detail: Option<String>,
}

impl Component {
    /// A server that is probed in the background.
    fn of_probe(name: &'static str, probe: &Probe) -> Self {
        let known = probe.known();
        Self {
            age: known.age,
            ..Self::with(name, known.problem)
        }
    }

    /// The spool, with its backlog as of `now`.
    fn of_spool(spool: &Spool, now: Timestamp) -> Self {
        let stats = spool.stats(now);
        let waiting = stats.oldest.map(|age| {
            let pairs = stats.waiting_pairs;
            format!("{pairs} pairs wait, the oldest for {} s", age.as_secs())
        });
        let problem = spool.check().err().map(|error| error.to_string());
        Self {
            name: "spool",
            ok: problem.is_none(),
            age: Duration::ZERO,
            detail: problem.or(waiting),
        }
    }

    /// Live counts. Without them counts come from the store.
    fn of_live(live: &Live) -> Self {
        let described = live.describe();
        Self {
            name: "live",
            ok: described.is_ok(),
            age: Duration::ZERO,
            detail: Some(described.unwrap_or_else(|problem| problem)),
        }
    }

    /// The refresher. It works while its rounds are on time.
    fn of_rounds(rounds: &Rounds) -> Self {
        Self {
            name: "refresher",
            ok: !rounds.are_late(),
            age: Duration::ZERO,
            detail: Some(rounds.describe()),
        }
    }

    /// Points of other programs in the store, if there are any. Pairs of their days are refused.
    fn of_strangers(found: Vec<String>) -> Option<Self> {
        let problem = (!found.is_empty()).then(|| {
            format!(
                "another program writes into the store, so pairs of the affected days are refused: {}; `headcount setup` \
                 prints how to delete its points",
                found.join("; ")
            )
        });
        problem.map(|problem| Self::with("foreign_points", Some(problem)))
    }

    /// The clock. It works unless it is stopped because the system clock is behind it.
    fn of_clock(clock: &dyn Clock) -> Self {
        Self::with("clock", clock_watch::problem(clock))
    }

    fn with(name: &'static str, problem: Option<String>) -> Self {
        Self {
            name,
            ok: problem.is_none(),
            age: Duration::ZERO,
            detail: problem,
        }
    }
}
