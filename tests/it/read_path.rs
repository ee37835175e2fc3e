//! The read path through memory, cache and store, and its fallbacks, with a clock that the test controls.

use std::sync::Arc;
use std::time::Duration;

use domain::Clock;
use domain::cache::{CountCache, LockToken};
use domain::store::PairStore;
use engine::counts::Source;
use engine::refresher::{Outcome, Skip};

use crate::support::rig::{CACHE_TTL, Rig, name};

#[tokio::test]
async fn a_miss_counts_in_the_store_and_fills_the_cache() {
    let rig = Rig::new().await;
    rig.record(&["u1", "u2", "u1"], "a").await;
    let first = rig.counts.get(&name("a"), rig.full(), false).await.unwrap();
    assert_eq!((first.count.users, first.source), (2, Source::Store));
    rig.record(&["u3", "u4"], "a").await;
    let second = rig.counts.get(&name("a"), rig.full(), false).await.unwrap();
    assert_eq!((second.count.users, second.source), (2, Source::Cache));
    assert_eq!(second.count.as_of, first.count.as_of);
    let fresh = rig.counts.get(&name("a"), rig.full(), true).await.unwrap();
    assert_eq!((fresh.count.users, fresh.source), (4, Source::Store));
    assert_eq!(rig.store.counts(), 2);
}

#[tokio::test]
async fn an_expired_cached_count_is_recounted() {
    let rig = Rig::new().await;
    rig.record(&["u1"], "a").await;
    rig.counts.get(&name("a"), rig.full(), false).await.unwrap();
    rig.clock.advance(CACHE_TTL + Duration::from_secs(1));
    let answer = rig.counts.get(&name("a"), rig.full(), false).await.unwrap();
    assert_eq!((answer.source, answer.stale), (Source::Store, false));
}

#[tokio::test]
async fn without_the_store_the_last_known_count_is_served_as_stale() {
    let rig = Rig::new().await;
    rig.record(&["u1"], "a").await;
    rig.counts.get(&name("a"), rig.full(), false).await.unwrap();
    rig.store.set_unavailable(true);
    let recent = rig.counts.get(&name("a"), rig.full(), false).await.unwrap();
    assert!(!recent.stale, "a recent cached count is not stale");
    rig.clock.advance(CACHE_TTL + Duration::from_secs(1));
    let old = rig.counts.get(&name("a"), rig.full(), false).await.unwrap();
    assert_eq!((old.count.users, old.stale), (1, true));
    rig.counts
        .get(&name("unknown"), rig.full(), false)
        .await
        .unwrap_err();
    rig.store.set_unavailable(false);
    let back = rig.counts.get(&name("a"), rig.full(), false).await.unwrap();
    assert_eq!((back.source, back.stale), (Source::Store, false));
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_requests_for_a_missing_key_run_one_load() {
    let rig = Arc::new(Rig::new().await);
    rig.record(&["u1"], "a").await;
    rig.store.hold();
    let callers: Vec<_> = (0..100)
        .map(|_| {
            let rig = Arc::clone(&rig);
            tokio::spawn(
                async move { rig.counts.get(&name("a"), rig.full(), false).await.unwrap() },
            )
        })
        .collect();
    while rig.store.counts() == 0 {
        tokio::task::yield_now().await;
    }
    rig.store.release();
    for caller in callers {
        assert_eq!(caller.await.unwrap().count.users, 1);
    }
    assert_eq!(rig.store.counts(), 1);
}

#[tokio::test]
async fn a_refresh_counts_all_segments_and_records_their_trend() {
    let rig = Rig::new().await;
    rig.record(&["u1", "u2"], "a").await;
    rig.record(&["u1"], "b").await;
    let Outcome::Done(report) = rig.refresher.run(None).await.unwrap() else {
        panic!("skipped")
    };
    assert_eq!((report.refreshed, report.failed), (2, 0));
    let cached = rig
        .cache
        .get(&name("a"), rig.full())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(cached.users, 2);
    let now = rig.clock.now();
    let trend = rig
        .store
        .trend(&name("b"), rig.full(), now, now)
        .await
        .unwrap();
    assert_eq!(
        trend.iter().map(|point| point.users).collect::<Vec<_>>(),
        [1]
    );
    let listed = rig.counts.list(rig.full()).await.unwrap();
    let listed: Vec<_> = listed
        .iter()
        .map(|listed| (listed.segment.as_str(), listed.count.unwrap().users))
        .collect();
    assert_eq!(listed, [("a", 2), ("b", 1)]);
}

#[tokio::test]
async fn a_second_refresh_at_the_same_time_is_skipped() {
    let rig = Arc::new(Rig::new().await);
    rig.record(&["u1"], "a").await;
    rig.store.hold();
    let first = tokio::spawn({
        let rig = Arc::clone(&rig);
        async move { rig.refresher.run(None).await.unwrap() }
    });
    while rig.store.counts() == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(
        rig.refresher.run(None).await.unwrap(),
        Outcome::Skipped(Skip::UnderWay)
    );
    rig.store.release();
    assert!(matches!(first.await.unwrap(), Outcome::Done(_)));
}

#[tokio::test]
async fn a_failed_refresh_keeps_old_counts() {
    let rig = Rig::new().await;
    rig.record(&["u1"], "a").await;
    rig.refresher.run(None).await.unwrap();
    rig.store.set_unavailable(true);
    rig.clock.advance(Duration::from_secs(60));
    rig.refresher.run(None).await.unwrap_err();
    let cached = rig
        .cache
        .get(&name("a"), rig.full())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(cached.users, 1);
    let other = LockToken::random();
    let is_free = rig.cache.lock(&other, Duration::from_secs(1)).await;
    assert!(is_free.unwrap(), "the lock was released");
}
