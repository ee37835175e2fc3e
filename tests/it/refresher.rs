//! Refreshes: one run for all instances, of every known segment, whatever fails meanwhile.

use std::sync::Arc;
use std::time::Duration;

use domain::Clock;
use domain::cache::{CountCache, LockToken};
use domain::store::PairStore;
use engine::refresher::{Outcome, Skip};
use engine::rounds::Rounds;
use futures::FutureExt;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::support::rig::{Rig, name, settle};
use crate::support::switchable::SwitchableStore;

const SECOND: Duration = Duration::from_secs(1);

fn begin(rig: &Arc<Rig>) -> JoinHandle<Outcome> {
    let rig = Arc::clone(rig);
    tokio::spawn(async move { rig.refresher.run(None).await.unwrap() })
}

#[tokio::test]
async fn counts_that_the_cache_rejects_are_not_reported_as_refreshed() {
    let rig = Arc::new(Rig::new().await);
    rig.record_in(&["u1"], &["a", "b", "c"]).await;
    let cache = Arc::clone(&rig.cache);
    rig.store.during_counts(move || cache.set_unavailable(true));
    assert_eq!(rig.refresh().await, (0, 3));
    rig.store.during_counts(|| ());
    rig.cache.set_unavailable(false);
    // The lock could not be released.
    rig.backend.flush();
    assert_eq!(rig.refresh().await, (3, 0));
    let cache = Arc::clone(&rig.cache);
    rig.store.during_counts(move || cache.set_unavailable(true));
    let one = rig.refresher.run(Some(&name("a"))).await;
    assert!(
        matches!(one, Ok(Outcome::Skipped(Skip::NoCache))),
        "{one:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn the_lock_is_held_however_long_a_count_takes() {
    let (one, rig) = {
        let rig = Rig::new().await;
        (Arc::new(rig.another_instance()), rig)
    };
    rig.record(&["u1"], "a").await;
    one.store.hold();
    let run = begin(&one);
    one.wait_for_counts(1).await;
    for _ in 0..10 {
        sleep(SECOND * 29).await;
        let second = rig.refresher.run(None).await.unwrap();
        assert_eq!(second, Outcome::Skipped(Skip::UnderWay));
    }
    // A cache that loses the lock returns it to its former holder.
    rig.backend.flush();
    sleep(SECOND * 11).await;
    let second = rig.refresher.run(None).await.unwrap();
    assert_eq!(second, Outcome::Skipped(Skip::UnderWay));
    one.store.release();
    assert!(matches!(run.await.unwrap(), Outcome::Done(_)));
    assert_eq!(rig.refresh().await, (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_run_ends_when_another_instance_takes_its_lock() {
    let rig = Arc::new(Rig::new().await);
    rig.record(&["u1"], "a").await;
    rig.store.hold();
    let run = begin(&rig);
    rig.wait_for_counts(1).await;
    rig.backend.flush();
    let other = LockToken::random();
    assert!(rig.cache.lock(&other, SECOND * 3600).await.unwrap());
    sleep(SECOND * 11).await;
    settle().await;
    let outcome = run.now_or_never().unwrap().unwrap();
    let Outcome::Done(report) = outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!(
        (report.refreshed, report.failed),
        (0, 1),
        "the run was incomplete"
    );
    assert_eq!(rig.refresher.finished(), None);
    let still = rig.cache.lock(&LockToken::random(), SECOND).await.unwrap();
    assert!(!still, "the other instance keeps its lock");
    rig.store.release();
}

#[tokio::test]
async fn without_the_lock_nothing_is_counted() {
    let rig = Rig::new().await;
    rig.record(&["u1"], "a").await;
    rig.cache.set_unavailable(true);
    let run = rig.refresher.run(None).await.unwrap();
    assert_eq!(run, Outcome::Skipped(Skip::NoCache));
    let one = rig.refresher.run(Some(&name("a"))).await.unwrap();
    assert_eq!(one, Outcome::Skipped(Skip::NoCache));
    assert_eq!((rig.store.counts(), rig.store.lists()), (0, 0));
    rig.cache.set_unavailable(false);
    assert_eq!(rig.refresh().await, (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_lock_that_could_not_be_released_is_released_soon() {
    let rig = Rig::new().await;
    rig.record(&["u1"], "a").await;
    rig.cache.fail_unlocks(2);
    rig.refresh().await;
    let other = rig.another_instance();
    let taken = other.refresher.run(None).await.unwrap();
    assert_eq!(taken, Outcome::Skipped(Skip::UnderWay));
    sleep(SECOND * 2).await;
    assert_eq!(other.refresh().await, (1, 0));
}

#[tokio::test(start_paused = true)]
async fn several_instances_run_one_refresh_an_interval_in_total() {
    let rig = Arc::new(Rig::new().await);
    rig.record(&["u1"], "a").await;
    rig.store.discard_trend();
    let instances: Vec<_> = (0..5).map(|_| Arc::new(rig.another_instance())).collect();
    let (mut loops, mut all_rounds) = (Vec::new(), Vec::new());
    for instance in &instances {
        let refresher = Arc::clone(&instance.refresher);
        let rounds = Arc::new(Rounds::every(SECOND * 60));
        all_rounds.push(Arc::clone(&rounds));
        loops.push(tokio::spawn(async move {
            refresher.keep_running(SECOND * 60, &rounds).await;
        }));
        // They were not started together.
        sleep(SECOND * 7).await;
    }
    sleep(SECOND * 600).await;
    let counts = rig.store.counts();
    assert!((10..=14).contains(&counts), "{counts} in ten minutes");
    let late = all_rounds.iter().filter(|rounds| rounds.are_late());
    assert_eq!(late.count(), 0, "instances that skip a run are not late");
    // The instance that ran has stopped: another one takes over within two intervals.
    let (gone, left) = loops.split_at(4);
    gone.iter().for_each(JoinHandle::abort);
    sleep(SECOND * 120).await;
    assert!(rig.store.counts() > counts);
    left[0].abort();
}

#[tokio::test]
async fn one_segment_is_refreshed_during_a_run_of_all() {
    let rig = Arc::new(Rig::new().await);
    rig.record_in(&["u1"], &["a", "slow"]).await;
    rig.store.hold_segment(&name("slow"));
    let run = begin(&rig);
    rig.wait_for_counts(2).await;
    for refresher in [&rig.refresher, &rig.another_instance().refresher] {
        let one = refresher.run(Some(&name("a"))).await.unwrap();
        assert!(matches!(one, Outcome::Done(report) if report.refreshed == 1));
    }
    rig.store.release_segment(&name("slow"));
    assert!(matches!(run.await.unwrap(), Outcome::Done(_)));
}

#[tokio::test(start_paused = true)]
async fn the_list_is_renewed_before_it_expires() {
    let rig = Rig::new().await;
    rig.record(&["u1"], "a").await;
    rig.refresh().await;
    sleep(SECOND * 60 * 30).await;
    rig.refresh().await;
    assert_eq!(rig.store.lists(), 1, "the cache's list is complete");
    sleep(SECOND * 60 * 20).await;
    rig.refresh().await;
    assert_eq!(rig.store.lists(), 2);
    sleep(SECOND * 60 * 20).await;
    rig.list().await;
    assert_eq!(rig.store.lists(), 2, "no reader has to list segments");
}

#[tokio::test(start_paused = true)]
async fn known_segments_are_recounted_while_the_store_can_not_list() {
    let rig = Rig::new().await;
    rig.record(&["u1"], "a").await;
    rig.refresh().await;
    sleep(SECOND * 3601).await;
    rig.record(&["u2"], "a").await;
    rig.store.fail_lists(true);
    assert_eq!(rig.refresh().await, (1, 0));
    // The cache has lost its list, but the process remembers it.
    rig.backend.flush();
    assert_eq!(rig.refresh().await, (1, 0));
    let cached = rig.cache.get(&name("a"), rig.full()).await.unwrap();
    assert_eq!(cached.unwrap().users, 2);
    rig.backend.flush();
    rig.another_instance()
        .refresher
        .run(None)
        .await
        .unwrap_err();
}

#[tokio::test]
async fn a_recount_across_slots_happens_only_if_the_store_needs_it() {
    for keeps_every_slot in [false, true] {
        let switchable = match keeps_every_slot {
            true => SwitchableStore::keeping_every_slot,
            false => SwitchableStore::new,
        };
        let rig = Rig::with_store(2, Duration::ZERO, switchable).await;
        rig.record(&["u1"], "a").await;
        // Each count crosses into the next slot.
        let clock = Arc::clone(&rig.clock);
        let slot = Duration::from_secs(rig.frame.resolution().seconds().into());
        rig.store.during_counts(move || clock.advance(slot));
        rig.refresh().await;
        let expected = if keeps_every_slot { 1 } else { 3 };
        assert_eq!(rig.store.counts(), expected);
    }
}

/// The number of segments with a trend point at the instant of the clock.
async fn with_points(rig: &Rig, names: &[String]) -> usize {
    let now = rig.clock.now();
    let mut number = 0;
    for segment in names {
        let trend = rig.store.trend(&name(segment), rig.full(), now, now).await;
        number += trend.unwrap().len();
    }
    number
}

#[tokio::test]
async fn trend_points_are_written_while_the_run_goes_on() {
    let rig = Arc::new(Rig::new().await);
    let names: Vec<_> = (0..1_200).map(|index| format!("s{index}")).collect();
    let borrowed: Vec<_> = names.iter().map(String::as_str).collect();
    rig.record_in(&["u1"], &borrowed).await;
    rig.store.hold_segment(&name("s7"));
    let run = begin(&rig);
    rig.wait_for_counts(names.len()).await;
    settle().await;
    let written = with_points(&rig, &names).await;
    assert!(written >= 1_000, "{written}");
    rig.store.release_segment(&name("s7"));
    run.await.unwrap();
    assert_eq!(with_points(&rig, &names).await, names.len());
}

#[tokio::test]
async fn trend_points_that_the_store_rejected_are_written_by_the_next_run() {
    let rig = Rig::new().await;
    let names: Vec<_> = (0..1_200).map(|index| format!("s{index}")).collect();
    let borrowed: Vec<_> = names.iter().map(String::as_str).collect();
    rig.record_in(&["u1"], &borrowed).await;
    rig.store.set_trend_unavailable(true);
    rig.refresher.run(None).await.unwrap_err();
    let first = rig.clock.now();
    rig.clock.advance(SECOND * 60);
    rig.store.set_trend_unavailable(false);
    rig.refresh().await;
    for segment in &names {
        let (segment, now) = (name(segment), rig.clock.now());
        let trend = rig.store.trend(&segment, rig.full(), first, now);
        assert_eq!(trend.await.unwrap().len(), 2, "{segment}");
    }
}
