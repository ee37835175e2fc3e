//! Counts under way and counts that wait: one of each at most for a segment and window, however many ask.
//!
//! Each is made by a task of its own, so that a count that outlasts its readers still reaches the cache.

mod together;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::counter::{Counter, Recount};
use super::places::{Lane, Place, Places};
use super::remembered::Key;
use domain::store::StoreError;
use domain::{Segment, Window};
use supervisor::Supervisor;

/// For how long a count that timed out is not tried again for readers who have another number.
const PAUSE: Duration = Duration::from_secs(2);
/// Keys noted as silent.
const MAX_SILENT: u64 = 10_000;

/// The counts of this process.
#[derive(Debug)]
pub(crate) struct Recounts {
    counter: Counter,
    places: Arc<Places>,
    asked: Mutex<HashMap<Key, Asked>>,
    /// When the count of a key last timed out.
    silent: moka::sync::Cache<Key, Instant>,
    /// Segments that are counted alone, however small.
    apart: moka::sync::Cache<Segment, ()>,
    supervisor: Supervisor,
}

/// A key with a count under way, one that waits, or both; it has a task.
#[derive(Debug, Default)]
struct Asked {
    running: Option<Told>,
    waiting: Option<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    told: Told,
    lane: Lane,
    /// Wakes the task when `lane` changed.
    moved: Arc<Notify>,
}

/// How those who wait for a count are told of it.
#[derive(Debug, Clone)]
struct Told {
    step: Arc<watch::Sender<Step>>,
    asked: Instant,
}

#[derive(Debug)]
enum Step {
    Waits,
    Runs,
    Done(Result<Recount, StoreError>),
}

/// A count that was asked for.
#[derive(Debug)]
pub(crate) struct Ticket {
    step: watch::Receiver<Step>,
    /// When somebody asked first.
    pub(crate) asked: Instant,
    /// Whether the count had begun before, so that it may lack what was recorded since.
    pub(crate) is_joined: bool,
}

impl Waiting {
    fn new(step: Step, lane: Lane) -> Self {
        Self {
            told: Told {
                step: Arc::new(watch::Sender::new(step)),
                asked: Instant::now(),
            },
            lane,
            moved: Arc::default(),
        }
    }
}

impl Told {
    fn ticket(&self, is_joined: bool) -> Ticket {
        Ticket {
            step: self.step.subscribe(),
            asked: self.asked,
            is_joined,
        }
    }
}

impl Ticket {
    /// Whether the store counts now.
    pub(crate) fn runs(&self) -> bool {
        !matches!(*self.step.borrow(), Step::Waits)
    }

    /// The count, once it is made.
    pub(crate) async fn recount(&mut self) -> Result<Recount, StoreError> {
        let done = self.step.wait_for(|step| matches!(step, Step::Done(_)));
        match done.await.as_deref() {
            Ok(Step::Done(result)) => result.clone(),
            _ => Err(StoreError::Unavailable(
                "a count ended without a result".to_owned(),
            )),
        }
    }
}

impl Recounts {
    pub(super) fn new(counter: Counter, places: Arc<Places>, supervisor: Supervisor) -> Arc<Self> {
        Arc::new(Self {
            counter,
            places,
            asked: Mutex::default(),
            silent: moka::sync::Cache::new(MAX_SILENT),
            apart: together::apart(),
            supervisor,
        })
    }

    /// A count of `key`: the one under way, the one that waits, or a new one.
    pub(crate) fn ask(self: &Arc<Self>, key: &Key, lane: Lane) -> Ticket {
        let mut all = self.asked.lock();
        let asked = all.entry(key.clone()).or_default();
        match &asked.running {
            Some(running) => running.ticket(true),
            None => self.ask_next(key, asked, lane),
        }
    }

    /// A count of `key` that begins after this call, and so holds every pair recorded before it.
    pub(crate) fn ask_fresh(self: &Arc<Self>, key: &Key, lane: Lane) -> Ticket {
        let mut all = self.asked.lock();
        let asked = all.entry(key.clone()).or_default();
        self.ask_next(key, asked, lane)
    }

    fn ask_next(self: &Arc<Self>, key: &Key, asked: &mut Asked, lane: Lane) -> Ticket {
        if let Some(waiting) = &mut asked.waiting {
            if lane < waiting.lane {
                waiting.lane = lane;
                waiting.moved.notify_one();
            }
            return waiting.told.ticket(false);
        }
        // A count of the same key goes first; its task then makes this one.
        let has_task = asked.running.is_some();
        let place = if has_task {
            None
        } else {
            self.places.take_now()
        };
        let step = if place.is_some() {
            Step::Runs
        } else {
            Step::Waits
        };
        let waiting = Waiting::new(step, lane);
        let ticket = waiting.told.ticket(false);
        asked.waiting = Some(waiting);
        if !has_task {
            self.begin(key.clone(), place);
        }
        ticket
    }

    fn begin(self: &Arc<Self>, key: Key, place: Option<Place>) {
        let all = Arc::clone(self);
        let make = async move { all.make(key, place).await };
        drop(self.supervisor.begin("count", make));
    }

    /// Whether the store was silent when `key` was counted a moment ago.
    pub(crate) fn is_silent(&self, key: &Key) -> bool {
        let silent = self.silent.get(key);
        silent.is_some_and(|since| since.elapsed() < PAUSE)
    }

    /// Whether counts that wait have waited for `time` without any that ended.
    pub(crate) fn are_stuck_for(&self, time: Duration) -> bool {
        self.places.are_stuck_for(time)
    }

    /// Makes the counts of `key` one after the other until none waits. `place` is for the first one.
    async fn make(self: Arc<Self>, key: Key, mut place: Option<Place>) {
        let mut task = Task {
            all: &self,
            key: &key,
            is_over: false,
        };
        loop {
            let place = match place.take() {
                Some(place) => Ok(place),
                None => self.wait_for_place(&key).await,
            };
            let place = match place {
                Ok(place) => place,
                Err(error) => return task.give_up(error),
            };
            let Some((told, lane)) = task.begin() else {
                return;
            };
            let result = self.count(&key, lane).await;
            drop(place);
            self.note(&key, &result);
            let is_over = task.end();
            told.step.send_replace(Step::Done(result));
            if is_over {
                return;
            }
        }
    }

    async fn count(&self, key: &Key, lane: Lane) -> Result<Recount, StoreError> {
        let counts = self.count_all(std::slice::from_ref(&key.0), key.1, lane);
        let no_count = || StoreError::Unavailable("a store counted nothing".to_owned());
        counts.await?.pop().ok_or_else(no_count)
    }

    /// Counts unless the process stops.
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

    /// Notes whether the store was silent.
    fn note(&self, key: &Key, result: &Result<Recount, StoreError>) {
        match result {
            Err(StoreError::Timeout(_)) => self.silent.insert(key.clone(), Instant::now()),
            _ => self.silent.invalidate(key),
        }
    }

    async fn wait_for_place(&self, key: &Key) -> Result<Place, StoreError> {
        loop {
            let (lane, moved) = match self.asked.lock().get(key) {
                Some(Asked {
                    waiting: Some(waiting),
                    ..
                }) => (waiting.lane, Arc::clone(&waiting.moved)),
                _ => return Err(StoreError::Closed),
            };
            tokio::select! {
                () = self.supervisor.stop().cancelled() => return Err(StoreError::Closed),
                () = moved.notified() => {}
                place = self.places.take(lane) => return place,
            }
        }
    }
}

/// The task of a key. One that panics leaves nothing behind: those who wait are told that there is no result.
struct Task<'a> {
    all: &'a Recounts,
    key: &'a Key,
    is_over: bool,
}

impl Task<'_> {
    /// What waits is under way from here on, in its lane. `None` when nobody waits for it, and nobody is likely to come.
    fn begin(&mut self) -> Option<(Told, Lane)> {
        let mut all = self.all.asked.lock();
        let asked = all.get_mut(self.key)?;
        let waiting = asked.waiting.take()?;
        if waiting.lane == Lane::Other && waiting.told.step.receiver_count() == 0 {
            all.remove(self.key);
            self.is_over = true;
            return None;
        }
        waiting.told.step.send_replace(Step::Runs);
        asked.running = Some(waiting.told.clone());
        Some((waiting.told, waiting.lane))
    }

    /// What was under way has ended; whether nothing else waits.
    fn end(&mut self) -> bool {
        let mut all = self.all.asked.lock();
        let Some(asked) = all.get_mut(self.key) else {
            return true;
        };
        asked.running = None;
        self.is_over = asked.waiting.is_none();
        if self.is_over {
            all.remove(self.key);
        }
        self.is_over
    }

    /// Tells those who wait that there is no place.
    fn give_up(&mut self, error: StoreError) {
        self.is_over = true;
        let asked = self.all.asked.lock().remove(self.key);
        if let Some(waiting) = asked.and_then(|asked| asked.waiting) {
            waiting.told.step.send_replace(Step::Done(Err(error)));
        }
    }
}

impl Drop for Task<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.all.asked.lock().remove(self.key);
        }
    }
}
