//! Every store gives the same count for the same pairs, whatever happens around them.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use domain::store::PairStore;
use domain::store::conformance::HOSTILE_NAMES;
use domain::{Batch, BatchBuilder, Segment, Slot, TimeFrame, Timestamp, UserId, Window};
use futures::future::join_all;
use futures::stream::{self, StreamExt};
use siphasher::sip::SipHasher13;

use crate::support::stores::{INFLUX_KEY, Stores};
use crate::support::two_weeks;

const PAIRS: usize = 1_000_000;
const BATCH: usize = 5_000;
const USERS: u32 = 60_000;
const SEGMENTS: usize = 40;
/// The instants at which all counts are compared. Time advances by about two days between two of them.
const INSTANTS: usize = 14;

fn frame(window: Duration, resolution: Duration) -> TimeFrame {
    TimeFrame::new(window, resolution, Duration::from_secs(60)).unwrap()
}

fn user_name(number: u32) -> String {
    match number % 10 {
        0 => {
            let hostile = HOSTILE_NAMES[number as usize / 10 % HOSTILE_NAMES.len()];
            format!("{number} {hostile}")
        }
        _ => format!("u{number}"),
    }
}

fn segments() -> Vec<Segment> {
    let plain = (0..SEGMENTS - HOSTILE_NAMES.len()).map(|number| format!("segment {number}"));
    let hostile = HOSTILE_NAMES.iter().map(|name| (*name).to_owned());
    hostile
        .chain(plain)
        .map(|name| Segment::new(&name).unwrap())
        .collect()
}

/// A stream of pairs, and the expected state: the latest slot of each.
struct Stream {
    random: fastrand::Rng,
    segments: Vec<Segment>,
    first: Slot,
    latest: HashMap<(usize, u32), Slot>,
}

impl Stream {
    /// A batch received in slot `present`. Most pairs are new, some are late.
    fn batch(&mut self, present: Slot) -> Batch {
        let mut builder = BatchBuilder::with_capacity(BATCH);
        for _ in 0..BATCH {
            // Squared, so that some segments and users occur far more often than others.
            let segment = (self.random.f64().powi(2) * SEGMENTS as f64) as usize;
            let user = (self.random.f64().powi(2) * f64::from(USERS)) as u32;
            let late = self.random.choice([1, 2_880, 2_880, 13 * 1_440]).unwrap();
            let slot = present.number() - self.random.u64(..late);
            let slot = Slot::new(slot.max(self.first.number()));
            let name = user_name(user);
            let name = UserId::new(&name).unwrap();
            builder
                .push_pair(&name, self.segments[segment].as_str(), slot)
                .unwrap();
            let latest = self.latest.entry((segment, user)).or_insert(slot);
            *latest = slot.max(*latest);
        }
        builder.finish()
    }

    /// Users by segment.
    fn counts(&self, window: Window, present: Slot) -> Vec<u64> {
        let slots = window.slots_as_of(present);
        let mut counts = vec![0; SEGMENTS];
        for ((segment, _), slot) in &self.latest {
            counts[*segment] += u64::from(slots.contains(slot));
        }
        counts
    }

    fn forget(&mut self, user: u32, window: Window, present: Slot) -> u64 {
        let slots = window.slots_as_of(present);
        let mut erased = 0;
        for segment in 0..SEGMENTS {
            if let Some(slot) = self.latest.remove(&(segment, user)) {
                erased += u64::from(slots.contains(&slot));
            }
        }
        erased
    }
}

async fn counts(
    store: &dyn PairStore,
    segments: &[Segment],
    window: Window,
    as_of: Timestamp,
) -> Vec<u64> {
    stream::iter(segments)
        .map(|segment| async move { store.count(segment, window, as_of).await.unwrap().users })
        .buffered(4)
        .collect()
        .await
}

/// InfluxDB keeps one of two users with the same nanosecond of a slot. With a random key, one run in a few hundred had such a
/// pair in the same segment and slot.
#[test]
fn no_two_users_have_the_same_nanosecond() {
    let slot = u128::from(two_weeks().resolution().seconds()) * 1_000_000_000;
    let hasher = SipHasher13::new_with_key(&INFLUX_KEY);
    let nanosecond = |number| {
        let fingerprint = hasher.hash(user_name(number).as_bytes()) >> 16;
        (u128::from(fingerprint) * slot) >> 48
    };
    let distinct: HashSet<u128> = (0..USERS).map(nanosecond).collect();
    assert_eq!(distinct.len(), USERS as usize, "choose another INFLUX_KEY");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_million_pairs_give_the_same_counts_in_every_store() {
    let frame = two_weeks();
    let resolution = frame.resolution();
    let stores = Stores::start(frame).await;
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    // The server of one store drops points that are older than the window by its own clock, so time begins now.
    let began = resolution.slot_of(Timestamp::now()).number();
    let mut stream = Stream {
        random: fastrand::Rng::with_seed(seed),
        segments: segments(),
        first: Slot::new(began - 13 * 1_440),
        latest: HashMap::new(),
    };
    let minute = Duration::from_secs(60);
    let windows = [minute, 1_440 * minute, 14 * 1_440 * minute];
    let windows = windows.map(|length| frame.window(length).unwrap());
    let mut present = began;
    for instant in 0..INSTANTS {
        present += stream.random.u64(1_440..4_320);
        let present = Slot::new(present);
        let batches: Vec<_> = (0..PAIRS / BATCH / INSTANTS)
            .map(|_| stream.batch(present))
            .collect();
        // The last instant of the slot in some rounds, the first in others.
        let as_of = match stream.random.bool() {
            true => resolution.start_of(present),
            false => resolution.end_of(present),
        };
        let forgotten = stream.random.u32(..USERS / 10);
        let erased = stream.forget(forgotten, frame.full_window(), present);
        let archives = stream.random.bool();
        let right = windows.map(|window| stream.counts(window, present));
        let stream = &stream;
        join_all(stores.all().map(|(name, store)| {
            let (batches, right) = (&batches, &right);
            async move {
                for batch in batches {
                    store.record(batch).await.unwrap();
                }
                let who = user_name(forgotten);
                let who = UserId::new(&who).unwrap();
                let counted = store.forget(&who, as_of).await.unwrap();
                assert_eq!(counted, erased, "{name}, instant {instant}: erased");
                while archives && !store.archive(as_of, 10_000).await.unwrap().done {}
                for (window, right) in windows.iter().zip(right) {
                    let counted = counts(store, &stream.segments, *window, as_of).await;
                    assert_eq!(&counted, right, "{name}, instant {instant}, {window:?}");
                }
                let listed = store.segments(as_of).await.unwrap();
                let full = right.last().unwrap().iter();
                assert_eq!(
                    listed.len(),
                    full.filter(|users| **users > 0).count(),
                    "{name}, instant {instant}: segments"
                );
            }
        }))
        .await;
    }
    stores.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_of_four_minutes_expires_second_by_second_in_every_store() {
    let frame = frame(Duration::from_secs(240), Duration::from_secs(1));
    let resolution = frame.resolution();
    let stores = Stores::start(frame).await;
    let began = resolution.slot_of(Timestamp::now());
    let segment = Segment::new("s").unwrap();
    for (name, store) in stores.all() {
        let seen = |user: &str, second: u64| {
            let mut builder = BatchBuilder::default();
            let slot = Slot::new(began.number() + second);
            let user = UserId::new(user).unwrap();
            builder.push_pair(&user, "s", slot).unwrap();
            builder.finish()
        };
        for (user, second) in [("a", 0), ("b", 0), ("c", 100), ("b", 150)] {
            store.record(&seen(user, second)).await.unwrap();
        }
        for (second, users) in [
            (150, 3),
            (239, 3),
            (240, 2),
            (339, 2),
            (340, 1),
            (389, 1),
            (390, 0),
        ] {
            let slot = Slot::new(began.number() + second);
            for as_of in [resolution.start_of(slot), resolution.end_of(slot)] {
                let counted = store.count(&segment, frame.full_window(), as_of).await;
                assert_eq!(counted.unwrap().users, users, "{name} after {second} s");
            }
            let as_of = resolution.end_of(slot);
            while !store.archive(as_of, 100).await.unwrap().done {}
            let listed = store.segments(as_of).await.unwrap();
            assert_eq!(listed.is_empty(), users == 0, "{name} after {second} s");
        }
    }
    stores.close().await;
}

const WRITERS: u64 = 4;
const ROUNDS: u64 = 25;
const GROUP: u64 = 200;

/// The batch of one writer's round: new users, and some that were last seen long ago.
fn group(writer: u64, round: u64, slot: Slot) -> Batch {
    let mut builder = BatchBuilder::default();
    for number in 0..GROUP {
        let user = format!("u{}", (writer * ROUNDS + round) * GROUP + number);
        let user = UserId::new(&user).unwrap();
        builder.push_pair(&user, "s", slot).unwrap();
    }
    builder.finish()
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_writers_and_archive_do_not_change_counts() {
    let frame = two_weeks();
    let resolution = frame.resolution();
    let stores = Stores::start(frame).await;
    let long_ago = resolution.slot_of(Timestamp::now());
    let present = Slot::new(long_ago.number() + u64::from(frame.full_window().slots()));
    let as_of = resolution.end_of(present);
    let segment = Segment::new("s").unwrap();
    for (name, store) in stores.all() {
        // Half of the later users were seen long ago: they return while archive removes their old pairs.
        for writer in 0..WRITERS / 2 {
            for round in 0..ROUNDS {
                let batch = group(writer, round, long_ago);
                store.record(&batch).await.unwrap();
            }
        }
        let (begun, acknowledged) = (AtomicU64::new(0), AtomicU64::new(0));
        let stop = AtomicBool::new(false);
        let write = async |writer| {
            for round in 0..ROUNDS {
                begun.fetch_add(GROUP, Ordering::SeqCst);
                store.record(&group(writer, round, present)).await.unwrap();
                acknowledged.fetch_add(GROUP, Ordering::SeqCst);
            }
        };
        let watch = async || {
            while !stop.load(Ordering::SeqCst) {
                let known = acknowledged.load(Ordering::SeqCst);
                let counted = store.count(&segment, frame.full_window(), as_of).await;
                let counted = counted.unwrap().users;
                let most = begun.load(Ordering::SeqCst);
                assert!(
                    (known..=most).contains(&counted),
                    "{name}: {counted} is not from {known} to {most}"
                );
                // A store may return without ever having to wait.
                tokio::task::yield_now().await;
            }
        };
        let archive = async || {
            let mut removed = 0;
            loop {
                let stopped = stop.load(Ordering::SeqCst);
                let archived = store.archive(as_of, 100).await.unwrap();
                removed += archived.removed;
                if stopped && archived.done {
                    return removed;
                }
                tokio::task::yield_now().await;
            }
        };
        let writers = async {
            join_all((0..WRITERS).map(write)).await;
            stop.store(true, Ordering::SeqCst);
        };
        let ((), (), removed) = tokio::join!(writers, watch(), archive());
        assert!(removed <= WRITERS / 2 * ROUNDS * GROUP, "{name}");
        let counted = store.count(&segment, frame.full_window(), as_of).await;
        let all = WRITERS * ROUNDS * GROUP;
        assert_eq!(counted.unwrap().users, all, "{name}: each once");
    }
    stores.close().await;
}
