//! Opens a headcount: creates its parts and starts the background tasks.

use std::sync::Arc;
use std::time::Duration;

use super::Headcount;
use super::merging::{Merger, MergerParts};
use super::spool::{keep_delivering, keep_following_erasures, open_spool};
use crate::clock_watch;
use crate::counts::{Counts, CountsParts};
use crate::coverage::{CoverageParts, KnownCoverage};
use crate::events::{self, Events};
use crate::ingest::erasures::Erasures;
use crate::ingest::spool::DeliveryParts;
use crate::ingest::{Identity, Ingest, IngestParts, Recorder, SegmentGuard, SegmentNotes};
use crate::known_segments;
use crate::live::{Live, Surroundings};
use crate::observed::ObservedStore;
use crate::options::{Backends, EngineOptions, Opened};
use crate::probes::Probes;
use crate::readiness::Watched;
use crate::refresher::{Refresher, RefresherParts};
use crate::rounds::Rounds;
use crate::segments::SegmentCatalog;
use crate::sweeper;
use domain::cache::{self, CountCache};
use domain::store::{PairStore, StoreError};
use domain::{Clock, SteadyClock};
use supervisor::Supervisor;
use telemetry::Metrics;

/// Why headcount did not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The store did not open.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The cache did not open.
    #[error(transparent)]
    Cache(#[from] cache::CacheError),
}

impl Headcount {
    /// Opens the store and the cache of `backends` and starts the background tasks.
    pub async fn open(backends: &impl Backends) -> Result<Self, OpenError> {
        Self::open_with(backends, Arc::new(SteadyClock::default()), Arc::default()).await
    }

    /// The same as [`open`](Self::open), with the caller's clock and metrics.
    pub async fn open_with(
        backends: &impl Backends,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, OpenError> {
        let opened = backends.open_store(&metrics).await?;
        let cache = backends.open_cache()?;
        Self::open_over(backends.engine_options(), opened, cache, clock, metrics).await
    }

    /// The same as [`open_with`](Self::open_with), over the caller's store and cache.
    pub async fn open_over(
        options: impl Into<EngineOptions>,
        opened: Opened,
        cache: Arc<dyn CountCache>,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, OpenError> {
        let options = options.into();
        let frame = options.frame;
        if let Some(head) = opened.head {
            // If the system clock was set back since the last run, previously recorded pairs must still count, and times
            // that requests give are judged by the same clock as counts.
            clock.not_before(frame.resolution().start_of(head));
        }
        let store: Arc<dyn PairStore> =
            Arc::new(ObservedStore::new(opened.store, Arc::clone(&metrics)));
        let supervisor = Supervisor::new(metrics.runtime.panic_counter());
        let guard = Arc::new(SegmentGuard::new(options.max_segments));
        let sources = known_segments::Sources {
            store: Arc::clone(&store),
            cache: Arc::clone(&cache),
            clock: Arc::clone(&clock),
        };
        known_segments::begin(&supervisor, &guard, sources).await;
        let catalog = SegmentCatalog::new(Arc::clone(&store), frame, options.max_segments);
        let catalog = Arc::new(catalog);
        let probes = Probes::start(&supervisor, &store, &cache);
        let following = Arc::clone(&catalog);
        supervisor.keep_until_stop("segment settings", move || {
            let catalog = Arc::clone(&following);
            async move { catalog.keep_following().await }
        });
        let notes =
            (!store.is_live()).then(|| SegmentNotes::start(Arc::clone(&cache), &supervisor));
        let identity = match &options.user_key {
            Some(key) => Identity::keyed(key.reveal()),
            None => Identity::plain(),
        };
        let live = opened.live.filter(|_| !store.is_live());
        let live = live.map(|parts| {
            let around = Surroundings {
                frame,
                windows: &options.refresh_windows,
                own_windows: catalog.subscribe(),
                cache_ttl: options.cache_ttl,
                store: &store,
                clock: &clock,
                supervisor: &supervisor,
            };
            Live::start(parts, &around)
        });
        if let Some(live) = &live {
            live.observe(&metrics);
        }
        let coverage = Arc::new(KnownCoverage::new(CoverageParts {
            store: Arc::clone(&store),
            clock: Arc::clone(&clock),
            resolution: frame.resolution(),
            metrics: Arc::clone(&metrics),
        }));
        coverage.observe(&metrics, frame.full_window());
        if store.is_live() {
            // An error is logged by the task that reads it from now on.
            let _ = coverage.read().await;
        }
        let recorder = Recorder::new(Arc::clone(&store), notes).with_live(live.clone());
        let recorder = Arc::new(recorder.with_coverage(Arc::clone(&coverage)));
        let erasures = Erasures::new(Arc::clone(&store), &frame, Arc::clone(&clock));
        let erasures = Arc::new(erasures.with_live(live.clone()));
        // Erasures before the first pair, so that users who were merged do not count twice. All at once, so that a server that
        // does not respond delays the start only by the longest of these timeouts.
        tokio::join!(catalog.begin(), erasures.begin(), probes.begin());
        let spool = match &options.spool {
            // A store in this process is always reachable.
            Some(wanted) if !store.is_live() => {
                let resolution = frame.resolution();
                let opened = open_spool(wanted.clone(), resolution, &clock, &metrics).await?;
                let parts = DeliveryParts {
                    spool: Arc::clone(&opened),
                    frame,
                    clock: Arc::clone(&clock),
                    erasures: Arc::clone(&erasures),
                };
                keep_delivering(&supervisor, parts, &recorder);
                Some(opened)
            }
            _ => None,
        };
        keep_following_erasures(&supervisor, &erasures, spool.as_ref());
        let merger = Arc::new(Merger::new(MergerParts {
            frame,
            clock: Arc::clone(&clock),
            store: Arc::clone(&store),
            recorder: Arc::clone(&recorder),
            live: live.clone(),
            spool: spool.clone(),
            erasures: Arc::clone(&erasures),
            metrics: Arc::clone(&metrics),
        }));
        let completing = Arc::clone(&merger);
        supervisor.keep_until_stop("merges", move || {
            let merger = Arc::clone(&completing);
            async move { merger.keep_completing().await }
        });
        let merges = Arc::downgrade(erasures.merges());
        metrics.before_render(move |metrics| {
            if let Some(merges) = merges.upgrade() {
                metrics.ingest.merges_known.set(merges.len() as u64);
            }
        });
        let ingest = Ingest::new(IngestParts {
            frame,
            clock: Arc::clone(&clock),
            recorder,
            spool: spool.clone(),
            guard: Arc::clone(&guard),
            identity: Arc::new(identity),
            erasures: Arc::clone(&erasures),
            queue_pairs: options.queue_pairs,
            write_timeout: (!store.is_live()).then_some(options.write_deadline),
        });
        let refresher = Arc::new(Refresher::new(RefresherParts {
            frame,
            clock: Arc::clone(&clock),
            store: Arc::clone(&store),
            cache: Arc::clone(&cache),
            guard,
            metrics: Arc::clone(&metrics),
            windows: options.refresh_windows.clone(),
            segments: Arc::clone(&catalog),
            parallelism: options.refresh_parallelism,
            supervisor: supervisor.clone(),
            live: live.clone(),
        }));
        let counts = Arc::new(Counts::new(CountsParts {
            frame,
            clock: Arc::clone(&clock),
            store: Arc::clone(&store),
            cache: Arc::clone(&cache),
            live: live.clone(),
            probes: Arc::clone(&probes),
            refresher: Arc::clone(&refresher),
            segments: Arc::clone(&catalog),
            metrics: Arc::clone(&metrics),
            cache_ttl: options.cache_ttl,
            memory_ttl: options.memory_ttl,
            renew_after: options.refresh_interval,
            floor: options.min_users,
        }));
        // A live store is audited only through this service, so an audit needs no expired pairs of it.
        let keep_expired = match store.is_live() {
            true => Duration::ZERO,
            false => options.cache_ttl,
        };
        let rounds = options
            .refreshes
            .then(|| Arc::new(Rounds::every(options.refresh_interval)));
        let watched = Arc::new(Watched {
            probes,
            store: Arc::clone(&store),
            clock: Arc::clone(&clock),
            spool: spool.clone(),
            live: live.clone(),
            rounds: rounds.clone(),
            refresher: Arc::clone(&refresher),
        });
        watched.observe(&metrics);
        let events = Events::new(options.max_event_clients, Arc::clone(&metrics));
        let headcount = Self {
            frame,
            keep_expired,
            clock,
            store,
            cache,
            live,
            ingest,
            spool,
            erasures,
            merger,
            counts,
            coverage,
            catalog,
            refresher,
            events: Arc::new(events),
            metrics,
            rounds,
            watched,
            supervisor,
        };
        headcount.start_tasks(&options);
        Ok(headcount)
    }

    fn start_tasks(&self, options: &EngineOptions) {
        let stop = self.supervisor.stop();
        if let Some(rounds) = &self.rounds {
            let (refresher, rounds) = (Arc::clone(&self.refresher), Arc::clone(rounds));
            let interval = options.refresh_interval;
            self.supervisor.keep("refresher", move || {
                let (refresher, rounds) = (Arc::clone(&refresher), Arc::clone(&rounds));
                async move { refresher.keep_running(interval, &rounds).await }
            });
        }
        let (events, counts) = (Arc::clone(&self.events), Arc::clone(&self.counts));
        let (coverage, until) = (Arc::clone(&self.coverage), stop.clone());
        self.supervisor.keep("events", move || {
            let (events, counts) = (Arc::clone(&events), Arc::clone(&counts));
            events::follow(events, counts, Arc::clone(&coverage), until.clone())
        });
        let coverage = Arc::clone(&self.coverage);
        self.supervisor.keep_until_stop("coverage", move || {
            let coverage = Arc::clone(&coverage);
            async move { coverage.keep_reading().await }
        });
        let (clock, until) = (Arc::clone(&self.clock), stop.clone());
        self.supervisor.keep("clock", move || {
            clock_watch::keep_watching(Arc::clone(&clock), until.clone())
        });
        let watched = Arc::downgrade(&self.clock);
        self.metrics.before_render(move |metrics| {
            if let Some(clock) = watched.upgrade() {
                let ahead = clock.ahead().as_secs_f64();
                metrics.runtime.clock_ahead.set(ahead);
            }
        });
        if self.store.is_live() {
            // Only this process can remove expired pairs from a store inside it.
            let (store, clock) = (Arc::clone(&self.store), Arc::clone(&self.clock));
            let (resolution, until) = (self.frame.resolution(), stop.clone());
            self.supervisor.keep("sweeper", move || {
                let (store, clock) = (Arc::clone(&store), Arc::clone(&clock));
                sweeper::keep_sweeping(store, clock, resolution, until.clone())
            });
        }
    }
}
