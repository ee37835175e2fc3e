//! Lists of all segments: their queries, the state of each segment, and completeness.

use std::sync::Arc;
use std::time::Duration;

use domain::Clock;
use engine::counts::Listed;

use crate::support::rig::{CACHE_TTL, Rig, name, settle};

const PAST_CACHE_TTL: Duration = Duration::from_secs(CACHE_TTL.as_secs() + 1);

/// The name, users and `stale` of each row.
fn rows(list: &[Listed]) -> Vec<(&str, Option<u64>, bool)> {
    let row = |listed: &'_ Listed| (listed.count.map(|count| count.users), listed.stale);
    list.iter()
        .map(|listed| {
            let (users, stale) = row(listed);
            (listed.segment.as_str(), users, stale)
        })
        .collect()
}

#[tokio::test]
async fn concurrent_lists_share_one_query() {
    let rig = Arc::new(Rig::new().await);
    rig.record_in(&["u1"], &["a", "b"]).await;
    rig.store.hold_lists();
    let lists: Vec<_> = (0..50)
        .map(|_| {
            let rig = Arc::clone(&rig);
            tokio::spawn(async move { rig.list().await })
        })
        .collect();
    settle().await;
    assert_eq!(rig.store.lists(), 1);
    rig.store.release_lists();
    for list in lists {
        let list = list.await.unwrap();
        assert_eq!(rows(&list), [("a", Some(1), false), ("b", Some(1), false)]);
    }
    assert_eq!((rig.store.lists(), rig.store.counts()), (1, 2));
    // A read's query also completes the list in the cache.
    rig.list().await;
    assert_eq!(rig.store.lists(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_expired_completeness_mark_causes_one_query() {
    let rig = Arc::new(Rig::new().await);
    rig.record(&["u1"], "a").await;
    rig.refresh().await;
    tokio::time::sleep(Duration::from_secs(3601)).await;
    rig.store.hold_lists();
    let lists: Vec<_> = (0..40)
        .map(|_| {
            let rig = Arc::clone(&rig);
            tokio::spawn(async move { rig.list().await })
        })
        .collect();
    settle().await;
    assert_eq!(rig.store.lists(), 2, "the refresh made the first query");
    rig.store.release_lists();
    for list in lists {
        assert_eq!(rows(&list.await.unwrap()), [("a", Some(1), false)]);
    }
    assert_eq!(rig.store.lists(), 2);
}

#[tokio::test(start_paused = true)]
async fn cached_segments_are_listed_while_the_store_can_not_list() {
    let rig = Rig::new().await;
    rig.record(&["u1"], "a").await;
    rig.refresh().await;
    tokio::time::sleep(Duration::from_secs(3601)).await;
    rig.record(&["u1"], "new").await;
    rig.store.fail_lists(true);
    let list = rig.list().await;
    assert_eq!(
        rows(&list),
        [("a", Some(1), false), ("new", Some(1), false)]
    );
    // The list does not wait for a store that does not respond.
    rig.store.hold_lists();
    assert_eq!(rig.list().await.len(), 2);
}

#[tokio::test]
async fn a_failed_count_marks_only_its_own_segment() {
    let rig = Rig::new().await;
    rig.record_in(&["u1"], &["a", "bad", "c"]).await;
    rig.store.fail_segment(&name("bad"));
    let all = [
        ("a", Some(1), false),
        ("bad", None, true),
        ("c", Some(1), false),
    ];
    assert_eq!(rows(&rig.list().await), all);
    assert_eq!(rig.refresh().await, (2, 1));
    assert_eq!(rows(&rig.list().await), all);
}

#[tokio::test]
async fn a_list_contains_every_cached_segment() {
    let rig = Rig::new().await;
    rig.record_in(&["u1"], &["a", "b", "c"]).await;
    rig.refresh().await;
    rig.clock.advance(PAST_CACHE_TTL);
    rig.record(&["u2"], "new").await;
    rig.store.set_unavailable(true);
    // Another process with empty memory.
    let other = rig.another_instance();
    let list = other.list().await;
    let last_known = ["a", "b", "c"].map(|name| (name, Some(1), true));
    assert_eq!(rows(&list)[..3], last_known);
    assert_eq!(rows(&list)[3..], [("new", None, true)]);
    // Without the cache, the list comes from the memory of the process.
    other.cache.set_unavailable(true);
    assert_eq!(rows(&other.list().await)[..3], last_known);
    rig.another_instance()
        .counts
        .list(rig.full())
        .await
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_list_waits_for_a_slow_segment_as_long_as_a_read() {
    let rig = Rig::new().await;
    rig.record_in(&["u1"], &["a", "slow"]).await;
    rig.store.hold_segment(&name("slow"));
    let began = tokio::time::Instant::now();
    let list = rig.list().await;
    assert_eq!(rows(&list), [("a", Some(1), false), ("slow", None, true)]);
    assert_eq!(began.elapsed(), Duration::from_secs(5));
    rig.store.release_segment(&name("slow"));
    settle().await;
    let list = rig.list().await;
    assert_eq!(
        rows(&list),
        [("a", Some(1), false), ("slow", Some(1), false)]
    );
    assert_eq!(rig.store.counts(), 2, "the count continued");
}

#[tokio::test]
async fn a_list_and_a_count_agree_on_freshness() {
    let rig = Rig::new().await;
    rig.record(&["u1"], "a").await;
    rig.refresh().await;
    rig.clock.advance(Duration::from_secs(60));
    rig.record(&["u2"], "a").await;
    let (list, count) = (rig.list().await, rig.get("a").await);
    assert_eq!(list[0].count, Some(count.count), "both from the cache");
    assert_eq!(count.count.users, 1);

    rig.clock.advance(PAST_CACHE_TTL);
    assert_eq!(rows(&rig.list().await), [("a", Some(2), false)]);
    assert_eq!(rig.get("a").await.count.users, 2);

    // A window later all pairs have expired.
    rig.clock.advance(Duration::from_secs(rig.full().seconds()));
    assert_eq!(rows(&rig.list().await), []);
    assert_eq!(rig.get("a").await.count.users, 0);
}

#[tokio::test]
async fn an_old_count_is_stale_in_a_list() {
    let rig = Rig::new().await;
    rig.record(&["u1"], "a").await;
    rig.refresh().await;
    rig.store.set_unavailable(true);
    assert_eq!(rows(&rig.list().await), [("a", Some(1), false)]);
    let as_of = rig.clock.now();
    rig.clock.advance(PAST_CACHE_TTL);
    let list = rig.list().await;
    assert_eq!(rows(&list), [("a", Some(1), true)]);
    assert_eq!(list[0].count.unwrap().as_of, as_of);
    assert!(rig.get("a").await.stale);
}

#[tokio::test(start_paused = true)]
async fn a_list_is_cached_for_memory_ttl() {
    let second = Duration::from_secs(1);
    let rig = Rig::with(2, second).await;
    rig.record_in(&["u1"], &["a", "b"]).await;
    rig.refresh().await;
    let first = rig.list().await;
    let before = rig.cache.lists();
    for _ in 0..100 {
        assert!(Arc::ptr_eq(&first, &rig.list().await));
    }
    assert_eq!(rig.cache.lists(), before, "the cache is not queried");
    tokio::time::sleep(second * 2).await;
    rig.list().await;
    assert_eq!(rig.cache.lists(), before + 1);
}

#[tokio::test]
async fn a_list_uses_the_requested_window() {
    let rig = Rig::new().await;
    rig.record_in(&["u1"], &["a", "b"]).await;
    rig.refresh().await;
    rig.clock.advance(Duration::from_secs(120));
    rig.record(&["u2"], "b").await;
    let hour = rig.counts.list(rig.minutes(60)).await.unwrap();
    assert_eq!(rows(&hour), [("a", Some(1), false), ("b", Some(2), false)]);
    let minute = rig.counts.list(rig.minutes(1)).await.unwrap();
    assert_eq!(rows(&minute), [("b", Some(1), false)]);
}
