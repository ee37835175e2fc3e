//! Tests of a replica over a store and a feed in memory: hydration, losses, erasures, restarts, in every order.

use std::collections::BTreeSet;

use super::*;
use crate::testing::{Bench, Erasing, SEGMENTS, pause};
use crate::writer::Delivery;
use domain::feed::{Append, WriterId};
use domain::store::conformance::frame;
use domain::{BatchBuilder, UserId};
use index::Fingerprint;
use state::Subject;

/// The users of a segment over the full window.
fn counted(replica: &Replica, segment: &str) -> Option<u64> {
    let segment = Segment::new(segment).unwrap();
    let count = replica.count(&segment, frame(60).full_window());
    count.map(|it| it.users)
}

#[tokio::test(start_paused = true)]
async fn a_new_replica_reads_the_store_and_follows_the_feed() {
    let bench = Bench::new();
    bench.store.put(&bench.batch(0..500, "news", 0));
    bench.store.put(&bench.batch(0..300, "sports", 59));
    bench.store.put(&bench.batch(0..99, "sports", 60));
    let running = bench.start();
    bench.expect_equal(&running).await;
    assert_eq!(running.replica.status().hydrated_pairs, 800);
    for ago in [0, 3, 30] {
        let batch = bench.batch(400..700, "weather", ago);
        assert_eq!(bench.record(&running, &batch).await, Delivery::InFeed);
        bench.expect_equal(&running).await;
    }
    let weather = Segment::new("weather").unwrap();
    let user = UserId::new("u450").unwrap();
    let memberships = running.replica.memberships(&user).unwrap();
    let names: BTreeSet<_> = memberships.iter().map(|it| it.segment.as_str()).collect();
    assert_eq!(names, BTreeSet::from(["news", "weather"]));
    assert!(
        running
            .replica
            .count(&weather, frame(60).full_window())
            .is_some()
    );
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_restart_continues_where_it_was() {
    let bench = Bench::new();
    bench.store.put(&bench.batch(0..500, "news", 0));
    let running = bench.start();
    for round in 0..20 {
        let batch = bench.batch(round * 50..round * 50 + 90, "sports", round % 9);
        bench.record(&running, &batch).await;
    }
    bench.erase(&running, 7).await;
    bench.expect_equal(&running).await;
    running.end().await;
    let running = bench.start();
    bench.expect_equal(&running).await;
    assert_eq!(
        running.replica.status().hydrated_pairs,
        0,
        "nothing is read again"
    );
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_erased_user_stays_erased_when_older_pairs_come_later() {
    let bench = Bench::new();
    let running = bench.start();
    let batch = bench.batch(0..10, "news", 0);
    let late = state::received(&batch, bench.key, bench.clock.now());
    bench.clock.advance(Duration::from_secs(5));
    bench.record(&running, &bench.batch(0..10, "news", 1)).await;
    bench.erase(&running, 3).await;
    for record in late {
        running.writer.append(record).await;
    }
    bench.expect_equal(&running).await;
    // The user comes again.
    bench.clock.advance(Duration::from_secs(5));
    bench.record(&running, &bench.batch(3..4, "news", 0)).await;
    bench.expect_equal(&running).await;
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_deleted_segment_stays_deleted_when_older_pairs_come_later() {
    for erasing in [Erasing::Segment("news"), Erasing::Pair("news", 3)] {
        let bench = Bench::new();
        let running = bench.start();
        let batch = bench.batch(0..10, "news", 0);
        let late = state::received(&batch, bench.key, bench.clock.now());
        bench.clock.advance(Duration::from_secs(5));
        for segment in ["news", "sports"] {
            bench
                .record(&running, &bench.batch(0..10, segment, 1))
                .await;
        }
        bench.expect_equal(&running).await;
        bench.erase_from(&running.writer, erasing).await;
        for record in late {
            running.writer.append(record).await;
        }
        bench.expect_equal(&running).await;
        assert_eq!(counted(&running.replica, "sports"), Some(10));
        // They come again.
        bench.clock.advance(Duration::from_secs(5));
        bench.record(&running, &bench.batch(3..6, "news", 0)).await;
        bench.expect_equal(&running).await;
        // A restart from the snapshot and from the log knows the deletion as well.
        running.end().await;
        let running = bench.start();
        for record in state::received(
            &batch,
            bench.key,
            bench.clock.now() - Duration::from_secs(60),
        ) {
            running.writer.append(record).await;
        }
        bench.expect_equal(&running).await;
        running.end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_deletion_that_comes_late_removes_nothing_that_came_since() {
    for (restarts, erasing) in [
        (false, Erasing::Segment("news")),
        (true, Erasing::Segment("news")),
        (false, Erasing::Pair("news", 3)),
        (true, Erasing::Pair("news", 3)),
    ] {
        let bench = Bench::new();
        let mut running = bench.start();
        bench.record(&running, &bench.batch(0..10, "news", 0)).await;
        bench.expect_equal(&running).await;
        let erasure = bench.erased(erasing, bench.clock.now()).await;
        bench.pass(Duration::from_secs(20));
        bench.record(&running, &bench.batch(3..5, "news", 0)).await;
        if restarts {
            running.end().await;
            running = bench.start();
        }
        running.writer.append_now(erasure).await.unwrap();
        bench.expect_equal(&running).await;
        running.end().await;
    }
}

/// The index keeps no time of receipt, so a late erasure removed what came since and was no longer kept in memory.
#[tokio::test(start_paused = true)]
async fn an_erasure_that_comes_late_removes_nothing_that_came_since() {
    for restarts in [false, true] {
        let bench = Bench::new();
        let mut running = bench.start();
        bench.record(&running, &bench.batch(0..10, "news", 0)).await;
        bench.expect_equal(&running).await;
        let user = UserId::new("u3").unwrap();
        let at = bench.clock.now();
        bench.store.forget(&user, at).await.unwrap();
        bench.pass(Duration::from_secs(20));
        bench.record(&running, &bench.batch(3..4, "news", 0)).await;
        bench.expect_equal(&running).await;
        match restarts {
            true => {
                running.end().await;
                running = bench.start();
            }
            false => {
                bench.pass(Duration::from_mins(4));
                bench.record(&running, &bench.batch(5..6, "news", 0)).await;
            }
        }
        bench.expect_equal(&running).await;
        let erasure = state::erased(&Subject::User(Fingerprint::of(&user, bench.key)), at);
        running.writer.append_now(erasure).await.unwrap();
        running.wait_for_repair().await;
        bench.expect_equal(&running).await;
        assert_eq!(counted(&running.replica, "news"), Some(10));
        running.end().await;
    }
}

/// What the store returned soon after an erasure counted as received before it.
#[tokio::test(start_paused = true)]
async fn a_user_who_comes_back_soon_is_read_from_the_store() {
    let bench = Bench::new();
    let running = bench.start();
    bench.record(&running, &bench.batch(0..10, "news", 0)).await;
    bench.erase(&running, 3).await;
    bench.expect_equal(&running).await;
    bench.pass(Duration::from_secs(20));
    // A service ends before it has appended this, and the feed loses something else.
    bench.store.put(&bench.batch(3..4, "news", 0));
    bench.feed.empty();
    running.wait_for_repair().await;
    bench.expect_equal(&running).await;
    assert_eq!(counted(&running.replica, "news"), Some(10));
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn lost_entries_are_read_from_the_store() {
    let bench = Bench::new();
    let running = bench.start();
    bench.record(&running, &bench.batch(0..10, "news", 0)).await;
    bench.expect_equal(&running).await;
    running.end().await;
    // While no replica runs, a writer ends, and the feed is emptied.
    let running = bench.start();
    running.supervisor.end().await;
    bench.store.put(&bench.batch(10..30, "news", 0));
    bench.feed.empty();
    running.replica.close().await.unwrap();
    let running = bench.start();
    bench.expect_equal(&running).await;
    running.wait_for_repair().await;
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_clock_ahead_expires_nobody() {
    let bench = Bench::new();
    let running = bench.start();
    bench
        .record(&running, &bench.batch(0..10, "news", 59))
        .await;
    bench.expect_equal(&running).await;
    let now = frame(60).resolution().slot_of(bench.clock.now()).number();
    let mut ahead = BatchBuilder::default();
    let user = UserId::new("ahead").unwrap();
    ahead
        .push_pair(&user, "sports", Slot::new(now + 10))
        .unwrap();
    for record in state::received(&ahead.finish(), bench.key, bench.clock.now()) {
        running.writer.append(record).await;
    }
    while counted(&running.replica, "sports") != Some(1) {
        pause().await;
    }
    assert_eq!(counted(&running.replica, "news"), Some(10));
    assert_eq!(running.replica.status().clamped, 1);
    running.end().await;
}

/// A process with a clock behind those of services lacked their newest pairs, which left the feed before it came.
#[tokio::test(start_paused = true)]
async fn a_clock_behind_or_ahead_of_the_feed_hides_no_pairs_of_the_store() {
    for is_behind in [true, false] {
        let bench = Bench::new();
        let time = Duration::from_mins(5);
        bench.store.put(&bench.batch(0..10, "news", 59));
        match is_behind {
            true => {
                bench.feed_clock.advance(time);
                let now = frame(60).resolution().slot_of(bench.feed_clock.now());
                let mut newest = BatchBuilder::default();
                let user = UserId::new("newest").unwrap();
                newest.push_pair(&user, "sports", now).unwrap();
                bench.store.put(&newest.finish());
            }
            false => bench.clock.advance(time),
        }
        let running = bench.start();
        while !running.replica.status().is_complete || running.replica.as_of().is_none() {
            pause().await;
        }
        let counted = running.replica.list(frame(60).full_window()).unwrap();
        let expected = if is_behind {
            ("sports", 1)
        } else {
            ("news", 10)
        };
        assert_eq!(
            crate::testing::numbers(&counted),
            [(expected.0.to_owned(), expected.1)]
        );
        running.end().await;
    }
}

/// A process was suspended between the read of a page and the write to its log.
#[tokio::test(start_paused = true)]
async fn what_was_read_long_ago_is_not_current() {
    let bench = Bench::new();
    bench.feed.set_unavailable(true);
    let running = bench.start();
    let (replica, now) = (&running.replica, bench.clock.now());
    let began = replica.elapsed();
    tokio::time::advance(MAX_AGE + Duration::from_secs(1)).await;
    replica.reached(now, began, false);
    assert_eq!(replica.as_of(), None);
    replica.reached(now, replica.elapsed(), false);
    assert!(replica.as_of().is_some());
    running.end().await;
}

/// A slot ended while the replica waited for entries that the feed may have lost. Counts had the window of the next slot and an
/// instant before it, so they lacked users of the oldest slot.
#[tokio::test(start_paused = true)]
async fn counts_over_a_later_slot_have_no_earlier_instant() {
    let bench = Bench::new();
    let running = bench.start();
    bench
        .record(&running, &bench.batch(0..10, "news", 59))
        .await;
    bench.expect_equal(&running).await;
    let replica = &running.replica;
    // Another server continues the feed.
    bench.feed.lose_after(u64::MAX);
    while !replica.is_held() {
        pause().await;
    }
    let entries = replica.status().entries;
    bench.pass(Duration::from_mins(1));
    bench
        .record(&running, &bench.batch(10..11, "news", 0))
        .await;
    while replica.status().entries == entries {
        pause().await;
    }
    let (news, full) = (Segment::new("news").unwrap(), frame(60).full_window());
    assert!(replica.is_held());
    assert!(replica.counts(&[full]).is_none());
    assert_eq!(replica.count(&news, full), None);
    bench.expect_equal(&running).await;
    running.end().await;
}

/// A comparison on request healed one replica. The other one lacked the same pairs, which showed when it published.
#[tokio::test(start_paused = true)]
async fn what_one_replica_finds_is_compared_by_the_others() {
    let bench = Bench::new();
    let running = bench.start();
    let standby = bench.replica("standby", &running.supervisor);
    bench.record(&running, &bench.batch(0..10, "news", 0)).await;
    bench.expect_equal(&running).await;
    while !standby.is_complete() || standby.as_of().is_none() {
        pause().await;
    }
    // A service ended before it has appended these.
    bench.store.put(&bench.batch(10..30, "news", 0));
    assert_eq!(counted(&standby, "news"), Some(10));
    let report = running.replica.audit_now(&bench.sources(), None).await;
    assert_eq!(report.unwrap().differences, 1);
    for _ in 0..2_000 {
        if counted(&standby, "news") == Some(30) {
            break;
        }
        pause().await;
    }
    assert_eq!(
        (counted(&running.replica, "news"), counted(&standby, "news")),
        (Some(30), Some(30))
    );
    // It does not go round: the standby, which found it too, told nobody.
    assert_eq!(standby.status().differences, 1);
    assert_eq!(running.replica.status().differences, 1);
    running.end().await;
    standby.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_segment_that_cannot_be_compared_does_not_hold_up_the_others() {
    let bench = Bench::new();
    let running = bench.start();
    let names = ["news", "sports"].map(|name| Segment::new(name).unwrap());
    for name in &names {
        let batch = bench.batch(0..10, name.as_str(), 0);
        bench.record(&running, &batch).await;
    }
    bench.expect_equal(&running).await;
    *bench.store.uncountable.lock() = Some("news");
    for name in &names {
        bench.store.put(&bench.batch(10..30, name.as_str(), 0));
    }
    running.replica.request_audit(&names);
    let healed = async |name| {
        for _ in 0..2_000 {
            if counted(&running.replica, name) == Some(30) {
                break;
            }
            pause().await;
        }
        counted(&running.replica, name)
    };
    assert_eq!(healed("sports").await, Some(30));
    assert_eq!(counted(&running.replica, "news"), Some(10));
    // It is tried again.
    *bench.store.uncountable.lock() = None;
    assert_eq!(healed("news").await, Some(30));
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn foreign_entries_are_skipped() {
    let bench = Bench::new();
    let running = bench.start();
    bench.record(&running, &bench.batch(0..10, "news", 0)).await;
    let mut whole = state::received(
        &bench.batch(30..40, "news", 0),
        bench.key,
        bench.clock.now(),
    );
    let whole = whole.pop().unwrap();
    let erasure = state::erased(
        &Subject::User(Fingerprint::from_number(7)),
        bench.clock.now(),
    );
    let joined = |record: &[u8]| {
        let mut joined = Vec::new();
        state::join(&mut joined, record);
        joined
    };
    // Some are records that a log would take, and could not apply.
    for record in [
        b"not a record".to_vec(),
        joined(&[]),
        joined(&[200, 1, 2]),
        joined(&state::reset(&Segment::new("news").unwrap())),
        joined(&joined(&whole)),
        joined(&whole[..whole.len() - 1]),
        joined(&[&whole[..], &[0]].concat()),
        joined(&[&erasure[..], &[0]].concat()),
    ] {
        let foreign = Append {
            writer: WriterId::random(),
            sequence: 1,
            skips: false,
            record,
        };
        bench.feed.append(None, &foreign).await.unwrap();
    }
    bench
        .record(&running, &bench.batch(10..20, "news", 0))
        .await;
    bench.expect_equal(&running).await;
    running.wait_for_repair().await;
    running.end().await;
}

/// Random steps: writes, erasures, losses, unavailability and restarts. In the end the replica has what the store has.
#[tokio::test(start_paused = true)]
async fn any_order_of_writes_losses_and_restarts_leads_to_the_counts_of_the_store() {
    for seed in 0..12 {
        let mut random = fastrand::Rng::with_seed(seed);
        let bench = Bench::new();
        bench
            .store
            .put(&bench.batch(0..random.u64(0..200), "news", 5));
        let mut running = bench.start();
        for _ in 0..60 {
            let first = random.u64(0..300);
            let users = first..first + random.u64(1..40);
            let segment = SEGMENTS[random.usize(0..3)];
            match random.u32(0..16) {
                0..9 => {
                    let batch = bench.batch(users, segment, random.u64(0..59));
                    bench.record(&running, &batch).await;
                }
                9 => bench.erase(&running, first).await,
                10 => {
                    let end = bench.feed.end().await.map_or(0, |end| end.number);
                    bench.feed.lose_after(end.saturating_sub(random.u64(0..4)));
                }
                11 => bench.feed.empty(),
                12 => {
                    bench.feed.set_unavailable(true);
                    let batch = bench.batch(users, segment, 0);
                    bench.record(&running, &batch).await;
                    bench.feed.set_unavailable(false);
                }
                13 => {
                    // What is owed survives only on disk, and this writer has none: it must be sent first.
                    while running.writer.status().owed > 0 {
                        pause().await;
                    }
                    bench.expect_equal(&running).await;
                    running.end().await;
                    running = bench.start();
                }
                14 => {
                    bench.clock.advance(Duration::from_secs(1));
                    bench.feed_clock.advance(Duration::from_secs(1));
                }
                _ => tokio::time::sleep(Duration::from_millis(random.u64(0..300))).await,
            }
        }
        bench.expect_equal(&running).await;
        running.end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_audit_finds_and_heals_what_differs() {
    let bench = Bench::new();
    let running = bench.start();
    bench.record(&running, &bench.batch(0..50, "news", 3)).await;
    bench.expect_equal(&running).await;
    let sources = Sources {
        feed: Arc::clone(&bench.feed) as Arc<dyn ChangeFeed>,
        store: Arc::clone(&bench.store) as Arc<dyn PairStore>,
        clock: Arc::clone(&bench.clock) as Arc<dyn Clock>,
    };
    let hydration = hydration::Hydration {
        replica: &running.replica,
        sources: &sources,
    };
    let news = Segment::new("news").unwrap();
    let audited = async || {
        let until = running.replica.status().audits + 1;
        while running.replica.status().audits < until {
            hydration.audit(&news).await.unwrap();
            pause().await;
        }
        running.replica.status().differences
    };
    assert_eq!(audited().await, 0, "equal counts");
    // Pairs that no feed had, as after a crash between the store and the feed.
    bench.store.put(&bench.batch(50..53, "news", 0));
    assert_eq!(audited().await, 1);
    bench.expect_equal(&running).await;
    // Users that another program removed.
    for user in 0..3 {
        let user = UserId::new(format!("u{user}")).unwrap();
        bench.store.forget(&user, bench.clock.now()).await.unwrap();
    }
    assert_eq!(audited().await, 2);
    bench.expect_equal(&running).await;
    assert_eq!(audited().await, 2);
    running.end().await;
    let running = bench.start();
    bench.expect_equal(&running).await;
    running.end().await;
}
