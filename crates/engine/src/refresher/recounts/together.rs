//! Counts of several small segments in one call of the store, and what becomes of them when that call fails.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::super::counter::{Recount, is_away};
use super::{Key, Lane, Recounts, Step, Task, Ticket, Told, Waiting};
use domain::store::StoreError;
use domain::{Segment, Window};

/// Segments whose counts together took longer than this are counted apart from then on. Readers who wait for a place
/// wait for whole groups, and those who have an older number wait this long (`counts/patience.rs`).
const SLOW: Duration = Duration::from_secs(5);
/// For how long segments are counted apart. What was slow or failed may have been one of them, or a server that was busy.
const APART_FOR: Duration = Duration::from_secs(3600);
/// Segments noted as counted apart.
const MAX_APART: u64 = 100_000;

pub(super) fn apart() -> moka::sync::Cache<Segment, ()> {
    moka::sync::Cache::builder()
        .max_capacity(MAX_APART)
        .time_to_live(APART_FOR)
        .build()
}

impl Recounts {
    /// Whether `segment` was lately in a group whose count failed or was slow.
    pub(in crate::refresher) fn is_apart(&self, segment: &Segment) -> bool {
        self.apart.contains_key(segment)
    }

    /// Counts of `segments` for a refresh, each of which begins after this call. Those that nobody has asked for are
    /// made together.
    pub(in crate::refresher) fn ask_together(
        self: &Arc<Self>,
        segments: &[Segment],
        window: Window,
    ) -> Vec<Ticket> {
        if let [only] = segments {
            return vec![self.ask_fresh(&(only.clone(), window), Lane::Refresh)];
        }
        let mut all = self.asked.lock();
        let mut keys = Vec::with_capacity(segments.len());
        let ask = |segment: &Segment| {
            let key = (segment.clone(), window);
            let asked = all.entry(key.clone()).or_default();
            if asked.running.is_some() || asked.waiting.is_some() {
                return self.ask_next(&key, asked, Lane::Refresh);
            }
            let waiting = Waiting::new(Step::Waits, Lane::Refresh);
            let ticket = waiting.told.ticket(false);
            asked.waiting = Some(waiting);
            keys.push(key);
            ticket
        };
        let tickets = segments.iter().map(ask).collect();
        if !keys.is_empty() {
            let all = Arc::clone(self);
            let make = async move { all.make_together(&keys, window).await };
            drop(self.supervisor.begin("count", make));
        }
        tickets
    }

    /// Makes the counts of `keys` in one place and one call. They wait in the lane of a refresh, which no reader's
    /// request changes.
    async fn make_together(self: Arc<Self>, keys: &[Key], window: Window) {
        let task = |key| Task {
            all: &self,
            key,
            is_over: false,
        };
        let mut tasks: Vec<Task<'_>> = keys.iter().map(task).collect();
        let place = match self.wait_for_place(&keys[0]).await {
            Ok(place) => place,
            Err(error) => {
                tasks
                    .iter_mut()
                    .for_each(|task| task.give_up(error.clone()));
                return;
            }
        };
        let begun = tasks.into_iter().filter_map(|mut task| {
            let (told, _) = task.begin()?;
            Some((task, told))
        });
        let begun: Vec<(Task<'_>, Told)> = begun.collect();
        let segments: Vec<Segment> = begun.iter().map(|(task, _)| task.key.0.clone()).collect();
        // A panic leaves them apart as well.
        self.set_apart(&segments, true);
        let began = Instant::now();
        let result = self.count_all(&segments, window, Lane::Refresh).await;
        drop(place);
        match result {
            Ok(recounts) => {
                self.set_apart(&segments, began.elapsed() > SLOW);
                for ((task, told), recount) in begun.into_iter().zip(recounts) {
                    self.tell(task, &told, Ok(recount));
                }
            }
            Err(error) => self.make_apart(begun, &segments, error).await,
        }
    }

    /// Counts the segments of a failed group one at a time, each in a place of its own, unless the store is unavailable.
    async fn make_apart(
        self: &Arc<Self>,
        begun: Vec<(Task<'_>, Told)>,
        segments: &[Segment],
        mut error: StoreError,
    ) {
        let mut is_over = self.is_over(&error).await;
        if is_over {
            self.set_apart(segments, false);
        } else {
            tracing::warn!(
                %error,
                segments = segments.len(),
                "segments can't be counted together: each is counted alone"
            );
        }
        for (task, told) in begun {
            let result = match is_over {
                true => Err(error.clone()),
                false => self.count_next(task.key).await,
            };
            if let Err(newer) = &result
                && !is_over
            {
                is_over = self.is_over(newer).await;
                error = newer.clone();
            }
            self.tell(task, &told, result);
        }
    }

    /// Whether to give up the whole group: the store is unavailable, or the process stops.
    async fn is_over(&self, error: &StoreError) -> bool {
        matches!(error, StoreError::Closed) || is_away(&*self.counter.store, error).await
    }

    /// Counts `key` when it is the turn of a refresh.
    async fn count_next(&self, key: &Key) -> Result<Recount, StoreError> {
        let _place = tokio::select! {
            () = self.supervisor.stop().cancelled() => return Err(StoreError::Closed),
            place = self.places.take(Lane::Refresh) => place?,
        };
        self.count(key, Lane::Refresh).await
    }

    /// Tells those who wait for the count under way. Whoever asked for a newer one meanwhile gets a task for it.
    fn tell(
        self: &Arc<Self>,
        mut task: Task<'_>,
        told: &Told,
        result: Result<Recount, StoreError>,
    ) {
        self.note(task.key, &result);
        if !task.end() {
            task.is_over = true;
            self.begin(task.key.clone(), None);
        }
        told.step.send_replace(Step::Done(result));
    }

    fn set_apart(&self, segments: &[Segment], are_apart: bool) {
        for segment in segments {
            match are_apart {
                true => self.apart.insert(segment.clone(), ()),
                false => self.apart.invalidate(segment),
            }
        }
    }
}
