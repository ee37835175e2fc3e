//! Bodies of lines to a bucket: repeated where that is safe, taken apart where lines are refused.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use backon::{ExponentialBuilder, Retryable};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use jiff::Timestamp;
use reqwest::Method;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::dead_letter::DeadLetter;
use super::error::Error;
use super::group::Group;
use super::lines::{Lines, count_lines, line_ranges, timestamp};
use super::options::InfluxOptions;
use super::pace::Pace;
use super::plan::{Part, Plan};
use super::refusal::{Refusal, Verdict};
use super::server::{Server, refusal, send};
use super::setup::shard_length;
use super::stats::Counters;
use domain::Erasure;
use domain::store::StoreError;

/// The delay before the second try; it doubles with each further one. Jitter adds up to as much again, so that instances
/// that failed together don't come back together.
const FIRST_DELAY: Duration = Duration::from_millis(50);
/// The longest delay that is not the server's own wish, without the jitter.
const LONGEST_DELAY: Duration = Duration::from_secs(1);
/// How many writes search at a time for the refused lines of single requests. Nothing else waits for them.
const SEARCHES: usize = 4;
/// A line is dropped for its age by the server's clock, which may be ahead of this one.
const CLOCKS_APART: Duration = Duration::from_secs(600);

/// What takes a body of lines.
#[async_trait]
pub(super) trait Wire: std::fmt::Debug + Send + Sync {
    /// Sends `body`, and waits for the answer for at most `within`. `Ok` is status 204.
    async fn write(&self, bucket: &str, body: Bytes, within: Duration) -> Result<(), Error>;
}

#[async_trait]
impl Wire for Server {
    async fn write(&self, bucket: &str, body: Bytes, within: Duration) -> Result<(), Error> {
        let request = self
            .org_request(Method::POST, "api/v2/write")
            .query(&[("bucket", bucket), ("precision", "ns")])
            .body(body);
        let answered = async {
            let response = send(request, within).await?;
            if response.status().as_u16() == 204 {
                return Ok(());
            }
            Err(refusal(response).await)
        };
        let answered = tokio::time::timeout(within, answered).await;
        answered.unwrap_or(Err(Error::TimedOut(within)))
    }
}

/// Sends bodies of lines.
#[derive(Debug)]
pub(super) struct Delivery {
    wire: Arc<dyn Wire>,
    pub(super) pace: Pace,
    delays: ExponentialBuilder,
    /// How long a body is repeated and searched, from its first write on.
    search_time: Duration,
    window: Duration,
    shard_seconds: u64,
    /// For bodies, and for what settles those whose requests have no bad line.
    pub(super) lane: Arc<Semaphore>,
    /// For what searches in the lines of one request.
    searches: Semaphore,
    dead_letter: Option<Arc<DeadLetter>>,
    counters: Arc<Counters>,
}

/// What became of a part.
enum Sent {
    Taken,
    Refused(Refusal),
    /// Nothing is known.
    Failed(StoreError),
}

impl Delivery {
    /// A delivery over `wire` as `options` say.
    pub(super) fn new(
        wire: Arc<dyn Wire>,
        options: &InfluxOptions,
        counters: Arc<Counters>,
    ) -> Self {
        let dead_letter = options.dead_letter.clone();
        let in_flight = options.writes_in_flight.max(1);
        Self {
            wire,
            pace: Pace::new(
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
            // The rest of the deadline is for the time in the queue.
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
    /// On [`StoreError::Partly`] and on success, what it does not name is durable, or older than the retention of the
    /// bucket. On another error any part may be durable; repeating all of it changes nothing.
    pub(super) async fn deliver(&self, bucket: &str, lines: Lines) -> Result<(), StoreError> {
        if lines.count() == 0 {
            return Ok(());
        }
        let (group, answer) = Group::of_one(lines);
        self.run(bucket, group, None).await;
        answer.await.unwrap_or_else(|_| Err(Error::Panicked.into()))
    }

    /// Delivers a group and answers each of its requests as soon as all of its lines are settled. The first write is
    /// made whatever the time, with `permit` of the lane.
    pub(super) async fn run(
        &self,
        bucket: &str,
        mut group: Group,
        permit: Option<OwnedSemaphorePermit>,
    ) {
        let until = Instant::now() + self.search_time;
        let text = group.take_text();
        let first = self.send(bucket, &text, until).await;
        drop(permit);
        let refusal = match first {
            Sent::Taken => return group.answer_all(&Ok(())),
            Sent::Failed(error) => return group.answer_all(&Err(error)),
            Sent::Refused(refusal) => refusal,
        };
        let mut plan = Plan::new(text, group.ends(), self.shard_seconds);
        let Some(whole) = plan.next() else { return };
        plan.refused(whole, &refusal);
        let reason = refusal.reason;
        let trouble = self
            .search(bucket, &mut plan, &mut group, &reason, until)
            .await;
        for owner in group.unanswered() {
            self.answer(&plan, &mut group, owner, &reason, trouble.as_ref())
                .await;
        }
        let (refused, undecided) = plan.unfit();
        tracing::warn!(refused, undecided, reason, "InfluxDB refuses lines");
    }

    /// Takes `plan` apart until everything is settled, the time is over, or the server is in trouble.
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
                self.answer(plan, group, owner, reason, None).await;
            }
            for gone in group.gone() {
                plan.abandon(gone);
            }
            while trouble.is_none() && Instant::now() < until && sends.len() < SEARCHES {
                // Whoever has no bad line is settled first.
                let is_shared = plan.is_shared();
                if is_shared && !sends.is_empty() {
                    break;
                }
                let Some(part) = plan.next() else { break };
                let text = plan.text_of(&part);
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
        // Neither is ever closed.
        let _permit = lane.acquire().await.ok();
        let sent = self.send(bucket, &text, until).await;
        (part, sent)
    }

    /// Sends a body until it is taken or refused, or the attempts are used up. The first try is made whatever the
    /// time, and no other one after `until`.
    async fn send(&self, bucket: &str, body: &Bytes, until: Instant) -> Sent {
        let attempt = || async {
            if let Some(pause) = self.pace.paused() {
                if pause.until() >= until {
                    return Ok(Sent::Failed(pause.error()));
                }
                tokio::time::sleep_until(pause.until()).await;
            }
            self.send_once(bucket, body).await.inspect_err(|error| {
                if let (Some(wish), Some(status)) = (error.retry_after(), error.status()) {
                    self.pace.pause(wish, status);
                }
            })
        };
        let sent = attempt
            .retry(self.delays)
            .when(Error::is_worth_repeating)
            .adjust(|_, delay| delay.filter(|delay| Instant::now() + *delay < until))
            .notify(|error, delay| {
                tracing::debug!(%error, ?delay, "a write to InfluxDB failed and is repeated");
                Counters::add(&self.counters.retries, 1);
            });
        sent.await.unwrap_or_else(|error| {
            let paused = self.pace.paused().map(|pause| pause.error());
            Sent::Failed(paused.unwrap_or_else(|| error.into()))
        })
    }

    async fn send_once(&self, bucket: &str, body: &Bytes) -> Result<Sent, Error> {
        let within = self.pace.timeout();
        let began = Instant::now();
        let written = self.wire.write(bucket, body.clone(), within).await;
        let lines = count_lines(body);
        match Verdict::of(written) {
            Verdict::Taken { expired } => {
                self.pace.answered(lines, began.elapsed());
                let expired = expired.min(lines);
                Counters::add(&self.counters.written, lines - expired);
                Counters::add(&self.counters.bodies, 1);
                Ok(self.expired(body, expired))
            }
            Verdict::Refused(refusal) => Ok(Sent::Refused(refusal)),
            Verdict::Failed(error) => {
                if let Error::TimedOut(waited) = error {
                    self.pace.timed_out(waited);
                }
                Err(error)
            }
        }
    }

    /// Judges that the server dropped `expired` lines of `body` for their age: only what has left the window may go.
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

    /// Answers an owner from what is known of its lines.
    async fn answer(
        &self,
        plan: &Plan,
        group: &mut Group,
        owner: usize,
        reason: &str,
        trouble: Option<&StoreError>,
    ) {
        let text = plan.refused_text(owner);
        let kept = !text.is_empty() && self.set_aside(reason, text).await;
        group.answer(owner, plan.fates(owner), kept, reason, trouble);
    }

    /// Takes users who were erased out of the file of refused lines.
    pub(super) async fn erase_refused(&self, erasures: &[Erasure]) -> Result<u64, StoreError> {
        let Some(file) = self.dead_letter.clone() else {
            return Ok(0);
        };
        let erasures = erasures.to_vec();
        let erased = tokio::task::spawn_blocking(move || file.erase(&erasures)).await;
        let erased = erased.map_err(|error| StoreError::Unavailable(error.to_string()))?;
        erased.map_err(|error| {
            StoreError::Unavailable(format!(
                "the file of refused lines can't be rewritten: {error}"
            ))
        })
    }

    /// Keeps lines that will never be taken; whether they are durable.
    async fn set_aside(&self, reason: &str, lines: Vec<u8>) -> bool {
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
