//! The cache in Redis: shared by all instances, on one server or a cluster.
//!
//! Everything has a limit in time: counts, counters, the list of segments (at each sign of life anew), the lock.
//! Evicting or losing any key at any time is safe: a count that lost its counters has no `pending`, counters that
//! lost their count wait for the next, and a list that was lost is no longer whole.

mod asks;
mod keys;
mod options;
mod scripts;
mod unsaid;

use std::collections::HashSet;
use std::time::Duration;

use async_trait::async_trait;
use redis::{FromRedisValue, Value};

pub use options::RedisCacheOptions;

use self::asks::{ADD_AT_ONCE, Asks, GET_AT_ONCE};
use self::unsaid::Unsaid;
use crate::redis::{Link, LinkError, LinkOptions, Pieces, Request};
use domain::cache::{
    CacheError, Cached, CountCache, KEEP_RUN, KnownSegments, LockToken, PendingMark,
};
use domain::{Count, Segment, Timestamp, Window};

/// Arguments sent at once: a millisecond or two of the server's time.
const ARGUMENTS_AT_ONCE: usize = 1_000;
/// More time for each argument of a request, about a hundred times what it takes an idle server.
const PER_ARGUMENT: Duration = Duration::from_micros(100);
/// Large requests under way at a time. More would only wait for each other in Redis, and a small request behind them.
const LARGE_UNDER_WAY: usize = 2;

/// More steps than any list needs; a scan that does not end is an error, not a hang.
const MAX_SCAN_STEPS: usize = 100_000;

/// A [`CountCache`] in Redis. Instances with equal options share it.
#[derive(Debug)]
pub struct RedisCache {
    link: Link,
    asks: Asks,
    unsaid: Unsaid,
}

/// Users, instant in microseconds, noted at the mark, noted now.
type CountFields = (u64, i64, u64, Option<u64>);

impl RedisCache {
    /// Begins to connect in the background and returns at once, whether Redis is there or not.
    pub fn open(options: RedisCacheOptions) -> Result<Self, CacheError> {
        if tokio::runtime::Handle::try_current().is_err() {
            let problem = "no tokio runtime is running".to_owned();
            return Err(CacheError::Misconfigured(problem));
        }
        let asks = Asks::new(&options);
        Ok(Self {
            link: Link::open(LinkOptions {
                server: options.server,
                pieces: Pieces {
                    at_once: ARGUMENTS_AT_ONCE,
                    shortest: options.command_timeout,
                    per_argument: PER_ARGUMENT,
                    under_way: LARGE_UNDER_WAY,
                },
                connect_timeout: options.connect_timeout,
                // More than one moved slot is left to the reader's fall-back.
                cluster_retries: 2,
                cluster_retry_wait: Duration::from_millis(5),
                user: "the cache",
                meanwhile: "counts come from the store",
            }),
            asks,
            unsaid: Unsaid::default(),
        })
    }

    /// The answer for `segment`, without a `pending` that this instance knows to be wrong.
    fn believed(
        &self,
        segment: &Segment,
        answer: Option<CountFields>,
    ) -> Result<Option<Cached>, CacheError> {
        let Some((users, as_of, noted_then, noted_now)) = answer else {
            return Ok(None);
        };
        let as_of = Timestamp::from_microsecond(as_of).map_err(nonsense)?;
        let pending = noted_now.and_then(|now| now.checked_sub(noted_then));
        let pending = pending.filter(|_| !self.unsaid.contains(segment));
        let count = Count { users, as_of };
        Ok(Some(Cached { count, pending }))
    }

    async fn tell(&self, requests: &[Request<'_>]) -> Result<(), CacheError> {
        if requests.is_empty() {
            return Ok(());
        }
        self.link.ask(requests).await?;
        Ok(())
    }

    async fn ask<T: FromRedisValue>(&self, request: Request<'_>) -> Result<T, CacheError> {
        let mut answers = self.link.ask(&[request]).await?;
        parse(answers.pop().ok_or_else(|| nonsense("nothing"))?)
    }
}

#[async_trait]
impl CountCache for RedisCache {
    async fn get(&self, segment: &Segment, window: Window) -> Result<Option<Cached>, CacheError> {
        let cached = self.get_many(std::slice::from_ref(segment), window).await?;
        Ok(cached.into_iter().next().flatten())
    }

    async fn get_many(
        &self,
        segments: &[Segment],
        window: Window,
    ) -> Result<Vec<Option<Cached>>, CacheError> {
        let mut cached = Vec::with_capacity(segments.len());
        for part in segments.chunks(GET_AT_ONCE) {
            let mut answers = Vec::with_capacity(part.len());
            for value in self.link.ask(&self.asks.get(part, window)).await? {
                answers.extend(parse::<Vec<Option<CountFields>>>(value)?);
            }
            if answers.len() != part.len() {
                return Err(nonsense("another number of counts than asked for"));
            }
            for (segment, answer) in part.iter().zip(answers) {
                cached.push(self.believed(segment, answer)?);
            }
        }
        Ok(cached)
    }

    async fn add_pending(&self, added: &[(Segment, u64)]) -> Result<(), CacheError> {
        let saying = self.unsaid.saying(added);
        self.tell(&self.asks.note(added)).await?;
        saying.done();
        Ok(())
    }

    async fn mark_pending_unknown(&self, segments: &[Segment]) -> Result<(), CacheError> {
        let step = self.unsaid.add(segments.iter());
        self.tell(&self.asks.end_epoch(segments)).await?;
        self.unsaid.said(segments, step);
        Ok(())
    }

    async fn mark(&self, segment: &Segment) -> Result<PendingMark, CacheError> {
        let (noted, epoch) = self.ask(self.asks.mark(segment)).await?;
        // A gap ends the epoch here, so none need be counted.
        Ok(PendingMark {
            noted,
            gaps: 0,
            epoch,
        })
    }

    async fn put(
        &self,
        segment: &Segment,
        window: Window,
        count: Count,
        mark: PendingMark,
    ) -> Result<Option<Cached>, CacheError> {
        let requests = self.asks.put(segment, window, count, mark);
        let kept = self.link.ask(&requests).await?.into_iter().next();
        self.believed(segment, parse(kept.ok_or_else(|| nonsense("nothing"))?)?)
    }

    async fn segments(&self) -> Result<KnownSegments, CacheError> {
        let whole_before: u64 = self.ask(self.asks.list_head()).await?;
        let oldest = self.asks.oldest() as f64;
        let mut names = HashSet::new();
        let mut cursor = 0;
        for _ in 0..MAX_SCAN_STEPS {
            let (next, found): (u64, Vec<(Vec<u8>, f64)>) =
                self.ask(self.asks.list_step(cursor)).await?;
            // What was not heard of for long goes with the next note. What is no segment is the note that the list
            // is whole.
            let texts = found
                .iter()
                .filter(|(_, score)| *score >= oldest)
                .filter_map(|(member, _)| std::str::from_utf8(member).ok());
            names.extend(texts.filter_map(|name| Segment::new(name).ok()));
            cursor = next;
            if cursor == 0 {
                // Asked again at the end: the list may have been lost while it was read.
                let whole_after: u64 = match whole_before {
                    0 => 0,
                    _ => self.ask(self.asks.list_head()).await?,
                };
                return Ok(KnownSegments {
                    names: names.into_iter().collect(),
                    complete: whole_after > 0,
                    complete_for: Duration::from_millis(whole_after),
                });
            }
        }
        Err(nonsense("a scan without end"))
    }

    async fn knows(&self, segment: &Segment) -> Result<bool, CacheError> {
        let score: Option<f64> = self.ask(self.asks.list_score(segment)).await?;
        let oldest = self.asks.oldest() as f64;
        Ok(score.is_some_and(|score| score >= oldest))
    }

    async fn complete_segments(&self, listed: &[Segment], ttl: Duration) -> Result<(), CacheError> {
        for part in listed.chunks(ADD_AT_ONCE) {
            self.tell(&self.asks.hear_of(part.iter())).await?;
        }
        self.tell(&self.asks.list_complete(ttl)).await
    }

    async fn remove_segment(&self, segment: &Segment) -> Result<(), CacheError> {
        // The list is read before the counters are judged, so that a note in between shows in one of them.
        let score: Option<String> = self.ask(self.asks.list_score(segment)).await?;
        let windows: Option<Vec<u64>> = self.ask(self.asks.forget_counts(segment)).await?;
        let Some(windows) = windows else {
            return Ok(());
        };
        self.tell(&self.asks.remove(segment, windows, score)).await
    }

    async fn lock(&self, token: &LockToken, ttl: Duration) -> Result<bool, CacheError> {
        self.ask(self.asks.lock(token, ttl)).await
    }

    async fn unlock(&self, token: &LockToken) -> Result<(), CacheError> {
        self.tell(&[self.asks.unlock(token)]).await
    }

    async fn note_run(&self, ago: Duration) -> Result<(), CacheError> {
        match KEEP_RUN.checked_sub(ago) {
            Some(keep) => self.tell(&[self.asks.note_run(keep)]).await,
            None => Ok(()),
        }
    }

    async fn last_run(&self) -> Result<Option<Duration>, CacheError> {
        let left: i64 = self.ask(self.asks.last_run()).await?;
        // Negative: there is no note.
        let left = u64::try_from(left).ok().map(Duration::from_millis);
        Ok(left.and_then(|left| KEEP_RUN.checked_sub(left)))
    }

    async fn ping(&self) -> Result<(), CacheError> {
        Ok(self.link.ping().await?)
    }
}

impl From<LinkError> for CacheError {
    fn from(error: LinkError) -> Self {
        match error {
            LinkError::Timeout => Self::Timeout,
            LinkError::Unavailable(text) | LinkError::Full(text) => Self::Unavailable(text),
            LinkError::Misconfigured(text) => Self::Misconfigured(text),
            LinkError::Protocol(text) => Self::Protocol(text),
        }
    }
}

fn parse<T: FromRedisValue>(value: Value) -> Result<T, CacheError> {
    T::from_redis_value(value).map_err(nonsense)
}

fn nonsense(what: impl std::fmt::Display) -> CacheError {
    CacheError::Protocol(what.to_string())
}
