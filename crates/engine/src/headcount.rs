//! A running headcount, made from options, a store and a cache.

mod erasing;
mod spool;

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinError;

use self::erasing::Work;
pub use self::erasing::{Place, PlaceState, Receipt};
use self::spool::{keep_delivering, keep_following_erasures, open_spool};
use crate::clock_watch;
use crate::counts::{CountError, Counts, CountsParts};
use crate::events::{self, Events, FollowerParts};
use crate::ingest::erasures::Erasures;
use crate::ingest::spool::{DeliveryParts, Spool};
use crate::ingest::{
    Identity, Ingest, IngestError, IngestParts, PairError, PendingNotes, Recorder, SegmentGuard,
};
use crate::known_segments;
use crate::observed::ObservedStore;
use crate::options::{Backends, EngineOptions, Opened};
use crate::readiness::{Component, Readiness};
use crate::refresher::{Outcome, Refresher, RefresherParts};
use crate::rounds::Rounds;
use crate::sweeper;
use domain::cache::{self, CountCache};
use domain::store::{PairStore, StoreError};
use domain::{
    Clock, Count, InvalidSegment, InvalidWindow, Membership, Segment, SteadyClock, TimeFrame,
    Timestamp, TrendPoint, UserId, Window,
};
use supervisor::Supervisor;
use telemetry::Metrics;

/// A running headcount: the whole service but for HTTP.
///
/// Must be opened within a tokio runtime. [`shut_down`](Self::shut_down) it to finish what is under way; when that returns,
/// the directories can be opened again. Where it is only dropped, its tasks end by themselves soon after.
#[derive(Debug)]
pub struct Headcount {
    frame: TimeFrame,
    clock: Arc<dyn Clock>,
    store: Arc<dyn PairStore>,
    cache: Arc<dyn CountCache>,
    ingest: Ingest,
    spool: Option<Arc<Spool>>,
    erasures: Arc<Erasures>,
    counts: Counts,
    refresher: Arc<Refresher>,
    events: Arc<Events>,
    metrics: Arc<Metrics>,
    /// For how long a pair that left the window is kept.
    keep_expired: Duration,
    /// The refresher's, where it runs by itself.
    rounds: Option<Arc<Rounds>>,
    supervisor: Supervisor,
}

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

/// Why [`Headcount::record`] recorded nothing.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// A pair is not acceptable.
    #[error("pair {index}: {error}")]
    Pair {
        /// Its position, from 0.
        index: usize,
        /// What is wrong with it.
        error: PairError,
    },
    /// The store refuses some of the pairs until its operator acts; the others are recorded.
    #[error("the store refuses {pairs} of the pairs, and has recorded the others")]
    Refused {
        /// How many.
        pairs: usize,
    },
    /// The pairs could not be kept now.
    #[error(transparent)]
    Ingest(#[from] IngestError),
}

/// Why [`Headcount::estimate`] has no answer.
#[derive(Debug, thiserror::Error)]
pub enum EstimateError {
    /// The text is no segment.
    #[error(transparent)]
    Segment(#[from] InvalidSegment),
    /// The duration is no window.
    #[error(transparent)]
    Window(#[from] InvalidWindow),
    /// No source can answer.
    #[error(transparent)]
    Count(#[from] CountError),
}

impl Headcount {
    /// Opens the store and the cache of `backends` and starts the background tasks.
    pub async fn open(backends: &impl Backends) -> Result<Self, OpenError> {
        Self::open_with(backends, Arc::new(SteadyClock::default()), Arc::default()).await
    }

    /// The same with a clock and metrics of the caller's.
    pub async fn open_with(
        backends: &impl Backends,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, OpenError> {
        let opened = backends.open_store(&metrics).await?;
        let cache = backends.open_cache()?;
        Self::open_over(backends.engine_options(), opened, cache, clock, metrics).await
    }

    /// The same over a store and a cache of the caller's.
    pub async fn open_over(
        options: impl Into<EngineOptions>,
        opened: Opened,
        cache: Arc<dyn CountCache>,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, OpenError> {
        let options = options.into();
        let frame = options.frame;
        if let Some(newest) = opened.newest {
            // A clock that was set back since the last run must not hide what was recorded before.
            clock.not_before(frame.resolution().start_of(newest));
        }
        let store: Arc<dyn PairStore> =
            Arc::new(ObservedStore::new(opened.store, Arc::clone(&metrics)));
        let supervisor = Supervisor::new(metrics.panic_counter());
        let guard = Arc::new(SegmentGuard::new(options.max_segments));
        let sources = known_segments::Sources {
            store: Arc::clone(&store),
            cache: Arc::clone(&cache),
            clock: Arc::clone(&clock),
        };
        known_segments::begin(&supervisor, &guard, sources).await;
        let pending = (!store.is_live())
            .then(|| PendingNotes::start(Arc::clone(&cache), Arc::clone(&metrics), &supervisor));
        let identity = match &options.user_key {
            Some(key) => Identity::keyed(key.reveal()),
            None => Identity::plain(),
        };
        let recorder = Arc::new(Recorder::new(Arc::clone(&store), pending));
        let erasures = Erasures::new(Arc::clone(&store), &frame, Arc::clone(&clock));
        let erasures = Arc::new(erasures);
        let spool = match &options.spool {
            // A store in this process can't be away from it.
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
                keep_following_erasures(&supervisor, &erasures, &opened);
                Some(opened)
            }
            _ => None,
        };
        let ingest = Ingest::new(IngestParts {
            frame,
            clock: Arc::clone(&clock),
            recorder,
            spool: spool.clone(),
            guard: Arc::clone(&guard),
            identity: Arc::new(identity),
            queue_pairs: options.queue_pairs,
            patience: (!store.is_live()).then_some(options.write_deadline),
        });
        let refresher = Arc::new(Refresher::new(RefresherParts {
            frame,
            clock: Arc::clone(&clock),
            store: Arc::clone(&store),
            cache: Arc::clone(&cache),
            guard,
            metrics: Arc::clone(&metrics),
            windows: options.refresh_windows.clone(),
            parallelism: options.refresh_parallelism,
            supervisor: supervisor.clone(),
        }));
        let counts = Counts::new(CountsParts {
            frame,
            clock: Arc::clone(&clock),
            store: Arc::clone(&store),
            cache: Arc::clone(&cache),
            refresher: Arc::clone(&refresher),
            metrics: Arc::clone(&metrics),
            cache_ttl: options.cache_ttl,
            memory_ttl: options.memory_ttl,
            renew_after: options.refresh_interval,
        });
        // A live store is never audited but by asking it.
        let keep_expired = match store.is_live() {
            true => Duration::ZERO,
            false => options.cache_ttl,
        };
        let events = Events::new(options.max_event_clients, Arc::clone(&metrics));
        let headcount = Self {
            frame,
            keep_expired,
            clock,
            store,
            cache,
            ingest,
            spool,
            erasures,
            counts,
            refresher,
            events: Arc::new(events),
            metrics,
            rounds: options
                .refreshes
                .then(|| Arc::new(Rounds::every(options.refresh_interval))),
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
        let followed = FollowerParts {
            frame: self.frame,
            clock: Arc::clone(&self.clock),
            store: Arc::clone(&self.store),
            cache: Arc::clone(&self.cache),
        };
        let (told, until) = (Arc::clone(&self.events), stop.clone());
        self.supervisor.keep("events", move || {
            events::follow(Arc::clone(&told), followed.clone(), until.clone())
        });
        let (clock, until) = (Arc::clone(&self.clock), stop.clone());
        self.supervisor.keep("clock", move || {
            clock_watch::keep_watching(Arc::clone(&clock), until.clone())
        });
        let watched = Arc::downgrade(&self.clock);
        self.metrics.before_render(move |metrics| {
            if let Some(clock) = watched.upgrade() {
                metrics.clock_ahead(clock.ahead());
            }
        });
        if self.store.is_live() {
            // A store that lives in this process has nobody else to remove what expired.
            let (store, clock) = (Arc::clone(&self.store), Arc::clone(&self.clock));
            let (resolution, until) = (self.frame.resolution(), stop.clone());
            self.supervisor.keep("sweeper", move || {
                let (store, clock) = (Arc::clone(&store), Arc::clone(&clock));
                sweeper::keep_sweeping(store, clock, resolution, until.clone())
            });
        }
    }

    /// Records (user id, segment) pairs seen now: all of them durably, or none, but for [`RecordError::Refused`].
    pub async fn record<'a>(
        &self,
        pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<(), RecordError> {
        let mut intake = self.ingest.intake(0);
        for (index, (user_id, segment)) in pairs.into_iter().enumerate() {
            intake
                .push(user_id, segment, None)
                .map_err(|error| RecordError::Pair { index, error })?;
        }
        match self.ingest.accept(intake.finish()).await?.refused.len() {
            0 => Ok(()),
            pairs => Err(RecordError::Refused { pairs }),
        }
    }

    /// The number of distinct users in `segment` over the configured window.
    pub async fn estimate(&self, segment: &str) -> Result<u64, EstimateError> {
        self.estimate_in(segment, self.frame.full_window()).await
    }

    /// The number of distinct users in `segment` over a shorter window, a multiple of the resolution.
    pub async fn estimate_over(
        &self,
        segment: &str,
        window: Duration,
    ) -> Result<u64, EstimateError> {
        self.estimate_in(segment, self.frame.window(window)?).await
    }

    async fn estimate_in(&self, segment: &str, window: Window) -> Result<u64, EstimateError> {
        let answer = self
            .counts
            .get(&Segment::new(segment)?, window, false)
            .await?;
        Ok(answer.count.users)
    }

    /// The window and resolution.
    pub fn frame(&self) -> &TimeFrame {
        &self.frame
    }

    /// Where "now" comes from.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// The way in.
    pub fn ingest(&self) -> &Ingest {
        &self.ingest
    }

    /// Whether pairs of this segment came lately, to any instance. Decided from memory and the cache's list, and
    /// nothing is kept of the question.
    pub async fn knows(&self, segment: &Segment) -> bool {
        let listed_by_cache = async { self.cache.knows(segment).await.unwrap_or(false) };
        self.ingest.knows(segment) || (!self.is_live() && listed_by_cache.await)
    }

    /// The way out.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Changes of counts.
    pub fn events(&self) -> &Arc<Events> {
        &self.events
    }

    /// What is measured.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// The trend of `segment` from `from` to `to`, both included: every point that is kept, or the last one of
    /// each `step` since the epoch.
    pub async fn trend(
        &self,
        segment: &Segment,
        window: Window,
        from: Timestamp,
        to: Timestamp,
        step: Option<Duration>,
    ) -> Result<Vec<Count>, StoreError> {
        match step {
            Some(step) => {
                let trend = self.store.trend_in_steps(segment, window, from, to, step);
                trend.await
            }
            None => self.store.trend(segment, window, from, to).await,
        }
    }

    /// Keeps counts of the past that were made elsewhere.
    pub async fn record_trend(&self, points: &[TrendPoint]) -> Result<(), StoreError> {
        self.store.record_trend(points).await
    }

    /// Whether the store lives in this process and counts at once.
    pub fn is_live(&self) -> bool {
        self.store.is_live()
    }

    /// When this process last recounted every segment, if it did.
    pub fn refreshed(&self) -> Option<Timestamp> {
        self.refresher.finished()
    }

    /// How often this process recounts every segment, if it does so by itself.
    pub fn refresh_interval(&self) -> Option<Duration> {
        self.rounds.as_deref().map(Rounds::interval)
    }

    /// The windows that are recounted and have a trend, the full one first.
    pub fn refreshed_windows(&self) -> &[Window] {
        self.refresher.windows()
    }

    /// The segments that a user is in.
    pub async fn memberships(&self, user: UserId<'_>) -> Result<Vec<Membership>, StoreError> {
        let stored = self.ingest.identity().of(user);
        self.store.memberships(&stored, self.clock.now()).await
    }

    /// Erases a user, from the store and from this instance's disk; other instances follow. On an error it may be done in
    /// part, and is to be repeated.
    pub async fn forget(&self, user: UserId<'_>) -> Result<Receipt, StoreError> {
        let user = self.ingest.identity().of(user);
        let work = Work {
            store: &*self.store,
            spool: self.spool.as_deref(),
            erasures: &self.erasures,
            now: self.clock.now(),
            stop: self.supervisor.stop(),
        };
        work.erase(&user).await
    }

    /// Recounts every segment, or one, into the cache. A run that was begun goes on when the caller goes away: one
    /// that stopped in its middle would hold the lock until that expires.
    pub async fn refresh(&self, only: Option<&Segment>) -> Result<Outcome, StoreError> {
        if let Some(segment) = only
            && !self.refresher.knows(segment).await?
        {
            return Ok(Outcome::Unknown);
        }
        let (refresher, only) = (Arc::clone(&self.refresher), only.cloned());
        let run = self
            .supervisor
            .begin("refresh", async move { refresher.run(only.as_ref()).await });
        match run.await.map_err(JoinError::try_into_panic) {
            Ok(outcome) => outcome,
            Err(Ok(panic)) => std::panic::resume_unwind(panic),
            Err(Err(_)) => Err(StoreError::Closed),
        }
    }

    /// Removes every pair that no window can reach; how many there were.
    pub async fn archive(&self) -> Result<u64, StoreError> {
        self.archive_telling(|_| ()).await
    }

    /// The same; `told` hears after each step how many were removed so far.
    ///
    /// Pairs that left the window since the oldest cached count that is still trusted stay for the next time: an
    /// audit tells from them by how much that count may be too high.
    pub async fn archive_telling(&self, told: impl FnMut(u64)) -> Result<u64, StoreError> {
        let now = self.clock.now();
        let as_of = now.saturating_sub(self.keep_expired).unwrap_or(now);
        sweeper::sweep(&*self.store, as_of, self.supervisor.stop(), told).await
    }

    /// How the components are, by real round trips.
    pub async fn readiness(&self) -> Readiness {
        let (store, cache) = tokio::join!(
            Component::probe("store", async {
                self.store.ping().await.map_err(|error| error.to_string())
            }),
            Component::probe("cache", async {
                self.cache.ping().await.map_err(|error| error.to_string())
            }),
        );
        let (stored, reads) = (store.ok, store.ok || cache.ok);
        let spool = self.spool.as_deref();
        let spool = spool.map(|spool| Component::of_spool(spool, self.clock.now()));
        let refresher = self.rounds.as_deref().map(Component::of_rounds);
        let components = [store, cache, Component::of_clock(&*self.clock)];
        let strangers = self.store.known_strangers();
        Readiness {
            writes: stored || spool.as_ref().is_some_and(|spool| spool.ok),
            reads,
            recounts: refresher.as_ref().is_none_or(|refresher| refresher.ok),
            components: components
                .into_iter()
                .chain(spool)
                .chain(refresher)
                .chain(Component::of_strangers(strangers))
                .collect(),
        }
    }

    /// Ends the background tasks and closes the store. Pairs being recorded are finished first.
    pub async fn shut_down(&self) -> Result<(), StoreError> {
        self.supervisor.end().await;
        if let Some(spool) = &self.spool {
            spool.close().await?;
        }
        self.store.close().await
    }
}

impl Drop for Headcount {
    fn drop(&mut self) {
        // What the tasks hold, directories among it, is released when they end.
        self.supervisor.stop().cancel();
    }
}
