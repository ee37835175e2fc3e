//! Pending counters are exact or unknown: after lost data, failed increments, refused writes and missing permissions.

use std::time::Duration;

use domain::cache::{Cached, CountCache};

use super::{
    cache_with_default_timeouts, cache_with_long_timeouts, count, pending, refresh, served,
    served_pending, served_refresh, sports, wait_until_it_serves, window,
};
use crate::support::proxy::Proxy;
use crate::support::redis::Redis;

#[tokio::test]
async fn a_flush_makes_pending_unknown_until_the_next_refresh() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    let cache = cache_with_long_timeouts(&redis.url(), "headcount");
    cache.add_pending(&[(sports(), 7)]).await.unwrap();
    let mark = cache.mark(&sports()).await.unwrap();
    redis.cli(&["FLUSHALL"]);
    // The scripts are lost as well, as after a restart.
    redis.cli(&["SCRIPT", "FLUSH"]);
    cache.add_pending(&[(sports(), 7)]).await.unwrap();
    cache
        .put(&sports(), window(), count(7), mark)
        .await
        .unwrap();
    assert_eq!(pending(&*cache).await, None);
    refresh(&*cache, 14).await;
    assert_eq!(pending(&*cache).await, Some(0));

    redis.cli(&["DEL", "headcount:{sports}:pending"]);
    assert_eq!(pending(&*cache).await, None, "evicted counters");
    cache.add_pending(&[(sports(), 1)]).await.unwrap();
    assert_eq!(
        pending(&*cache).await,
        None,
        "evicted counters that restarted at 0"
    );
    refresh(&*cache, 15).await;
    cache.add_pending(&[(sports(), 1)]).await.unwrap();
    assert_eq!(pending(&*cache).await, Some(1));
    redis.cli(&["DEL", "headcount:segments"]);
    cache
        .complete_segments(&[sports()], Duration::from_secs(60))
        .await
        .unwrap();
    assert!(cache.segments().await.unwrap().complete);
    redis.cli(&["DEL", "headcount:segments"]);
    assert!(
        !cache.segments().await.unwrap().complete,
        "a lost list is incomplete"
    );
}

#[tokio::test]
async fn an_older_state_after_a_restart_is_recognised() {
    let Some(mut redis) = Redis::start_with(&["--save", "", "--appendonly", "no"]).await else {
        return;
    };
    let cache = cache_with_long_timeouts(&redis.url(), "headcount");
    cache.add_pending(&[(sports(), 1)]).await.unwrap();
    refresh(&*cache, 1).await;
    cache
        .complete_segments(&[], Duration::from_secs(60))
        .await
        .unwrap();
    redis.cli(&["SAVE"]);
    cache.add_pending(&[(sports(), 10)]).await.unwrap();
    assert_eq!(pending(&*cache).await, Some(10));
    redis.kill();
    redis.restart();
    wait_until_it_serves(&cache).await;
    // The server restarts from the snapshot, without the ten.
    let cached = cache.get(&sports(), window()).await.unwrap().unwrap();
    assert_eq!(
        cached,
        Cached {
            count: count(1),
            pending: None
        }
    );
    assert!(
        !cache.segments().await.unwrap().complete,
        "the list may lack later segments"
    );
    cache.add_pending(&[(sports(), 1)]).await.unwrap();
    assert_eq!(pending(&*cache).await, None);
    refresh(&*cache, 12).await;
    assert_eq!(pending(&*cache).await, Some(0));
}

#[tokio::test]
async fn a_failed_increment_makes_pending_unknown_immediately() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    let proxy = Proxy::to(redis.port()).await;
    let cache = cache_with_default_timeouts(&format!("redis://{}", proxy.address()));
    served_refresh(&cache, 1).await;
    proxy.cut();
    cache.add_pending(&[(sports(), 1)]).await.unwrap_err();
    cache.mark_pending_unknown(&[sports()]).await.unwrap_err();
    proxy.restore();
    assert_eq!(
        served_pending(&cache).await,
        None,
        "this instance knows that an increment is missing"
    );
    served(async || cache.mark_pending_unknown(&[sports()]).await).await;
    let other = cache_with_long_timeouts(&redis.url(), "headcount");
    assert_eq!(pending(&*other).await, None, "now all instances know");
    served_refresh(&cache, 2).await;
    assert_eq!(served_pending(&cache).await, Some(0));
}

#[tokio::test]
async fn a_server_that_refuses_writes_makes_pending_unknown_to_all_instances() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    let writer = cache_with_long_timeouts(&redis.url(), "headcount");
    let reader = cache_with_long_timeouts(&redis.url(), "headcount");
    refresh(&*writer, 5).await;

    // As if the disk were full or the replicas unavailable.
    redis.cli(&["CONFIG", "SET", "min-replicas-to-write", "1"]);
    writer.add_pending(&[(sports(), 1)]).await.unwrap_err();
    let counted = Some(Cached {
        count: count(5),
        pending: None,
    });
    assert_eq!(reader.get(&sports(), window()).await.unwrap(), counted);
    redis.cli(&["CONFIG", "SET", "min-replicas-to-write", "0"]);
    refresh(&*writer, 6).await;
    writer.mark_pending_unknown(&[sports()]).await.unwrap();
    refresh(&*writer, 6).await;
    assert_eq!(pending(&*reader).await, Some(0));

    redis.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    writer.add_pending(&[(sports(), 1)]).await.unwrap_err();
    writer.mark_pending_unknown(&[sports()]).await.unwrap_err();
    assert_eq!(
        pending(&*reader).await,
        None,
        "the gap is known although memory is full"
    );
    redis.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    refresh(&*writer, 7).await;
    assert_eq!(pending(&*reader).await, Some(0));
    assert_eq!(
        pending(&*writer).await,
        None,
        "the writer has not reported the gap yet"
    );
}

#[tokio::test]
async fn a_user_without_the_info_command_gets_counts_without_pending() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    let made = redis.cli(&[
        "ACL",
        "SETUSER",
        "joe",
        "on",
        ">pw",
        "~*",
        "+@all",
        "-@dangerous",
    ]);
    assert_eq!(made, "OK");
    let cache = cache_with_long_timeouts(
        &format!("redis://joe:pw@127.0.0.1:{}", redis.port()),
        "headcount",
    );
    cache.add_pending(&[(sports(), 1)]).await.unwrap();
    refresh(&*cache, 3).await;
    let cached = cache.get(&sports(), window()).await.unwrap();
    assert_eq!(
        cached,
        Some(Cached {
            count: count(3),
            pending: None
        })
    );
}
