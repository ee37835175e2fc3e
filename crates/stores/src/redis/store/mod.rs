//! Redis alone: a sorted set per segment, with the users as members and the slot they were last seen in as score.
//!
//! Works on one server and on a cluster, where the keys of a segment are on one node. A call is as durable as the
//! server's persistence makes it, which the store asks about and says in the log (see [`Survey`]).
//!
//! **The list of segments** is a key of its own, on a cluster maybe on another node. A segment is on it before its
//! pairs are written, and each write says again that it is in use; archiving takes only those off that were empty and
//! unused for a day. So no acknowledged pair is out of sight, whoever crashes in between.

mod archive;
mod asks;
mod error;
mod export;
mod keys;
mod list;
mod options;
mod prepare;
mod scripts;
mod setup;
mod survey;
mod trend;

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

use self::asks::Asks;
use self::error::nonsense;
use self::prepare::Prepared;
use self::trend::Buckets;
use crate::redis::{Link, Request};
use domain::store::{Archived, PairStore, Remains, StoreError};
use domain::{
    Batch, Count, Erasure, Membership, Segment, Slot, Timestamp, TrendPoint, UserId, Window,
};

/// How long a start waits for a server that may be silent. Many times what one needs that is well.
const START_PATIENCE: Duration = Duration::from_secs(1);
/// Requests sent at once: a few hundred microseconds of the server's time when each is a small one.
const AT_ONCE: usize = 500;
/// Requests of a write sent at once: at most 50,000 pairs, tens of milliseconds of the server's time.
const WRITES_AT_ONCE: usize = 200;
/// Pairs under way to Redis at once, a quarter of a second of its time at worst. More wait here, where waiting does not
/// count as Redis's silence: else a burst would look like a server that is away.
const PAIRS_IN_FLIGHT: usize = 50_000;

/// Pairs in Redis. Instances with equal options share them.
#[derive(Debug)]
pub struct RedisStore {
    options: RedisStoreOptions,
    link: Link,
    asks: Asks,
    prepared: Prepared,
    room: Semaphore,
    closed: AtomicBool,
}

impl RedisStore {
    /// Begins to connect in the background and returns at once, whether Redis is there or not.
    pub fn open(options: RedisStoreOptions) -> Result<Self, StoreError> {
        if tokio::runtime::Handle::try_current().is_err() {
            let problem = "no tokio runtime is running".to_owned();
            return Err(StoreError::Unavailable(problem));
        }
        Ok(Self {
            link: Link::open(options.link()),
            asks: Asks::new(&options.prefix),
            prepared: Prepared::default(),
            room: Semaphore::new(PAIRS_IN_FLIGHT),
            options,
            closed: AtomicBool::new(false),
        })
    }

    /// What the server said of its persistence when it was asked last; `None` before the first time.
    pub fn survey(&self) -> Option<Survey> {
        self.prepared.survey()
    }

    fn check_open(&self) -> Result<(), StoreError> {
        if self.closed.load(Ordering::Acquire) {
            return Err(StoreError::Closed);
        }
        Ok(())
    }

    /// The answer to one request that may be repeated.
    async fn ask<T: FromRedisValue>(&self, request: Request<'_>) -> Result<T, StoreError> {
        let mut answers = self.link.ask_again(&[request]).await?;
        parse(answers.pop().ok_or_else(|| nonsense("nothing"))?)
    }

    /// The answers to many requests that may be repeated, in order.
    async fn ask_all<T: FromRedisValue>(
        &self,
        requests: &[Request<'_>],
    ) -> Result<Vec<T>, StoreError> {
        let mut answers = Vec::with_capacity(requests.len());
        for part in requests.chunks(AT_ONCE) {
            for answer in self.link.ask_again(part).await? {
                answers.push(parse(answer)?);
            }
        }
        if answers.len() != requests.len() {
            return Err(nonsense("another number of answers than requests"));
        }
        Ok(answers)
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
        // A batch larger than all the room has it to itself.
        let pairs = u32::try_from(batch.len().min(PAIRS_IN_FLIGHT)).unwrap_or(u32::MAX);
        let room = self.room.acquire_many(pairs).await;
        let _room = room.map_err(|_| StoreError::Closed)?;
        let mut requests = self.asks.announce(batch.segments());
        if self.options.server.is_cluster {
            // Another node may have the list; one server does things in the order in which they come.
            self.link.ask_again(&requests).await?;
            requests.clear();
        }
        requests.extend(self.asks.add(batch));
        for part in requests.chunks(WRITES_AT_ONCE) {
            self.link.ask_again(part).await?;
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
        let users = self.ask(self.asks.count(segment, &slots)).await?;
        Ok(Count { users, as_of })
    }

    async fn segments(&self, as_of: Timestamp) -> Result<Vec<Segment>, StoreError> {
        self.ready().await?;
        let slots = self.full_window_as_of(as_of);
        let listed = self.listed().await?;
        let counts: Vec<_> = listed
            .keys()
            .map(|it| self.asks.count(it, &slots))
            .collect();
        let counts: Vec<u64> = self.ask_all(&counts).await?;
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
            .map(|it| self.asks.slot_of(it, user))
            .collect();
        let found: Vec<Option<u64>> = self.ask_all(&requests).await?;
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
        let requests: Vec<_> = listed.keys().map(|it| self.asks.forget(it, user)).collect();
        let mut erased = 0;
        // Not repeated by itself: a second try would find less than the first one erased.
        for part in requests.chunks(AT_ONCE) {
            for answer in self.link.ask(part).await? {
                let slot: Option<u64> = parse(answer)?;
                erased += u64::from(slot.is_some_and(|slot| slots.contains(&Slot::new(slot))));
            }
        }
        Ok(erased)
    }

    async fn note_erasure(&self, erasure: &Erasure) -> Result<(), StoreError> {
        self.ready().await?;
        let first = *self.full_window_as_of(erasure.at()).start();
        let reached = self.options.frame.resolution().start_of(first);
        let requests = self.asks.note_erasure(erasure, reached);
        self.ask_all::<u64>(&requests).await?;
        Ok(())
    }

    async fn erasures(&self, since: Timestamp) -> Result<Vec<Erasure>, StoreError> {
        self.ready().await?;
        let noted: Vec<(String, f64)> = self.ask(self.asks.erasures(since)).await?;
        let read = |(mark, at): (String, f64)| {
            // Microseconds until the year 2255 are whole numbers there.
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
        let requests: Vec<_> = points.iter().map(|it| self.asks.add_point(it)).collect();
        self.ask_all::<Value>(&requests).await?;
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
        // Points keep whole seconds.
        let first = from.as_second() + i64::from(from.subsec_nanosecond() > 0);
        let (first, last) = (u64::try_from(first), u64::try_from(to.as_second()));
        let Ok(last) = last else {
            return Ok(Vec::new());
        };
        let seconds = first.unwrap_or(0)..=last;
        let newest: Option<u64> = self.ask(self.asks.newest_point(segment, window)).await?;
        let Some(newest) = newest else {
            return Ok(Vec::new());
        };
        let buckets = Buckets::of(self.asks.keys.trend(segment, window));
        let found: Vec<Vec<(String, String)>> =
            self.ask_all(&buckets.read(&seconds, newest)).await?;
        trend::points(found.into_iter().flatten(), &seconds)
            .ok_or_else(|| StoreError::Damaged("redis has a trend that is none".to_owned()))
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.check_open()?;
        self.link.ping().await?;
        self.look_again().await
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.closed.store(true, Ordering::Release);
        Ok(())
    }
}

/// A store for a start. A Redis that is unavailable does not stop it; one that holds slots of another length does.
pub async fn open(options: RedisStoreOptions) -> Result<Arc<RedisStore>, StoreError> {
    let store = RedisStore::open(options)?;
    match timeout(START_PATIENCE, store.ready()).await {
        Ok(Err(StoreError::Damaged(reason))) => Err(StoreError::Rejected(reason)),
        // Whoever asks the store next says so.
        Ok(Ok(()) | Err(_)) | Err(_) => Ok(Arc::new(store)),
    }
}

fn parse<T: FromRedisValue>(value: Value) -> Result<T, StoreError> {
    T::from_redis_value(value).map_err(nonsense)
}
