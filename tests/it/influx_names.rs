//! Names of every kind on a real InfluxDB: written in line protocol, queried in Flux literals, read from CSV.

use std::collections::{BTreeMap, BTreeSet};

use domain::store::PairStore;
use domain::store::conformance::frame;
use domain::{BatchBuilder, Segment, Timestamp, UserId};

use crate::support::influxd::Influxd;

/// Pieces that are special in one of the formats, and characters that are hard to encode.
const PIECES: &[&str] = &[
    "\\", "\\", ",", " ", "=", "\"", "${", "$", "{", "}", "\\x24", "\\${x}", "//", "|>", "#", "'",
    "a", "pair", "u", "é", "\u{301}", "\u{2028}", "\u{feff}", "\u{200f}", "🏀", "%2F", ")",
    "r._value",
];

fn name(random: &mut fastrand::Rng) -> String {
    let pieces = random.usize(1..8);
    (0..pieces)
        .map(|_| PIECES[random.usize(..PIECES.len())])
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_name_round_trips() {
    let Some(server) = Influxd::start().await else {
        return;
    };
    let seed = std::env::var("HEADCOUNT_TEST_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("HEADCOUNT_TEST_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let frame = frame(60);
    let store = server.store("names", frame).await;
    let now = Timestamp::now();

    let mut batch = BatchBuilder::default();
    let mut of_segment = BTreeMap::<String, BTreeSet<String>>::new();
    let mut of_user = BTreeMap::<String, BTreeSet<String>>::new();
    while of_segment.len() < 150 {
        let (user, segment) = (name(&mut random), name(&mut random));
        let id = UserId::new(&user).unwrap();
        let slot = frame.resolution().slot_of(now);
        if batch.push_pair(&id, &segment, slot).is_ok() {
            of_segment
                .entry(segment.clone())
                .or_default()
                .insert(user.clone());
            of_user.entry(user).or_default().insert(segment);
        }
    }
    store.record(&batch.finish()).await.unwrap();

    let listed = store.segments(now).await.unwrap();
    let listed: BTreeSet<&str> = listed.iter().map(Segment::as_str).collect();
    assert_eq!(listed, of_segment.keys().map(String::as_str).collect());
    for (name, users) in &of_segment {
        let segment = Segment::new(name).unwrap();
        let count = store
            .count(&segment, frame.full_window(), now)
            .await
            .unwrap();
        assert_eq!(count.users, users.len() as u64, "{name:?}");
    }
    for (name, segments) in &of_user {
        let user = UserId::new(name).unwrap();
        let found = store.memberships(&user, now).await.unwrap();
        let found: BTreeSet<String> = found
            .iter()
            .map(|found| found.segment.to_string())
            .collect();
        assert_eq!(found, *segments, "{name:?}");
    }
}
