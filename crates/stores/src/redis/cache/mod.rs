//! The cache in Redis: shared by all instances, on one server or a cluster.
//!
//! Every key has a TTL: counts, counters, the list of segments (renewed with each write to it), the lock.
//! Eviction or loss of any key at any time is safe: a count without its counters has no `pending`, counters without
//! their count stay until the next count, and a lost list is no longer complete.

mod keys;
mod options;
mod requests;
mod scripts;
mod unsent;

use std::collections::HashSet;
use std::time::Duration;

use async_trait::async_trait;
use redis::{FromRedisValue, Value};

pub use options::RedisCacheOptions;

use self::requests::{ADD_AT_ONCE, GET_AT_ONCE, Requests};
use self::unsent::Unsent;
use crate::redis::{ChunkLimits, Client, ClientError, ClientOptions, Request};
use domain::cache::{
    CacheError, Cached, CountCache, KEEP_RUN, KnownSegments, LockToken, PendingMark,
};
use domain::{Count, Segment, Timestamp, Window};

/// Arguments of one chunk: a millisecond or two of the server's time.
const ARGUMENTS_AT_ONCE: usize = 1_000;
/// Timeout for each argument of a request, about a hundred times what an idle server takes.
const PER_ARGUMENT: Duration = Duration::from_micros(100);
/// Large requests in flight at a time. More would only queue in Redis, with small requests behind them.
const LARGE_UNDER_WAY: usize = 2;

/// More steps than any list needs. A scan that does not end is an error, not a hang.
const MAX_SCAN_STEPS: usize = 100_000;

/// A [`CountCache`] in Redis. Instances with equal options share it.
#[derive(Debug)]
pub struct RedisCache {
    client: Client,
    requests: Requests,
    unsent: Unsent,
}

/// Users, `as_of` in microseconds, pairs noted at the mark, pairs noted now.
type CountFields = (u64, i64, u64, Option<u64>);

impl RedisCache {
    /// Starts to connect in the background and returns at once, whether Redis is available or not.
    ///
    /// Fails with [`CacheError::Misconfigured`] outside a tokio runtime.
    pub fn open(options: RedisCacheOptions) -> Result<Self, CacheError> {
        if tokio::runtime::Handle::try_current().is_err() {
            let problem = "no tokio runtime is running".to_owned();
            return Err(CacheError::Misconfigured(problem));
        }
        let requests = Requests::new(&options);
        Ok(Self {
            client: Client::open(ClientOptions {
                server: options.server,
                limits: ChunkLimits {
                    max_arguments: ARGUMENTS_AT_ONCE,
                    base_timeout: options.command_timeout,
                    timeout_per_argument: PER_ARGUMENT,
                    max_in_flight: LARGE_UNDER_WAY,
                },
                connect_timeout: options.connect_timeout,
                // After two retries the reader falls back to the store.
                cluster_retries: 2,
                cluster_retry_wait: Duration::from_millis(5),
                user: "the cache",
                meanwhile: "counts come from the store",
            }),
            requests,
            unsent: Unsent::default(),
        })
    }

    /// Converts a response for `segment`, without a `pending` that this instance knows to be wrong.
    fn believed(
        &self,
        segment: &Segment,
        response: Option<CountFields>,
    ) -> Result<Option<Cached>, CacheError> {
        let Some((users, as_of, noted_then, noted_now)) = response else {
            return Ok(None);
        };
        let as_of = Timestamp::from_microsecond(as_of).map_err(invalid_response)?;
        let pending = noted_now.and_then(|now| now.checked_sub(noted_then));
        let pending = pending.filter(|_| !self.unsent.contains(segment));
        let count = Count { users, as_of };
        Ok(Some(Cached { count, pending }))
    }

    async fn execute(&self, requests: &[Request<'_>]) -> Result<(), CacheError> {
        if requests.is_empty() {
            return Ok(());
        }
        self.client.send(requests).await?;
        Ok(())
    }

    async fn query<T: FromRedisValue>(&self, request: Request<'_>) -> Result<T, CacheError> {
        let mut responses = self.client.send(&[request]).await?;
        parse(
            responses
                .pop()
                .ok_or_else(|| invalid_response("no response"))?,
        )
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
            let mut responses = Vec::with_capacity(part.len());
            for value in self.client.send(&self.requests.get(part, window)).await? {
                responses.extend(parse::<Vec<Option<CountFields>>>(value)?);
            }
            if responses.len() != part.len() {
                return Err(invalid_response(
                    "the number of counts differs from the number of segments",
                ));
            }
            for (segment, response) in part.iter().zip(responses) {
                cached.push(self.believed(segment, response)?);
            }
        }
        Ok(cached)
    }

    async fn add_pending(&self, added: &[(Segment, u64)]) -> Result<(), CacheError> {
        let sending = self.unsent.sending(added);
        self.execute(&self.requests.note(added)).await?;
        sending.done();
        Ok(())
    }

    async fn mark_pending_unknown(&self, segments: &[Segment]) -> Result<(), CacheError> {
        let step = self.unsent.add(segments.iter());
        self.execute(&self.requests.end_epoch(segments)).await?;
        self.unsent.sent(segments, step);
        Ok(())
    }

    async fn mark(&self, segment: &Segment) -> Result<PendingMark, CacheError> {
        let (noted, epoch) = self.query(self.requests.mark(segment)).await?;
        // A gap ends the epoch here, so gaps are not counted.
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
        let requests = self.requests.put(segment, window, count, mark);
        let kept = self.client.send(&requests).await?.into_iter().next();
        self.believed(
            segment,
            parse(kept.ok_or_else(|| invalid_response("no response"))?)?,
        )
    }

    async fn segments(&self) -> Result<KnownSegments, CacheError> {
        let whole_before: u64 = self.query(self.requests.list_head()).await?;
        let oldest = self.requests.oldest() as f64;
        let mut names = HashSet::new();
        let mut cursor = 0;
        for _ in 0..MAX_SCAN_STEPS {
            let (next, found): (u64, Vec<(Vec<u8>, f64)>) =
                self.query(self.requests.list_step(cursor)).await?;
            // Expired members are removed by the next write. The one member that is no segment is the note that the
            // list is complete.
            let members = found
                .iter()
                .filter(|(_, score)| *score >= oldest)
                .filter_map(|(member, _)| std::str::from_utf8(member).ok());
            names.extend(members.filter_map(|name| Segment::new(name).ok()));
            cursor = next;
            if cursor == 0 {
                // Checked again at the end: the list may have been lost while it was read.
                let whole_after: u64 = match whole_before {
                    0 => 0,
                    _ => self.query(self.requests.list_head()).await?,
                };
                return Ok(KnownSegments {
                    names: names.into_iter().collect(),
                    complete: whole_after > 0,
                    complete_for: Duration::from_millis(whole_after),
                });
            }
        }
        Err(invalid_response("a scan did not end"))
    }

    async fn knows(&self, segment: &Segment) -> Result<bool, CacheError> {
        let score: Option<f64> = self.query(self.requests.list_score(segment)).await?;
        let oldest = self.requests.oldest() as f64;
        Ok(score.is_some_and(|score| score >= oldest))
    }

    async fn complete_segments(&self, listed: &[Segment], ttl: Duration) -> Result<(), CacheError> {
        for part in listed.chunks(ADD_AT_ONCE) {
            self.execute(&self.requests.touch(part.iter())).await?;
        }
        self.execute(&self.requests.list_complete(ttl)).await
    }

    async fn remove_segment(&self, segment: &Segment) -> Result<(), CacheError> {
        // The score is read before the counters, so that a note in between changes one of them.
        let score: Option<String> = self.query(self.requests.list_score(segment)).await?;
        let windows: Option<Vec<u64>> = self.query(self.requests.forget_counts(segment)).await?;
        let Some(windows) = windows else {
            return Ok(());
        };
        self.execute(&self.requests.remove(segment, windows, score))
            .await
    }

    async fn lock(&self, token: &LockToken, ttl: Duration) -> Result<bool, CacheError> {
        self.query(self.requests.lock(token, ttl)).await
    }

    async fn unlock(&self, token: &LockToken) -> Result<(), CacheError> {
        self.execute(&[self.requests.unlock(token)]).await
    }

    async fn note_run(&self, ago: Duration) -> Result<(), CacheError> {
        match KEEP_RUN.checked_sub(ago) {
            Some(keep) => self.execute(&[self.requests.note_run(keep)]).await,
            None => Ok(()),
        }
    }

    async fn last_run(&self) -> Result<Option<Duration>, CacheError> {
        let left: i64 = self.query(self.requests.last_run()).await?;
        // Negative: the key does not exist.
        let left = u64::try_from(left).ok().map(Duration::from_millis);
        Ok(left.and_then(|left| KEEP_RUN.checked_sub(left)))
    }

    async fn ping(&self) -> Result<(), CacheError> {
        Ok(self.client.ping().await?)
    }
}

impl From<ClientError> for CacheError {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Timeout => Self::Timeout,
            ClientError::Unavailable(text) | ClientError::Full(text) => Self::Unavailable(text),
            ClientError::Misconfigured(text) => Self::Misconfigured(text),
            ClientError::Protocol(text) => Self::Protocol(text),
        }
    }
}

fn parse<T: FromRedisValue>(value: Value) -> Result<T, CacheError> {
    T::from_redis_value(value).map_err(invalid_response)
}

fn invalid_response(what: impl std::fmt::Display) -> CacheError {
    CacheError::Protocol(what.to_string())
}
