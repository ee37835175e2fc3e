//! Failovers to a replica, with and without a cluster.

use std::time::{Duration, Instant};

use domain::Segment;
use domain::cache::{CacheError, CountCache};

use super::{
    RECOVERY, cache_with_long_timeouts, count, refresh, sports, wait_until_it_serves, window,
};
use crate::support::proxy::Proxy;
use crate::support::redis::{Redis, RedisCluster};

#[tokio::test]
async fn a_failover_that_keeps_sessions_is_followed() {
    let Some((former, promoted)) = Redis::pair().await else {
        return;
    };
    let proxy = Proxy::to(former.port()).await;
    let cache = cache_with_long_timeouts(&format!("redis://{}", proxy.address()), "headcount");
    refresh(&*cache, 1).await;

    assert_eq!(promoted.cli(&["REPLICAOF", "NO", "ONE"]), "OK");
    former.follow(&promoted).await;
    // The address leads to the demoted server, which responds to every `PING` and accepts no write.
    cache.note_segments(&[sports()]).await.unwrap_err();
    let began = Instant::now();
    let error = loop {
        match cache.ping().await {
            Err(CacheError::Unavailable(text)) => break text,
            other => assert!(began.elapsed() < RECOVERY, "{other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert!(error.contains("is a read-only replica"), "{error}");

    proxy.redirect_to(promoted.port());
    wait_until_it_serves(&cache).await;
    cache.note_segments(&[sports()]).await.unwrap();
    refresh(&*cache, 3).await;
    let stored = promoted.cli(&["HGET", "headcount:{sports}:counts", "3600"]);
    assert!(stored.starts_with("3 "), "{stored}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failover_in_a_cluster_is_followed() {
    let Some(mut cluster) = RedisCluster::start().await else {
        return;
    };
    cluster.add_replica().await;
    let cache = cache_with_long_timeouts(&cluster.url(), "headcount");
    let names: Vec<_> = (0..30)
        .map(|index| Segment::new(&format!("s{index}")).unwrap())
        .collect();
    let put = async |users| {
        for name in &names {
            let began = Instant::now();
            loop {
                match cache.put(name, window(), count(users)).await {
                    Ok(kept) => break assert_eq!(kept, count(users)),
                    Err(error) => assert!(began.elapsed() < 6 * RECOVERY, "{name}: {error}"),
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    };
    put(1).await;
    let replica = cluster.nodes().last().unwrap();
    assert_eq!(replica.cli(&["CLUSTER", "FAILOVER"]), "OK");
    let began = Instant::now();
    while !replica.cli(&["ROLE"]).starts_with("master") {
        assert!(began.elapsed() < 6 * RECOVERY, "no failover");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    put(2).await;
    let cached = cache.get_many(&names, window()).await.unwrap();
    assert!(cached.iter().all(|it| *it == Some(count(2))));
}
