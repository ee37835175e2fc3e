//! A run of the refresher, over every segment or one.

use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::{FutureExt, StreamExt, stream};
use tokio::time::Instant;

use super::counter::is_unavailable;
use super::lock::{RunLock, at_start};
use super::{Outcome, Refresher, Report, Skip};
use domain::store::StoreError;
use domain::{Segment, TrendPoint};

/// The fraction of an interval after which the next run is due. It is below 1 because loops wake early by their jitter.
const DUE_AFTER: f64 = 0.8;

/// The result for a segment that was counted over every window.
struct Counted {
    points: Vec<TrendPoint>,
    /// Whether the cache has every count, or a later one.
    is_cached: bool,
}

/// The progress of a run.
#[derive(Debug, Default)]
struct Tally {
    /// The number of segments to recount.
    all: u64,
    refreshed: u64,
    failed: u64,
}

impl Refresher {
    /// Recounts every segment, or only one. A segment that fails keeps its old count and does not stop the others.
    ///
    /// Across all instances there is one run over all segments at a time. A run over one segment needs no lock.
    ///
    /// # Errors
    ///
    /// The segments could not be listed, or the store became unavailable during the run.
    pub async fn run(&self, only: Option<&Segment>) -> Result<Outcome, StoreError> {
        match only {
            None => self.run_all(None).await,
            Some(segment) => self.run_one(segment).await,
        }
    }

    /// Recounts every segment unless an instance did so within `interval`.
    pub(super) async fn run_if_due(&self, interval: Duration) -> Result<Outcome, StoreError> {
        self.run_all(Some(interval)).await
    }

    async fn run_one(&self, segment: &Segment) -> Result<Outcome, StoreError> {
        let began = Instant::now();
        let reached = at_start(|| self.parts.cache.ping()).await;
        if reached.is_err() {
            // The purpose of the count is to update the cache, which is unavailable.
            return Ok(Outcome::Skipped(Skip::NoCache));
        }
        let mut is_cached = true;
        for counted in self.refresh_group(vec![segment.clone()]).await {
            let counted = counted?;
            self.trend.add(counted.points).await;
            is_cached &= counted.is_cached;
        }
        self.trend.flush().await?;
        if !is_cached {
            return Ok(Outcome::Skipped(Skip::NoCache));
        }
        Ok(Outcome::Done(Report {
            refreshed: 1,
            failed: 0,
            differences: None,
            took: began.elapsed(),
        }))
    }

    async fn run_all(&self, interval: Option<Duration>) -> Result<Outcome, StoreError> {
        let Ok(_running) = self.running.try_lock() else {
            return Ok(Outcome::Skipped(Skip::UnderWay));
        };
        let lock = RunLock::new(&self.parts.cache);
        let outcome = match at_start(|| lock.acquire().boxed()).await {
            Ok(false) => return Ok(Outcome::Skipped(Skip::UnderWay)),
            Ok(true) => match self.due_in(interval).await {
                None => self.locked_run(&lock).await,
                Some(due_in) => Ok(Outcome::Skipped(Skip::Recent { due_in })),
            },
            // Without the lock every instance would run, and the counts would not reach the cache.
            Err(error) => {
                tracing::warn!(%error, "nothing is recounted: the refresh lock can't be requested");
                self.parts.metrics.refresh.ended("failed", Duration::ZERO);
                Ok(Outcome::Skipped(Skip::NoCache))
            }
        };
        lock.release(&self.parts.supervisor).await;
        outcome
    }

    /// The time until the next run is due; `None` if it is due now.
    async fn due_in(&self, interval: Option<Duration>) -> Option<Duration> {
        let interval = interval?;
        let ago = self.parts.cache.last_run().await.ok()??;
        let is_due = ago >= interval.mul_f64(DUE_AFTER);
        (!is_due).then(|| interval.saturating_sub(ago))
    }

    async fn locked_run(&self, lock: &RunLock) -> Result<Outcome, StoreError> {
        let began = Instant::now();
        let mut tally = Tally::default();
        let result = tokio::select! {
            result = self.all(&mut tally) => result,
            () = lock.keep() => {
                tracing::warn!("the refresh ends because another one has acquired the lock");
                Ok(false)
            }
        };
        if matches!(result, Ok(true)) {
            // If this note fails, another instance may run early.
            let _ = self.parts.cache.note_run(began.elapsed()).await;
        }
        let result = match result {
            Ok(is_whole) => self.trend.flush().await.map(|()| is_whole),
            // The store is unavailable, so the trend points wait for the next run.
            Err(error) => Err(error),
        };
        let took = began.elapsed();
        let is_whole = match result {
            Ok(is_whole) => is_whole,
            Err(error) => {
                self.parts.metrics.refresh.ended("failed", took);
                return Err(error);
            }
        };
        if !is_whole && tally.all == 0 {
            self.parts.metrics.refresh.ended("failed", took);
            return match self.parts.supervisor.stop().is_cancelled() {
                true => Err(StoreError::Closed),
                // Another run acquired the lock before the segments were listed.
                false => Ok(Outcome::Skipped(Skip::UnderWay)),
            };
        }
        if !is_whole {
            // The report must not make a partial run look complete.
            tally.failed = tally.all.saturating_sub(tally.refreshed);
        }
        let outcome = match tally.failed {
            0 if is_whole => "ok",
            _ => "partial",
        };
        self.parts.metrics.refresh.ended(outcome, took);
        if is_whole && tally.failed == 0 {
            self.note_success();
        }
        Ok(Outcome::Done(Report {
            refreshed: tally.refreshed,
            failed: tally.failed,
            differences: None,
            took,
        }))
    }

    /// Notes that every count is current now.
    pub(super) fn note_success(&self) {
        let now = self.parts.clock.now().as_millisecond();
        self.finished.store(now, Ordering::Relaxed);
        let metrics = &self.parts.metrics;
        metrics.refresh.last_success.set(now as f64 / 1000.0);
    }

    /// Recounts every segment. Returns `false` if it was stopped before the end.
    async fn all(&self, tally: &mut Tally) -> Result<bool, StoreError> {
        let stop = self.parts.supervisor.stop();
        let names = tokio::select! {
            // A store that does not respond must not delay the shutdown.
            () = stop.cancelled() => return Ok(false),
            names = self.names.to_refresh() => names?,
        };
        tally.all = names.len() as u64;
        let groups = self.groups(&names).await;
        let mut uncached = 0_u64;
        let mut counted = stream::iter(groups)
            .map(|group| self.refresh_group(group))
            .buffer_unordered(self.parts.parallelism.max(1));
        loop {
            let results = tokio::select! {
                () = stop.cancelled() => return Ok(false),
                results = counted.next() => results,
            };
            let Some(results) = results else {
                if uncached > 0 {
                    tracing::warn!(
                        segments = uncached,
                        "the cache did not accept some counts and keeps the old ones"
                    );
                }
                return Ok(true);
            };
            for result in results {
                match result {
                    Ok(counted) => {
                        match counted.is_cached {
                            true => tally.refreshed += 1,
                            false => {
                                tally.failed += 1;
                                uncached += 1;
                            }
                        }
                        self.trend.add(counted.points).await;
                    }
                    Err(error) => {
                        tally.failed += 1;
                        tracing::warn!(%error, "a segment keeps its old count");
                        if is_unavailable(&*self.parts.store, &error).await {
                            // Each further segment would wait for the same timeouts.
                            return Err(error);
                        }
                    }
                }
            }
        }
    }

    /// Recounts segments together, window by window. Returns the result of each.
    async fn refresh_group(&self, group: Vec<Segment>) -> Vec<Result<Counted, StoreError>> {
        let mut results = Vec::with_capacity(group.len());
        let begin = |name| {
            let counted = Counted {
                points: Vec::new(),
                is_cached: true,
            };
            (name, counted)
        };
        let mut left: Vec<_> = group.into_iter().map(begin).collect();
        let mut windows = self.parts.windows.clone();
        let own_windows = left
            .iter()
            .map(|(name, _)| self.parts.segments.window_of(name));
        windows.extend(own_windows);
        windows.sort_unstable();
        windows.dedup();
        for window in windows.into_iter().rev() {
            let all = std::mem::take(&mut left);
            let (requested, others) = all
                .into_iter()
                .partition(|(name, _)| self.counts_over(name, window));
            left = others;
            let requested: Vec<(Segment, Counted)> = requested;
            let names: Vec<Segment> = requested.iter().map(|(name, _)| name.clone()).collect();
            let tickets = self.recounts.request_together(&names, window);
            for ((segment, mut counted), mut ticket) in requested.into_iter().zip(tickets) {
                match ticket.recount().await {
                    Err(error) => results.push(Err(error)),
                    Ok(recount) => {
                        counted.is_cached &= recount.is_cached;
                        counted.points.push(TrendPoint {
                            segment: segment.clone(),
                            window,
                            count: recount.count,
                        });
                        left.push((segment, counted));
                    }
                }
            }
        }
        let full = self.parts.frame.full_window();
        let is_zero = |point: &TrendPoint| point.window == full && point.count.users == 0;
        for (segment, counted) in left {
            if counted.points.iter().any(is_zero) {
                // The segment has no users, and its last trend point is 0, so it needs no further counts. If the cache is
                // unavailable, it lists the segment for longer.
                let _ = self.parts.cache.remove_segment(&segment).await;
            }
            results.push(Ok(counted));
        }
        results
    }
}
