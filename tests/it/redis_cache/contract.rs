//! The contract of the port, on one server and on a cluster, for one client and for several.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use domain::cache::conformance::{check_cache, check_scenario};
use domain::cache::{Cached, CountCache, LockToken};
use domain::{Count, Timestamp};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use stores::redis::cache::RedisCache;

use super::{cache_with_long_timeouts, count, pending, refresh, sports, window};
use crate::support::redis::{Redis, RedisCluster};

fn next_prefix() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("test{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

#[tokio::test]
async fn keeps_the_promises_of_a_count_cache() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    let url = redis.url();
    check_cache(async || cache_with_long_timeouts(&url, &next_prefix()) as Arc<dyn CountCache>)
        .await;
    let keys = redis.cli(&["KEYS", "*"]);
    for key in keys.lines().filter(|key| !key.is_empty()) {
        let ttl: i64 = redis.cli(&["PTTL", key]).parse().unwrap();
        assert!(ttl > 0, "{key} has no TTL");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keeps_the_promises_on_a_cluster() {
    let Some(mut cluster) = RedisCluster::start().await else {
        return;
    };
    let url = cluster.url();
    check_cache(async || cache_with_long_timeouts(&url, &next_prefix()) as Arc<dyn CountCache>)
        .await;
    for node in cluster.nodes() {
        assert_ne!(
            node.cli(&["DBSIZE"]),
            "0",
            "a node of the cluster has no key"
        );
    }
    let one = cache_with_long_timeouts(&url, "both");
    let other = cache_with_long_timeouts(&url, "both");
    check_scenarios(one, other, 16, || {
        for node in cluster.nodes() {
            node.cli(&["FLUSHALL"]);
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn users_plus_pending_is_never_too_low() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    let one = cache_with_long_timeouts(&redis.url(), "both");
    let other = cache_with_long_timeouts(&redis.url(), "both");
    check_scenarios(one, other, 64, || {
        redis.cli(&["FLUSHALL"]);
    });
}

/// Random interleavings of two clients and of the loss of all data.
fn check_scenarios(
    one: Arc<RedisCache>,
    other: Arc<RedisCache>,
    cases: u32,
    mut flush: impl FnMut(),
) {
    let flush = std::cell::RefCell::new(&mut flush);
    let mut runner = TestRunner::new(Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    });
    let checked = runner.run(&proptest::collection::vec(any::<u8>(), 0..60), |script| {
        flush.borrow_mut()();
        let forget = async || flush.borrow_mut()();
        let clients: [&dyn CountCache; 2] = [&*one, &*other];
        tokio::task::block_in_place(|| {
            let runtime = tokio::runtime::Handle::current();
            runtime.block_on(check_scenario(&clients, &script, forget));
        });
        Ok(())
    });
    if let Err(error) = checked {
        panic!("{error}");
    }
}

#[tokio::test]
async fn two_instances_share_counters_and_the_lock() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    let (one, other) = (
        cache_with_long_timeouts(&redis.url(), "both"),
        cache_with_long_timeouts(&redis.url(), "both"),
    );
    refresh(&*one, 5).await;
    other.add_pending(&[(sports(), 2)]).await.unwrap();
    one.add_pending(&[(sports(), 1)]).await.unwrap();
    let expected = Some(Cached {
        count: count(5),
        pending: Some(3),
    });
    assert_eq!(one.get(&sports(), window()).await.unwrap(), expected);
    assert_eq!(other.get(&sports(), window()).await.unwrap(), expected);

    let minute = Duration::from_secs(60);
    let (ours, theirs) = (LockToken::random(), LockToken::random());
    assert!(one.lock(&ours, minute).await.unwrap());
    assert!(!other.lock(&theirs, minute).await.unwrap());
    one.unlock(&ours).await.unwrap();
    assert!(other.lock(&theirs, minute).await.unwrap());
    one.note_run(minute).await.unwrap();
    let ago = other.last_run().await.unwrap().unwrap();
    assert!(ago >= minute, "both know of the run: {ago:?}");
}

#[tokio::test]
async fn reads_do_not_write() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    let cache = cache_with_long_timeouts(&redis.url(), "headcount");
    refresh(&*cache, 1).await;
    cache.add_pending(&[(sports(), 1)]).await.unwrap();
    let minute = Duration::from_mins(1);
    cache.complete_segments(&[sports()], minute).await.unwrap();
    let changes = || {
        let info = redis.cli(&["INFO", "persistence"]);
        let of = |line: &str| {
            line.strip_prefix("rdb_changes_since_last_save:")
                .map(str::to_owned)
        };
        info.lines().find_map(of).unwrap()
    };
    let before = changes();
    for _ in 0..10 {
        assert_eq!(pending(&*cache).await, Some(1));
        cache.get_many(&[sports()], window()).await.unwrap();
        assert_eq!(cache.segments().await.unwrap().names, [sports()]);
        cache.ping().await.unwrap();
    }
    assert_eq!(changes(), before);
}

/// A count by a clock that is ahead must neither look new nor block later counts until that time has come.
#[tokio::test]
async fn a_count_from_the_future_is_stored_as_of_now() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    let cache = cache_with_long_timeouts(&redis.url(), "headcount");
    let mark = cache.mark(&sports()).await.unwrap();
    let now = |users, seconds: i64| {
        let micros = Timestamp::now().as_microsecond() + seconds * 1_000_000;
        let as_of = Timestamp::from_microsecond(micros).unwrap();
        Count { users, as_of }
    };
    let ahead = now(1, 1800);
    let kept = cache.put(&sports(), window(), ahead, mark).await.unwrap();
    let kept = kept.unwrap().count;
    assert_eq!(kept.users, 1);
    assert!(kept.as_of <= Timestamp::now(), "{kept:?}");
    let right = now(2, 0);
    let kept = cache.put(&sports(), window(), right, mark).await.unwrap();
    assert_eq!(
        kept.unwrap().count,
        right,
        "the count of a right clock is later"
    );

    // A count that an earlier version stored unchanged.
    let key = "headcount:{sports}:count:3600";
    let micros = ahead.as_of.as_microsecond().to_string();
    redis.cli(&["HSET", key, "as_of", &micros]);
    let right = now(3, 0);
    let kept = cache.put(&sports(), window(), right, mark).await.unwrap();
    assert_eq!(kept.unwrap().count, right);
}
