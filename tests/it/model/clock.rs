//! The time of a case. Each read of a clock advances it by a microsecond, so that instants are unique and ordered.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use domain::{Clock, Timestamp};
use parking_lot::Mutex;

/// The time that has really passed, and the error of the system clock.
#[derive(Debug)]
pub struct Time {
    start: i64,
    passed: AtomicI64,
    /// Microseconds by which the system clock is behind.
    behind: AtomicI64,
    /// Whether clocks gave different times to a store without its own clock.
    are_apart: AtomicBool,
    /// The latest instant that any clock returned.
    latest: AtomicI64,
    /// For each noted moment, the latest instant returned until then.
    noted: Mutex<Vec<(Moment, i64)>>,
}

/// A point in the course of a case, in microseconds since its beginning.
pub type Moment = i64;

impl Time {
    pub fn new(start: Timestamp) -> Arc<Self> {
        let start = start.as_microsecond();
        Arc::new(Self {
            start,
            passed: AtomicI64::new(1),
            behind: AtomicI64::new(0),
            are_apart: AtomicBool::new(false),
            latest: AtomicI64::new(start),
            noted: Mutex::new(vec![(0, i64::MIN)]),
        })
    }

    pub fn pass(&self, by: Duration) {
        let micros = i64::try_from(by.as_micros()).unwrap();
        self.passed.fetch_add(micros, Ordering::Relaxed);
    }

    pub fn set_back(&self, by: Duration) {
        let micros = i64::try_from(by.as_micros()).unwrap();
        self.behind.store(micros, Ordering::Relaxed);
    }

    pub fn is_set_back(&self) -> bool {
        self.behind.load(Ordering::Relaxed) > 0
    }

    /// From here on clocks differ from the viewpoint of a store on the network: it can't know of a later time, and a
    /// count as of an earlier time lacks users that were seen after it.
    pub fn part(&self) {
        self.are_apart.store(true, Ordering::Relaxed);
    }

    pub fn are_apart(&self) -> bool {
        self.are_apart.load(Ordering::Relaxed)
    }

    /// A moment after everything before and before everything after.
    pub fn note(&self) -> Moment {
        let moment = self.passed.fetch_add(1, Ordering::Relaxed) + 1;
        let latest = self.latest.load(Ordering::Relaxed);
        self.noted.lock().push((moment, latest));
        moment
    }

    /// The latest noted moment before any clock returned `instant`.
    pub fn before(&self, instant: Timestamp) -> Moment {
        let told = self.noted.lock();
        let later = told.partition_point(|(_, latest)| *latest < instant.as_microsecond());
        told[later.max(1) - 1].0
    }

    pub fn latest(&self) -> Timestamp {
        Timestamp::from_microsecond(self.latest.load(Ordering::Relaxed)).unwrap()
    }

    fn system(&self) -> i64 {
        let passed = self.passed.fetch_add(1, Ordering::Relaxed) + 1;
        self.start + passed - self.behind.load(Ordering::Relaxed)
    }
}

/// The clock of a server, which nobody sets back.
#[derive(Debug)]
pub struct ServerClock {
    time: Arc<Time>,
}

impl ServerClock {
    pub fn new(time: &Arc<Time>) -> Self {
        Self {
            time: Arc::clone(time),
        }
    }
}

impl Clock for ServerClock {
    fn now(&self) -> Timestamp {
        let passed = self.time.passed.fetch_add(1, Ordering::Relaxed) + 1;
        let now = self.time.start + passed;
        self.time.latest.fetch_max(now, Ordering::Relaxed);
        Timestamp::from_microsecond(now).unwrap()
    }

    fn not_before(&self, _: Timestamp) {}
}

/// The clock of one instance. It stands still while the system clock is behind.
#[derive(Debug)]
pub struct SteadyTestClock {
    time: Arc<Time>,
    latest: AtomicI64,
}

impl SteadyTestClock {
    pub fn new(time: &Arc<Time>) -> Self {
        Self {
            time: Arc::clone(time),
            latest: AtomicI64::new(0),
        }
    }

    /// The last instant that it returned.
    pub fn last(&self) -> Timestamp {
        Timestamp::from_microsecond(self.latest.load(Ordering::Relaxed)).unwrap()
    }
}

impl Clock for SteadyTestClock {
    fn now(&self) -> Timestamp {
        let system = self.time.system();
        let now = self.latest.fetch_max(system, Ordering::Relaxed).max(system);
        self.time.latest.fetch_max(now, Ordering::Relaxed);
        Timestamp::from_microsecond(now).unwrap()
    }

    fn not_before(&self, instant: Timestamp) {
        self.latest
            .fetch_max(instant.as_microsecond(), Ordering::Relaxed);
    }
}
