//! The one writer of cached counts: recounts segments from the store into the cache and keeps their trend.
//!
//! Everybody who needs a count from the store asks here, readers included, so that there is one bound on counts under
//! way ([`places`]), one count of a segment and window at a time ([`recounts`]), and one list of segments ([`names`]). A
//! refresh counts small segments together ([`groups`]), where the store gains by it.

mod counter;
mod groups;
mod keep_running;
mod lock;
mod names;
mod places;
mod recounts;
mod remembered;
mod run;
mod trend;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tokio::sync::Mutex;

use self::counter::Counter;
use self::places::Places;
use self::trend::Trend;
use crate::ingest::SegmentGuard;
use domain::cache::CountCache;
use domain::store::{PairStore, StoreError};
use domain::{Clock, Segment, TimeFrame, Timestamp, Window};
use supervisor::Supervisor;
use telemetry::Metrics;

pub use self::counter::Recount;
pub(crate) use self::names::Names;
pub(crate) use self::places::Lane;
pub(crate) use self::recounts::{Recounts, Ticket};
pub(crate) use self::remembered::{Key, Remembered};

/// Recounts segments.
#[derive(Debug)]
pub struct Refresher {
    parts: RefresherParts,
    recounts: Arc<Recounts>,
    names: Arc<Names>,
    remembered: Arc<Remembered>,
    trend: Trend,
    /// Held by the run under way in this process; the cache's lock holds off the others.
    running: Mutex<()>,
    /// When this process last recounted every segment, in unix milliseconds; 0 before it did.
    finished: AtomicI64,
}

/// What the refresher is made of.
#[derive(Debug)]
pub struct RefresherParts {
    /// The window and resolution.
    pub frame: TimeFrame,
    /// Where "now" comes from.
    pub clock: Arc<dyn Clock>,
    /// What is counted.
    pub store: Arc<dyn PairStore>,
    /// Where counts go.
    pub cache: Arc<dyn CountCache>,
    /// Told which segments exist.
    pub guard: Arc<SegmentGuard>,
    /// Counters of runs.
    pub metrics: Arc<Metrics>,
    /// The windows that are counted; the full one among them.
    pub windows: Vec<Window>,
    /// Counts under way at a time, those for readers included.
    pub parallelism: usize,
    /// Runs the tasks that count. Its stop ends a run early: what was counted by then is kept.
    pub supervisor: Supervisor,
}

/// What a refresh did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing.
    Skipped(Skip),
    /// Nobody knows the segment that was to be recounted. Counting it all the same would leave points in the trend for
    /// whatever name somebody makes up.
    Unknown,
    /// The run went through.
    Done(Report),
}

/// Why a refresh was skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Skip {
    /// Another run is under way, here or in another instance.
    UnderWay,
    /// Another instance has made one. Only loops mind.
    Recent {
        /// The time until the next one.
        due_in: Duration,
    },
    /// The cache can't be asked for the lock, and could not keep the counts.
    NoCache,
}

/// The figures of a refresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// Segments whose counts were renewed.
    pub refreshed: u64,
    /// Segments that kept an old count because counting failed.
    pub failed: u64,
    /// How long it took.
    pub took: Duration,
}

impl Refresher {
    /// A refresher from its parts.
    pub fn new(parts: RefresherParts) -> Self {
        let remembered = Arc::<Remembered>::default();
        let names = Arc::new(Names::new(&parts));
        let counter = Counter {
            frame: parts.frame,
            clock: Arc::clone(&parts.clock),
            store: Arc::clone(&parts.store),
            cache: Arc::clone(&parts.cache),
            windows: parts.windows.clone(),
            names: Arc::clone(&names),
            remembered: Arc::clone(&remembered),
            metrics: Arc::clone(&parts.metrics),
        };
        let places = Places::new(parts.parallelism);
        Self {
            recounts: Recounts::new(counter, places, parts.supervisor.clone()),
            names,
            remembered,
            trend: Trend::new(Arc::clone(&parts.store)),
            parts,
            running: Mutex::new(()),
            finished: AtomicI64::new(0),
        }
    }

    /// When this process last recounted every segment, if it did.
    pub fn finished(&self) -> Option<Timestamp> {
        match self.finished.load(Ordering::Relaxed) {
            0 => None,
            millis => Timestamp::from_millisecond(millis).ok(),
        }
    }

    /// Whether there is such a segment: here, in the cache, or in the store.
    pub async fn knows(&self, segment: &Segment) -> Result<bool, StoreError> {
        self.names.has(segment).await
    }

    /// Counts under way.
    pub(crate) fn recounts(&self) -> &Arc<Recounts> {
        &self.recounts
    }

    /// The windows that are counted.
    pub(crate) fn windows(&self) -> &[Window] {
        &self.parts.windows
    }

    /// The list of segments.
    pub(crate) fn names(&self) -> &Arc<Names> {
        &self.names
    }

    /// Last known counts.
    pub(crate) fn remembered(&self) -> &Arc<Remembered> {
        &self.remembered
    }

    /// The lane of a reader who asks for a count.
    pub(crate) fn lane_of(&self, segment: &Segment, window: Window) -> Lane {
        match self.parts.windows.contains(&window) && self.names.knows(segment) {
            true => Lane::Usual,
            false => Lane::Other,
        }
    }
}
