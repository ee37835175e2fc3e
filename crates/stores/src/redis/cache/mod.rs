//! The cache in Redis: shared by all instances, on one server or a cluster.
//!
//! Every key has a TTL: counts, the list of segments (renewed with each write to it), the lock. Eviction or loss of any
//! key at any time is safe: a lost count is counted again, and a lost list is no longer complete.

mod keys;
mod options;
mod requests;
mod scripts;

use std::collections::HashSet;
use std::time::Duration;

use async_trait::async_trait;
use redis::{FromRedisValue, Value};

pub use options::RedisCacheOptions;

use self::requests::{ADD_AT_ONCE, Requests};
use crate::redis::{ChunkLimits, Client, ClientError, ClientOptions, Request};
use domain::cache::{CacheError, CountCache, KEEP_RUN, KnownSegments, LockToken};
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
}

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
        })
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
    async fn get(&self, segment: &Segment, window: Window) -> Result<Option<Count>, CacheError> {
        let cached = self.get_many(std::slice::from_ref(segment), window).await?;
        Ok(cached.into_iter().next().flatten())
    }

    async fn get_many(
        &self,
        segments: &[Segment],
        window: Window,
    ) -> Result<Vec<Option<Count>>, CacheError> {
        if segments.is_empty() {
            return Ok(Vec::new());
        }
        let responses = self
            .client
            .send(&self.requests.get(segments, window))
            .await?;
        if responses.len() != segments.len() {
            return Err(invalid_response(
                "the number of counts differs from the number of segments",
            ));
        }
        let counts = responses.into_iter().map(|value| {
            let count: Option<String> = parse(value)?;
            count.map(|text| parse_count(&text)).transpose()
        });
        counts.collect()
    }

    async fn note_segments(&self, segments: &[Segment]) -> Result<(), CacheError> {
        self.execute(&self.requests.touch(segments.iter())).await
    }

    async fn put(
        &self,
        segment: &Segment,
        window: Window,
        count: Count,
    ) -> Result<Count, CacheError> {
        let requests = self.requests.put(segment, window, count);
        let kept = self.client.send(&requests).await?.into_iter().next();
        let kept: String = parse(kept.ok_or_else(|| invalid_response("no response"))?)?;
        parse_count(&kept)
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
        // On a cluster the counts and the list are on different nodes. The counts of a segment that was noted recently stay,
        // so that each refresh does not remove them. A note that comes after this is seen by the removal from the list.
        let noted: Option<f64> = self.query(self.requests.list_score(segment)).await?;
        if noted.is_some_and(|noted| noted > Requests::removable() as f64) {
            return Ok(());
        }
        let is_empty: bool = self.query(self.requests.forget_counts(segment)).await?;
        match is_empty {
            true => self.execute(&[self.requests.list_remove(segment)]).await,
            false => Ok(()),
        }
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

/// Parses users and `as_of` in microseconds.
fn parse_count(text: &str) -> Result<Count, CacheError> {
    let count = text.split_once(' ').and_then(|(users, as_of)| {
        Some(Count {
            users: users.parse().ok()?,
            as_of: Timestamp::from_microsecond(as_of.parse().ok()?).ok()?,
        })
    });
    count.ok_or_else(|| invalid_response(format_args!("a count of {text:?}")))
}

fn invalid_response(what: impl std::fmt::Display) -> CacheError {
    CacheError::Protocol(what.to_string())
}
