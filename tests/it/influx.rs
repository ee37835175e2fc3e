//! The InfluxDB store on a real server.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use domain::store::conformance::{Factory, HOSTILE_NAMES, batch, check_store};
use domain::store::{Change, PairStore, SetUp, last_of_each};
use domain::{BatchBuilder, Count, Segment, Slot, TimeFrame, Timestamp, TrendPoint, UserId};
use stores::embedded::{EmbeddedOptions, EmbeddedStore};
use stores::influx::{InfluxOptions, InfluxStore, set_up};

use crate::support::influxd::{Influxd, ORG, TOKEN};
use crate::support::two_weeks;
use crate::support::wait::until;

struct Buckets {
    server: Influxd,
    made: AtomicU32,
}

#[async_trait]
impl Factory for Buckets {
    async fn empty(&self, frame: TimeFrame) -> Arc<dyn PairStore> {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        Arc::new(self.server.store(&format!("bucket {number}"), frame).await)
    }
}

fn segment(name: &str) -> Segment {
    Segment::new(name).unwrap()
}

fn user(name: &str) -> UserId<'_> {
    UserId::new(name).unwrap()
}

fn present() -> Slot {
    two_weeks().resolution().slot_of(Timestamp::now())
}

fn back(slots: u64) -> Slot {
    Slot::new(present().number() - slots)
}

async fn users(store: &InfluxStore, name: &str) -> u64 {
    let counted = store
        .count(&segment(name), two_weeks().full_window(), Timestamp::now())
        .await;
    counted.unwrap().users
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_passes_the_conformance_suite() {
    let Some(server) = Influxd::start().await else {
        return;
    };
    let made = AtomicU32::new(0);
    check_store(&Buckets { server, made }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_names_do_not_affect_neighbouring_lines() {
    let Some(server) = Influxd::start().await else {
        return;
    };
    let store = server.store("b", two_weeks()).await;
    let mut names: BTreeSet<String> = HOSTILE_NAMES
        .iter()
        .map(|name| (*name).to_owned())
        .collect();
    for name in [
        r#"a\ b\="c"#,
        r"a\,b",
        r"a\\ b",
        r"\= \, \ \x",
        r#"a\" "b"#,
        r"a\$\{b}",
        "${a}",
    ] {
        names.insert(name.to_owned());
    }
    // Add 80 random names of characters that are special in line protocol or Flux.
    let mut random = fastrand::Rng::with_seed(4);
    let letters = br#"\\\,= "${}#'ax"#;
    while names.len() < HOSTILE_NAMES.len() + 87 {
        let length = random.usize(2..9);
        let name: String = std::iter::repeat_with(|| char::from(*random.choice(letters).unwrap()))
            .take(length)
            .collect();
        if Segment::new(&name).is_ok() {
            names.insert(name);
        }
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    for (number, name) in names.iter().enumerate() {
        // Neighbours on both sides, in the same body.
        let pairs = names
            .iter()
            .take(number)
            .map(|user| (*user, *name, present()));
        let pairs = [("first", "neighbour", present())].into_iter().chain(pairs);
        store
            .record(&batch(pairs.chain([("last", "neighbour", present())])))
            .await
            .unwrap();
    }
    assert_eq!(store.stats().refused, 0);
    assert_eq!(users(&store, "neighbour").await, 2);
    for (number, name) in names.iter().enumerate() {
        assert_eq!(users(&store, name).await, number as u64, "users of {name}");
    }
    let mut expected: Vec<Segment> = names[1..].iter().map(|name| segment(name)).collect();
    expected.push(segment("neighbour"));
    expected.sort();
    assert_eq!(store.segments(Timestamp::now()).await.unwrap(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_match_the_embedded_store() {
    let Some(server) = Influxd::start().await else {
        return;
    };
    let frame = two_weeks();
    let directory = tempfile::tempdir().unwrap();
    let embedded = EmbeddedStore::open(EmbeddedOptions::new(directory.path(), frame)).unwrap();
    let influx = server.store("b", frame).await;
    let mut random = fastrand::Rng::with_seed(11);
    for _ in 0..20 {
        let mut builder = BatchBuilder::default();
        for _ in 0..1_500 {
            let who = format!("u{}", random.u32(..3_000));
            let segment = HOSTILE_NAMES[random.usize(..HOSTILE_NAMES.len())];
            // Pairs are late by minutes, hours or days. Some pairs repeat.
            let late = random.choice([1, 60, 1_440, 13 * 1_440]).unwrap();
            let slot = back(random.u64(..late));
            builder.push_pair(&user(&who), segment, slot).unwrap();
        }
        let batch = builder.finish();
        influx.record(&batch).await.unwrap();
        embedded.record(&batch).await.unwrap();
    }
    for who in ["u1", "u20", "u300"] {
        let now = Timestamp::now();
        let erased = influx.forget(&user(who), now).await.unwrap();
        assert_eq!(embedded.forget(&user(who), now).await.unwrap(), erased);
    }
    let now = Timestamp::now();
    assert_eq!(
        influx.segments(now).await.unwrap(),
        embedded.segments(now).await.unwrap()
    );
    for name in HOSTILE_NAMES {
        for hours in [1, 7, 24, 14 * 24] {
            let window = frame.window(Duration::from_hours(hours)).unwrap();
            let ours = influx.count(&segment(name), window, now).await.unwrap();
            let theirs = embedded.count(&segment(name), window, now).await.unwrap();
            assert_eq!(ours.users, theirs.users, "{name} over {hours} h");
        }
    }
    for n in (0..3_000).step_by(251) {
        let who = format!("u{n}");
        let ours = influx.memberships(&user(&who), now).await.unwrap();
        let theirs = embedded.memberships(&user(&who), now).await.unwrap();
        assert_eq!(ours, theirs, "segments of {who}");
    }
    embedded.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn set_up_is_idempotent_and_safe_to_run_concurrently() {
    let Some(server) = Influxd::start().await else {
        return;
    };
    let options = InfluxOptions {
        org: "an org to make".into(),
        ..server.options("b", two_weeks())
    };
    let (one, other) = tokio::join!(set_up(&options, false), set_up(&options, false));
    one.unwrap();
    other.unwrap();
    let again = set_up(&options, false).await.unwrap();
    assert_eq!(
        changes(&again),
        [Change::Unchanged; 4],
        "a repeated set-up changes nothing"
    );

    let longer = InfluxOptions {
        frame: TimeFrame::new(
            Duration::from_hours(30 * 24),
            Duration::from_hours(1),
            Duration::ZERO,
        )
        .unwrap(),
        ..options.clone()
    };
    let changed = set_up(&longer, false).await.unwrap();
    assert_eq!(
        changes(&changed),
        [
            Change::Unchanged,
            Change::Updated,
            Change::Unchanged,
            Change::Updated
        ]
    );
    let again = set_up(&longer, false).await.unwrap();
    assert_eq!(changes(&again), [Change::Unchanged; 4]);
    // The longer window takes effect: a pair beyond the former window is stored.
    let store = InfluxStore::open(longer).unwrap();
    let slot = count_hours_back(&store, 20 * 24).await;
    assert_eq!(slot, 1);
}

fn changes(set_up: &SetUp) -> Vec<Change> {
    set_up.steps.iter().map(|step| step.change).collect()
}

/// Records one user `hours` ago in slots of an hour and counts over 30 days.
async fn count_hours_back(store: &InfluxStore, hours: u64) -> u64 {
    let frame = TimeFrame::new(
        Duration::from_hours(30 * 24),
        Duration::from_hours(1),
        Duration::ZERO,
    );
    let frame = frame.unwrap();
    let present = frame.resolution().slot_of(Timestamp::now());
    let slot = Slot::new(present.number() - hours);
    store.record(&batch([("u", "s", slot)])).await.unwrap();
    let counted = store
        .count(&segment("s"), frame.full_window(), Timestamp::now())
        .await;
    counted.unwrap().users
}

#[tokio::test(flavor = "multi_thread")]
async fn issued_tokens_have_only_the_required_permissions() {
    let Some(server) = Influxd::start().await else {
        return;
    };
    let options = server.options("b", two_weeks());
    let report = set_up(&options, true).await.unwrap();
    let [service, reader] = &report.tokens[..] else {
        panic!("two tokens: {:?}", report.tokens);
    };
    let again = set_up(&options, true).await.unwrap();
    assert!(again.tokens.is_empty(), "tokens are created once");

    let with = |token: &str| {
        InfluxStore::open(InfluxOptions {
            token: token.into(),
            ..options.clone()
        })
    };
    let service = with(&service.token).unwrap();
    service
        .record(&batch([("u", "s", present())]))
        .await
        .unwrap();
    let (s, full) = (segment("s"), two_weeks().full_window());
    let count = service.count(&s, full, Timestamp::now());
    let point = TrendPoint {
        segment: segment("s"),
        window: two_weeks().full_window(),
        count: count.await.unwrap(),
    };
    service.record_trend(&[point]).await.unwrap();
    assert_eq!(
        service.forget(&user("u"), Timestamp::now()).await.unwrap(),
        1
    );
    service.ping().await.unwrap();

    let reader = with(&reader.token).unwrap();
    assert_eq!(users(&reader, "s").await, 0);
    let error = reader
        .record(&batch([("u", "s", present())]))
        .await
        .unwrap_err();
    assert_eq!(error.name(), "unavailable", "{error}");

    let unauthorized = with("no token of this server").unwrap();
    let error = unauthorized.ping().await.unwrap_err();
    assert!(error.to_string().contains("influx_token"), "{error}");
    let error = unauthorized
        .record(&batch([("u", "s", present())]))
        .await
        .unwrap_err();
    assert_eq!(error.name(), "unavailable", "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_bucket_is_an_error_that_names_the_setup_command() {
    let Some(server) = Influxd::start().await else {
        return;
    };
    let other_org = InfluxOptions {
        org: "nobody's".into(),
        ..server.options("first", two_weeks())
    };
    for options in [server.options("never made", two_weeks()), other_org] {
        let store = InfluxStore::open(options).unwrap();
        let now = Timestamp::now();
        let errors = [
            store
                .record(&batch([("u", "s", present())]))
                .await
                .unwrap_err(),
            store.ping().await.unwrap_err(),
            store.segments(now).await.unwrap_err(),
            store
                .count(&segment("s"), two_weeks().full_window(), now)
                .await
                .unwrap_err(),
        ];
        for error in errors {
            assert!(error.to_string().contains("headcount setup"), "{error}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pairs_older_than_the_retention_are_dropped_and_others_are_kept() {
    let Some(server) = Influxd::start().await else {
        return;
    };
    let store = server.store("b", two_weeks()).await;
    let day = 24 * 60;
    let pairs = [
        ("too old", "s", back(15 * day)),
        ("old", "s", back(14 * day - 5)),
        ("also too old", "t", back(40 * day)),
        ("new", "s", present()),
    ];
    store.record(&batch(pairs)).await.unwrap();
    let stats = store.stats();
    assert_eq!((stats.written, stats.expired, stats.refused), (2, 2, 0));
    assert_eq!(users(&store, "s").await, 2);
    assert_eq!(users(&store, "t").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_field_type_conflict_rejects_only_the_affected_pair() {
    let Some(server) = Influxd::start().await else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let refused = directory.path().join("refused.lp");
    let options = server.options("b", two_weeks());
    set_up(&options, false).await.unwrap();
    let store = InfluxStore::open(InfluxOptions {
        dead_letter: Some(refused.clone()),
        ..options
    })
    .unwrap();
    // A foreign integer in one shard of the bucket. Field types are kept per shard.
    let other_day = back(3 * 24 * 60);
    let seconds = other_day.number() * 60;
    let foreign = format!("pair,segment=x user=1i {seconds}000000000");
    assert_eq!(server.write_raw("b", foreign).await, 204);

    let pairs = [("hit", "s", other_day), ("fine", "s", present())];
    let error = store.record(&batch(pairs)).await.unwrap_err();
    assert_eq!(error.name(), "partly");
    assert_eq!(
        users(&store, "s").await,
        1,
        "the pair in another shard is kept"
    );
    let kept = std::fs::read_to_string(refused).unwrap();
    assert!(kept.contains("hit") && !kept.contains("fine"), "{kept}");
    assert!(kept.contains("field type conflict"), "{kept}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_erased_by_one_instance_is_not_counted_by_any() {
    let Some(server) = Influxd::start().await else {
        return;
    };
    let eraser = server.store("b", two_weeks()).await;
    let reader = InfluxStore::open(server.options("b", two_weeks())).unwrap();
    let pairs = [
        ("gone", "s", present()),
        ("gone", "s", back(700)),
        ("gone too", "s", back(700)),
        ("stays", "s", present()),
        ("gone", "t", back(3)),
    ];
    eraser.record(&batch(pairs)).await.unwrap();
    assert_eq!(users(&reader, "s").await, 3);
    assert_eq!(
        eraser
            .forget(&user("gone"), Timestamp::now())
            .await
            .unwrap(),
        2
    );
    assert_eq!(
        eraser
            .forget(&user("gone too"), Timestamp::now())
            .await
            .unwrap(),
        1
    );
    for store in [&reader, &eraser] {
        assert_eq!(users(store, "s").await, 1);
        assert_eq!(users(store, "t").await, 0);
        assert_eq!(
            store.segments(Timestamp::now()).await.unwrap(),
            [segment("s")]
        );
        let hour = two_weeks().window(Duration::from_hours(1)).unwrap();
        let counted = store
            .count(&segment("s"), hour, Timestamp::now())
            .await
            .unwrap();
        assert_eq!(counted.users, 1);
    }
    eraser
        .record(&batch([("gone", "s", back(700))]))
        .await
        .unwrap();
    assert_eq!(
        users(&reader, "s").await,
        2,
        "seen again in the erased slot, counted again"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_loses_no_acknowledged_pair() {
    let Some(mut server) = Influxd::start().await else {
        return;
    };
    let options = InfluxOptions {
        // No write reaches its deadline before the kill, even on a busy machine.
        write_deadline: Duration::from_secs(60),
        ..server.options("b", two_weeks())
    };
    set_up(&options, false).await.unwrap();
    let store = Arc::new(InfluxStore::open(options).unwrap());
    let mut acknowledged = 0;
    for round in 0..3 {
        let mut writers = tokio::task::JoinSet::new();
        for writer in 0..4 {
            let store = Arc::clone(&store);
            writers.spawn(async move {
                let mut recorded = 0_u64;
                for n in 0.. {
                    let names: Vec<String> = (0..50)
                        .map(|user| format!("u{round}-{writer}-{n}-{user}"))
                        .collect();
                    let pairs = names.iter().map(|name| (name.as_str(), "s", present()));
                    if store.record(&batch(pairs)).await.is_err() {
                        break;
                    }
                    recorded += 50;
                }
                recorded
            });
        }
        // Under load: some writes were acknowledged, others are in flight.
        let enough = (round + 1) * 20;
        until("all write", async || store.stats().bodies >= enough).await;
        server.kill();
        while let Some(recorded) = writers.join_next().await {
            acknowledged += recorded.unwrap();
        }
        server.restart().await;
        let counted = users(&store, "s").await;
        // A write whose response was cut off may be stored as well: each of the 4 writers had one in flight.
        assert!(
            (acknowledged..=acknowledged + (round + 1) * 4 * 50).contains(&counted),
            "round {round}: {acknowledged} acknowledged, {counted} counted"
        );
    }
    assert!(acknowledged > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_opens_without_a_server_and_works_once_the_server_is_up() {
    let Some(mut server) = Influxd::start().await else {
        return;
    };
    let options = server.options("b", two_weeks());
    set_up(&options, false).await.unwrap();
    server.kill();
    let store = InfluxStore::open(options).unwrap();
    assert_eq!(store.ping().await.unwrap_err().name(), "unavailable");
    server.restart().await;
    store.ping().await.unwrap();
    store.record(&batch([("u", "s", present())])).await.unwrap();
    assert_eq!(users(&store, "s").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn set_up_requires_a_valid_token() {
    let Some(server) = Influxd::start().await else {
        return;
    };
    let wrong = InfluxOptions::new(&server.url(), ORG, "b", "wrong token", two_weeks());
    assert_eq!(
        set_up(&wrong, false).await.unwrap_err().name(),
        "unavailable"
    );
    let right = InfluxOptions::new(&server.url(), ORG, "b", TOKEN, two_weeks());
    let made = set_up(&right, false).await.unwrap();
    assert_eq!(made.steps[0].change, Change::Unchanged);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trend_in_steps_has_the_last_point_of_each_step() {
    let Some(server) = Influxd::start().await else {
        return;
    };
    let store = server.store("b", two_weeks()).await;
    let window = two_weeks().full_window();
    let now = Timestamp::now();
    let points: Vec<TrendPoint> = (0..600)
        .map(|n: u64| TrendPoint {
            segment: segment("s"),
            window,
            count: Count {
                users: n,
                as_of: now.saturating_sub(Duration::from_secs(n * 1_733)).unwrap(),
            },
        })
        .collect();
    store.record_trend(&points).await.unwrap();
    let from = now
        .saturating_sub(Duration::from_secs(500 * 1_733))
        .unwrap();
    let all = store.trend(&segment("s"), window, from, now).await.unwrap();
    // Points have whole seconds, and the range begins within a second.
    assert_eq!(all.len(), 500);
    for seconds in [60, 3_600, 7_000, 86_400, 604_800] {
        let step = Duration::from_secs(seconds);
        let thinned = store
            .trend_in_steps(&segment("s"), window, from, now, step)
            .await;
        assert_eq!(
            thinned.unwrap(),
            last_of_each(all.clone(), step),
            "{seconds} s"
        );
    }
}
