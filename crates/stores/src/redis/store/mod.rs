//! The Redis store: a sorted set per segment, with users as members and the slot in which they were last seen as score.
//!
//! It works on one server and on a cluster, where the keys of a segment are on one node. A write is as durable as the
//! persistence of the server, which the store queries and logs (see [`Survey`]).
//!
//! **The list of segments** is a key of its own, on a cluster possibly on another node. A segment is added to it before
//! its pairs are written, and each write renews the segment there. Archiving removes only segments that were empty and
//! unused for a day. So a crash at any point leaves no acknowledged pair in an unlisted segment.

mod archive;
mod error;
mod export;
mod key;
mod keys;
mod list;
mod options;
mod prepare;
mod requests;
mod scripts;
mod setup;
mod survey;
mod trend;

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use redis::{FromRedisValue, Value};
use tokio::sync::Semaphore;
use tokio::time::timeout;

pub use options::RedisStoreOptions;
pub use setup::set_up;
pub use survey::{Eviction, Persistence, Survey};

use self::error::invalid_response;
use self::prepare::Prepared;
use self::requests::Requests;
use self::trend::Buckets;
use crate::installation_key::KnownKey;
use crate::redis::{Client, Request};
use domain::store::{Archived, PairStore, Remains, StoreError, check_property};
use domain::{
    Batch, Count, Erasure, FingerprintKey, Membership, Segment, Slot, Timestamp, TrendPoint,
    UserId, Window,
};

/// How long a start waits for a server that may not respond. Many times what a healthy server needs.
const START_TIMEOUT: Duration = Duration::from_secs(1);
/// Small requests sent at once: a few hundred microseconds of the server's time.
const AT_ONCE: usize = 500;
/// Requests of a write sent at once: at most 50,000 pairs, tens of milliseconds of the server's time.
const WRITES_AT_ONCE: usize = 200;
/// Pairs in flight to Redis, a quarter of a second of its time at worst. Further writes wait in this process, where the
/// wait does not count against the timeout: otherwise a burst would look like an unavailable server.
const PAIRS_IN_FLIGHT: usize = 50_000;

/// A [`PairStore`] in Redis. Instances with equal options share their pairs.
#[derive(Debug)]
pub struct RedisStore {
    options: RedisStoreOptions,
    client: Client,
    requests: Requests,
    prepared: Prepared,
    key: KnownKey,
    in_flight: Semaphore,
    closed: AtomicBool,
}

impl RedisStore {
    /// Starts to connect in the background and returns at once, whether Redis is available or not.
    ///
    /// Fails with [`StoreError::Unavailable`] outside a tokio runtime.
    pub fn open(options: RedisStoreOptions) -> Result<Self, StoreError> {
        if tokio::runtime::Handle::try_current().is_err() {
            let problem = "no tokio runtime is running".to_owned();
            return Err(StoreError::Unavailable(problem));
        }
        Ok(Self {
            client: Client::open(options.client()),
            requests: Requests::new(&options.prefix),
            prepared: Prepared::default(),
            key: KnownKey::default(),
            in_flight: Semaphore::new(PAIRS_IN_FLIGHT),
            options,
            closed: AtomicBool::new(false),
        })
    }

    /// The persistence of the server as last queried; `None` before the first query.
    pub fn survey(&self) -> Option<Survey> {
        self.prepared.survey()
    }

    fn check_open(&self) -> Result<(), StoreError> {
        if self.closed.load(Ordering::Acquire) {
            return Err(StoreError::Closed);
        }
        Ok(())
    }

    /// Sends one idempotent request and parses its response.
    async fn query<T: FromRedisValue>(&self, request: Request<'_>) -> Result<T, StoreError> {
        parse_one(self.client.send_with_retry(&[request]).await?)
    }

    /// Sends idempotent requests and parses their responses, in order.
    async fn query_all<T: FromRedisValue>(
        &self,
        requests: &[Request<'_>],
    ) -> Result<Vec<T>, StoreError> {
        let mut responses = Vec::with_capacity(requests.len());
        for part in requests.chunks(AT_ONCE) {
            for response in self.client.send_with_retry(part).await? {
                responses.push(parse(response)?);
            }
        }
        if responses.len() != requests.len() {
            return Err(invalid_response(
                "the number of responses differs from the number of requests",
            ));
        }
        Ok(responses)
    }

    /// Runs requests that erase a user from one segment each, and return the slot. Returns how many slots are in `slots`.
    async fn erase(
        &self,
        requests: &[Request<'_>],
        slots: &RangeInclusive<Slot>,
    ) -> Result<u64, StoreError> {
        let mut erased = 0;
        // Not retried here: a retry would find fewer pairs than the first attempt erased.
        for part in requests.chunks(AT_ONCE) {
            for response in self.client.send(part).await? {
                let slot: Option<u64> = parse(response)?;
                erased += u64::from(slot.is_some_and(|slot| slots.contains(&Slot::new(slot))));
            }
        }
        Ok(erased)
    }

    fn full_window_as_of(&self, as_of: Timestamp) -> RangeInclusive<Slot> {
        let frame = &self.options.frame;
        let present = frame.resolution().slot_of(as_of);
        frame.full_window().slots_as_of(present)
    }
}

#[async_trait]
impl PairStore for RedisStore {
    async fn record(&self, batch: &Batch) -> Result<(), StoreError> {
        self.ready().await?;
        if batch.is_empty() {
            return Ok(());
        }
        // A batch larger than the limit takes all permits.
        let pairs = u32::try_from(batch.len().min(PAIRS_IN_FLIGHT)).unwrap_or(u32::MAX);
        let permit = self.in_flight.acquire_many(pairs).await;
        let _permit = permit.map_err(|_| StoreError::Closed)?;
        let mut requests = self.requests.announce(batch.segments());
        if self.options.server.is_cluster {
            // The list may be on another node, so it is written first. One server executes requests in order.
            self.client.send_with_retry(&requests).await?;
            requests.clear();
        }
        requests.extend(self.requests.add(batch));
        for part in requests.chunks(WRITES_AT_ONCE) {
            self.client.send_with_retry(part).await?;
        }
        Ok(())
    }

    async fn count(
        &self,
        segment: &Segment,
        window: Window,
        as_of: Timestamp,
    ) -> Result<Count, StoreError> {
        self.ready().await?;
        let present = self.options.frame.resolution().slot_of(as_of);
        let slots = window.slots_as_of(present);
        let users = self.query(self.requests.count(segment, &slots)).await?;
        Ok(Count { users, as_of })
    }

    async fn segments(&self, as_of: Timestamp) -> Result<Vec<Segment>, StoreError> {
        self.ready().await?;
        let slots = self.full_window_as_of(as_of);
        let listed = self.listed().await?;
        let counts: Vec<_> = listed
            .keys()
            .map(|it| self.requests.count(it, &slots))
            .collect();
        let counts: Vec<u64> = self.query_all(&counts).await?;
        let counted = listed.into_keys().zip(counts);
        Ok(counted
            .filter(|(_, users)| *users > 0)
            .map(|(segment, _)| segment)
            .collect())
    }

    async fn memberships(
        &self,
        user: &UserId<'_>,
        as_of: Timestamp,
    ) -> Result<Vec<Membership>, StoreError> {
        self.ready().await?;
        let slots = self.full_window_as_of(as_of);
        let listed = self.listed().await?;
        let requests: Vec<_> = listed
            .keys()
            .map(|it| self.requests.slot_of(it, user))
            .collect();
        let found: Vec<Option<u64>> = self.query_all(&requests).await?;
        let memberships = listed.into_keys().zip(found).filter_map(|(segment, slot)| {
            let last_seen = Slot::new(slot?);
            slots
                .contains(&last_seen)
                .then_some(Membership { segment, last_seen })
        });
        Ok(memberships.collect())
    }

    async fn forget(&self, user: &UserId<'_>, as_of: Timestamp) -> Result<u64, StoreError> {
        self.ready().await?;
        let slots = self.full_window_as_of(as_of);
        let listed = self.listed().await?;
        let requests: Vec<_> = listed
            .keys()
            .map(|it| self.requests.forget(it, user))
            .collect();
        self.erase(&requests, &slots).await
    }

    async fn forget_in(
        &self,
        segment: &Segment,
        user: &UserId<'_>,
        as_of: Timestamp,
    ) -> Result<bool, StoreError> {
        self.ready().await?;
        let slots = self.full_window_as_of(as_of);
        let request = self.requests.forget(segment, user);
        // Not retried here: a retry would not find a pair that the first attempt erased.
        let slot: Option<u64> = parse_one(self.client.send(&[request]).await?)?;
        Ok(slot.is_some_and(|slot| slots.contains(&Slot::new(slot))))
    }

    async fn forget_seen(
        &self,
        user: &UserId<'_>,
        seen: &[Membership],
        as_of: Timestamp,
    ) -> Result<u64, StoreError> {
        self.ready().await?;
        let slots = self.full_window_as_of(as_of);
        let forget = |it| self.requests.forget_seen(it, user);
        let requests: Vec<_> = seen.iter().map(forget).collect();
        self.erase(&requests, &slots).await
    }

    async fn drop_segment(
        &self,
        segment: &Segment,
        windows: &[Window],
        as_of: Timestamp,
    ) -> Result<u64, StoreError> {
        self.ready().await?;
        let slots = self.full_window_as_of(as_of);
        let request = self.requests.drop_pairs(segment, &slots);
        // Not retried here: a retry would return no users.
        let users = parse_one(self.client.send(&[request]).await?)?;
        for window in windows {
            let newest = self.requests.newest_point(segment, *window);
            let newest: Option<u64> = self.query(newest).await?;
            if let Some(newest) = newest {
                let request = self.requests.drop_trend(segment, *window, newest);
                self.query::<u64>(request).await?;
            }
        }
        Ok(users)
    }

    async fn note_erasure(&self, erasure: &Erasure) -> Result<(), StoreError> {
        self.ready().await?;
        let first = *self.full_window_as_of(erasure.at()).start();
        let reached = self.options.frame.resolution().start_of(first);
        let requests = self.requests.note_erasure(erasure, reached);
        self.query_all::<u64>(&requests).await?;
        Ok(())
    }

    async fn erasures(&self, since: Timestamp) -> Result<Vec<Erasure>, StoreError> {
        self.ready().await?;
        let noted: Vec<(String, f64)> = self.query(self.requests.erasures(since)).await?;
        let read = |(mark, at): (String, f64)| {
            // Scores are doubles: microseconds are exact until the year 2255.
            let at = Timestamp::from_microsecond(at as i64).ok()?;
            Erasure::from_mark(&mark, at)
        };
        Ok(noted.into_iter().filter_map(read).collect())
    }

    fn remains(&self, _at: Timestamp) -> Vec<Remains> {
        vec![Remains {
            place: "redis_files",
            what: "the pairs in the server's append-only file and dumps, until it rewrites them"
                .to_owned(),
            until: None,
        }]
    }

    async fn fingerprint_key(&self) -> Result<FingerprintKey, StoreError> {
        self.ready().await?;
        let (key, _) = self.agreed_key().await?;
        Ok(key)
    }

    async fn properties(&self, prefix: &str) -> Result<BTreeMap<String, String>, StoreError> {
        self.ready().await?;
        let mut properties: BTreeMap<String, String> =
            self.query(self.requests.properties()).await?;
        properties.retain(|name, _| name.starts_with(prefix));
        Ok(properties)
    }

    async fn set_property(&self, name: &str, value: Option<&str>) -> Result<(), StoreError> {
        check_property(name, value)?;
        self.ready().await?;
        self.query::<u64>(self.requests.set_property(name, value))
            .await?;
        Ok(())
    }

    async fn archive(&self, as_of: Timestamp, limit: u64) -> Result<Archived, StoreError> {
        self.ready().await?;
        let first = *self.full_window_as_of(as_of).start();
        archive::step(self, first, limit).await
    }

    async fn export(
        &self,
        segment: &Segment,
        slots: RangeInclusive<Slot>,
    ) -> Result<Batch, StoreError> {
        self.ready().await?;
        export::all(self, segment, slots).await
    }

    async fn record_trend(&self, points: &[TrendPoint]) -> Result<(), StoreError> {
        self.ready().await?;
        let requests: Vec<_> = points
            .iter()
            .map(|it| self.requests.add_point(it))
            .collect();
        self.query_all::<Value>(&requests).await?;
        Ok(())
    }

    async fn trend(
        &self,
        segment: &Segment,
        window: Window,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<Count>, StoreError> {
        self.ready().await?;
        // Points have a resolution of one second.
        let first = from.as_second() + i64::from(from.subsec_nanosecond() > 0);
        let (first, last) = (u64::try_from(first), u64::try_from(to.as_second()));
        let Ok(last) = last else {
            return Ok(Vec::new());
        };
        let seconds = first.unwrap_or(0)..=last;
        let newest: Option<u64> = self
            .query(self.requests.newest_point(segment, window))
            .await?;
        let Some(newest) = newest else {
            return Ok(Vec::new());
        };
        let buckets = Buckets::of(self.requests.keys.trend(segment, window));
        let found: Vec<Vec<(String, String)>> =
            self.query_all(&buckets.read(&seconds, newest)).await?;
        trend::points(found.into_iter().flatten(), &seconds)
            .ok_or_else(|| StoreError::Damaged("redis has an invalid trend point".to_owned()))
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.check_open()?;
        self.client.ping().await?;
        self.recheck().await
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.closed.store(true, Ordering::Release);
        Ok(())
    }
}

/// Opens the store when the service starts. An unavailable Redis is no error; pairs recorded with another resolution or
/// `user_key` are [`StoreError::Rejected`].
pub async fn open(options: RedisStoreOptions) -> Result<Arc<RedisStore>, StoreError> {
    let store = RedisStore::open(options)?;
    match timeout(START_TIMEOUT, store.ready()).await {
        Ok(Err(StoreError::Damaged(reason))) => Err(StoreError::Rejected(reason)),
        // The next call to the store reports other errors.
        Ok(Ok(()) | Err(_)) | Err(_) => Ok(Arc::new(store)),
    }
}

/// Parses the response to one request.
fn parse_one<T: FromRedisValue>(mut responses: Vec<Value>) -> Result<T, StoreError> {
    let response = responses.pop();
    parse(response.ok_or_else(|| invalid_response("no response"))?)
}

fn parse<T: FromRedisValue>(value: Value) -> Result<T, StoreError> {
    T::from_redis_value(value).map_err(invalid_response)
}
