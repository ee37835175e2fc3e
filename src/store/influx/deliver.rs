//! One body of lines to one bucket: repeated where that is safe, taken apart where lines are refused.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reqwest::Method;
use tokio::time::Instant;

use super::dead_letter::DeadLetter;
use super::error::{Answer, Error};
use super::lines::{Lines, count_lines, halves};
use super::options::InfluxOptions;
use super::server::{Server, refusal, send};
use super::stats::Counters;
use crate::store::StoreError;

/// The delay before the second try; it doubles with each further one.
const FIRST_DELAY: Duration = Duration::from_millis(100);
/// The longest delay that is not the server's own wish.
const LONGEST_DELAY: Duration = Duration::from_secs(2);
/// How many writes one refused body may cost. Finding one bad line among 5,000 takes 26; a body that is bad
/// all over is not worth more than this, and its remainder is refused in larger parts.
const MAX_SPLITS: usize = 256;

/// Sends bodies of lines.
#[derive(Debug)]
pub(super) struct Delivery {
    server: Server,
    try_timeout: Duration,
    attempts: u32,
    dead_letter: Option<Arc<DeadLetter>>,
    counters: Arc<Counters>,
}

/// How the server took some lines.
enum Taken {
    /// All of them are durable, or older than the server's retention.
    All,
    /// Some or all will never be taken.
    Refused(Box<Answer>),
}

impl Delivery {
    /// A delivery to the server of `options`.
    pub(super) fn new(server: Server, options: &InfluxOptions, counters: Arc<Counters>) -> Self {
        let dead_letter = options.dead_letter.clone();
        Self {
            server,
            try_timeout: options.write_timeout,
            attempts: options.write_attempts.max(1),
            dead_letter: dead_letter
                .map(|path| Arc::new(DeadLetter::new(path, options.dead_letter_max_bytes))),
            counters,
        }
    }

    /// Delivers `lines` to `bucket` and returns the ranges of their text that the server refuses.
    ///
    /// Everything outside these ranges is durable, or older than the retention of the bucket and so outside
    /// every window. On an error any part may be durable; repeating all of it changes nothing.
    pub(super) async fn deliver(
        &self,
        bucket: &str,
        lines: Lines,
        deadline: Instant,
    ) -> Result<Vec<Range<usize>>, StoreError> {
        if lines.count() == 0 {
            return Ok(Vec::new());
        }
        let text = Bytes::from(lines.into_text());
        let mut refused = Vec::new();
        let mut splits = 0;
        let whole = 0..text.len();
        let mut open = vec![whole];
        while let Some(range) = open.pop() {
            let part = text.slice(range.clone());
            let answer = match self.try_until(bucket, &part, deadline).await? {
                Taken::All => continue,
                Taken::Refused(answer) => answer,
            };
            let hopeless = is_refused_whole(&answer, &part) || splits >= MAX_SPLITS;
            match halves(&text, &range) {
                Some((first, second)) if !hopeless => {
                    splits += 2;
                    open.extend([second, first]);
                }
                _ => {
                    self.set_aside(&answer, part).await;
                    refused.push(range);
                }
            }
        }
        Ok(refused)
    }

    /// Tries a body until it is taken or refused, the attempts are used up, or the deadline is near.
    async fn try_until(
        &self,
        bucket: &str,
        body: &Bytes,
        deadline: Instant,
    ) -> Result<Taken, StoreError> {
        let mut attempt = 1;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(StoreError::Timeout(
                    "InfluxDB: no time left for a write".into(),
                ));
            }
            let error = match self
                .try_once(bucket, body, left.min(self.try_timeout))
                .await
            {
                Ok(taken) => return Ok(taken),
                Err(error) => error,
            };
            let delay = delay_after(attempt, error.retry_after());
            let in_time = Instant::now() + delay < deadline;
            if !error.is_worth_repeating() || attempt == self.attempts || !in_time {
                return Err(error.into());
            }
            tracing::debug!(%error, attempt, ?delay, "a write to InfluxDB failed and is repeated");
            Counters::add(&self.counters.retries, 1);
            tokio::time::sleep(delay).await;
            attempt += 1;
        }
    }

    async fn try_once(&self, bucket: &str, body: &Bytes, within: Duration) -> Result<Taken, Error> {
        let request = self
            .server
            .org_request(Method::POST, "api/v2/write")
            .query(&[("bucket", bucket), ("precision", "ns")])
            .body(body.clone());
        let response = send(request, within).await?;
        if response.status().as_u16() == 204 {
            Counters::add(&self.counters.written, count_lines(body));
            Counters::add(&self.counters.bodies, 1);
            return Ok(Taken::All);
        }
        let Ok(error) = tokio::time::timeout(within, refusal(response)).await else {
            return Err(Error::TimedOut(within));
        };
        match error {
            Error::Status(answer) => match (answer.status, expired_lines(&answer)) {
                (422, Some(expired)) => {
                    let expired = expired.min(count_lines(body));
                    Counters::add(&self.counters.expired, expired);
                    Counters::add(&self.counters.written, count_lines(body) - expired);
                    Counters::add(&self.counters.bodies, 1);
                    Ok(Taken::All)
                }
                (400 | 413 | 422, _) => Ok(Taken::Refused(answer)),
                _ => Err(Error::Status(answer)),
            },
            other => Err(other),
        }
    }

    /// Notes lines that will never be taken.
    async fn set_aside(&self, answer: &Answer, lines: Bytes) {
        let count = count_lines(&lines);
        Counters::add(&self.counters.refused, count);
        // The server's message may echo the lines, and lines name users: only its class is shown.
        let reason = format!("status {} {}", answer.status, class_of(answer));
        tracing::warn!(lines = count, reason, "InfluxDB refuses lines");
        let kept = match self.dead_letter.clone() {
            Some(file) => {
                let kept = tokio::task::spawn_blocking(move || file.keep(&reason, &lines)).await;
                matches!(kept, Ok(Ok(true)))
            }
            None => false,
        };
        if !kept {
            Counters::add(&self.counters.dead_letter_lost, count);
        }
    }
}

/// The delay before the next try: the server's wish, or an exponential one with jitter of half its length, so
/// that instances that failed together don't come back together.
fn delay_after(attempt: u32, wish: Option<Duration>) -> Duration {
    let doubled = FIRST_DELAY.saturating_mul(1 << (attempt - 1).min(10));
    let delay = doubled.min(LONGEST_DELAY);
    let jittered = delay.mul_f64(0.5 + fastrand::f64() / 2.0);
    wish.map_or(jittered, |wish| wish.max(jittered))
}

/// How many lines were dropped for their age alone; `None` when that is not what the answer says.
///
/// The server writes the other lines first: this message comes only when all of them were written.
fn expired_lines(answer: &Answer) -> Option<usize> {
    let (before, _) = answer
        .message
        .split_once(" points outside retention policy")?;
    before.rsplit_once("dropped ")?.1.parse().ok()
}

/// Whether the server says itself that it took no line of `body`.
fn is_refused_whole(answer: &Answer, body: &[u8]) -> bool {
    let dropped = answer
        .message
        .rsplit_once("dropped=")
        .map(|(_, after)| after);
    let dropped = dropped.and_then(|after| {
        let digits = after.split(|c: char| !c.is_ascii_digit()).next()?;
        digits.parse::<usize>().ok()
    });
    answer.status == 422 && dropped == Some(count_lines(body))
}

fn class_of(answer: &Answer) -> &'static str {
    match answer.status {
        413 => "too large",
        422 if answer.message.contains("field type conflict") => "field type conflict",
        422 => "partial write",
        _ => "malformed line",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, message: &str) -> Answer {
        Answer {
            status,
            message: message.into(),
            ..Answer::default()
        }
    }

    #[test]
    fn a_refusal_for_age_is_told_from_others() {
        let aged = "failure writing points to database: partial write: dropped 12 points outside \
                    retention policy of duration 336h0m0s - oldest point pair,segment=s at ...";
        assert_eq!(expired_lines(&answer(422, aged)), Some(12));
        let conflict = "partial write: field type conflict: input field \"user\" on measurement \
                        \"pair\" is type integer, already exists as type string dropped=2";
        assert_eq!(expired_lines(&answer(422, conflict)), None);
        assert!(is_refused_whole(&answer(422, conflict), b"a\nb\n"));
        assert!(!is_refused_whole(&answer(422, conflict), b"a\nb\nc\n"));
        assert!(!is_refused_whole(&answer(400, conflict), b"a\nb\n"));
    }

    #[test]
    fn delays_double_up_to_a_limit_and_heed_the_server() {
        for _ in 0..100 {
            let first = delay_after(1, None);
            assert!(first >= FIRST_DELAY / 2 && first <= FIRST_DELAY);
            assert!(delay_after(30, None) <= LONGEST_DELAY);
            let wished = Duration::from_secs(9);
            assert_eq!(delay_after(1, Some(wished)), wished);
            assert!(delay_after(5, Some(Duration::ZERO)) >= LONGEST_DELAY / 4);
        }
    }
}
