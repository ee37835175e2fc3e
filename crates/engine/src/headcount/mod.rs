//! The running service without HTTP: [`Headcount`] owns all parts and is their public interface.

mod erasing;
mod exporting;
mod merging;
mod open;
mod spool;

use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, future, stream};
use tokio::task::JoinError;

use self::erasing::Work;
pub use self::erasing::{Place, PlaceState, Receipt};
pub use self::exporting::UsersPage;
pub use self::merging::MergeError;
use self::merging::Merger;
pub use self::open::OpenError;
use crate::counts::{CountError, Counts};
use crate::coverage::KnownCoverage;
use crate::erasing::Target;
use crate::events::Events;
use crate::ingest::erasures::Erasures;
use crate::ingest::spool::Spool;
use crate::ingest::{Ingest, IngestError, PairError};
use crate::live::Live;
use crate::readiness::{Readiness, Watched};
use crate::refresher::{Outcome, Refresher};
use crate::rounds::Rounds;
use crate::segments::{SegmentCatalog, SegmentSettings, SettingsError};
use crate::sweeper;
use domain::cache::CountCache;
use domain::store::{PairStore, StoreError};
use domain::{
    Clock, Covered, Expression, Floor, InvalidExpression, InvalidSegment, InvalidWindow,
    Membership, Segment, TimeFrame, Timestamp, TrendPoint, UserId, Window,
};
use supervisor::Supervisor;
use telemetry::Metrics;

/// Names that are looked up in the cache's list concurrently.
const CONCURRENT_LOOKUPS: usize = 16;

/// A running headcount: the whole service except HTTP.
///
/// It must be opened within a tokio runtime. Call [`shut_down`](Self::shut_down) to finish the work in progress; when that
/// returns, the directories can be opened again. If it is only dropped, its tasks end soon after.
#[derive(Debug)]
pub struct Headcount {
    frame: TimeFrame,
    clock: Arc<dyn Clock>,
    store: Arc<dyn PairStore>,
    cache: Arc<dyn CountCache>,
    /// Live counts over a store on the network.
    live: Option<Arc<Live>>,
    ingest: Ingest,
    spool: Option<Arc<Spool>>,
    erasures: Arc<Erasures>,
    merger: Arc<Merger>,
    counts: Arc<Counts>,
    coverage: Arc<KnownCoverage>,
    /// The settings of segments.
    catalog: Arc<SegmentCatalog>,
    refresher: Arc<Refresher>,
    events: Arc<Events>,
    metrics: Arc<Metrics>,
    /// How long a pair is kept after it left the window.
    keep_expired: Duration,
    /// The rounds of the refresher, if it runs by itself.
    rounds: Option<Arc<Rounds>>,
    watched: Arc<Watched>,
    supervisor: Supervisor,
}

/// Why [`Headcount::record`] recorded nothing.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// A pair is not acceptable.
    #[error("pair {index}: {error}")]
    Pair {
        /// The position of the pair, from 0.
        index: usize,
        /// The reason.
        error: PairError,
    },
    /// The store refuses some of the pairs until its operator fixes it; the others are recorded.
    #[error("the store refused {pairs} of the pairs and recorded the others")]
    Refused {
        /// The number of refused pairs.
        pairs: usize,
    },
    /// The pairs can't be recorded now.
    #[error(transparent)]
    Ingest(#[from] IngestError),
}

/// Why [`Headcount::estimate`] returned no count.
#[derive(Debug, thiserror::Error)]
pub enum EstimateError {
    /// The segment name is invalid.
    #[error(transparent)]
    Segment(#[from] InvalidSegment),
    /// The expression is invalid.
    #[error(transparent)]
    Expression(#[from] InvalidExpression),
    /// The duration is not a valid window.
    #[error(transparent)]
    Window(#[from] InvalidWindow),
    /// No source has a count.
    #[error(transparent)]
    Count(#[from] CountError),
}

impl Headcount {
    /// Records (user id, segment) pairs seen now. When this returns `Ok`, all of them are durable. On an error none is
    /// accepted, except with [`RecordError::Refused`].
    pub async fn record<'a>(
        &self,
        pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<(), RecordError> {
        self.coverage.begin_recording();
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

    /// The number of distinct users in `segment` over its window: its own, or the configured one.
    pub async fn estimate(&self, segment: &str) -> Result<u64, EstimateError> {
        let window = self.catalog.window_of(&Segment::new(segment)?);
        self.estimate_in(segment, window).await
    }

    /// The number of distinct users in `segment` over a shorter window, a multiple of the resolution.
    pub async fn estimate_over(
        &self,
        segment: &str,
        window: Duration,
    ) -> Result<u64, EstimateError> {
        self.estimate_in(segment, self.frame.window(window)?).await
    }

    /// The number of distinct users in a set of segments over the configured window, such as
    /// `news AND (sports OR "front page") NOT cars`. See [`domain::expression`] for what can be written.
    pub async fn estimate_set(&self, expression: &str) -> Result<u64, EstimateError> {
        let expression = Expression::parse(expression)?;
        let window = self.frame.full_window();
        let floor = Floor::default();
        let counted = self.counts.get_set(&expression, window, floor, false).await;
        // Without a floor nothing is withheld.
        Ok(counted.map_err(CountError)?.value.unwrap_or_default())
    }

    async fn estimate_in(&self, segment: &str, window: Window) -> Result<u64, EstimateError> {
        let result = self
            .counts
            .get(&Segment::new(segment)?, window, false)
            .await?;
        Ok(result.count.users)
    }

    /// The window and resolution.
    pub fn frame(&self) -> &TimeFrame {
        &self.frame
    }

    /// The source of the current time.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// The write path.
    pub fn ingest(&self) -> &Ingest {
        &self.ingest
    }

    /// Whether any instance recently received pairs of this segment. This checks process memory and the list in the
    /// cache. It does not add the segment to either.
    pub async fn knows(&self, segment: &Segment) -> bool {
        let listed_by_cache = async { self.cache.knows(segment).await.unwrap_or(false) };
        self.ingest.knows(segment) || (!self.is_live() && listed_by_cache.await)
    }

    /// Whether the segment has users, or any instance recently received pairs of it.
    pub async fn has_seen(&self, segment: &Segment) -> bool {
        let counted = self.counts.get_now(segment, self.frame.full_window());
        counted.is_some_and(|counted| counted.count.users > 0) || self.knows(segment).await
    }

    /// Those of `segments` that were not seen, in the same order.
    pub async fn unseen<'a>(
        &self,
        segments: impl IntoIterator<Item = &'a Segment>,
    ) -> Vec<&'a Segment> {
        let segments = segments.into_iter();
        let looking: Vec<_> = segments
            .map(async |segment| (!self.has_seen(segment).await).then_some(segment))
            .collect();
        let found = stream::iter(looking).buffered(CONCURRENT_LOOKUPS);
        found.filter_map(future::ready).collect().await
    }

    /// The read path.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Since when the store has every pair, and whether a count over `window` is complete now.
    pub fn covered(&self, window: Window) -> Covered {
        self.coverage.of(window, self.clock.now())
    }

    /// Since when the store has every pair, and what was lost.
    pub fn coverage(&self) -> &KnownCoverage {
        &self.coverage
    }

    /// The events of changed counts.
    pub fn events(&self) -> &Arc<Events> {
        &self.events
    }

    /// The metrics of this instance.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Writes trend points that were computed elsewhere to the store.
    pub async fn record_trend(&self, points: &[TrendPoint]) -> Result<(), StoreError> {
        self.store.record_trend(points).await
    }

    /// Whether the store is in this process and counts without I/O.
    pub fn is_live(&self) -> bool {
        self.store.is_live()
    }

    /// When this process last recounted every segment; `None` if it has not yet.
    pub fn refreshed(&self) -> Option<Timestamp> {
        self.refresher.finished()
    }

    /// The interval at which this process recounts every segment; `None` if it does not recount by itself.
    pub fn refresh_interval(&self) -> Option<Duration> {
        self.rounds.as_deref().map(Rounds::interval)
    }

    /// The windows over which a segment is recounted and has a trend. The first is the full window.
    pub fn refreshed_windows(&self, segment: &Segment) -> Vec<Window> {
        self.refresher.windows_of(segment)
    }

    /// The settings of segments.
    pub fn segments(&self) -> &SegmentCatalog {
        &self.catalog
    }

    /// The segments that a user is in.
    pub async fn memberships(&self, user: UserId<'_>) -> Result<Vec<Membership>, StoreError> {
        let stored = self.ingest.identity().of(user);
        if let Some(live) = &self.live
            && let Some(memberships) = live.memberships(&stored).await
        {
            return Ok(memberships);
        }
        self.store.memberships(&stored, self.clock.now()).await
    }

    /// Erases a user from the store and from this instance's disk. Other instances follow. After an error the erasure may
    /// be partly done and must be repeated.
    pub async fn forget(&self, user: UserId<'_>) -> Result<Receipt, StoreError> {
        let user = self.ingest.identity().of(user);
        self.erase(&Target::User(&user)).await
    }

    /// The same, from one segment. The user stays in the others.
    pub async fn forget_in(
        &self,
        segment: &Segment,
        user: UserId<'_>,
    ) -> Result<Receipt, StoreError> {
        let user = self.ingest.identity().of(user);
        let receipt = self.erase(&Target::Pair(segment, &user)).await?;
        self.refresher.count_again(segment).await;
        Ok(receipt)
    }

    /// Merges `from` into `into`: every visit of `from` becomes a visit of `into`, and the later last visit counts. Pairs of `from` that
    /// are received within the window count for `into` too. Returns the number of segments that `from` was in. After an error `from`
    /// and `into` may both count, and the call must be repeated. It continues if the caller drops this future.
    pub async fn merge(&self, from: UserId<'_>, into: UserId<'_>) -> Result<u64, MergeError> {
        let identity = self.ingest.identity();
        let (from, into) = (identity.of(from), identity.of(into));
        let merger = Arc::clone(&self.merger);
        let merging = self
            .supervisor
            .begin("merge", async move { merger.merge(from, &into).await });
        match merging.await.map_err(JoinError::try_into_panic) {
            Ok(merged) => merged,
            Err(Ok(panic)) => std::panic::resume_unwind(panic),
            Err(Err(_)) => Err(StoreError::Closed.into()),
        }
    }

    /// Erases every pair of a segment, its trend and its settings. Pairs that are received afterwards count. After an error the
    /// segment may be partly erased, and the call must be repeated.
    pub async fn delete_segment(&self, segment: &Segment) -> Result<Receipt, SettingsError> {
        let windows = &self.refresher.windows_of(segment);
        let receipt = self.erase(&Target::Segment { segment, windows }).await?;
        // While its own window is known, so that no count over it stays in the cache.
        self.refresher.count_again(segment).await;
        self.catalog
            .put(segment, SegmentSettings::default())
            .await?;
        self.refresher.names().forget(segment);
        Ok(receipt)
    }

    async fn erase(&self, target: &Target<'_>) -> Result<Receipt, StoreError> {
        let work = Work {
            store: &*self.store,
            live: self.live.as_deref(),
            spool: self.spool.as_deref(),
            erasures: &self.erasures,
            now: self.clock.now(),
            stop: self.supervisor.stop(),
        };
        work.erase(target).await
    }

    /// The token with which services ask this live process; `None` while the installation's key is unknown, and without live
    /// counts.
    pub fn live_token(&self) -> Option<String> {
        self.live.as_ref()?.token()
    }

    /// Recounts every segment, or one, into the cache. With live counts it compares them with the store's own counts instead,
    /// and reads the segments that differ again. The run continues if the caller drops this future: a run that
    /// stopped halfway would leave its lock to expire.
    pub async fn refresh(&self, only: Option<&Segment>) -> Result<Outcome, StoreError> {
        if let Some(segment) = only
            && !self.refresher.knows(segment).await?
        {
            return Ok(Outcome::Unknown);
        }
        let (refresher, live, only) = (
            Arc::clone(&self.refresher),
            self.live.clone(),
            only.cloned(),
        );
        let run = self.supervisor.begin("refresh", async move {
            if let Some(live) = live
                && let Some(comparison) = live.compare(only.as_ref()).await
            {
                return Ok(comparison.into());
            }
            refresher.run(only.as_ref()).await
        });
        match run.await.map_err(JoinError::try_into_panic) {
            Ok(outcome) => outcome,
            Err(Ok(panic)) => std::panic::resume_unwind(panic),
            Err(Err(_)) => Err(StoreError::Closed),
        }
    }

    /// Removes every pair that no window includes. Returns the number of removed pairs.
    pub async fn archive(&self) -> Result<u64, StoreError> {
        self.archive_with_progress(|_| ()).await
    }

    /// The same as [`archive`](Self::archive), and calls `on_progress` after each step with the number of pairs removed so
    /// far.
    ///
    /// Pairs that left the window less than `cache_ttl` ago are kept for the next run. A cached count may still include
    /// them, and an audit computes from them by how much such a count may be too high.
    pub async fn archive_with_progress(
        &self,
        on_progress: impl FnMut(u64),
    ) -> Result<u64, StoreError> {
        let now = self.clock.now();
        let as_of = now.saturating_sub(self.keep_expired).unwrap_or(now);
        sweeper::sweep(&*self.store, as_of, self.supervisor.stop(), on_progress).await
    }

    /// The state of the components. The store and the cache are probed in the background every second; this has the last
    /// results and never waits.
    pub fn readiness(&self) -> Readiness {
        self.watched.readiness()
    }

    /// Ends the background tasks, then closes the spool and the store. Writes in progress are finished first.
    pub async fn shut_down(&self) -> Result<(), StoreError> {
        self.supervisor.end().await;
        self.coverage.close().await;
        if let Some(spool) = &self.spool {
            spool.close().await?;
        }
        if let Some(live) = &self.live {
            live.close().await?;
        }
        self.store.close().await
    }
}

impl Drop for Headcount {
    fn drop(&mut self) {
        // The tasks hold resources, such as locked directories, and release them when they end.
        self.supervisor.stop().cancel();
    }
}
