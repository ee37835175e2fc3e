//! The cache in Redis: shared by all instances, on one server or a cluster.
//!
//! Everything has a limit in time: counts, counters, the list of segments (at each sign of life anew), the lock.
//! Evicting or losing any key at any time is safe: a count that lost its counters has no `pending`, counters that
//! lost their count wait for the next, and a list that was lost is no longer whole.

mod connection;
mod keys;
mod link;
mod options;
mod scripts;

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use redis::{FromRedisValue, Value};

pub use options::{InvalidPrefix, InvalidRedisUrl, Prefix, RedisCacheOptions, RedisServer};

use self::keys::Keys;
use self::link::Link;
use self::scripts::{Request, Scripts};
use super::{CacheError, Cached, CountCache, KnownSegments, LockToken, PendingMark};
use crate::domain::{Count, Segment, Timestamp, Window};

/// Segments asked about in one call to one server: a few hundred microseconds of its time.
const GET_AT_ONCE: usize = 200;
/// Members of the list of segments that one step of a scan looks at.
const SCAN_STEP: usize = 1_000;
/// Members added to the list of segments by one command.
const ADD_AT_ONCE: usize = 1_000;
/// More steps than any list needs; a scan that does not end is an error, not a hang.
const MAX_SCAN_STEPS: usize = 100_000;

/// A [`CountCache`] in Redis. Instances with equal options share it.
#[derive(Debug)]
pub struct RedisCache {
    link: Link,
    keys: Keys,
    scripts: Scripts,
    options: RedisCacheOptions,
    /// Segments of which this instance could not note something: until it could say so to Redis, it believes no
    /// `pending` of theirs itself.
    unsaid: Mutex<Unsaid>,
}

impl RedisCache {
    /// Begins to connect in the background and returns at once, whether Redis is there or not.
    pub fn open(options: RedisCacheOptions) -> Result<Self, CacheError> {
        if tokio::runtime::Handle::try_current().is_err() {
            return Err(CacheError::Misconfigured(
                "no tokio runtime is running".to_owned(),
            ));
        }
        Ok(Self {
            link: Link::open(options.clone()),
            keys: Keys::new(&options.prefix),
            scripts: Scripts::new(),
            options,
            unsaid: Mutex::default(),
        })
    }

    fn keep_pending(&self) -> Duration {
        self.options.keep_counts.saturating_mul(2)
    }

    /// Adds to one counter of each segment, and tells the list of segments.
    async fn count_up(&self, added: &[(&Segment, u64)], field: &str) -> Result<(), CacheError> {
        let keep = millis(self.keep_pending());
        let mut requests = Vec::with_capacity(2 * added.len() + 1);
        for (segment, by) in added {
            let key = self.keys.pending(segment);
            let by = i64::try_from(*by).unwrap_or(i64::MAX);
            requests.push(Request::command("HINCRBY", (&key, field, by)));
            requests.push(Request::command("PEXPIRE", (&key, &keep)));
        }
        requests.extend(self.hear_of(added.iter().map(|(segment, _)| *segment)));
        self.link.ask(&requests).await.map(drop)
    }

    /// What notes a sign of life of these segments.
    fn hear_of<'a>(&self, segments: impl Iterator<Item = &'a Segment>) -> Vec<Request<'static>> {
        let now = Timestamp::now().as_millisecond();
        let members: Vec<_> = segments.map(|segment| (now, segment.as_str())).collect();
        if members.is_empty() {
            return Vec::new();
        }
        let add = members
            .chunks(ADD_AT_ONCE)
            .map(|members| Request::command("ZADD", (&self.keys.segments, members)));
        let keep = millis(self.options.keep_segments);
        add.chain([Request::command("PEXPIRE", (&self.keys.segments, keep))])
            .collect()
    }

    fn get_request(&self, segments: &[Segment], window: Window) -> Request<'_> {
        let keys = segments
            .iter()
            .flat_map(|segment| [self.keys.count(segment, window), self.keys.pending(segment)]);
        Request::Run(&self.scripts.get, keys.collect(), Vec::new())
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
        let pending = pending.filter(|_| !self.unsaid.lock().since.contains_key(segment));
        Ok(Some(Cached {
            count: Count { users, as_of },
            pending,
        }))
    }

    async fn ask_one(&self, request: Request<'_>) -> Result<Value, CacheError> {
        let answers = self.link.ask(&[request]).await?;
        answers
            .into_iter()
            .next()
            .ok_or_else(|| nonsense("nothing"))
    }
}

/// Users, instant in microseconds, noted at the mark, noted now.
type CountFields = (u64, i64, u64, Option<u64>);

#[async_trait]
impl CountCache for RedisCache {
    async fn get(&self, segment: &Segment, window: Window) -> Result<Option<Cached>, CacheError> {
        let request = self.get_request(std::slice::from_ref(segment), window);
        let (answer,): (Option<CountFields>,) = parse(self.ask_one(request).await?)?;
        self.believed(segment, answer)
    }

    async fn get_many(
        &self,
        segments: &[Segment],
        window: Window,
    ) -> Result<Vec<Option<Cached>>, CacheError> {
        // On a cluster a script can only touch keys of one segment.
        let together = if self.options.server.is_cluster {
            1
        } else {
            GET_AT_ONCE
        };
        let mut cached = Vec::with_capacity(segments.len());
        for part in segments.chunks(GET_AT_ONCE) {
            let requests: Vec<_> = part
                .chunks(together)
                .map(|some| self.get_request(some, window))
                .collect();
            let mut answers = Vec::with_capacity(part.len());
            for value in self.link.ask(&requests).await? {
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
        if added.is_empty() {
            return Ok(());
        }
        let added: Vec<_> = added
            .iter()
            .map(|(segment, pairs)| (segment, *pairs))
            .collect();
        let mut saying = Saying {
            cache: self,
            segments: &added,
        };
        self.count_up(&added, "noted").await?;
        saying.segments = &[];
        Ok(())
    }

    async fn mark_pending_unknown(&self, segments: &[Segment]) -> Result<(), CacheError> {
        if segments.is_empty() {
            return Ok(());
        }
        let now = self.unsaid.lock().add(segments.iter());
        let added: Vec<_> = segments.iter().map(|segment| (segment, 1)).collect();
        self.count_up(&added, "gaps").await?;
        self.unsaid.lock().said(segments, now);
        Ok(())
    }

    async fn mark(&self, segment: &Segment) -> Result<PendingMark, CacheError> {
        let keys = vec![self.keys.pending(segment)];
        let args = vec![fastrand::u64(..).to_string(), millis(self.keep_pending())];
        let value = self
            .ask_one(Request::Run(&self.scripts.mark, keys, args))
            .await?;
        let (noted, gaps, epoch) = parse(value)?;
        Ok(PendingMark { noted, gaps, epoch })
    }

    async fn put(
        &self,
        segment: &Segment,
        window: Window,
        count: Count,
        mark: PendingMark,
    ) -> Result<(), CacheError> {
        let keys = vec![self.keys.count(segment, window), self.keys.pending(segment)];
        let args = vec![
            count.users.to_string(),
            count.as_of.as_microsecond().to_string(),
            mark.noted.to_string(),
            mark.gaps.to_string(),
            mark.epoch.to_string(),
            window.seconds().to_string(),
            millis(self.options.keep_counts),
            millis(self.keep_pending()),
        ];
        let mut requests = vec![Request::Run(&self.scripts.put, keys, args)];
        if count.users > 0 {
            requests.extend(self.hear_of(std::iter::once(segment)));
        }
        self.link.ask(&requests).await.map(drop)
    }

    async fn segments(&self) -> Result<KnownSegments, CacheError> {
        let oldest = Timestamp::now().as_millisecond()
            - i64::try_from(self.options.keep_segments.as_millis()).unwrap_or(i64::MAX);
        let is_whole = async || {
            let keys = vec![self.keys.segments.clone()];
            let request = Request::Run(&self.scripts.list_head, keys, vec![oldest.to_string()]);
            parse::<bool>(self.ask_one(request).await?)
        };
        let whole_before = is_whole().await?;
        let mut names = HashSet::new();
        let mut cursor = 0_u64;
        for _ in 0..MAX_SCAN_STEPS {
            let step = (&self.keys.segments, cursor, "COUNT", SCAN_STEP);
            let value = self.ask_one(Request::command("ZSCAN", step)).await?;
            let (next, found): (u64, Vec<(Vec<u8>, f64)>) = parse(value)?;
            // What is no segment is the note that the list is whole.
            let found = found
                .iter()
                .filter_map(|(member, _)| std::str::from_utf8(member).ok());
            names.extend(found.filter_map(|name| Segment::new(name).ok()));
            cursor = next;
            if cursor == 0 {
                // Asked again at the end: the list may have been lost while it was read.
                let complete = whole_before && is_whole().await?;
                return Ok(KnownSegments {
                    names: names.into_iter().collect(),
                    complete,
                });
            }
        }
        Err(nonsense("a scan without end"))
    }

    async fn complete_segments(&self, listed: &[Segment], ttl: Duration) -> Result<(), CacheError> {
        for part in listed.chunks(10 * ADD_AT_ONCE) {
            self.link.ask(&self.hear_of(part.iter())).await?;
        }
        let keys = vec![self.keys.segments.clone()];
        let note = Request::Run(&self.scripts.list_complete, keys, vec![millis(ttl)]);
        let keep = millis(self.options.keep_segments);
        let expire = Request::command("PEXPIRE", (&self.keys.segments, keep));
        self.link.ask(&[note, expire]).await.map(drop)
    }

    async fn remove_segment(&self, segment: &Segment) -> Result<(), CacheError> {
        // The list is read before the counters are judged, so that a note in between shows in one of them.
        let score = Request::command("ZSCORE", (&self.keys.segments, segment.as_str()));
        let score: Option<String> = parse(self.ask_one(score).await?)?;
        let keys = vec![self.keys.pending(segment)];
        let forget = Request::Run(&self.scripts.forget_counts, keys, Vec::new());
        let windows: Option<Vec<u64>> = parse(self.ask_one(forget).await?)?;
        let Some(windows) = windows else {
            return Ok(());
        };
        let mut requests: Vec<_> = windows
            .into_iter()
            .map(|window| Request::command("UNLINK", self.keys.count_over(segment, window)))
            .collect();
        if let Some(score) = score {
            let keys = vec![self.keys.segments.clone()];
            let args = vec![segment.as_str().to_owned(), score];
            requests.push(Request::Run(&self.scripts.list_remove, keys, args));
        }
        if requests.is_empty() {
            return Ok(());
        }
        self.link.ask(&requests).await.map(drop)
    }

    async fn try_lock(&self, ttl: Duration) -> Result<Option<LockToken>, CacheError> {
        let token = fastrand::u64(..);
        let set = (&self.keys.lock, token, "NX", "PX", millis(ttl));
        let answer = self.ask_one(Request::command("SET", set)).await?;
        Ok((answer == Value::Okay).then_some(LockToken(token)))
    }

    async fn extend_lock(&self, token: &LockToken, ttl: Duration) -> Result<bool, CacheError> {
        let args = vec![token.0.to_string(), millis(ttl)];
        let keys = vec![self.keys.lock.clone()];
        parse(
            self.ask_one(Request::Run(&self.scripts.lock_extend, keys, args))
                .await?,
        )
    }

    async fn unlock(&self, token: LockToken) -> Result<(), CacheError> {
        let keys = vec![self.keys.lock.clone()];
        let args = vec![token.0.to_string()];
        self.ask_one(Request::Run(&self.scripts.lock_release, keys, args))
            .await
            .map(drop)
    }

    async fn ping(&self) -> Result<(), CacheError> {
        self.link.ping().await
    }
}

/// Segments of which something is unsaid, each with the time of the latest such thing, in steps.
#[derive(Debug, Default)]
struct Unsaid {
    since: HashMap<Segment, u64>,
    now: u64,
}

impl Unsaid {
    fn add<'a>(&mut self, segments: impl Iterator<Item = &'a Segment>) -> u64 {
        self.now += 1;
        self.since
            .extend(segments.map(|segment| (segment.clone(), self.now)));
        self.now
    }

    /// What was unsaid up to `time` is said now; what came later is not.
    fn said(&mut self, segments: &[Segment], time: u64) {
        for segment in segments {
            if self.since.get(segment).is_some_and(|since| *since <= time) {
                self.since.remove(segment);
            }
        }
    }
}

/// Makes its segments unsaid unless they are taken out in time, also when the call is dropped midway.
struct Saying<'a> {
    cache: &'a RedisCache,
    segments: &'a [(&'a Segment, u64)],
}

impl Drop for Saying<'_> {
    fn drop(&mut self) {
        if !self.segments.is_empty() {
            self.cache
                .unsaid
                .lock()
                .add(self.segments.iter().map(|(segment, _)| *segment));
        }
    }
}

/// A time as Redis takes it: whole milliseconds, one at least.
fn millis(time: Duration) -> String {
    time.as_millis().clamp(1, 1 << 52).to_string()
}

fn parse<T: FromRedisValue>(value: Value) -> Result<T, CacheError> {
    T::from_redis_value(value).map_err(nonsense)
}

fn nonsense(what: impl std::fmt::Display) -> CacheError {
    CacheError::Protocol(what.to_string())
}
