//! Counts that run and counts that wait: at most one of each per segment and window, shared by all requests.
//!
//! A task runs the counts of a key, so that a count still reaches the cache after its readers are gone.

mod together;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tracing::Instrument;

use super::counter::{Counter, Recount};
use super::permits::{Lane, Permit, Permits};
use super::remembered::Key;
use domain::store::StoreError;
use domain::{Segment, Window};
use supervisor::Supervisor;
use telemetry::traces;

/// How long a count that timed out is not retried for readers that have an earlier count.
const TIMEOUT_PAUSE: Duration = Duration::from_secs(2);
/// The maximum number of keys remembered as timed out.
const MAX_TIMED_OUT: u64 = 10_000;

/// The running and waiting counts of this process.
#[derive(Debug)]
pub(crate) struct Recounts {
    counter: Counter,
    permits: Arc<Permits>,
    active: Mutex<HashMap<Key, Active>>,
    /// When the count of a key last timed out.
    timed_out: moka::sync::Cache<Key, Instant>,
    /// Segments that are counted alone, even if they are small.
    apart: moka::sync::Cache<Segment, ()>,
    supervisor: Supervisor,
}

/// The counts of a key: one that runs, one that waits, or both. The key has a task.
#[derive(Debug, Default)]
struct Active {
    running: Option<Progress>,
    waiting: Option<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    progress: Progress,
    lane: Lane,
    /// Wakes the task when `lane` changes.
    lane_changed: Arc<Notify>,
}

/// Reports the progress of a count to its tickets.
#[derive(Debug, Clone)]
struct Progress {
    step: Arc<watch::Sender<Step>>,
    requested_at: Instant,
}

#[derive(Debug)]
enum Step {
    Waits,
    Runs,
    Done(Result<Recount, StoreError>),
}

/// A requested count.
#[derive(Debug)]
pub(crate) struct Ticket {
    step: watch::Receiver<Step>,
    /// When this count was first requested.
    pub(crate) requested_at: Instant,
}

impl Waiting {
    fn new(step: Step, lane: Lane) -> Self {
        Self {
            progress: Progress {
                step: Arc::new(watch::Sender::new(step)),
                requested_at: Instant::now(),
            },
            lane,
            lane_changed: Arc::default(),
        }
    }
}

impl Progress {
    fn ticket(&self) -> Ticket {
        Ticket {
            step: self.step.subscribe(),
            requested_at: self.requested_at,
        }
    }
}

impl Ticket {
    /// Whether the store has begun to count.
    pub(crate) fn runs(&self) -> bool {
        !matches!(*self.step.borrow(), Step::Waits)
    }

    /// Waits for the count.
    pub(crate) async fn recount(&mut self) -> Result<Recount, StoreError> {
        let done = self.step.wait_for(|step| matches!(step, Step::Done(_)));
        match done.await.as_deref() {
            Ok(Step::Done(result)) => result.clone(),
            _ => Err(StoreError::Unavailable(
                "the task of a count ended without a result".to_owned(),
            )),
        }
    }
}

impl Recounts {
    pub(super) fn new(
        counter: Counter,
        permits: Arc<Permits>,
        supervisor: Supervisor,
    ) -> Arc<Self> {
        Arc::new(Self {
            counter,
            permits,
            active: Mutex::default(),
            timed_out: moka::sync::Cache::new(MAX_TIMED_OUT),
            apart: together::apart(),
            supervisor,
        })
    }

    /// Requests a count of `key`: the running one, the waiting one, or a new one.
    pub(crate) fn request(self: &Arc<Self>, key: &Key, lane: Lane) -> Ticket {
        let mut all = self.active.lock();
        let active = all.entry(key.clone()).or_default();
        match &active.running {
            Some(running) => running.ticket(),
            None => self.request_next(key, active, lane),
        }
    }

    /// Requests a count of `key` that begins after this call, and so includes every pair recorded before it.
    pub(crate) fn request_fresh(self: &Arc<Self>, key: &Key, lane: Lane) -> Ticket {
        let mut all = self.active.lock();
        let active = all.entry(key.clone()).or_default();
        self.request_next(key, active, lane)
    }

    fn request_next(self: &Arc<Self>, key: &Key, active: &mut Active, lane: Lane) -> Ticket {
        if let Some(waiting) = &mut active.waiting {
            if lane < waiting.lane {
                waiting.lane = lane;
                waiting.lane_changed.notify_one();
            }
            return waiting.progress.ticket();
        }
        // If a count of the same key is running, its task runs this one afterwards.
        let has_task = active.running.is_some();
        let permit = if has_task {
            None
        } else {
            self.permits.try_acquire()
        };
        let step = if permit.is_some() {
            Step::Runs
        } else {
            Step::Waits
        };
        let waiting = Waiting::new(step, lane);
        let ticket = waiting.progress.ticket();
        active.waiting = Some(waiting);
        if !has_task {
            self.begin(key.clone(), permit);
        }
        ticket
    }

    fn begin(self: &Arc<Self>, key: Key, permit: Option<Permit>) {
        let all = Arc::clone(self);
        // In the trace of the first request: later ones only wait.
        let span = tracing::debug_span!(target: traces::TARGET, parent: None, "recount");
        traces::continue_elsewhere(&span);
        let run = async move { all.run(key, permit).await };
        drop(self.supervisor.begin("count", run.instrument(span)));
    }

    /// Whether a count of `key` timed out in the last two seconds.
    pub(crate) fn timed_out_recently(&self, key: &Key) -> bool {
        let timed_out = self.timed_out.get(key);
        timed_out.is_some_and(|at| at.elapsed() < TIMEOUT_PAUSE)
    }

    /// Whether all permits are in use, and no count began or ended for `time`.
    pub(crate) fn are_stuck_for(&self, time: Duration) -> bool {
        self.permits.are_stuck_for(time)
    }

    /// Runs the counts of `key` one after the other until none waits. `permit` is for the first one.
    async fn run(self: Arc<Self>, key: Key, mut permit: Option<Permit>) {
        let mut task = Task {
            all: &self,
            key: &key,
            is_over: false,
        };
        loop {
            let permit = match permit.take() {
                Some(permit) => Ok(permit),
                None => self.wait_for_permit(&key).await,
            };
            let permit = match permit {
                Ok(permit) => permit,
                Err(error) => return task.give_up(error),
            };
            let Some((progress, lane)) = task.begin() else {
                return;
            };
            let result = self.count(&key, lane).await;
            drop(permit);
            self.note(&key, &result);
            let is_over = task.end();
            progress.step.send_replace(Step::Done(result));
            if is_over {
                return;
            }
        }
    }

    async fn count(&self, key: &Key, lane: Lane) -> Result<Recount, StoreError> {
        let counts = self.count_all(std::slice::from_ref(&key.0), key.1, lane);
        let no_count = || StoreError::Unavailable("the store returned no count".to_owned());
        counts.await?.pop().ok_or_else(no_count)
    }

    /// Counts `segments`, unless the process stops first.
    async fn count_all(
        &self,
        segments: &[Segment],
        window: Window,
        lane: Lane,
    ) -> Result<Vec<Recount>, StoreError> {
        tokio::select! {
            () = self.supervisor.stop().cancelled() => Err(StoreError::Closed),
            result = self.counter.count(segments, window, lane) => result,
        }
    }

    /// Notes whether the count timed out.
    fn note(&self, key: &Key, result: &Result<Recount, StoreError>) {
        match result {
            Err(StoreError::Timeout(_)) => self.timed_out.insert(key.clone(), Instant::now()),
            _ => self.timed_out.invalidate(key),
        }
    }

    async fn wait_for_permit(&self, key: &Key) -> Result<Permit, StoreError> {
        loop {
            let (lane, lane_changed) = match self.active.lock().get(key) {
                Some(Active {
                    waiting: Some(waiting),
                    ..
                }) => (waiting.lane, Arc::clone(&waiting.lane_changed)),
                _ => return Err(StoreError::Closed),
            };
            tokio::select! {
                () = self.supervisor.stop().cancelled() => return Err(StoreError::Closed),
                () = lane_changed.notified() => {}
                permit = self.permits.acquire(lane) => return permit,
            }
        }
    }
}

/// The task of a key. If it panics, the key is removed, and its tickets get an error.
struct Task<'a> {
    all: &'a Recounts,
    key: &'a Key,
    is_over: bool,
}

impl Task<'_> {
    /// Marks the waiting count as running, and returns its lane. `None` if it is not worth running: its tickets are dropped,
    /// and it is in the lane for arbitrary names and windows.
    fn begin(&mut self) -> Option<(Progress, Lane)> {
        let mut all = self.all.active.lock();
        let active = all.get_mut(self.key)?;
        let waiting = active.waiting.take()?;
        if waiting.lane == Lane::Other && waiting.progress.step.receiver_count() == 0 {
            all.remove(self.key);
            self.is_over = true;
            return None;
        }
        waiting.progress.step.send_replace(Step::Runs);
        active.running = Some(waiting.progress.clone());
        Some((waiting.progress, waiting.lane))
    }

    /// Marks the running count as ended. Returns `true` if no count waits.
    fn end(&mut self) -> bool {
        let mut all = self.all.active.lock();
        let Some(active) = all.get_mut(self.key) else {
            return true;
        };
        active.running = None;
        self.is_over = active.waiting.is_none();
        if self.is_over {
            all.remove(self.key);
        }
        self.is_over
    }

    /// Sends `error` to the tickets of the waiting count, because no permit is available.
    fn give_up(&mut self, error: StoreError) {
        self.is_over = true;
        let active = self.all.active.lock().remove(self.key);
        if let Some(waiting) = active.and_then(|active| active.waiting) {
            waiting.progress.step.send_replace(Step::Done(Err(error)));
        }
    }
}

impl Drop for Task<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.all.active.lock().remove(self.key);
        }
    }
}
