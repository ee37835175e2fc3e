//! Wiring: a running headcount, made from settings.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cache::{self, CountCache};
use crate::config::{CacheKind, RefreshMode, Settings, SpoolSettings};
use crate::counts::{CountError, Counts, CountsParts};
use crate::domain::{
    Clock, Count, InvalidSegment, InvalidWindow, Membership, Resolution, Segment, SteadyClock,
    TimeFrame, Timestamp, TrendPoint, UserId, Window,
};
use crate::events::{self, Events, FollowerParts};
use crate::ingest::spool::{self, Spool};
use crate::ingest::{
    Identity, Ingest, IngestError, IngestParts, PairError, PendingNotes, Recorder, SegmentGuard,
};
use crate::readiness::{Component, Readiness};
use crate::refresher::{Outcome, Refresher, RefresherParts};
use crate::store::{self, ObservedStore, Opened, PairStore, StoreError};
use crate::sweeper;
use crate::telemetry::Metrics;

/// A component that does not answer a probe within this time counts as away.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// A running headcount: the whole service but for HTTP.
///
/// Must be opened within a tokio runtime. [`shut_down`](Self::shut_down) before dropping it, so that tasks end.
#[derive(Debug)]
pub struct Headcount {
    frame: TimeFrame,
    clock: Arc<dyn Clock>,
    store: Arc<dyn PairStore>,
    cache: Arc<dyn CountCache>,
    ingest: Ingest,
    spool: Option<Arc<Spool>>,
    counts: Counts,
    refresher: Arc<Refresher>,
    events: Arc<Events>,
    metrics: Arc<Metrics>,
    /// For how long a pair that left the window is kept.
    keep_expired: Duration,
    tasks: TaskTracker,
    stop: CancellationToken,
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
    /// Opens the configured store and cache and starts the background tasks.
    pub async fn open(settings: &Settings) -> Result<Self, OpenError> {
        Self::open_with(settings, Arc::new(SteadyClock::default()), Arc::default()).await
    }

    /// The same with a clock and metrics of the caller's.
    pub async fn open_with(
        settings: &Settings,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, OpenError> {
        let opened = store::open(settings, clock.now(), &metrics).await?;
        let cache = cache::open(settings)?;
        Self::open_over(settings, opened, cache, clock, metrics).await
    }

    /// The same over a store and a cache of the caller's, whichever the settings name.
    pub async fn open_over(
        settings: &Settings,
        opened: Opened,
        cache: Arc<dyn CountCache>,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, OpenError> {
        let frame = settings.frame;
        if let Some(newest) = opened.newest {
            // A clock that was set back since the last run must not hide what was recorded before.
            clock.not_before(frame.resolution().start_of(newest));
        }
        let store: Arc<dyn PairStore> =
            Arc::new(ObservedStore::new(opened.store, Arc::clone(&metrics)));
        let guard = Arc::new(SegmentGuard::new(settings.ingest.max_segments));
        let listing = guard.begin_listing();
        match store.segments(clock.now()).await {
            Ok(listed) => guard.settle(listing, &listed),
            // A store that is away must not stop the start: the first refresh settles the guard.
            Err(error) => tracing::warn!(%error, "the store can't list its segments yet"),
        }

        let tasks = TaskTracker::new();
        let stop = CancellationToken::new();
        let pending = (!store.is_live()).then(|| {
            PendingNotes::start(
                Arc::clone(&cache),
                Arc::clone(&metrics),
                &tasks,
                stop.clone(),
            )
        });
        let identity = match &settings.ingest.user_key {
            Some(key) => Identity::keyed(key.reveal()),
            None => Identity::plain(),
        };
        let recorder = Arc::new(Recorder::new(Arc::clone(&store), pending));
        let spool = match &settings.ingest.spool {
            // A store in this process can't be away from it.
            Some(wanted) if !store.is_live() => {
                let spool =
                    open_spool(wanted.clone(), frame.resolution(), &clock, &metrics).await?;
                let sink = Arc::clone(&recorder) as Arc<dyn spool::Sink>;
                tasks.spawn(spool::deliver(Arc::clone(&spool), sink, stop.clone()));
                Some(spool)
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
            queue_pairs: settings.ingest.queue_pairs,
        });
        let refresher = Arc::new(Refresher::new(RefresherParts {
            frame,
            clock: Arc::clone(&clock),
            store: Arc::clone(&store),
            cache: Arc::clone(&cache),
            guard,
            metrics: Arc::clone(&metrics),
            windows: settings.refresh.windows.clone(),
            parallelism: settings.refresh.parallelism,
            stop: stop.clone(),
        }));
        let counts = Counts::new(CountsParts {
            frame,
            clock: Arc::clone(&clock),
            store: Arc::clone(&store),
            cache: Arc::clone(&cache),
            refresher: Arc::clone(&refresher),
            metrics: Arc::clone(&metrics),
            cache_ttl: settings.cache.ttl,
            memory_ttl: match settings.cache.kind {
                // This cache lives in process memory itself.
                CacheKind::Memory => Duration::ZERO,
                CacheKind::Redis => settings.cache.memory_ttl,
            },
        });
        // A live store is never audited but by asking it.
        let keep_expired = match store.is_live() {
            true => Duration::ZERO,
            false => settings.cache.ttl,
        };
        let events = Events::new(settings.http.max_event_clients, Arc::clone(&metrics));
        let headcount = Self {
            frame,
            keep_expired,
            clock,
            store,
            cache,
            ingest,
            spool,
            counts,
            refresher,
            events: Arc::new(events),
            metrics,
            tasks,
            stop,
        };
        headcount.start_tasks(settings);
        Ok(headcount)
    }

    fn start_tasks(&self, settings: &Settings) {
        if settings.refresh.mode == RefreshMode::Loop {
            let refresher = Arc::clone(&self.refresher);
            let interval = settings.refresh.interval;
            self.tasks
                .spawn(async move { refresher.keep_running(interval).await });
        }
        let followed = FollowerParts {
            frame: self.frame,
            clock: Arc::clone(&self.clock),
            store: Arc::clone(&self.store),
            cache: Arc::clone(&self.cache),
        };
        let (told, stop) = (Arc::clone(&self.events), self.stop.clone());
        self.tasks.spawn(events::follow(told, followed, stop));
        if self.store.is_live() {
            // A store that lives in this process has nobody else to remove what expired.
            let sweep = sweeper::keep_sweeping(
                Arc::clone(&self.store),
                Arc::clone(&self.clock),
                self.frame.resolution(),
                self.stop.clone(),
            );
            self.tasks.spawn(sweep);
        }
        self.tasks.close();
    }

    /// Records (user id, segment) pairs seen now: all of them durably, or none.
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
        self.ingest.accept(intake.finish()).await?;
        Ok(())
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
        let points = self.store.trend(segment, window, from, to).await?;
        Ok(match step {
            Some(step) => last_of_each(points, step),
            None => points,
        })
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

    /// The segments that a user is in.
    pub async fn memberships(&self, user: UserId<'_>) -> Result<Vec<Membership>, StoreError> {
        let stored = self.ingest.identity().of(user);
        self.store.memberships(&stored, self.clock.now()).await
    }

    /// Erases a user; the number of segments that lost them.
    pub async fn forget(&self, user: UserId<'_>) -> Result<u64, StoreError> {
        let stored = self.ingest.identity().of(user);
        if let Some(spool) = &self.spool {
            // First, so that nothing of theirs gets out of there afterwards.
            spool.forget(&stored).await?;
        }
        self.store.forget(&stored, self.clock.now()).await
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
            .tasks
            .spawn(async move { refresher.run(only.as_ref()).await });
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
    /// [audit](crate::audit) tells from them by how much that count may be too high.
    pub async fn archive_telling(&self, told: impl FnMut(u64)) -> Result<u64, StoreError> {
        let now = self.clock.now();
        let as_of = now.saturating_sub(self.keep_expired).unwrap_or(now);
        sweeper::sweep(&*self.store, as_of, &self.stop, told).await
    }

    /// How the components are, by real round trips.
    pub async fn readiness(&self) -> Readiness {
        let (store, cache) = tokio::join!(
            probe("store", async {
                self.store.ping().await.map_err(|error| error.to_string())
            }),
            probe("cache", async {
                self.cache.ping().await.map_err(|error| error.to_string())
            }),
        );
        let (stored, reads) = (store.ok, store.ok || cache.ok);
        let spool = self
            .spool
            .as_deref()
            .map(|spool| spooled(spool, self.clock.now()));
        Readiness {
            writes: stored || spool.as_ref().is_some_and(|spool| spool.ok),
            reads,
            components: [store, cache].into_iter().chain(spool).collect(),
        }
    }

    /// Ends the background tasks and closes the store. Pairs being recorded are finished first.
    pub async fn shut_down(&self) -> Result<(), StoreError> {
        self.stop.cancel();
        self.tasks.wait().await;
        if let Some(spool) = &self.spool {
            spool.close().await?;
        }
        self.store.close().await
    }
}

async fn open_spool(
    wanted: SpoolSettings,
    resolution: Resolution,
    clock: &Arc<dyn Clock>,
    metrics: &Arc<Metrics>,
) -> Result<Arc<Spool>, StoreError> {
    metrics.spool_limit(wanted.max_bytes);
    // It reads what waits from a former run.
    let opening = move || Spool::open(&wanted.dir, wanted.max_bytes, resolution);
    let opening = tokio::task::spawn_blocking(opening).await;
    let spool = opening.map_err(|error| StoreError::Unavailable(error.to_string()))??;
    let spool = Arc::new(spool);
    let (observed, clock) = (Arc::downgrade(&spool), Arc::clone(clock));
    metrics.before_render(move |metrics| {
        if let Some(spool) = observed.upgrade() {
            let stats = spool.stats(clock.now());
            metrics.spool(stats.waiting_pairs, stats.bytes, stats.oldest);
        }
    });
    Ok(spool)
}

fn spooled(spool: &Spool, now: Timestamp) -> Component {
    let stats = spool.stats(now);
    let waiting = stats.oldest.map(|age| {
        let pairs = stats.waiting_pairs;
        format!("{pairs} pairs wait, the oldest for {} s", age.as_secs())
    });
    let problem = spool.check().err().map(|error| error.to_string());
    Component {
        name: "spool",
        ok: problem.is_none(),
        detail: problem.or(waiting),
    }
}

async fn probe(name: &'static str, ping: impl Future<Output = Result<(), String>>) -> Component {
    let answer = tokio::time::timeout(PROBE_TIMEOUT, ping).await;
    let problem = answer
        .unwrap_or_else(|_| Err(format!("no answer in {PROBE_TIMEOUT:?}")))
        .err();
    Component {
        name,
        ok: problem.is_none(),
        detail: problem,
    }
}

/// Keeps the last point of each step; `points` are in order.
fn last_of_each(points: Vec<Count>, step: Duration) -> Vec<Count> {
    let step = i64::try_from(step.as_secs().max(1)).unwrap_or(i64::MAX);
    let mut kept: Vec<Count> = Vec::new();
    for point in points {
        let bucket = |count: &Count| count.as_of.as_second().div_euclid(step);
        match kept.last_mut() {
            Some(last) if bucket(last) == bucket(&point) => *last = point,
            _ => kept.push(point),
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_keeps_its_last_point() {
        let count = |second, users| Count {
            users,
            as_of: Timestamp::from_second(second).unwrap(),
        };
        let points = vec![count(0, 1), count(59, 2), count(60, 3), count(179, 4)];
        let kept = last_of_each(points, Duration::from_secs(60));
        assert_eq!(kept, [count(59, 2), count(60, 3), count(179, 4)]);
    }
}
