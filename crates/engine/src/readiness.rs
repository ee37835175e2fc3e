//! Readiness: what the service can do now, and the state of each component.

use std::time::Duration;

use crate::clock_watch;
use crate::ingest::spool::Spool;
use crate::live::Live;
use crate::rounds::Rounds;
use domain::cache::CountCache;
use domain::store::PairStore;
use domain::{Clock, Timestamp};

/// A component that does not respond to a probe within this time counts as unavailable.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// The state of the service by component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readiness {
    /// Whether pairs can be recorded.
    pub writes: bool,
    /// Whether the store, the cache or live counts can serve counts.
    pub reads: bool,
    /// Whether recounts are on time. Always true where this process does not recount by itself.
    pub recounts: bool,
    /// Whether counts are live.
    pub live: bool,
    /// The components that were probed.
    pub components: Vec<Component>,
}

/// The components that are probed.
pub(crate) struct Probed<'a> {
    pub(crate) store: &'a dyn PairStore,
    pub(crate) cache: &'a dyn CountCache,
    pub(crate) clock: &'a dyn Clock,
    pub(crate) spool: Option<&'a Spool>,
    pub(crate) live: Option<&'a Live>,
    /// The rounds of the refresher, if this process recounts by itself.
    pub(crate) rounds: Option<&'a Rounds>,
}

impl Probed<'_> {
    /// Pings the store and the cache concurrently, and checks the other components.
    pub(crate) async fn readiness(&self) -> Readiness {
        let (store, cache) = tokio::join!(
            Component::probe("store", async {
                self.store.ping().await.map_err(|error| error.to_string())
            }),
            Component::probe("cache", async {
                self.cache.ping().await.map_err(|error| error.to_string())
            }),
        );
        let live = self.live.map(Component::of_live);
        let is_live = live.as_ref().is_some_and(|live| live.ok);
        let (stored, reads) = (store.ok, store.ok || cache.ok || is_live);
        let spool = self.spool;
        let spool = spool.map(|spool| Component::of_spool(spool, self.clock.now()));
        let refresher = self.rounds.map(Component::of_rounds);
        let components = [store, cache, Component::of_clock(self.clock)];
        let strangers = self.store.known_strangers();
        Readiness {
            writes: stored || spool.as_ref().is_some_and(|spool| spool.ok),
            reads,
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
}

/// The state of one component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Component {
    /// The name: `store`, `cache`, `spool`, `live`, `refresher`, `clock` or `foreign_points`.
    pub name: &'static str,
    /// Whether the component works.
    pub ok: bool,
    /// Details for any reader if the component works. Otherwise the problem, which may name hosts and quote system
    /// errors.
    pub detail: Option<String>,
}

impl Component {
    /// A component that works if `ping` succeeds in time.
    async fn probe(name: &'static str, ping: impl Future<Output = Result<(), String>>) -> Self {
        let response = tokio::time::timeout(PROBE_TIMEOUT, ping).await;
        let problem = response
            .unwrap_or_else(|_| Err(format!("no response within {PROBE_TIMEOUT:?}")))
            .err();
        Self::with(name, problem)
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
            detail: problem.or(waiting),
        }
    }

    /// Live counts. Without them counts come from the store.
    fn of_live(live: &Live) -> Self {
        let described = live.describe();
        Self {
            name: "live",
            ok: described.is_ok(),
            detail: Some(described.unwrap_or_else(|problem| problem)),
        }
    }

    /// The refresher. It works while its rounds are on time.
    fn of_rounds(rounds: &Rounds) -> Self {
        Self {
            name: "refresher",
            ok: !rounds.are_late(),
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
            detail: problem,
        }
    }
}
