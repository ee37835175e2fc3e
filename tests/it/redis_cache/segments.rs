//! The list of segments is complete or known to be incomplete: after lost data, an older state and missing permissions.

use std::time::Duration;

use domain::cache::CountCache;

use super::{cache_with_long_timeouts, count, refresh, sports, wait_until_it_serves, window};
use crate::support::redis::Redis;

const MINUTE: Duration = Duration::from_mins(1);

#[tokio::test]
async fn a_lost_list_is_incomplete() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    let cache = cache_with_long_timeouts(&redis.url(), "headcount");
    let is_complete = async || cache.segments().await.unwrap().complete;
    for lose in [&["FLUSHALL"][..], &["DEL", "headcount:segments"]] {
        cache.complete_segments(&[sports()], MINUTE).await.unwrap();
        assert!(is_complete().await);
        redis.cli(lose);
        // The scripts are lost as well, as after a restart.
        redis.cli(&["SCRIPT", "FLUSH"]);
        cache.note_segments(&[sports()]).await.unwrap();
        assert!(!is_complete().await, "{lose:?}");
    }
    refresh(&*cache, 7).await;
    let kept = cache.get(&sports(), window()).await.unwrap();
    assert_eq!(kept, Some(count(7)));
}

#[tokio::test]
async fn an_older_state_after_a_restart_is_recognised() {
    let Some(mut redis) = Redis::start_with(&["--save", "", "--appendonly", "no"]).await else {
        return;
    };
    let cache = cache_with_long_timeouts(&redis.url(), "headcount");
    refresh(&*cache, 1).await;
    cache.complete_segments(&[], MINUTE).await.unwrap();
    redis.cli(&["SAVE"]);
    assert!(cache.segments().await.unwrap().complete);
    redis.kill();
    redis.restart();
    wait_until_it_serves(&cache).await;
    // The server restarts from the snapshot.
    let kept = cache.get(&sports(), window()).await.unwrap();
    assert_eq!(kept, Some(count(1)));
    assert!(
        !cache.segments().await.unwrap().complete,
        "the list may lack later segments"
    );
}

#[tokio::test]
async fn a_user_without_the_info_command_gets_an_incomplete_list() {
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
    refresh(&*cache, 3).await;
    let kept = cache.get(&sports(), window()).await.unwrap();
    assert_eq!(kept, Some(count(3)));
    cache.complete_segments(&[sports()], MINUTE).await.unwrap();
    let listed = cache.segments().await.unwrap();
    assert_eq!((listed.names, listed.complete), (vec![sports()], false));
}

/// Version 0.1.0 had other keys. They are no counts, and nothing fails.
#[tokio::test]
async fn keys_of_an_earlier_version_do_not_matter() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    let cache = cache_with_long_timeouts(&redis.url(), "headcount");
    let earlier = ["users", "9", "as_of", "1795867230000000", "noted", "0"];
    for key in [
        "headcount:{sports}:count:3600",
        "headcount:{sports}:pending",
    ] {
        redis.cli(&[&["HSET", key][..], &earlier].concat());
    }
    assert_eq!(cache.get(&sports(), window()).await.unwrap(), None);
    refresh(&*cache, 1).await;
    let kept = cache.get(&sports(), window()).await.unwrap();
    assert_eq!(kept, Some(count(1)));
}
