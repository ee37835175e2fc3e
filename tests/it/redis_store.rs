//! The Redis store on real servers and a real cluster: the contract of the port, and properties of its own.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use domain::cache::CountCache;
use domain::store::conformance::{Factory, HOSTILE_NAMES, check_store, frame};
use domain::store::{Change, PairStore, StoreError};
use domain::{
    Batch, BatchBuilder, Count, Secret, Segment, Slot, TimeFrame, Timestamp, TrendPoint, UserId,
};
use futures::future::join_all;
use stores::redis::cache::{RedisCache, RedisCacheOptions};
use stores::redis::store::{RedisStore, RedisStoreOptions, set_up};
use stores::redis::{Prefix, RedisServer};

use crate::support::redis::{Redis, RedisCluster};

/// Options with timeouts that a busy machine does not reach.
pub fn options(url: &str, prefix: &str, frame: TimeFrame) -> RedisStoreOptions {
    let server = RedisServer::parse(&Secret::new(url)).unwrap();
    RedisStoreOptions {
        command_timeout: Duration::from_secs(60),
        connect_timeout: Duration::from_secs(20),
        ..RedisStoreOptions::new(server, Prefix::new(prefix).unwrap(), frame)
    }
}

pub fn store(url: &str, prefix: &str) -> Arc<RedisStore> {
    Arc::new(RedisStore::open(options(url, prefix, frame(60))).unwrap())
}

pub fn segment(name: &str) -> Segment {
    Segment::new(name).unwrap()
}

pub fn batch<N: AsRef<str>>(pairs: impl IntoIterator<Item = (N, &'static str, Slot)>) -> Batch {
    let mut builder = BatchBuilder::default();
    for (name, segment, slot) in pairs {
        let user = UserId::new(name.as_ref()).unwrap();
        builder.push_pair(&user, segment, slot).unwrap();
    }
    builder.finish()
}

pub fn present() -> Slot {
    frame(60).resolution().slot_of(Timestamp::now())
}

fn back(slots: u64) -> Slot {
    Slot::new(present().number() - slots)
}

pub async fn users(store: &RedisStore, name: &str) -> u64 {
    let window = frame(60).full_window();
    let now = Timestamp::now();
    store
        .count(&segment(name), window, now)
        .await
        .unwrap()
        .users
}

struct Prefixes {
    url: String,
    made: AtomicU32,
}

#[async_trait]
impl Factory for Prefixes {
    async fn empty(&self, frame: TimeFrame) -> Arc<dyn PairStore> {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        Arc::new(RedisStore::open(options(&self.url, &format!("t{number}"), frame)).unwrap())
    }
}

async fn conforms(url: String) {
    let made = AtomicU32::new(0);
    check_store(&Prefixes { url, made }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keeps_every_promise_of_the_port() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    conforms(redis.url()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keeps_every_promise_on_a_cluster_of_three_masters() {
    let Some(mut cluster) = RedisCluster::start().await else {
        return;
    };
    conforms(cluster.url()).await;
    for node in cluster.nodes() {
        assert_ne!(
            node.cli(&["DBSIZE"]),
            "0",
            "a node of the cluster has no key"
        );
    }
}

#[tokio::test]
async fn shares_a_redis_and_a_prefix_with_the_cache() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    let store = store(&redis.url(), "both");
    let minutes = Duration::from_mins(15);
    let server = RedisServer::parse(&Secret::new(redis.url())).unwrap();
    let cache = RedisCache::open(RedisCacheOptions {
        command_timeout: Duration::from_secs(5),
        ..RedisCacheOptions::new(server, Prefix::new("both").unwrap(), minutes, minutes)
    })
    .unwrap();
    let names = ["store", "segments", "lock", "{store}", "pairs", "a"];
    let mut cached = Vec::new();
    for (index, name) in names.into_iter().enumerate() {
        let pairs = (0..=index).map(|user| (format!("u{user}"), name, present()));
        store.record(&batch(pairs)).await.unwrap();
        let (segment, window) = (segment(name), frame(60).full_window());
        let count = store
            .count(&segment, window, Timestamp::now())
            .await
            .unwrap();
        cache.put(&segment, window, count).await.unwrap();
        cached.push(segment);
    }
    cache.complete_segments(&cached, minutes).await.unwrap();
    for (index, name) in names.into_iter().enumerate() {
        let expected = index as u64 + 1;
        assert_eq!(users(&store, name).await, expected, "{name}");
        let kept = cache.get(&segment(name), frame(60).full_window()).await;
        assert_eq!(kept.unwrap().unwrap().users, expected, "{name}");
    }
    let listed = store.segments(Timestamp::now()).await.unwrap();
    assert_eq!(listed.len(), names.len());
    assert_eq!(cache.segments().await.unwrap().names.len(), names.len());
}

#[tokio::test]
async fn another_resolution_is_refused_with_the_remedy() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    let minutes = options(&redis.url(), "hc", frame(60));
    let second = Duration::from_secs(1);
    let seconds_frame = TimeFrame::new(second * 240, second, second * 60).unwrap();
    let seconds = options(&redis.url(), "hc", seconds_frame);

    // Twice concurrently, and again: it is created once.
    let (one, other) = tokio::join!(set_up(minutes.clone()), set_up(minutes.clone()));
    let mut changes = [one.unwrap().steps[0].change, other.unwrap().steps[0].change];
    changes.sort_by_key(|change| *change == Change::Unchanged);
    assert_eq!(changes, [Change::Created, Change::Unchanged]);
    let again = set_up(minutes.clone()).await.unwrap();
    assert_eq!(again.steps[0].change, Change::Unchanged);
    assert!(
        again.steps[2].what.contains("persistence is off"),
        "{again:?}"
    );

    let refused = set_up(seconds.clone()).await.unwrap_err().to_string();
    assert!(refused.contains("resolution = \"60s\""), "{refused}");
    let store = RedisStore::open(seconds).unwrap();
    let pair = batch([("u", "s", Slot::new(1_795_262_400))]);
    for error in [
        store.record(&pair).await.unwrap_err(),
        store.segments(Timestamp::now()).await.unwrap_err(),
        store.ping().await.unwrap_err(),
    ] {
        assert!(matches!(error, StoreError::Damaged(_)), "{error:?}");
    }
    // A wider window with the same resolution is another query of the same pairs.
    let wider = RedisStore::open(options(&redis.url(), "hc", frame(120))).unwrap();
    wider.ping().await.unwrap();
    redis.cli(&["HSET", "hc:{store}:meta", "format", "2"]);
    let error = wider.ping().await.unwrap_err().to_string();
    assert!(error.contains("format 2"), "{error}");
}

#[tokio::test]
async fn another_user_key_is_refused() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    let with = |user_key: Option<&str>| {
        RedisStore::open(RedisStoreOptions {
            user_key: user_key.map(str::to_owned),
            ..options(&redis.url(), "hc", frame(60))
        })
        .unwrap()
    };
    with(None).ping().await.unwrap();
    let error = with(Some("aa")).ping().await.unwrap_err().to_string();
    assert!(error.contains("without a user_key"), "{error}");
    with(None).ping().await.unwrap();
    // Metadata of an earlier version does not record it.
    redis.cli(&["HDEL", "hc:{store}:meta", "user_key"]);
    with(Some("aa")).ping().await.unwrap();
    for other in [None, Some("bb")] {
        let error = with(other).ping().await.unwrap_err().to_string();
        assert!(error.contains("would count twice"), "{error}");
    }
}

#[tokio::test]
async fn a_flushed_server_is_used_like_a_new_one() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    let store = store(&redis.url(), "hc");
    store.record(&batch([("u", "s", present())])).await.unwrap();
    redis.cli(&["FLUSHALL"]);
    redis.cli(&["SCRIPT", "FLUSH"]);
    assert_eq!(users(&store, "s").await, 0);
    store.ping().await.unwrap();
    store.record(&batch([("v", "s", present())])).await.unwrap();
    assert_eq!(
        store.segments(Timestamp::now()).await.unwrap(),
        [segment("s")]
    );
    assert_eq!(redis.cli(&["HGET", "hc:{store}:meta", "resolution"]), "60");
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_writers_archive_and_counts_lose_nothing() {
    let Some(cluster) = RedisCluster::start().await else {
        return;
    };
    let single = Redis::start().await.unwrap();
    for url in [single.url(), cluster.url()] {
        write_archive_and_count(&store(&url, "hc")).await;
    }
}

/// Every user is first seen long ago and then again now, while old pairs are archived: only pairs that were not seen
/// again may be removed. The test knows the writes and the last slot of each user.
async fn write_archive_and_count(store: &Arc<RedisStore>) {
    const NAMES: [&str; 4] = ["a", "b c", "{d}", "e"];
    const WRITERS: usize = 4;
    const ROUNDS: usize = 30;
    const USERS: usize = 50;
    let now = Timestamp::now();
    let present = frame(60).resolution().slot_of(now);
    let old = Slot::new(present.number() - 100);
    let running = Arc::new(AtomicBool::new(true));
    let archiving = {
        let (store, running) = (Arc::clone(store), Arc::clone(&running));
        tokio::spawn(async move {
            let mut removed = 0;
            while running.load(Ordering::Relaxed) {
                removed += store.archive(now, 37).await.unwrap().removed;
            }
            removed
        })
    };
    let counting = {
        let (store, running) = (Arc::clone(store), Arc::clone(&running));
        tokio::spawn(async move {
            let mut last = HashMap::new();
            while running.load(Ordering::Relaxed) {
                for name in NAMES {
                    let window = frame(60).full_window();
                    let count = store.count(&segment(name), window, now).await.unwrap();
                    let before = last.insert(name, count.users).unwrap_or(0);
                    assert!(count.users >= before, "{name}: a count fell");
                }
            }
        })
    };
    let writing = (0..WRITERS).map(|writer| {
        let store = Arc::clone(store);
        async move {
            for round in 0..ROUNDS {
                let user = |n| format!("w{writer}-{round}-{n}");
                for slot in [old, present] {
                    let again = if slot == old { USERS } else { USERS / 2 };
                    let pairs = NAMES
                        .into_iter()
                        .flat_map(|name| (0..again).map(move |n| (user(n), name, slot)));
                    store.record(&batch(pairs)).await.unwrap();
                }
            }
        }
    });
    join_all(writing).await;
    running.store(false, Ordering::Relaxed);
    counting.await.unwrap();
    let removed = archiving.await.unwrap();
    while !store.archive(now, 1_000).await.unwrap().done {}
    for name in NAMES {
        let expected = WRITERS * ROUNDS * USERS / 2;
        assert_eq!(users(store, name).await, expected as u64, "{name}");
    }
    let listed = store.segments(now).await.unwrap();
    assert_eq!(
        listed.len(),
        NAMES.len(),
        "acknowledged pairs are not listed"
    );
    assert!(removed > 0, "nothing was archived meanwhile");
}

#[tokio::test]
async fn an_empty_segment_leaves_the_list_after_a_long_quiet_period() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    let listed = || redis.cli(&["ZRANGE", "hc:{store}:segments", "0", "-1"]);
    let patient = store(&redis.url(), "hc");
    patient
        .record(&batch([("u", "gone", back(100))]))
        .await
        .unwrap();
    let hasty = RedisStoreOptions {
        quiet: Duration::ZERO,
        ..options(&redis.url(), "hc", frame(60))
    };
    let hasty = RedisStore::open(hasty).unwrap();
    hasty
        .record(&batch([("u", "stays", present())]))
        .await
        .unwrap();
    let now = Timestamp::now();
    assert_eq!(patient.archive(now, 10).await.unwrap().removed, 1);
    patient.archive(now, 10).await.unwrap();
    assert_eq!(listed(), "gone\nstays", "its last pair came today");
    hasty.archive(now, 10).await.unwrap();
    assert_eq!(listed(), "stays");
    assert_eq!(redis.cli(&["EXISTS", "hc:{gone}:pairs"]), "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn load_beyond_the_capacity_of_redis_waits_and_is_not_an_outage() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    // Executing all of it takes the server longer than this.
    let server = RedisServer::parse(&Secret::new(redis.url())).unwrap();
    let options = RedisStoreOptions {
        command_timeout: Duration::from_millis(1_500),
        ..RedisStoreOptions::new(server, Prefix::new("hc").unwrap(), frame(60))
    };
    let store = RedisStore::open(options).unwrap();
    let bursts = (0..120).map(|writer| {
        let pairs = (0..20_000).map(move |n| (format!("w{}-{n}", writer % 60), "s", present()));
        let (batch, store) = (batch(pairs), &store);
        async move { store.record(&batch).await.unwrap() }
    });
    join_all(bursts).await;
    assert_eq!(users(&store, "s").await, 1_200_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_misses_no_user_while_pairs_move() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    let store = store(&redis.url(), "hc");
    const USERS: usize = 30_000;
    // One current slot for all pairs: a minute that ends between two pages would move users past the last of them.
    let now = present();
    let back = move |slots: u64| Slot::new(now.number() - slots);
    // Nearly all in one slot, several pages of it.
    let slot = |n: usize| back(if n.is_multiple_of(10) { 6 } else { 5 });
    let all = (0..USERS).map(|n| (format!("u{n}"), "s", slot(n)));
    store.record(&batch(all)).await.unwrap();
    let running = Arc::new(AtomicBool::new(true));
    let moving = {
        let (store, running) = (Arc::clone(&store), Arc::clone(&running));
        tokio::spawn(async move {
            let mut random = fastrand::Rng::with_seed(3);
            while running.load(Ordering::Relaxed) {
                let some = (0..200).map(|_| {
                    let to = back(random.u64(0..5));
                    (format!("u{}", random.usize(..USERS)), "s", to)
                });
                store
                    .record(&batch(some.collect::<Vec<_>>()))
                    .await
                    .unwrap();
            }
        })
    };
    for _ in 0..5 {
        let mut found = BTreeSet::new();
        for slots in [
            back(60)..=back(6),
            back(5)..=back(5),
            back(4)..=back(1),
            back(0)..=now,
        ] {
            let exported = store.export(&segment("s"), slots.clone()).await.unwrap();
            for pair in exported.pairs() {
                assert!(slots.contains(&pair.slot));
                found.insert(pair.user.as_str().to_owned());
            }
        }
        assert_eq!(found.len(), USERS);
    }
    running.store(false, Ordering::Relaxed);
    moving.await.unwrap();
    for name in HOSTILE_NAMES {
        let mut one = BatchBuilder::default();
        let user = UserId::new(*name).unwrap();
        one.push_pair(&user, name, back(3)).unwrap();
        store.record(&one.finish()).await.unwrap();
        let exported = store
            .export(&segment(name), back(9)..=present())
            .await
            .unwrap();
        let pairs: Vec<_> = exported
            .pairs()
            .map(|pair| pair.user.as_str().to_owned())
            .collect();
        assert_eq!(pairs, [*name]);
    }
}

#[tokio::test]
async fn a_trend_is_kept_for_400_days_and_in_full_for_two() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    let store = store(&redis.url(), "hc");
    let window = frame(60).full_window();
    let newest = Timestamp::now().as_second() / 60 * 60;
    let point = |minutes_back: i64, users| TrendPoint {
        segment: segment("s"),
        window,
        count: Count {
            users,
            as_of: Timestamp::from_second(newest - 60 * minutes_back).unwrap(),
        },
    };
    // A point every ten minutes for 30 days, unsorted, and one from more than a year ago.
    let mut points: Vec<_> = (0..30 * 144)
        .map(|n| point(n * 10, n.unsigned_abs()))
        .collect();
    points.push(point(395 * 1440, 7));
    fastrand::Rng::with_seed(1).shuffle(&mut points);
    store.record_trend(&points).await.unwrap();
    let read = async |from: i64, to: i64| {
        let at = |second| Timestamp::from_second(second).unwrap();
        let read = store.trend(&segment("s"), window, at(from), at(to)).await;
        let read = read.unwrap();
        assert!(read.is_sorted_by(|a, b| a.as_of < b.as_of));
        read
    };
    assert_eq!(read(newest - 86_400, newest).await.len(), 145);
    let all = read(0, newest + 1_000_000_000).await;
    // All points of two days and, depending on the time of day, of 4 to 8 more hours. For earlier times, the last point
    // of each hour. Each of those extra hours adds five points. The newest hour and that of more than a year ago may
    // add one each.
    let of_two_days = 28 * 24 + 2 * 144;
    let more = of_two_days + 4 * 5..=of_two_days + 8 * 5 + 2;
    assert!(more.contains(&all.len()), "{}", all.len());
    assert_eq!(all[0].users, 7);
    for key in redis.cli(&["KEYS", "*:trend:*"]).lines() {
        let ttl: i64 = redis.cli(&["TTL", key]).parse().unwrap();
        let days = if key.contains(":fine:") { 2 } else { 400 };
        assert!(
            (days * 86_400 - 600..=days * 86_400).contains(&ttl),
            "{key}: {ttl}"
        );
        let encoding = redis.cli(&["OBJECT", "ENCODING", key]);
        assert!(
            matches!(&*encoding, "listpack" | "ziplist" | "int"),
            "{key}: {encoding}"
        );
    }
}
