//! Counts several small segments in one call of the store, and falls back to separate counts if that call fails.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::super::counter::{Recount, is_unavailable};
use super::{Key, Lane, Progress, Recounts, Step, Task, Ticket, Waiting};
use domain::store::StoreError;
use domain::{Segment, Window};

/// Segments of a group that took longer than this are counted separately from then on. Readers that wait for a permit wait
/// for whole groups, and readers that have an earlier count wait this long (`counts/timeouts.rs`).
const SLOW: Duration = Duration::from_secs(5);
/// How long segments are counted separately. The cause may have been one of the segments, or just a busy server.
const APART_FOR: Duration = Duration::from_secs(3600);
/// The maximum number of segments noted as counted separately.
const MAX_APART: u64 = 100_000;

pub(super) fn apart() -> moka::sync::Cache<Segment, ()> {
    moka::sync::Cache::builder()
        .max_capacity(MAX_APART)
        .time_to_live(APART_FOR)
        .build()
}

impl Recounts {
    /// Whether `segment` is counted separately, because the count of its group recently failed or was slow.
    pub(in crate::refresher) fn is_apart(&self, segment: &Segment) -> bool {
        self.apart.contains_key(segment)
    }

    /// Requests counts of `segments` for a refresh, each of which begins after this call. Segments without a running or
    /// waiting count are counted together.
    pub(in crate::refresher) fn request_together(
        self: &Arc<Self>,
        segments: &[Segment],
        window: Window,
    ) -> Vec<Ticket> {
        if let [only] = segments {
            return vec![self.request_fresh(&(only.clone(), window), Lane::Refresh)];
        }
        let mut all = self.active.lock();
        let mut keys = Vec::with_capacity(segments.len());
        let request = |segment: &Segment| {
            let key = (segment.clone(), window);
            let active = all.entry(key.clone()).or_default();
            if active.running.is_some() || active.waiting.is_some() {
                return self.request_next(&key, active, Lane::Refresh);
            }
            let waiting = Waiting::new(Step::Waits, Lane::Refresh);
            let ticket = waiting.progress.ticket();
            active.waiting = Some(waiting);
            keys.push(key);
            ticket
        };
        let tickets = segments.iter().map(request).collect();
        if !keys.is_empty() {
            let all = Arc::clone(self);
            let run = async move { all.run_together(&keys, window).await };
            drop(self.supervisor.begin("count", run));
        }
        tickets
    }

    /// Runs the counts of `keys` with one permit and in one call. They wait in the lane of a refresh, which requests of
    /// readers do not change.
    async fn run_together(self: Arc<Self>, keys: &[Key], window: Window) {
        let task = |key| Task {
            all: &self,
            key,
            is_over: false,
        };
        let mut tasks: Vec<Task<'_>> = keys.iter().map(task).collect();
        let permit = match self.wait_for_permit(&keys[0]).await {
            Ok(permit) => permit,
            Err(error) => {
                tasks
                    .iter_mut()
                    .for_each(|task| task.give_up(error.clone()));
                return;
            }
        };
        let begun = tasks.into_iter().filter_map(|mut task| {
            let (progress, _) = task.begin()?;
            Some((task, progress))
        });
        let begun: Vec<(Task<'_>, Progress)> = begun.collect();
        let segments: Vec<Segment> = begun.iter().map(|(task, _)| task.key.0.clone()).collect();
        // They stay marked if the count panics.
        self.set_apart(&segments, true);
        let began = Instant::now();
        let result = self.count_all(&segments, window, Lane::Refresh).await;
        drop(permit);
        match result {
            Ok(recounts) => {
                self.set_apart(&segments, began.elapsed() > SLOW);
                for ((task, progress), recount) in begun.into_iter().zip(recounts) {
                    self.finish(task, &progress, Ok(recount));
                }
            }
            Err(error) => self.run_apart(begun, &segments, error).await,
        }
    }

    /// Counts the segments of a failed group one by one, each with its own permit, unless the store is unavailable.
    async fn run_apart(
        self: &Arc<Self>,
        begun: Vec<(Task<'_>, Progress)>,
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
        for (task, progress) in begun {
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
            self.finish(task, &progress, result);
        }
    }

    /// Whether to give up the whole group, because the store is unavailable or the process stops.
    async fn is_over(&self, error: &StoreError) -> bool {
        matches!(error, StoreError::Closed) || is_unavailable(&*self.counter.store, error).await
    }

    /// Counts `key` after waiting for a permit in the lane of a refresh.
    async fn count_next(&self, key: &Key) -> Result<Recount, StoreError> {
        let _permit = tokio::select! {
            () = self.supervisor.stop().cancelled() => return Err(StoreError::Closed),
            permit = self.permits.acquire(Lane::Refresh) => permit?,
        };
        self.count(key, Lane::Refresh).await
    }

    /// Sends the result to the tickets of the running count. If a newer count was requested meanwhile, a new task runs it.
    fn finish(
        self: &Arc<Self>,
        mut task: Task<'_>,
        progress: &Progress,
        result: Result<Recount, StoreError>,
    ) {
        self.note(task.key, &result);
        if !task.end() {
            task.is_over = true;
            self.begin(task.key.clone(), None);
        }
        progress.step.send_replace(Step::Done(result));
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
