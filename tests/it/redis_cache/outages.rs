//! Servers that are down, killed, paused, slow or cut off: calls fail fast, and the cache recovers.

use domain::Segment;
use domain::cache::{CacheError, CountCache};
use futures::FutureExt;
use stores::redis::cache::{RedisCache, RedisCacheOptions};

use super::{
    GENEROUS, cache_with_default_timeouts, cache_with_long_timeouts, count, options, refresh,
    served, served_refresh, served_users, sports, wait_until_it_serves, window,
};
use crate::support::proxy::Proxy;
use crate::support::redis::{Redis, RedisCluster};

/// The first calls fail after their timeout, and all later ones immediately: their future is ready when it is first
/// polled.
async fn assert_fails_fast(cache: &RedisCache, what: &str) {
    let mut waited = 0;
    for _ in 0..200 {
        // A new budget. Otherwise tokio may make a future yield that could proceed.
        tokio::task::yield_now().await;
        let segment = sports();
        let mut call = std::pin::pin!(cache.get(&segment, window()));
        let failed = match call.as_mut().now_or_never() {
            Some(failed) => failed,
            None => {
                waited += 1;
                call.await
            }
        };
        assert!(failed.is_err(), "{what}: {failed:?}");
    }
    assert!(waited <= 10, "{what}: {waited} of 200 calls waited");
}

#[tokio::test]
async fn a_server_that_starts_late_is_used() {
    let Some(mut redis) = Redis::start().await else {
        return;
    };
    redis.kill();
    let cache = cache_with_default_timeouts(&redis.url());
    assert_fails_fast(&cache, "down at the start").await;
    redis.restart();
    served_refresh(&cache, 1).await;
}

#[tokio::test]
async fn a_server_that_was_killed_is_used_after_its_restart() {
    let Some(mut redis) = Redis::start().await else {
        return;
    };
    let cache = cache_with_default_timeouts(&redis.url());
    served_refresh(&cache, 1).await;
    redis.kill();
    assert_fails_fast(&cache, "killed").await;
    redis.restart();
    let kept = served(async || cache.get(&sports(), window()).await).await;
    assert_eq!(kept, None, "nothing was kept");
    served_refresh(&cache, 1).await;
}

#[tokio::test]
async fn a_paused_server_fails_fast_and_is_used_once_resumed() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    let cache = cache_with_default_timeouts(&redis.url());
    served_refresh(&cache, 1).await;
    redis.pause();
    assert_fails_fast(&cache, "paused").await;
    redis.resume();
    assert_eq!(served_users(&cache).await, Some(1));
}

/// A slow response costs a reader at most the timeout of its own request, and does not make later readers bypass the
/// cache.
#[tokio::test]
async fn a_slow_response_does_not_make_later_reads_bypass_the_cache() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    let options = RedisCacheOptions {
        // Long, so that a busy machine is not treated as an unavailable server.
        connect_timeout: 4 * GENEROUS,
        ..options(&redis.url(), "headcount")
    };
    let cache = RedisCache::open(options).unwrap();
    wait_until_it_serves(&cache).await;
    refresh(&*cache_with_long_timeouts(&redis.url(), "headcount"), 1).await;

    redis.pause();
    let (sports, window) = (sports(), window());
    let calls = (0..100).map(|_| cache.get(&sports, window));
    for result in futures::future::join_all(calls).await {
        let error = result.unwrap_err();
        assert!(matches!(error, CacheError::Timeout), "{error:?}");
    }
    let error = cache.get(&sports, window).await.unwrap_err();
    assert!(
        matches!(error, CacheError::Timeout),
        "a hundred slow calls at once do not fail later ones: {error:?}"
    );
    redis.resume();
    loop {
        match cache.get(&sports, window).await {
            Ok(cached) => break assert_eq!(cached, Some(count(1))),
            Err(error) => assert!(matches!(error, CacheError::Timeout), "{error:?}"),
        }
    }
}

#[tokio::test]
async fn dropped_packets_and_cut_connections_fail_fast() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    let proxy = Proxy::to(redis.port()).await;
    let cache = cache_with_default_timeouts(&format!("redis://{}", proxy.address()));
    served_refresh(&cache, 1).await;
    proxy.stall();
    assert_fails_fast(&cache, "packets dropped").await;
    proxy.restore();
    wait_until_it_serves(&cache).await;
    proxy.cut();
    assert_fails_fast(&cache, "connections cut").await;
    proxy.restore();
    assert_eq!(served_users(&cache).await, Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_recovers_when_a_lost_node_returns() {
    let Some(mut cluster) = RedisCluster::start().await else {
        return;
    };
    let cache = cache_with_default_timeouts(&cluster.url());
    let names: Vec<_> = (0..30)
        .map(|index| Segment::new(&format!("s{index}")).unwrap())
        .collect();
    for name in &names {
        served(async || cache.put(name, window(), count(1)).await).await;
    }
    cluster.nodes()[2].kill();
    for name in names.iter().cycle().take(150) {
        // Some fail, and every call returns.
        let _ = cache.get(name, window()).await;
    }
    cluster.nodes()[2].restart();
    for name in &names {
        served(async || cache.get(name, window()).await).await;
    }
}
