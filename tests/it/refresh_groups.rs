//! Refreshes that count small segments in groups: which segments, and the fallback when a group fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use domain::cache::CountCache;
use domain::store::StoreError;
use engine::counts::CountResult;
use engine::refresher::Outcome;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::support::rig::{Rig, name, settle};
use crate::support::switchable::SwitchableStore;

/// Segments of a rig.
const SEGMENTS: usize = 60;

fn names() -> Vec<String> {
    (0..SEGMENTS).map(|index| format!("s{index:02}")).collect()
}

/// A rig whose store counts 25 segments in one call. It has `SEGMENTS` segments of one user each, none of which was
/// counted yet.
async fn unknown(parallelism: usize) -> Arc<Rig> {
    let together = SwitchableStore::with_group_size(25);
    let rig = Rig::with_store(parallelism, Duration::ZERO, together).await;
    let names = names();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    rig.record_in(&["u1"], &names).await;
    Arc::new(rig)
}

/// The same after a refresh, which counted each segment alone.
async fn known(parallelism: usize) -> Arc<Rig> {
    let rig = unknown(parallelism).await;
    let whole = (SEGMENTS as u64, 0);
    assert_eq!(rig.refresh().await, whole);
    assert_eq!(
        (rig.store.counts(), rig.store.groups().len()),
        (SEGMENTS, 0)
    );
    rig
}

fn begin(rig: &Arc<Rig>) -> JoinHandle<Result<Outcome, StoreError>> {
    let rig = Arc::clone(rig);
    tokio::spawn(async move { rig.refresher.run(None).await })
}

/// Waits until the store has received this many groups.
async fn until_groups(rig: &Rig, number: usize) {
    while rig.store.groups().len() < number {
        tokio::task::yield_now().await;
    }
}

async fn cached(rig: &Rig, segment: &str) -> u64 {
    let cached = rig.cache.get(&name(segment), rig.full()).await.unwrap();
    cached.unwrap().users
}

#[tokio::test]
async fn segments_known_to_be_small_are_counted_together_and_exactly() {
    let rig = known(2).await;
    for (index, segment) in names().iter().enumerate() {
        let users: Vec<String> = (1..=index).map(|user| format!("u{user}")).collect();
        let users: Vec<&str> = users.iter().map(String::as_str).collect();
        rig.record(&users, segment).await;
    }
    rig.record(&["u1"], "unknown").await;
    assert_eq!(rig.refresh().await, (SEGMENTS as u64 + 1, 0));
    let groups = rig.store.groups();
    let sizes: Vec<usize> = groups.iter().map(Vec::len).collect();
    assert_eq!(sizes, [25, 25, 10]);
    assert_eq!(groups.concat(), names(), "each in one group");
    assert_eq!(rig.store.counted()[SEGMENTS..], ["unknown"]);
    for (index, segment) in names().iter().enumerate() {
        let users = index.max(1) as u64;
        let cached = rig
            .cache
            .get(&name(segment), rig.full())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(cached.users, users, "{segment}");
    }

    // A new process reads from the cache which segments are small.
    let other = rig.another_instance();
    other.refresh().await;
    let sizes: Vec<usize> = rig.store.groups()[3..].iter().map(Vec::len).collect();
    assert_eq!(sizes, [25, 25, 11]);
}

#[tokio::test]
async fn a_segment_that_fails_does_not_affect_its_group() {
    let rig = known(2).await;
    rig.record(&["u1", "u2"], "s03").await;
    rig.store.fail_segment(&name("s07"));
    let run = begin(&rig).await.unwrap().unwrap();
    let Outcome::Done(report) = run else {
        panic!("{run:?}");
    };
    assert_eq!((report.refreshed, report.failed), (SEGMENTS as u64 - 1, 1));
    assert_eq!(cached(&rig, "s03").await, 2);
    assert_eq!(rig.store.groups().len(), 3);
    assert_eq!(
        rig.store.counts(),
        SEGMENTS + 25,
        "each segment of the group alone"
    );

    // The next run does not wait for a group that would fail again.
    rig.refresh().await;
    let sizes: Vec<usize> = rig.store.groups()[3..].iter().map(Vec::len).collect();
    assert_eq!(sizes, [25, 10]);
    assert_eq!(rig.store.counts(), SEGMENTS + 50);
}

#[tokio::test]
async fn a_panic_in_a_group_is_contained() {
    let rig = known(2).await;
    let left = AtomicU32::new(1);
    rig.store.during_counts(move || {
        let fewer = |left: u32| left.checked_sub(1);
        let panics = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fewer);
        assert!(panics.is_err(), "on purpose");
    });
    assert_eq!(rig.refresh().await, (SEGMENTS as u64 - 25, 25));
    assert_eq!(rig.refresh().await, (SEGMENTS as u64, 0));
    assert_eq!(
        rig.store.counts(),
        SEGMENTS + 25,
        "its group was counted one by one"
    );
}

#[tokio::test]
async fn an_unavailable_store_is_not_called_for_each_segment_of_a_group() {
    let rig = known(2).await;
    rig.store.set_unavailable(true);
    let run = begin(&rig).await.unwrap();
    assert!(matches!(run, Err(StoreError::Unavailable(_))), "{run:?}");
    settle().await;
    assert_eq!(rig.store.counts(), SEGMENTS, "none alone");
    rig.store.set_unavailable(false);
    let before = rig.store.groups().len();
    assert_eq!(rig.refresh().await, (SEGMENTS as u64, 0));
    assert_eq!(
        rig.store.groups().len(),
        before + 3,
        "the groups did not cause it"
    );
}

fn ask(rig: &Arc<Rig>, segment: &'static str, fresh: bool) -> JoinHandle<CountResult> {
    let rig = Arc::clone(rig);
    tokio::spawn(async move {
        match fresh {
            true => rig.fresh(segment).await,
            false => rig.get(segment).await,
        }
    })
}

#[tokio::test]
async fn a_request_joins_a_waiting_group() {
    let rig = known(2).await;
    rig.store.hold();
    let others = ["x", "y"].map(|segment| ask(&rig, segment, true));
    rig.wait_for_counts(SEGMENTS + 2).await;
    let run = begin(&rig);
    settle().await;
    assert_eq!(rig.store.groups().len(), 0, "both permits are taken");
    rig.record(&["u2"], "s00").await;
    let reader = ask(&rig, "s00", true);
    settle().await;
    rig.store.release();
    let answer = reader.await.unwrap();
    assert_eq!((answer.count.users, answer.stale), (2, false));
    assert!(matches!(run.await.unwrap(), Ok(Outcome::Done(_))));
    for other in others {
        assert_eq!(other.await.unwrap().count.users, 0);
    }
    assert_eq!(rig.store.counts(), SEGMENTS + 2, "no other single count");
    assert_eq!(rig.store.groups().len(), 3);
    assert_eq!(rig.store.max_running(), 2);
}

#[tokio::test]
async fn a_request_joins_a_running_group_or_the_next_count() {
    let rig = known(2).await;
    rig.store.hold();
    let run = begin(&rig);
    until_groups(&rig, 2).await;
    // Memory knows one user of each segment.
    rig.backend.flush();
    rig.record_in(&["u2"], &["s00", "s01"]).await;
    let (joined, fresh) = (ask(&rig, "s00", false), ask(&rig, "s01", true));
    settle().await;
    assert!(!joined.is_finished() && !fresh.is_finished());
    rig.store.release();
    let joined = joined.await.unwrap();
    // The group may have begun before the pair was recorded.
    assert_eq!(joined.count.users, 2);
    let fresh = fresh.await.unwrap();
    assert_eq!((fresh.count.users, fresh.stale), (2, false));
    assert!(matches!(run.await.unwrap(), Ok(Outcome::Done(_))));
    assert_eq!(
        rig.store.counted()[SEGMENTS..],
        ["s01"],
        "only the fresh count"
    );
    assert_eq!(rig.store.max_running(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_slow_group_is_not_counted_again() {
    let rig = known(2).await;
    rig.store.hold_segment(&name("s30"));
    let run = begin(&rig);
    until_groups(&rig, 3).await;
    sleep(Duration::from_secs(6)).await;
    rig.store.release_segment(&name("s30"));
    run.await.unwrap().unwrap();
    let before = rig.store.counts();
    rig.refresh().await;
    assert_eq!(rig.store.counts() - before, 25);
    let sizes: Vec<usize> = rig.store.groups()[3..].iter().map(Vec::len).collect();
    assert_eq!(sizes, [25, 10]);
}
