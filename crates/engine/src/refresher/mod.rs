//! Recounts segments from the store into the cache and records their trend. This module is the only writer of cached
//! counts.
//!
//! All counts from the store are requested here, also those for readers. So there is one limit on concurrent counts
//! ([`permits`]), one count of a segment and window at a time ([`recounts`]), and one list of segments ([`names`]). A
//! refresh counts small segments together ([`groups`]) where that is cheaper for the store.

mod counter;
mod groups;
mod keep_running;
mod lock;
mod names;
mod permits;
mod recounts;
mod remembered;
mod run;
mod trend;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use futures::future::join_all;
use tokio::sync::Mutex;

use self::counter::Counter;
use self::permits::Permits;
use self::trend::Trend;
use crate::ingest::SegmentGuard;
use crate::live::Live;
use crate::live_process::Comparison;
use crate::segments::SegmentCatalog;
use domain::cache::CountCache;
use domain::store::{PairStore, StoreError};
use domain::{Clock, Segment, TimeFrame, Timestamp, Window};
use supervisor::Supervisor;
use telemetry::Metrics;

pub use self::counter::Recount;
pub(crate) use self::names::Names;
pub(crate) use self::permits::Lane;
pub(crate) use self::recounts::{Recounts, Ticket};
pub(crate) use self::remembered::{Key, Remembered};

/// How long an erasure waits for the recounts that it starts. They continue afterwards.
const COUNTED_AGAIN_WITHIN: Duration = Duration::from_secs(5);

/// Recounts segments.
#[derive(Debug)]
pub struct Refresher {
    parts: RefresherParts,
    recounts: Arc<Recounts>,
    names: Arc<Names>,
    remembered: Arc<Remembered>,
    trend: Trend,
    /// Held by the run in this process. The lock in the cache excludes other instances.
    running: Mutex<()>,
    /// When this process last recounted every segment, in unix milliseconds; 0 if it has not yet.
    finished: AtomicI64,
}

/// The dependencies and settings of the refresher.
#[derive(Debug)]
pub struct RefresherParts {
    /// The window and resolution.
    pub frame: TimeFrame,
    /// The source of the current time.
    pub clock: Arc<dyn Clock>,
    /// The store whose pairs are counted.
    pub store: Arc<dyn PairStore>,
    /// The cache that the counts are written to.
    pub cache: Arc<dyn CountCache>,
    /// The set of known segments, which each list from the store updates.
    pub guard: Arc<SegmentGuard>,
    /// The metrics of runs and counts.
    pub metrics: Arc<Metrics>,
    /// The windows that are counted of every segment, including the full window.
    pub windows: Vec<Window>,
    /// The segments that are also counted over a window of their own.
    pub segments: Arc<SegmentCatalog>,
    /// The maximum number of concurrent counts, including those for readers.
    pub parallelism: usize,
    /// Runs the tasks that count. Its stop ends a run early; counts that are done by then are kept.
    pub supervisor: Supervisor,
    /// Live counts over a store on the network, which need no recounts.
    pub live: Option<Arc<Live>>,
}

/// The outcome of a refresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing was recounted.
    Skipped(Skip),
    /// The segment does not exist. It is not counted, because that would add trend points for arbitrary names.
    Unknown,
    /// The run completed.
    Done(Report),
}

/// Why a refresh was skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Skip {
    /// Another run is in progress, here or in another instance.
    UnderWay,
    /// Another instance completed a run within the interval. Only periodic runs are skipped for this.
    Recent {
        /// The time until the next run is due.
        due_in: Duration,
    },
    /// The cache is unavailable, so there is no lock, and no place for the counts.
    NoCache,
}

/// The figures of a refresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// The number of segments whose counts were renewed.
    pub refreshed: u64,
    /// The number of segments that kept an old count because counting failed.
    pub failed: u64,
    /// If counts are live, they are not renewed but compared with the store's own: the number of segments that differed by more
    /// than the store explains, and were read again.
    pub differences: Option<u64>,
    /// The duration of the run.
    pub took: Duration,
}

impl From<Comparison> for Outcome {
    fn from(comparison: Comparison) -> Self {
        match comparison {
            Comparison::UnderWay => Self::Skipped(Skip::UnderWay),
            Comparison::Done {
                compared,
                failed,
                differences,
                took,
            } => Self::Done(Report {
                refreshed: compared,
                failed,
                differences: Some(differences),
                took,
            }),
        }
    }
}

impl Refresher {
    /// Creates a refresher. It runs when [`run`](Self::run) or [`keep_running`](Self::keep_running) is called.
    pub fn new(parts: RefresherParts) -> Self {
        let remembered = Arc::<Remembered>::default();
        let names = Arc::new(Names::new(&parts));
        let counter = Counter {
            frame: parts.frame,
            clock: Arc::clone(&parts.clock),
            store: Arc::clone(&parts.store),
            cache: Arc::clone(&parts.cache),
            windows: parts.windows.clone(),
            segments: Arc::clone(&parts.segments),
            names: Arc::clone(&names),
            remembered: Arc::clone(&remembered),
            metrics: Arc::clone(&parts.metrics),
        };
        let permits = Permits::new(parts.parallelism);
        Self {
            recounts: Recounts::new(counter, permits, parts.supervisor.clone()),
            names,
            remembered,
            trend: Trend::new(Arc::clone(&parts.store)),
            parts,
            running: Mutex::new(()),
            finished: AtomicI64::new(0),
        }
    }

    /// When this process last recounted every segment; `None` if it has not yet.
    pub fn finished(&self) -> Option<Timestamp> {
        match self.finished.load(Ordering::Relaxed) {
            0 => None,
            millis => Timestamp::from_millisecond(millis).ok(),
        }
    }

    /// Whether the segment exists in this process, in the cache or in the store.
    pub async fn knows(&self, segment: &Segment) -> Result<bool, StoreError> {
        self.names.has(segment).await
    }

    /// Counts a segment from which pairs were erased, so that neither the cache nor the memory keeps an older count. Waits for
    /// a short time only: a reader may get the older count for as long as any other.
    pub(crate) async fn count_again(&self, segment: &Segment) {
        if self.parts.store.is_live() {
            return;
        }
        let mut windows = self.windows_of(segment);
        windows.push(self.parts.frame.full_window());
        windows.sort_unstable();
        windows.dedup();
        let counts = windows.into_iter().map(|window| async move {
            let lane = self.lane_of(segment, window);
            let key = (segment.clone(), window);
            let mut ticket = self.recounts.request_fresh(&key, lane);
            ticket.recount().await
        });
        let counted = tokio::time::timeout(COUNTED_AGAIN_WITHIN, join_all(counts)).await;
        if counted.is_err() {
            tracing::debug!(%segment, "a segment is still being counted after an erasure");
        }
    }

    /// The counts in progress.
    pub(crate) fn recounts(&self) -> &Arc<Recounts> {
        &self.recounts
    }

    /// The windows over which all segments are recounted, the full window first.
    pub(crate) fn windows(&self) -> &[Window] {
        &self.parts.windows
    }

    /// The windows that are counted of a segment.
    pub(crate) fn windows_of(&self, segment: &Segment) -> Vec<Window> {
        let own = self.parts.segments.window_of(segment);
        let mut windows = self.parts.windows.clone();
        if !windows.contains(&own) {
            windows.push(own);
        }
        windows
    }

    /// Whether a segment is counted over `window`.
    fn counts_over(&self, segment: &Segment, window: Window) -> bool {
        self.parts.windows.contains(&window) || self.parts.segments.window_of(segment) == window
    }

    /// The list of segments.
    pub(crate) fn names(&self) -> &Arc<Names> {
        &self.names
    }

    /// Last known counts.
    pub(crate) fn remembered(&self) -> &Arc<Remembered> {
        &self.remembered
    }

    /// The lane of a read of this segment and window.
    pub(crate) fn lane_of(&self, segment: &Segment, window: Window) -> Lane {
        match self.counts_over(segment, window) && self.names.knows(segment) {
            true => Lane::Usual,
            false => Lane::Other,
        }
    }
}
