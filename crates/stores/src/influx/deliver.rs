//! Delivers bodies of lines to a bucket. It retries where that is safe, and splits a body to find refused lines.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use backon::{ExponentialBuilder, Retryable};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use jiff::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::dead_letter::DeadLetter;
use super::error::Error;
use super::flow_control::FlowControl;
use super::group::Group;
use super::lines::{Lines, count_lines, line_ranges, timestamp};
use super::options::InfluxOptions;
use super::plan::{Part, Plan};
use super::refusal::{Refusal, Verdict};
use super::server::Server;
use super::setup::shard_length;
use super::stats::Counters;
use domain::Erasure;
use domain::store::StoreError;

/// The delay before the first retry. It doubles with each further retry. Jitter adds up to the same amount, so that
/// instances that failed together do not retry together.
const FIRST_DELAY: Duration = Duration::from_millis(50);
/// The longest backoff delay, without jitter. A pause that the server requests may be longer.
const LONGEST_DELAY: Duration = Duration::from_secs(1);
/// The number of concurrent writes that search the lines of single requests. Nothing else waits for them.
const SEARCHES: usize = 4;
/// The clock skew to allow for: the server drops lines by its own clock, which may be ahead of the local one.
const CLOCKS_APART: Duration = Duration::from_secs(600);

/// The transport of a body of lines.
#[async_trait]
pub(super) trait Wire: std::fmt::Debug + Send + Sync {
    /// Sends `body`, and waits at most `within` for the response. `Ok` means status 204.
    async fn write(&self, bucket: &str, body: Bytes, within: Duration) -> Result<(), Error>;
}

#[async_trait]
impl Wire for Server {
    async fn write(&self, bucket: &str, body: Bytes, within: Duration) -> Result<(), Error> {
        Self::write(self, bucket, body, within).await
    }
}

/// Sends bodies of lines.
#[derive(Debug)]
pub(super) struct Delivery {
    wire: Arc<dyn Wire>,
    pub(super) flow: FlowControl,
    delays: ExponentialBuilder,
    /// How long a body is retried and searched, counted from its first write.
    search_time: Duration,
    window: Duration,
    shard_seconds: u64,
    /// Limits writes of bodies, and of parts that may settle requests without bad lines.
    pub(super) lane: Arc<Semaphore>,
    /// Limits writes that search the lines of one request.
    searches: Semaphore,
    dead_letter: Option<Arc<DeadLetter>>,
    counters: Arc<Counters>,
}

/// The result of sending a part.
enum Sent {
    Taken,
    Refused(Refusal),
    /// It is unknown whether the lines are durable.
    Failed(StoreError),
}

impl Delivery {
    /// A delivery over `wire` with the limits of `options`.
    pub(super) fn new(
        wire: Arc<dyn Wire>,
        options: &InfluxOptions,
        counters: Arc<Counters>,
    ) -> Self {
        let dead_letter = options.dead_letter.clone();
        let in_flight = options.writes_in_flight.max(1);
        Self {
            wire,
            flow: FlowControl::new(
                options.write_timeout,
                options.batch_pairs.max(1),
                in_flight,
                options.queue_pairs.max(1),
            ),
            delays: ExponentialBuilder::new()
                .with_min_delay(FIRST_DELAY)
                .with_max_delay(LONGEST_DELAY)
                .with_max_times(options.write_attempts.saturating_sub(1) as usize)
                .with_jitter(),
            // The rest of the deadline is reserved for the time in the queue.
            search_time: options.write_deadline.mul_f64(2.0 / 3.0),
            window: Duration::from_secs(options.frame.full_window().seconds()),
            shard_seconds: shard_length(options.frame.full_window().seconds()).as_secs(),
            lane: Arc::new(Semaphore::new(in_flight)),
            searches: Semaphore::new(SEARCHES),
            dead_letter: dead_letter
                .map(|path| Arc::new(DeadLetter::new(path, options.dead_letter_max_bytes))),
            counters,
        }
    }

    /// Delivers `lines` to `bucket`, as one request.
    ///
    /// On success and on [`StoreError::Partly`], all lines that the error does not list are durable, or older than the
    /// retention of the bucket. On another error any part may be durable, and the caller may retry all lines.
    pub(super) async fn deliver(&self, bucket: &str, lines: Lines) -> Result<(), StoreError> {
        if lines.count() == 0 {
            return Ok(());
        }
        let (group, result) = Group::of_one(lines);
        self.run(bucket, group, None).await;
        result.await.unwrap_or_else(|_| Err(Error::Panicked.into()))
    }

    /// Delivers a group, and completes each of its requests as soon as all lines of that request are settled. The first
    /// write is always sent, regardless of the deadline, and holds `permit` of the lane.
    pub(super) async fn run(
        &self,
        bucket: &str,
        mut group: Group,
        permit: Option<OwnedSemaphorePermit>,
    ) {
        let until = Instant::now() + self.search_time;
        let text = group.take_body();
        let first = self.send(bucket, &text, until).await;
        drop(permit);
        let refusal = match first {
            Sent::Taken => return group.complete_all(&Ok(())),
            Sent::Failed(error) => return group.complete_all(&Err(error)),
            Sent::Refused(refusal) => refusal,
        };
        let mut plan = Plan::new(text, group.ends(), self.shard_seconds);
        let Some(whole) = plan.next() else { return };
        plan.refused(whole, &refusal);
        let reason = refusal.reason;
        let trouble = self
            .search(bucket, &mut plan, &mut group, &reason, until)
            .await;
        for owner in group.pending() {
            self.complete(&plan, &mut group, owner, &reason, trouble.as_ref())
                .await;
        }
        let (refused, undecided) = plan.unfit();
        tracing::warn!(refused, undecided, reason, "InfluxDB refused lines");
    }

    /// Sends the parts of `plan` until all lines are settled, the deadline passes, or a write fails.
    async fn search(
        &self,
        bucket: &str,
        plan: &mut Plan,
        group: &mut Group,
        reason: &str,
        until: Instant,
    ) -> Option<StoreError> {
        let mut trouble = None;
        let mut sends = FuturesUnordered::new();
        loop {
            for owner in plan.take_settled() {
                self.complete(plan, group, owner, reason, None).await;
            }
            for owner in group.abandoned() {
                plan.abandon(owner);
            }
            while trouble.is_none() && Instant::now() < until && sends.len() < SEARCHES {
                // Shared parts first: they settle the requests without bad lines.
                let is_shared = plan.is_shared();
                if is_shared && !sends.is_empty() {
                    break;
                }
                let Some(part) = plan.next() else { break };
                let text = plan.bytes_of(&part);
                sends.push(self.send_part(bucket, part, text, is_shared, until));
            }
            let (part, sent) = match sends.next().await {
                Some(sent) => sent,
                None => return trouble,
            };
            match sent {
                Sent::Taken => plan.taken(&part),
                Sent::Refused(refusal) => plan.refused(part, &refusal),
                Sent::Failed(error) => trouble = Some(error),
            }
        }
    }

    async fn send_part(
        &self,
        bucket: &str,
        part: Part,
        text: Bytes,
        is_shared: bool,
        until: Instant,
    ) -> (Part, Sent) {
        let lane = if is_shared {
            &self.lane
        } else {
            &self.searches
        };
        // Neither semaphore is ever closed.
        let _permit = lane.acquire().await.ok();
        let sent = self.send(bucket, &text, until).await;
        (part, sent)
    }

    /// Sends a body until the server accepts or refuses it, or the attempts are used up. The first attempt ignores the
    /// deadline; no retry starts after `until`.
    async fn send(&self, bucket: &str, body: &Bytes, until: Instant) -> Sent {
        let attempt = || async {
            if let Some(pause) = self.flow.paused() {
                if pause.until() >= until {
                    return Ok(Sent::Failed(pause.error()));
                }
                tokio::time::sleep_until(pause.until()).await;
            }
            self.send_once(bucket, body).await.inspect_err(|error| {
                if let (Some(wish), Some(status)) = (error.retry_after(), error.status()) {
                    self.flow.pause(wish, status);
                }
            })
        };
        let sent = attempt
            .retry(self.delays)
            .when(Error::is_retryable)
            .adjust(|_, delay| delay.filter(|delay| Instant::now() + *delay < until))
            .notify(|error, delay| {
                tracing::debug!(%error, ?delay, "retrying a failed write to InfluxDB");
                Counters::add(&self.counters.retries, 1);
            });
        sent.await.unwrap_or_else(|error| {
            let paused = self.flow.paused().map(|pause| pause.error());
            Sent::Failed(paused.unwrap_or_else(|| error.into()))
        })
    }

    async fn send_once(&self, bucket: &str, body: &Bytes) -> Result<Sent, Error> {
        let within = self.flow.timeout();
        let began = Instant::now();
        let written = self.wire.write(bucket, body.clone(), within).await;
        let lines = count_lines(body);
        match Verdict::of(written) {
            Verdict::Taken { expired } => {
                self.flow.responded(lines, began.elapsed());
                let expired = expired.min(lines);
                Counters::add(&self.counters.written, lines - expired);
                Counters::add(&self.counters.bodies, 1);
                Ok(self.expired(body, expired))
            }
            Verdict::Refused(refusal) => Ok(Sent::Refused(refusal)),
            Verdict::Failed(error) => {
                if let Error::TimedOut(waited) = error {
                    self.flow.timed_out(waited);
                }
                Err(error)
            }
        }
    }

    /// Checks the `expired` lines of `body` that the server dropped for their age: only lines outside the window may be
    /// dropped.
    fn expired(&self, body: &[u8], expired: usize) -> Sent {
        if expired == 0 {
            return Sent::Taken;
        }
        let age = self.window.saturating_sub(CLOCKS_APART);
        let oldest = Timestamp::now().as_nanosecond() - age.as_nanos() as i128;
        let is_old = |line: &[u8]| timestamp(line).is_none_or(|at| i128::from(at) < oldest);
        let old = line_ranges(body)
            .filter(|line| is_old(&body[line.clone()]))
            .count();
        Counters::add(&self.counters.expired, expired.min(old));
        if expired <= old {
            return Sent::Taken;
        }
        Counters::add(&self.counters.dropped_in_window, expired - old);
        Sent::Failed(StoreError::NotSetUp(format!(
            "InfluxDB drops pairs that are younger than the window of {} s: the retention of its bucket is shorter",
            self.window.as_secs()
        )))
    }

    /// Completes the request of `owner` with the known fates of its lines.
    async fn complete(
        &self,
        plan: &Plan,
        group: &mut Group,
        owner: usize,
        reason: &str,
        trouble: Option<&StoreError>,
    ) {
        let text = plan.refused_lines(owner);
        let kept = !text.is_empty() && self.keep_refused(reason, text).await;
        group.complete(owner, plan.fates(owner), kept, reason, trouble);
    }

    /// Removes erased users from the dead-letter file.
    pub(super) async fn erase_refused(&self, erasures: &[Erasure]) -> Result<u64, StoreError> {
        let Some(file) = self.dead_letter.clone() else {
            return Ok(0);
        };
        let erasures = erasures.to_vec();
        let erased = tokio::task::spawn_blocking(move || file.erase(&erasures)).await;
        let erased = erased.map_err(|error| StoreError::Unavailable(error.to_string()))?;
        erased.map_err(|error| {
            StoreError::Unavailable(format!("can't rewrite the dead-letter file: {error}"))
        })
    }

    /// Writes refused lines to the dead-letter file. Returns whether they are durable there.
    async fn keep_refused(&self, reason: &str, lines: Vec<u8>) -> bool {
        let count = count_lines(&lines);
        Counters::add(&self.counters.refused, count);
        let kept = match self.dead_letter.clone() {
            Some(file) => {
                let reason = reason.to_owned();
                let kept = tokio::task::spawn_blocking(move || file.keep(&reason, &lines)).await;
                matches!(kept, Ok(Ok(true)))
            }
            None => false,
        };
        if !kept {
            Counters::add(&self.counters.dead_letter_lost, count);
        }
        kept
    }
}
