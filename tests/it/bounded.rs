//! How many counts reach the store, whatever is asked for, and who waits for whom.

use std::sync::Arc;
use std::time::Duration;

use domain::Clock;
use domain::cache::CountCache;
use engine::counts::{CountResult, Source};
use futures::future::join_all;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::support::rig::{CACHE_TTL, Rig, name, settle};

/// Clients that ask at once.
const CLIENTS: usize = 64;

fn names(number: usize) -> Vec<String> {
    (0..number).map(|index| format!("s{index:03}")).collect()
}

fn borrowed(names: &[String]) -> Vec<&str> {
    names.iter().map(String::as_str).collect()
}

fn ask(rig: &Arc<Rig>, segment: &str) -> JoinHandle<CountResult> {
    let (rig, segment) = (Arc::clone(rig), segment.to_owned());
    tokio::spawn(async move { rig.get(&segment).await })
}

fn ask_fresh(rig: &Arc<Rig>, segment: &str) -> JoinHandle<CountResult> {
    let (rig, segment) = (Arc::clone(rig), segment.to_owned());
    tokio::spawn(async move { rig.fresh(&segment).await })
}

#[tokio::test]
async fn missing_counts_are_as_many_at_a_time_as_are_allowed_and_known_ones_wait_for_none() {
    let rig = Arc::new(Rig::new().await);
    let all = names(500);
    rig.record_in(&["u1"], &borrowed(&all)).await;
    rig.record(&["u1", "u2"], "in memory").await;
    rig.record(&["u1", "u2", "u3"], "in the cache").await;
    rig.refresh().await;
    rig.get("in memory").await;
    rig.shelf.lose();
    rig.fresh("in the cache").await;
    let before = rig.store.counts();

    // A fresh process: it remembers nothing of the 500.
    let cold = Arc::new(rig.beside());
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
    assert_eq!(cold.store.counts() - before, 2, "two run, the others wait");
    // The store answers nobody now, so who is answered did not wait for it.
    let known = cold.get("in the cache").await;
    assert_eq!((known.count.users, known.source), (3, Source::Cache));
    assert!(!known.stale);
    cold.store.release();
    for client in clients {
        client.await.unwrap();
    }
    assert_eq!(cold.store.counts() - before, 500, "each once");
    assert_eq!(cold.store.most_running(), 2);
}

#[tokio::test]
async fn what_the_process_knows_is_answered_without_the_cache_and_the_store() {
    let rig = Arc::new(Rig::new().await);
    let all = names(10);
    rig.record_in(&["u1"], &borrowed(&all)).await;
    rig.refresh().await;
    let before = rig.store.counts();
    rig.cache.set_away(true);
    for segment in &all {
        let answer = rig.get(segment).await;
        assert_eq!((answer.source, answer.stale), (Source::Memory, false));
    }
    assert_eq!(rig.store.counts(), before, "all are new");

    // Past the interval of refreshes they are counted anew, and still nobody waits for that.
    rig.clock.advance(Duration::from_secs(61));
    rig.store.hold();
    for segment in &all {
        let answer = rig.get(segment).await;
        assert_eq!((answer.source, answer.stale), (Source::Memory, false));
    }
    let asked = rig.store.counts() - before;
    assert_eq!(asked, 2, "in the background, two at a time");
    rig.store.release();
    rig.until_counts(before + all.len()).await;
    settle().await;
    let renewed = rig.get(&all[9]).await.count.as_of;
    assert_eq!(renewed, rig.clock.now());
    assert_eq!(rig.store.most_running(), 2);
}

#[tokio::test]
async fn what_the_cache_lost_is_answered_from_memory_while_every_place_is_taken() {
    let rig = Arc::new(Rig::new().await);
    let all = names(10);
    rig.record_in(&["u1"], &borrowed(&all)).await;
    rig.refresh().await;
    let before = rig.store.counts();
    rig.shelf.lose();
    rig.store.hold();
    let others = ["x", "y"].map(|name| ask(&rig, name));
    rig.until_counts(before + 2).await;
    for segment in &all {
        let answer = rig.get(segment).await;
        assert_eq!((answer.source, answer.stale), (Source::Memory, false));
    }
    assert_eq!(rig.store.counts(), before + 2, "they wait for their turn");
    rig.store.release();
    join_all(others).await;
    rig.until_counts(before + 2 + all.len()).await;
    settle().await;
    let cached = rig.cache.get(&name(&all[9]), rig.full()).await.unwrap();
    assert_eq!(cached.unwrap().count.users, 1, "the cache has them again");
}

#[tokio::test]
async fn fresh_reads_of_one_segment_share_the_count_that_begins_after_them() {
    let rig = Arc::new(Rig::new().await);
    rig.record(&["u1"], "a").await;
    rig.store.hold();
    let first = ask_fresh(&rig, "a");
    rig.until_counts(1).await;
    rig.record(&["u2"], "a").await;
    let others: Vec<_> = (0..299).map(|_| ask_fresh(&rig, "a")).collect();
    settle().await;
    assert_eq!(rig.store.counts(), 1, "the next one waits for this one");
    rig.store.release();
    for answer in join_all(others).await {
        let answer = answer.unwrap();
        assert_eq!((answer.count.users, answer.stale), (2, false));
    }
    first.await.unwrap();
    assert_eq!(rig.store.counts(), 2);
}

#[tokio::test]
async fn a_fresh_read_does_not_take_the_count_that_was_under_way() {
    let rig = Arc::new(Rig::new().await);
    rig.record(&["u1"], "a").await;
    // The store has counted, and the answer is late.
    rig.store.hold();
    let early = ask(&rig, "a");
    rig.until_counts(1).await;
    let late = ask_fresh(&rig, "a");
    let joins = ask(&rig, "a");
    settle().await;
    rig.store.release();
    let (early, late) = (early.await.unwrap(), late.await.unwrap());
    assert_eq!(joins.await.unwrap().count, early.count);
    assert_eq!((rig.store.counts(), late.pending), (2, Some(0)));
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
    assert_eq!((rig.store.counts(), rig.store.most_running()), (400, 2));
}

#[tokio::test]
async fn who_asks_for_made_up_names_holds_up_nobody_else() {
    let rig = Arc::new(Rig::with(1, Duration::ZERO).await);
    rig.record(&["u1"], "known").await;
    rig.refresh().await;
    rig.clock.advance(CACHE_TTL + Duration::from_secs(1));
    let before = rig.store.counts();
    rig.store.hold();
    let made_up: Vec<_> = names(50).iter().map(|name| ask(&rig, name)).collect();
    settle().await;
    let known = ask(&rig, "known");
    let refresh = tokio::spawn({
        let rig = Arc::clone(&rig);
        async move { rig.refresh().await }
    });
    settle().await;
    for number in 1..=4 {
        rig.until_counts(before + number).await;
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
async fn a_refresh_and_readers_are_served_in_turn() {
    let rig = Arc::new(Rig::with(1, Duration::ZERO).await);
    let all = names(20);
    rig.record_in(&["u1"], &borrowed(&all)).await;
    rig.refresh().await;
    rig.shelf.lose();
    let before = rig.store.counts();
    let cold = Arc::new(Rig::beside(&rig));
    cold.store.hold();
    let readers: Vec<_> = names(20)
        .iter()
        .map(|name| ask(&cold, &format!("other {name}")))
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
async fn a_count_that_outlasts_its_reader_reaches_the_cache() {
    let rig = Arc::new(Rig::new().await);
    rig.record(&["u1"], "a").await;
    rig.store.hold();
    let reader = ask(&rig, "a");
    rig.until_counts(1).await;
    reader.abort();
    assert!(reader.await.unwrap_err().is_cancelled());
    rig.store.release();
    settle().await;
    let cached = rig.cache.get(&name("a"), rig.full()).await.unwrap();
    assert_eq!(cached.unwrap().count.users, 1);
    assert_eq!(rig.get("a").await.source, Source::Cache);
    assert_eq!(rig.store.counts(), 1);
}

#[tokio::test]
async fn a_made_up_name_that_nobody_waits_for_is_not_counted() {
    let rig = Arc::new(Rig::new().await);
    rig.store.hold();
    let readers: Vec<_> = names(10).iter().map(|name| ask(&rig, name)).collect();
    rig.until_counts(2).await;
    for reader in readers {
        reader.abort();
    }
    settle().await;
    rig.store.release();
    settle().await;
    assert_eq!(rig.store.counts(), 2, "those that were under way");
    assert_eq!(ask(&rig, "s009").await.unwrap().count.users, 0);
}

/// Lets timers run; nothing else takes time here.
async fn pass(time: Duration) {
    settle().await;
    tokio::time::sleep(time).await;
    settle().await;
}

#[tokio::test(start_paused = true)]
async fn a_slow_segment_makes_no_quick_one_stale() {
    let rig = Arc::new(Rig::new().await);
    rig.record_in(&["u1"], &["slow", "quick"]).await;
    rig.refresh().await;
    rig.store.hold_segment(&name("slow"));
    for round in 0..10 {
        rig.clock.advance(CACHE_TTL + Duration::from_secs(1));
        let slow = ask(&rig, "slow");
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
async fn a_silent_store_is_waited_for_once_by_each_place() {
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
    let patience = waited[0];
    assert!(patience > 0);
    assert_eq!(waited[1], patience, "the second place");
    assert!(waited[2..].iter().all(|waited| *waited == 0), "{waited:?}");
    rig.store.release();
    settle().await;
    for segment in &all {
        assert!(!rig.get(segment).await.stale);
    }
}

#[tokio::test(start_paused = true)]
async fn who_has_nothing_to_fall_back_on_waits_longer_but_not_for_ever() {
    let rig = Arc::new(Rig::new().await);
    rig.record(&["u1"], "a").await;
    rig.store.hold();
    let reader = ask(&rig, "a");
    pass(Duration::from_secs(20)).await;
    rig.store.release();
    assert_eq!(reader.await.unwrap().count.users, 1);

    rig.store.hold();
    let began = Instant::now();
    let never = rig.counts.get(&name("b"), rig.full(), false).await;
    never.unwrap_err();
    assert_eq!(began.elapsed(), Duration::from_secs(30));
    // A fresh number is waited for as long, and then the last known one says that it is stale.
    let fresh = rig.fresh("a").await;
    assert_eq!((fresh.count.users, fresh.stale), (1, true));
    assert_eq!(began.elapsed(), Duration::from_secs(60));
}

#[tokio::test]
async fn the_end_of_the_process_ends_counts() {
    let rig = Arc::new(Rig::new().await);
    rig.record(&["u1"], "a").await;
    rig.store.hold();
    let reader = tokio::spawn({
        let rig = Arc::clone(&rig);
        async move { rig.counts.get(&name("a"), rig.full(), false).await }
    });
    rig.until_counts(1).await;
    rig.supervisor.end().await;
    reader.await.unwrap().unwrap_err();
}
