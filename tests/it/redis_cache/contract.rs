//! The contract of the port, on one server and on a cluster, for one client and for several.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use domain::cache::conformance::{check_cache, check_removal};
use domain::cache::{CountCache, KEEP_NOTED, LockToken};
use domain::{Count, Segment, Timestamp};

use super::{cache_with_long_timeouts, count, refresh, sports, window};
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
    let cache = cache_with_long_timeouts(&url, "removal");
    let nodes: Vec<_> = cluster.nodes().iter().collect();
    check_removal(&*cache, async || time_passes(&nodes, "removal:segments")).await;
}

#[tokio::test]
async fn removes_segments_without_users() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    let cache = cache_with_long_timeouts(&redis.url(), "headcount");
    check_removal(&*cache, async || {
        time_passes(&[&redis], "headcount:segments")
    })
    .await;
}

/// Moves the times of all notes back.
fn time_passes(nodes: &[&Redis], list: &str) {
    let by = format!("-{}", KEEP_NOTED.as_millis());
    for node in nodes {
        for member in node.cli(&["ZRANGE", list, "0", "-1"]).lines() {
            node.cli(&["ZINCRBY", list, &by, member]);
        }
    }
}

#[tokio::test]
async fn two_instances_share_counts_segments_and_the_lock() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    let (one, other) = (
        cache_with_long_timeouts(&redis.url(), "both"),
        cache_with_long_timeouts(&redis.url(), "both"),
    );
    refresh(&*one, 5).await;
    let kept = other.get(&sports(), window()).await.unwrap();
    assert_eq!(kept, Some(count(5)));
    let news = Segment::new("news").unwrap();
    let noted = std::slice::from_ref(&news);
    other.note_segments(noted).await.unwrap();
    assert!(one.knows(&news).await.unwrap());

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
    cache.note_segments(&[sports()]).await.unwrap();
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
        assert!(cache.get(&sports(), window()).await.unwrap().is_some());
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
    let now = |users, seconds: i64| {
        let micros = Timestamp::now().as_microsecond() + seconds * 1_000_000;
        let as_of = Timestamp::from_microsecond(micros).unwrap();
        Count { users, as_of }
    };
    let ahead = now(1, 1800);
    let kept = cache.put(&sports(), window(), ahead).await.unwrap();
    assert_eq!(kept.users, 1);
    assert!(kept.as_of <= Timestamp::now(), "{kept:?}");
    let right = now(2, 0);
    let kept = cache.put(&sports(), window(), right).await.unwrap();
    assert_eq!(kept, right, "the count of a right clock is later");

    // A count that was stored unchanged, before the server's clock was set back.
    let stored = format!("1 {}", ahead.as_of.as_microsecond());
    redis.cli(&["HSET", "headcount:{sports}:counts", "3600", &stored]);
    let right = now(3, 0);
    let kept = cache.put(&sports(), window(), right).await.unwrap();
    assert_eq!(kept, right);
}
