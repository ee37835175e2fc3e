//! The one writer of cached counts: recounts segments from the store into the cache and keeps their trend.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use futures::StreamExt;
use futures::stream;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::cache::{CountCache, LockToken};
use crate::domain::{Clock, Count, Segment, TimeFrame, Timestamp, TrendPoint, Window};
use crate::ingest::SegmentGuard;
use crate::rounds::Rounds;
use crate::store::{PairStore, StoreError};
use crate::telemetry::Metrics;

/// A run that stopped without unlocking holds others up for at most this long.
const LOCK_TTL: Duration = Duration::from_secs(30);
/// A count that takes longer than a slot, again and again, is taken as it is.
const COUNT_TRIES: u32 = 3;
/// The store's own list of segments is asked for at least this often, so that one that the cache never heard of
/// (written while it was away, or before it lost everything) is found.
const LIST_TTL: Duration = Duration::from_secs(3600);

/// Recounts segments.
#[derive(Debug)]
pub struct Refresher {
    parts: RefresherParts,
    /// Holds the cache's lock for this process.
    token: LockToken,
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
    /// Counts under way at a time.
    pub parallelism: usize,
    /// Ends a run early: what was counted by then is kept.
    pub stop: CancellationToken,
}

/// What a refresh did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Another run was under way.
    Skipped,
    /// Nobody knows the segment that was to be recounted. Counting it all the same would leave points in the trend for
    /// whatever name somebody makes up.
    Unknown,
    /// The run went through.
    Done(Report),
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

/// A count made now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recount {
    /// The count.
    pub count: Count,
    /// Pairs acknowledged since the count began; `None` when the cache does not know.
    pub pending: Option<u64>,
}

impl Refresher {
    /// A refresher from its parts.
    pub fn new(parts: RefresherParts) -> Self {
        Self {
            parts,
            token: LockToken::random(),
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

    /// Recounts every segment, or only one, unless a run is under way. A failed segment keeps its old count and
    /// does not stop the others; an error means that the segments could not even be listed, or that the store went
    /// away meanwhile.
    pub async fn run(&self, only: Option<&Segment>) -> Result<Outcome, StoreError> {
        let Ok(_running) = self.running.try_lock() else {
            return Ok(Outcome::Skipped);
        };
        let lock = match self.parts.cache.lock(&self.token, LOCK_TTL).await {
            Ok(true) => Some(&self.token),
            Ok(false) => return Ok(Outcome::Skipped),
            // Without a cache there is nobody to collide with in it; trends are still worth having.
            Err(_) => None,
        };
        let started = Instant::now();
        let result = self.locked_run(only, lock).await;
        if let Some(token) = lock {
            // A lock that can't be given back now expires by itself.
            let _ = self.parts.cache.unlock(token).await;
        }
        let took = started.elapsed();
        match result {
            Ok((refreshed, failed)) => {
                let outcome = if failed == 0 { "ok" } else { "partial" };
                self.parts.metrics.refresh(outcome, took);
                let stopped = self.parts.stop.is_cancelled();
                if failed == 0 && only.is_none() && !stopped {
                    let now = self.parts.clock.now().as_millisecond();
                    self.finished.store(now, Ordering::Relaxed);
                    self.parts.metrics.refreshed_all(now as f64 / 1000.0);
                }
                Ok(Outcome::Done(Report {
                    refreshed,
                    failed,
                    took,
                }))
            }
            Err(error) => {
                self.parts.metrics.refresh("failed", took);
                Err(error)
            }
        }
    }

    async fn locked_run(
        &self,
        only: Option<&Segment>,
        lock: Option<&LockToken>,
    ) -> Result<(u64, u64), StoreError> {
        let segments = match only {
            Some(segment) => vec![segment.clone()],
            // A store that is silent holds up no end.
            None => tokio::select! {
                () = self.parts.stop.cancelled() => return Ok((0, 0)),
                listed = self.list() => listed?,
            },
        };
        let mut counted = stream::iter(segments)
            .map(|segment| self.refresh_segment(segment))
            .buffer_unordered(self.parts.parallelism.max(1));
        let (mut refreshed, mut failed, mut trend) = (0, 0, Vec::new());
        let mut extended = Instant::now();
        loop {
            let result = tokio::select! {
                () = self.parts.stop.cancelled() => break,
                result = counted.next() => result,
            };
            match result {
                None => break,
                Some(Ok(points)) => {
                    refreshed += 1;
                    trend.extend(points);
                }
                Some(Err(error)) => {
                    failed += 1;
                    tracing::warn!(%error, "a segment keeps its old count");
                    if self.is_away(&error).await {
                        // Each further segment would only wait for the same time-outs.
                        return Err(error);
                    }
                }
            }
            if let Some(token) = lock
                && extended.elapsed() > LOCK_TTL / 3
            {
                extended = Instant::now();
                if let Ok(false) = self.parts.cache.lock(token, LOCK_TTL).await {
                    tracing::warn!("the refresh lock was lost; another run may be under way");
                }
            }
        }
        self.parts.store.record_trend(&trend).await?;
        Ok((refreshed, failed))
    }

    /// Whether it was not the segment that failed but the store that went away.
    async fn is_away(&self, error: &StoreError) -> bool {
        matches!(error, StoreError::Unavailable(_) | StoreError::Timeout(_))
            && self.parts.store.ping().await.is_err()
    }

    /// The segments to count: the cache's list when it is whole, else the store's.
    async fn list(&self) -> Result<Vec<Segment>, StoreError> {
        if !self.parts.store.is_live()
            && let Ok(known) = self.parts.cache.segments().await
            && known.complete
        {
            return Ok(known.names);
        }
        let listing = self.parts.guard.begin_listing();
        let mut listed = self.parts.store.segments(self.parts.clock.now()).await?;
        self.parts.guard.settle(listing, &listed);
        if self
            .parts
            .cache
            .complete_segments(&listed, LIST_TTL)
            .await
            .is_ok()
            && let Ok(known) = self.parts.cache.segments().await
        {
            // What the cache knows beyond the store's list has just come, or has just gone: count it to know.
            listed.extend(known.names);
            listed.sort_unstable();
            listed.dedup();
        }
        Ok(listed)
    }

    async fn refresh_segment(&self, segment: Segment) -> Result<Vec<TrendPoint>, StoreError> {
        let mut points = Vec::with_capacity(self.parts.windows.len());
        let mut users_of_full_window = None;
        for &window in &self.parts.windows {
            let count = self.recount_listed(&segment, window).await?.count;
            if window == self.parts.frame.full_window() {
                users_of_full_window = Some(count.users);
            }
            points.push(TrendPoint {
                segment: segment.clone(),
                window,
                count,
            });
        }
        if users_of_full_window == Some(0) {
            // Its last point says 0; from here on nobody needs to count it. A cache that is away keeps it longer.
            let _ = self.parts.cache.remove_segment(&segment).await;
        }
        Ok(points)
    }

    /// Counts again when the slot ended before the store was done. A store that keeps only the latest slot of a pair
    /// leaves out of the count of an ended slot whoever has been seen again since, though they were there.
    async fn count_within_slot(
        &self,
        segment: &Segment,
        window: Window,
    ) -> Result<Count, StoreError> {
        let slot_of = |instant| self.parts.frame.resolution().slot_of(instant);
        let mut tries = 0;
        loop {
            let as_of = self.parts.clock.now();
            let count = self.parts.store.count(segment, window, as_of).await?;
            tries += 1;
            let has_ended = slot_of(self.parts.clock.now()) > slot_of(count.as_of);
            if !has_ended || tries == COUNT_TRIES {
                return Ok(count);
            }
        }
    }

    /// Counts `segment` in the store now, and keeps the count in the cache if it is one that is refreshed: of a
    /// configured window, and of a segment that there is. Whoever asks for made-up names and windows fills nothing.
    pub async fn recount(&self, segment: &Segment, window: Window) -> Result<Recount, StoreError> {
        if self.keeps(segment, window).await {
            return self.recount_listed(segment, window).await;
        }
        let count = self.count_within_slot(segment, window).await?;
        Ok(Recount {
            count,
            pending: None,
        })
    }

    /// Whether a count that a reader asked for is kept in the cache.
    async fn keeps(&self, segment: &Segment, window: Window) -> bool {
        self.parts.windows.contains(&window)
            && (self.parts.guard.knows(segment)
                || self.parts.cache.knows(segment).await.unwrap_or(false))
    }

    /// Counts `segment`, which is listed, in the store now and keeps the count in the cache.
    async fn recount_listed(
        &self,
        segment: &Segment,
        window: Window,
    ) -> Result<Recount, StoreError> {
        let mark = self.parts.cache.mark(segment).await;
        let count = self.count_within_slot(segment, window).await?;
        let Ok(mark) = mark else {
            return Ok(Recount {
                count,
                pending: None,
            });
        };
        let pending = match self.parts.cache.put(segment, window, count, mark).await {
            Ok(Some(kept)) if kept.count == count => kept.pending,
            Ok(_) => None,
            Err(_) => {
                self.parts.metrics.cache_fallback();
                None
            }
        };
        Ok(Recount { count, pending })
    }

    /// Whether there is such a segment: here, in the cache, or in the store.
    pub async fn knows(&self, segment: &Segment) -> Result<bool, StoreError> {
        if self.parts.guard.knows(segment) {
            return Ok(true);
        }
        if self.parts.cache.knows(segment).await.unwrap_or(false) {
            return Ok(true);
        }
        let listed = self.parts.store.segments(self.parts.clock.now()).await?;
        Ok(listed.contains(segment))
    }

    /// Runs every `interval`, a little apart from other instances, until stopped, and tells `rounds` of each that went
    /// through. A failed round is logged and the next one waited for.
    pub async fn keep_running(&self, interval: Duration, rounds: &Rounds) {
        loop {
            // Up to a tenth of the interval, so that instances started together don't stay in step.
            let jitter = interval.mul_f64(fastrand::f64() / 10.0);
            tokio::select! {
                () = self.parts.stop.cancelled() => return,
                () = tokio::time::sleep(interval.saturating_sub(jitter)) => {}
            }
            let outcome = self.run(None).await;
            // A round that was skipped for another's lock proves nothing: its holder may have panicked.
            if matches!(outcome, Ok(Outcome::Done(_))) {
                rounds.complete();
            }
            match outcome {
                Ok(Outcome::Done(report)) => tracing::debug!(
                    refreshed = report.refreshed,
                    failed = report.failed,
                    took_ms = u64::try_from(report.took.as_millis()).unwrap_or(u64::MAX),
                    "counts refreshed"
                ),
                Ok(Outcome::Skipped | Outcome::Unknown) => {
                    tracing::debug!("another refresh is under way");
                }
                Err(error) => tracing::warn!(%error, "the refresh failed; trying again in a while"),
            }
        }
    }
}
