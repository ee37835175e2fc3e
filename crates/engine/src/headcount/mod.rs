//! A running headcount, made from options, a store and a cache.

mod erasing;
mod open;
mod spool;

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinError;

use self::erasing::Work;
pub use self::erasing::{Place, PlaceState, Receipt};
pub use self::open::OpenError;
use crate::counts::{CountError, Counts};
use crate::events::Events;
use crate::ingest::erasures::Erasures;
use crate::ingest::spool::Spool;
use crate::ingest::{Ingest, IngestError, PairError};
use crate::readiness::{Probed, Readiness};
use crate::refresher::{Outcome, Refresher};
use crate::rounds::Rounds;
use crate::sweeper;
use domain::cache::CountCache;
use domain::store::{PairStore, StoreError};
use domain::{
    Clock, InvalidSegment, InvalidWindow, Membership, Segment, TimeFrame, Timestamp, TrendPoint,
    UserId, Window,
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
    counts: Arc<Counts>,
    refresher: Arc<Refresher>,
    events: Arc<Events>,
    metrics: Arc<Metrics>,
    /// For how long a pair that left the window is kept.
    keep_expired: Duration,
    /// The refresher's, where it runs by itself.
    rounds: Option<Arc<Rounds>>,
    supervisor: Supervisor,
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
        let probed = Probed {
            store: &*self.store,
            cache: &*self.cache,
            clock: &*self.clock,
            spool: self.spool.as_deref(),
            rounds: self.rounds.as_deref(),
        };
        probed.readiness().await
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
