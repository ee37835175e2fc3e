//! The limit on concurrent counts in the store, and the fairness between its waiters.

use std::sync::Arc;
use std::time::Duration;

use domain::Clock;
use domain::cache::CountCache;
use engine::counts::{CountResult, Source};
use futures::future::join_all;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::support::rig::{CACHE_TTL, Rig, name, settle};

/// The number of concurrent clients.
const CLIENTS: usize = 64;

fn names(number: usize) -> Vec<String> {
    (0..number).map(|index| format!("s{index:03}")).collect()
}

fn borrowed(names: &[String]) -> Vec<&str> {
    names.iter().map(String::as_str).collect()
}

fn spawn_get(rig: &Arc<Rig>, segment: &str) -> JoinHandle<CountResult> {
    let (rig, segment) = (Arc::clone(rig), segment.to_owned());
    tokio::spawn(async move { rig.get(&segment).await })
}

fn spawn_fresh(rig: &Arc<Rig>, segment: &str) -> JoinHandle<CountResult> {
    let (rig, segment) = (Arc::clone(rig), segment.to_owned());
    tokio::spawn(async move { rig.fresh(&segment).await })
}

#[tokio::test]
async fn missing_counts_respect_the_concurrency_limit_and_known_counts_do_not_wait() {
    let rig = Arc::new(Rig::new().await);
    let all = names(500);
    rig.record_in(&["u1"], &borrowed(&all)).await;
    rig.record(&["u1", "u2"], "in memory").await;
    rig.record(&["u1", "u2", "u3"], "in the cache").await;
    rig.refresh().await;
    rig.get("in memory").await;
    rig.backend.flush();
    rig.fresh("in the cache").await;
    let before = rig.store.counts();

    // A new process: its memory has none of the 500 counts.
    let cold = Arc::new(rig.another_instance());
    cold.store.hold();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let (cold, all) = (Arc::clone(&cold), all.clone());
            tokio::spawn(async move {
                for segment in all.iter().skip(client).step_by(CLIENTS) {
                    assert_eq!(cold.get(segment).await.count.users, 1);
                }
            })
        })
        .collect();
    settle().await;
    assert_eq!(
        cold.store.counts() - before,
        2,
        "two counts run, the others wait"
    );
    // The store is held, so any response comes without waiting for it.
    let known = cold.get("in the cache").await;
    assert_eq!((known.count.users, known.source), (3, Source::Cache));
    assert!(!known.stale);
    cold.store.release();
    for client in clients {
        client.await.unwrap();
    }
    assert_eq!(
        cold.store.counts() - before,
        500,
        "each segment is counted once"
    );
    assert_eq!(cold.store.max_running(), 2);
}

#[tokio::test]
async fn counts_in_memory_are_served_without_cache_and_store() {
    let rig = Arc::new(Rig::new().await);
    let all = names(10);
    rig.record_in(&["u1"], &borrowed(&all)).await;
    rig.refresh().await;
    let before = rig.store.counts();
    rig.cache.set_unavailable(true);
    for segment in &all {
        let response = rig.get(segment).await;
        assert_eq!((response.source, response.stale), (Source::Memory, false));
    }
    assert_eq!(rig.store.counts(), before, "all counts are recent");

    // After the refresh interval they are recounted in the background, and no read waits for that.
    rig.clock.advance(Duration::from_secs(61));
    rig.store.hold();
    for segment in &all {
        let response = rig.get(segment).await;
        assert_eq!((response.source, response.stale), (Source::Memory, false));
    }
    let counted = rig.store.counts() - before;
    assert_eq!(counted, 2, "in the background, two at a time");
    rig.store.release();
    rig.wait_for_counts(before + all.len()).await;
    settle().await;
    let renewed = rig.get(&all[9]).await.count.as_of;
    assert_eq!(renewed, rig.clock.now());
    assert_eq!(rig.store.max_running(), 2);
}

#[tokio::test]
async fn counts_lost_by_the_cache_are_served_from_memory_while_every_permit_is_taken() {
    let rig = Arc::new(Rig::new().await);
    let all = names(10);
    rig.record_in(&["u1"], &borrowed(&all)).await;
    rig.refresh().await;
    let before = rig.store.counts();
    rig.backend.flush();
    rig.store.hold();
    let others = ["x", "y"].map(|name| spawn_get(&rig, name));
    rig.wait_for_counts(before + 2).await;
    for segment in &all {
        let response = rig.get(segment).await;
        assert_eq!((response.source, response.stale), (Source::Memory, false));
    }
    assert_eq!(
        rig.store.counts(),
        before + 2,
        "the recounts wait for a permit"
    );
    rig.store.release();
    join_all(others).await;
    rig.wait_for_counts(before + 2 + all.len()).await;
    settle().await;
    let cached = rig.cache.get(&name(&all[9]), rig.full()).await.unwrap();
    assert_eq!(cached.unwrap().users, 1, "the cache has them again");
}

#[tokio::test]
async fn concurrent_fresh_reads_of_one_segment_share_the_next_count() {
    let rig = Arc::new(Rig::new().await);
    rig.record(&["u1"], "a").await;
    rig.store.hold();
    let first = spawn_fresh(&rig, "a");
    rig.wait_for_counts(1).await;
    rig.record(&["u2"], "a").await;
    let others: Vec<_> = (0..299).map(|_| spawn_fresh(&rig, "a")).collect();
    settle().await;
    assert_eq!(rig.store.counts(), 1, "the next count waits for this one");
    rig.store.release();
    for response in join_all(others).await {
        let response = response.unwrap();
        assert_eq!((response.count.users, response.stale), (2, false));
    }
    first.await.unwrap();
    assert_eq!(rig.store.counts(), 2);
}

#[tokio::test]
async fn a_fresh_read_does_not_join_a_count_in_flight() {
    let rig = Arc::new(Rig::new().await);
    rig.record(&["u1"], "a").await;
    // The store has counted, but its response is delayed.
    rig.store.hold();
    let early = spawn_get(&rig, "a");
    rig.wait_for_counts(1).await;
    let late = spawn_fresh(&rig, "a");
    let joins = spawn_get(&rig, "a");
    settle().await;
    rig.store.release();
    let (early, late) = (early.await.unwrap(), late.await.unwrap());
    assert_eq!(joins.await.unwrap().count, early.count);
    assert_eq!((rig.store.counts(), late.stale), (2, false));
}

#[tokio::test]
async fn windows_of_one_segment_are_counted_two_at_a_time() {
    let rig = Arc::new(Rig::new().await);
    rig.record(&["u1"], "a").await;
    rig.store.hold();
    let readers: Vec<_> = (1..=400)
        .map(|minutes| {
            let rig = Arc::clone(&rig);
            tokio::spawn(async move {
                let window = rig.minutes(minutes);
                rig.counts.get(&name("a"), window, false).await.unwrap()
            })
        })
        .collect();
    settle().await;
    assert_eq!(rig.store.counts(), 2);
    rig.store.release();
    for reader in readers {
        assert_eq!(reader.await.unwrap().count.users, 1);
    }
    assert_eq!((rig.store.counts(), rig.store.max_running()), (400, 2));
}

#[tokio::test]
async fn reads_of_made_up_segments_do_not_starve_others() {
    let rig = Arc::new(Rig::with(1, Duration::ZERO).await);
    rig.record(&["u1"], "known").await;
    rig.refresh().await;
    rig.clock.advance(CACHE_TTL + Duration::from_secs(1));
    let before = rig.store.counts();
    rig.store.hold();
    let made_up: Vec<_> = names(50).iter().map(|name| spawn_get(&rig, name)).collect();
    settle().await;
    let known = spawn_get(&rig, "known");
    let refresh = tokio::spawn({
        let rig = Arc::clone(&rig);
        async move { rig.refresh().await }
    });
    settle().await;
    for number in 1..=4 {
        rig.wait_for_counts(before + number).await;
        rig.store.release_one();
    }
    assert_eq!(known.await.unwrap().source, Source::Store);
    assert_eq!(refresh.await.unwrap(), (1, 0));
    let counted = rig.store.counted().split_off(before);
    let place = counted.iter().position(|name| name == "known");
    assert!(place.unwrap() <= 2, "{counted:?}");
    rig.store.release();
    join_all(made_up).await;
}

#[tokio::test]
async fn a_refresh_and_readers_share_permits_fairly() {
    let rig = Arc::new(Rig::with(1, Duration::ZERO).await);
    let all = names(20);
    rig.record_in(&["u1"], &borrowed(&all)).await;
    rig.refresh().await;
    rig.backend.flush();
    let before = rig.store.counts();
    let cold = Arc::new(Rig::another_instance(&rig));
    cold.store.hold();
    let readers: Vec<_> = names(20)
        .iter()
        .map(|name| spawn_get(&cold, &format!("other {name}")))
        .collect();
    let refresh = tokio::spawn({
        let cold = Arc::clone(&cold);
        async move { cold.refresh().await }
    });
    settle().await;
    cold.store.release();
    refresh.await.unwrap();
    join_all(readers).await;
    let counted = cold.store.counted().split_off(before);
    let refreshed = |names: &[String]| names.iter().filter(|name| name.starts_with('s')).count();
    let (half, all) = (refreshed(&counted[..20]), refreshed(&counted));
    assert_eq!(all, 20);
    assert!((5..=15).contains(&half), "{counted:?}");
}

#[tokio::test]
async fn a_count_that_outlives_its_reader_reaches_the_cache() {
    let rig = Arc::new(Rig::new().await);
    rig.record(&["u1"], "a").await;
    rig.store.hold();
    let reader = spawn_get(&rig, "a");
    rig.wait_for_counts(1).await;
    reader.abort();
    assert!(reader.await.unwrap_err().is_cancelled());
    rig.store.release();
    settle().await;
    let cached = rig.cache.get(&name("a"), rig.full()).await.unwrap();
    assert_eq!(cached.unwrap().users, 1);
    assert_eq!(rig.get("a").await.source, Source::Cache);
    assert_eq!(rig.store.counts(), 1);
}

#[tokio::test]
async fn a_queued_count_of_a_made_up_segment_is_dropped_when_its_reader_leaves() {
    let rig = Arc::new(Rig::new().await);
    rig.store.hold();
    let readers: Vec<_> = names(10).iter().map(|name| spawn_get(&rig, name)).collect();
    rig.wait_for_counts(2).await;
    for reader in readers {
        reader.abort();
    }
    settle().await;
    rig.store.release();
    settle().await;
    assert_eq!(rig.store.counts(), 2, "only the counts in flight ran");
    assert_eq!(spawn_get(&rig, "s009").await.unwrap().count.users, 0);
}

/// Advances the paused time, so that timers fire.
async fn advance(time: Duration) {
    settle().await;
    tokio::time::sleep(time).await;
    settle().await;
}

#[tokio::test(start_paused = true)]
async fn a_slow_segment_does_not_make_others_stale() {
    let rig = Arc::new(Rig::new().await);
    rig.record_in(&["u1"], &["slow", "quick"]).await;
    rig.refresh().await;
    rig.store.hold_segment(&name("slow"));
    for round in 0..10 {
        rig.clock.advance(CACHE_TTL + Duration::from_secs(1));
        let slow = spawn_get(&rig, "slow");
        settle().await;
        let quick = rig.get("quick").await;
        assert_eq!(
            (quick.source, quick.stale),
            (Source::Store, false),
            "{round}"
        );
        assert!(slow.await.unwrap().stale);
    }
    rig.store.release_segment(&name("slow"));
    settle().await;
    let slow = rig.get("slow").await;
    assert!(!slow.stale, "the count went on: {slow:?}");
}

#[tokio::test(start_paused = true)]
async fn an_unresponsive_store_is_waited_for_once_per_permit() {
    let rig = Arc::new(Rig::new().await);
    let all = names(8);
    rig.record_in(&["u1"], &borrowed(&all)).await;
    rig.refresh().await;
    rig.clock.advance(CACHE_TTL + Duration::from_secs(1));
    rig.store.hold();
    let mut waited = Vec::new();
    for segment in all.iter().chain(&all) {
        let began = Instant::now();
        assert!(rig.get(segment).await.stale);
        waited.push(began.elapsed().as_secs());
    }
    let timeout = waited[0];
    assert!(timeout > 0);
    assert_eq!(waited[1], timeout, "the second permit");
    assert!(waited[2..].iter().all(|waited| *waited == 0), "{waited:?}");
    rig.store.release();
    settle().await;
    for segment in &all {
        assert!(!rig.get(segment).await.stale);
    }
}

#[tokio::test(start_paused = true)]
async fn a_read_without_a_fallback_waits_up_to_30_seconds() {
    let rig = Arc::new(Rig::new().await);
    rig.record(&["u1"], "a").await;
    rig.store.hold();
    let reader = spawn_get(&rig, "a");
    advance(Duration::from_secs(20)).await;
    rig.store.release();
    assert_eq!(reader.await.unwrap().count.users, 1);

    rig.store.hold();
    let began = Instant::now();
    let never = rig.counts.get(&name("b"), rig.full(), false).await;
    never.unwrap_err();
    assert_eq!(began.elapsed(), Duration::from_secs(30));
    // A fresh read waits as long and then returns the last known count as stale.
    let fresh = rig.fresh("a").await;
    assert_eq!((fresh.count.users, fresh.stale), (1, true));
    assert_eq!(began.elapsed(), Duration::from_secs(60));
}

#[tokio::test]
async fn shutdown_cancels_running_counts() {
    let rig = Arc::new(Rig::new().await);
    rig.record(&["u1"], "a").await;
    rig.store.hold();
    let reader = tokio::spawn({
        let rig = Arc::clone(&rig);
        async move { rig.counts.get(&name("a"), rig.full(), false).await }
    });
    rig.wait_for_counts(1).await;
    rig.supervisor.end().await;
    reader.await.unwrap().unwrap_err();
}
