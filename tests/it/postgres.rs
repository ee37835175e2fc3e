//! The Postgres store on a real server.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use domain::store::conformance::{Factory, HOSTILE_NAMES, check_store};
use domain::store::{Change, PairStore, SetUp};
use domain::{Batch, BatchBuilder, Count, Segment, Slot, TimeFrame, Timestamp, TrendPoint, UserId};
use stores::postgres::{PostgresOptions, PostgresStore, set_up};

use crate::support::postgres::{Postgres, parsed};
use crate::support::two_weeks;

struct Schemas {
    server: Postgres,
    made: AtomicU32,
}

#[async_trait]
impl Factory for Schemas {
    async fn empty(&self, frame: TimeFrame) -> Arc<dyn PairStore> {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        Arc::new(self.server.store(&format!("s{number}"), frame).await)
    }
}

pub fn frame(window: u64, resolution: u64) -> TimeFrame {
    let seconds = Duration::from_secs;
    TimeFrame::new(seconds(window), seconds(resolution), seconds(300)).unwrap()
}

pub fn segment(name: &str) -> Segment {
    Segment::new(name).unwrap()
}

pub fn user(name: &str) -> UserId<'_> {
    UserId::new(name).unwrap()
}

pub fn batch<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str, Slot)>) -> Batch {
    let mut builder = BatchBuilder::default();
    for (name, segment, slot) in pairs {
        builder.push_pair(&user(name), segment, slot).unwrap();
    }
    builder.finish()
}

pub fn present() -> Slot {
    two_weeks().resolution().slot_of(Timestamp::now())
}

pub fn back(slots: u64) -> Slot {
    Slot::new(present().number() - slots)
}

pub async fn users(store: &PostgresStore, name: &str) -> u64 {
    let counted = store
        .count(&segment(name), two_weeks().full_window(), Timestamp::now())
        .await;
    counted.unwrap().users
}

fn changes(set_up: &SetUp) -> Vec<Change> {
    set_up.steps.iter().map(|step| step.change).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_keeps_every_promise_of_the_port() {
    let Some(server) = Postgres::start().await else {
        return;
    };
    let made = AtomicU32::new(0);
    check_store(&Schemas { server, made }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn setup_is_idempotent_and_may_run_concurrently() {
    let Some(server) = Postgres::start().await else {
        return;
    };
    let options = server.options("hc", two_weeks());
    let at_once = (0..6).map(|_| set_up(&options));
    let mut created = 0;
    for done in futures::future::join_all(at_once).await {
        let changes = changes(&done.unwrap());
        created += usize::from(changes == [Change::Created; 4]);
        assert!(changes == [Change::Created; 4] || changes == [Change::Unchanged; 4]);
    }
    assert_eq!(created, 1, "one of them created everything");

    // Two deployments share a database.
    let other = set_up(&server.options("other", frame(240, 1))).await;
    assert_eq!(changes(&other.unwrap()), [Change::Created; 4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_resolution_is_accepted_only_without_pairs() {
    let Some(server) = Postgres::start().await else {
        return;
    };
    let minutes = server.store("hc", two_weeks()).await;
    let seconds = server.options("hc", frame(240, 1));
    let stranger = PostgresStore::open(seconds.clone()).unwrap();
    let refused = stranger.check_frame().await.unwrap_err();
    assert_eq!(refused.name(), "rejected", "{refused}");
    assert!(
        refused.to_string().contains("`resolution` is 1 s"),
        "{refused}"
    );
    // The spool would drop a batch that the store rejects permanently, so this must be a temporary error.
    let pair = batch([("u", "s", Slot::new(Timestamp::now().as_second() as u64))]);
    assert_eq!(stranger.record(&pair).await.unwrap_err().name(), "damaged");

    let report = set_up(&seconds).await.unwrap();
    assert_eq!(
        changes(&report),
        [
            Change::Unchanged,
            Change::Unchanged,
            Change::Updated,
            Change::Unchanged
        ]
    );
    stranger.check_frame().await.unwrap();
    stranger.record(&pair).await.unwrap();
    drop(minutes);

    let error = set_up(&server.options("hc", two_weeks()))
        .await
        .unwrap_err();
    assert_eq!(error.name(), "rejected");
    assert!(error.to_string().contains("slots of 1 s"), "{error}");
    assert!(
        error.to_string().contains("`resolution` is 60 s"),
        "{error}"
    );
    // Another window over the same slots only affects counts.
    let longer = set_up(&server.options("hc", frame(480, 1))).await.unwrap();
    assert_eq!(changes(&longer), [Change::Unchanged; 4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_user_key_is_refused_if_there_are_pairs() {
    let Some(server) = Postgres::start().await else {
        return;
    };
    let with = |user_key: Option<&str>| PostgresOptions {
        user_key: user_key.map(str::to_owned),
        ..server.options("hc", two_weeks())
    };
    let open = |user_key| PostgresStore::open(with(user_key)).unwrap();
    set_up(&with(None)).await.unwrap();
    // Without pairs, no user would be counted twice.
    set_up(&with(Some("aa"))).await.unwrap();
    open(Some("aa")).check_frame().await.unwrap();
    open(Some("aa"))
        .record(&batch([("u", "s", Slot::new(1))]))
        .await
        .unwrap();
    for (other, was) in [(None, "with a user_key"), (Some("bb"), "with another")] {
        let refused = open(other).check_frame().await.unwrap_err();
        assert_eq!(refused.name(), "rejected");
        assert!(refused.to_string().contains(was), "{refused}");
        let error = open(other).ping().await.unwrap_err();
        // Pairs in a spool must not be dropped as rejected.
        assert_eq!(error.name(), "damaged", "{error}");
        let refused = set_up(&with(other)).await.unwrap_err();
        assert!(
            refused.to_string().contains("would count twice"),
            "{refused}"
        );
    }
    // A schema of an earlier version does not record it.
    let client = server.client().await;
    let gone = "update hc.frame set user_key = null";
    client.batch_execute(gone).await.unwrap();
    open(Some("bb")).check_frame().await.unwrap();
    assert!(open(Some("aa")).check_frame().await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_not_set_up_names_the_command_to_run() {
    let Some(server) = Postgres::start().await else {
        return;
    };
    let store = PostgresStore::open(server.options("hc", two_weeks())).unwrap();
    store.check_frame().await.unwrap();
    let now = Timestamp::now();
    let full = two_weeks().full_window();
    let errors = [
        store.record(&batch([("u", "s", present())])).await.err(),
        store.ping().await.err(),
        store.segments(now).await.err(),
        store.count(&segment("s"), full, now).await.err(),
        store.archive(now, 10).await.err(),
    ];
    for error in errors {
        let error = error.unwrap();
        assert_eq!(error.name(), "not_set_up", "{error}");
        assert!(error.to_string().contains("headcount setup"), "{error}");
    }
    // The same store works after the setup, without a restart.
    set_up(&server.options("hc", two_weeks())).await.unwrap();
    store.record(&batch([("u", "s", present())])).await.unwrap();
    assert_eq!(users(&store, "s").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_compared_as_bytes_in_any_collation() {
    let Some(server) = Postgres::start().await else {
        return;
    };
    // In this collation, names that differ in case or accents are sorted next to each other.
    let made = "create database foreign_sort template template0 \
        locale_provider icu icu_locale 'en' encoding 'UTF8'";
    server.client().await.batch_execute(made).await.unwrap();
    let url = server.url().replace("/postgres", "/foreign_sort");
    let options = PostgresOptions::new(parsed(&url), "hc", two_weeks());
    set_up(&options).await.unwrap();
    let store = PostgresStore::open(options).unwrap();

    let mut names: Vec<String> = HOSTILE_NAMES.iter().map(|&name| name.into()).collect();
    // Names that look the same: composed and decomposed, with an invisible joiner, and in another case.
    for name in [
        "é",
        "e\u{301}",
        "a",
        "A",
        "a\u{200d}",
        "ß",
        "ss",
        "ﬀ",
        "ff",
        "İ",
        "i\u{307}",
    ] {
        names.push(name.into());
    }
    names.push("\u{10ffff}".repeat(32));
    for (number, name) in names.iter().enumerate() {
        let pairs = names
            .iter()
            .take(number + 1)
            .map(|user| (user.as_str(), name.as_str(), present()));
        store.record(&batch(pairs)).await.unwrap();
    }
    for (number, name) in names.iter().enumerate() {
        assert_eq!(users(&store, name).await, number as u64 + 1, "{name:?}");
    }
    let mut sorted: Vec<Segment> = names.iter().map(|name| segment(name)).collect();
    sorted.sort();
    assert_eq!(store.segments(Timestamp::now()).await.unwrap(), sorted);
    let mut slots_of_last = Vec::new();
    let last = names.last().unwrap();
    let exported = store.export(&segment(last), back(5)..=present()).await;
    for pair in exported.unwrap().pairs() {
        slots_of_last.push(pair.user.as_str().to_owned());
    }
    slots_of_last.sort();
    names.sort();
    assert_eq!(slots_of_last, names);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_of_another_encoding_is_refused() {
    let Some(server) = Postgres::start().await else {
        return;
    };
    let made = "create database bytes template template0 encoding 'SQL_ASCII' locale 'C'";
    server.client().await.batch_execute(made).await.unwrap();
    let url = server.url().replace("/postgres", "/bytes");
    let options = PostgresOptions::new(parsed(&url), "hc", two_weeks());
    let error = set_up(&options).await.unwrap_err();
    assert!(error.to_string().contains("SQL_ASCII"), "{error}");

    let url = server.url().replace("/postgres", "/never_made");
    let options = PostgresOptions::new(parsed(&url), "hc", two_weeks());
    let error = set_up(&options).await.unwrap_err();
    assert!(error.to_string().contains("never_made"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn export_returns_each_pair_of_the_slots_once() {
    let Some(server) = Postgres::start().await else {
        return;
    };
    let store = server.store("hc", two_weeks()).await;
    // One current slot for all pairs: a minute may end meanwhile.
    let now = present();
    let back = |slots: u64| Slot::new(now.number() - slots);
    let pairs = [
        ("new", "s", back(1)),
        ("old", "s", back(900)),
        ("moved", "s", back(900)),
        ("moved", "s", back(2)),
        ("elsewhere", "t", back(1)),
    ];
    store.record(&batch(pairs)).await.unwrap();
    let export = async |slots| {
        let batch = store.export(&segment("s"), slots).await.unwrap();
        let mut pairs: Vec<(String, u64)> = batch
            .pairs()
            .map(|pair| (pair.user.as_str().to_owned(), pair.slot.number()))
            .collect();
        pairs.sort();
        pairs
    };
    let of = |name: &str, slot: Slot| (name.to_owned(), slot.number());
    let all = Slot::new(0)..=Slot::new(u64::MAX);
    assert_eq!(
        export(all).await,
        [
            of("moved", back(2)),
            of("new", back(1)),
            of("old", back(900))
        ]
    );
    assert_eq!(export(back(900)..=back(900)).await, [of("old", back(900))]);
    assert_eq!(export(back(899)..=back(3)).await, []);
    let nothing = export(back(1)..=back(2)).await;
    assert_eq!(nothing, []);
    let unknown = store.export(&segment("unknown"), back(9)..=now).await;
    assert!(unknown.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn archive_runs_in_bounded_steps_beside_writers_and_counts() {
    let Some(server) = Postgres::start().await else {
        return;
    };
    // Four minutes in steps of a second, and a clock that this test controls.
    let frame = frame(240, 1);
    let store = Arc::new(server.store("hc", frame).await);
    let start = 1_800_000_000_u64;
    let at = |second: u64| Timestamp::from_second(i64::try_from(second).unwrap()).unwrap();
    let full = frame.full_window();
    for second in (start - 300..start).step_by(10) {
        let names: Vec<String> = (0..20).map(|n| format!("old {second} {n}")).collect();
        let pairs = names
            .iter()
            .flat_map(|name| ["a", "b"].map(|s| (name.as_str(), s, Slot::new(second))));
        store.record(&batch(pairs)).await.unwrap();
    }
    // Each second of the past has its own users. Each user leaves after 240 s.
    for ahead in [0, 1, 9, 10, 100, 230, 231, 239, 240, 300] {
        let alive = (start - 300..start)
            .step_by(10)
            .filter(|second| second + 240 > start + ahead)
            .count() as u64;
        let counted = store.count(&segment("a"), full, at(start + ahead)).await;
        assert_eq!(counted.unwrap().users, 20 * alive, "{ahead} s later");
    }

    // 30 s later, 10 of 30 seconds have expired in both segments. Meanwhile writers move some of the expired users to
    // now, and counts continue.
    let now = start + 30;
    let expired: Vec<u64> = (start - 300..start)
        .step_by(10)
        .filter(|s| s + 240 <= now)
        .collect();
    assert_eq!(expired.len(), 10);
    let writers = (0..4_u64).map(|writer| {
        let (store, expired) = (Arc::clone(&store), expired.clone());
        async move {
            for second in expired {
                for n in 0..5 {
                    let name = format!("old {second} {}", writer * 5 + n);
                    if n == 0 {
                        let moved = batch([(name.as_str(), "a", Slot::new(now))]);
                        store.record(&moved).await.unwrap();
                    }
                    let new = format!("new {writer} {second} {n}");
                    store
                        .record(&batch([(new.as_str(), "a", Slot::new(now))]))
                        .await
                        .unwrap();
                }
            }
        }
    });
    let archiver = async {
        let mut removed = 0;
        loop {
            let step = store.archive(at(now), 7).await.unwrap();
            assert!(step.removed <= 7, "a step is bounded");
            removed += step.removed;
            if step.done {
                return removed;
            }
        }
    };
    let counter = async {
        for _ in 0..50 {
            let counted = store.count(&segment("b"), full, at(now)).await.unwrap();
            assert_eq!(counted.users, 20 * 20, "nothing of b changes");
        }
    };
    let (removed, (), _) = tokio::join!(archiver, counter, futures::future::join_all(writers));
    // Pairs that were moved before the archiver reached them were not removed. Pairs that were removed were recorded
    // again.
    assert!((10 * 20..=2 * 10 * 20).contains(&removed), "{removed}");
    let counted = store.count(&segment("a"), full, at(now)).await.unwrap();
    assert_eq!(counted.users, 20 * 20 + 10 * 4 + 10 * 4 * 5);
    let rows = server.client().await;
    let left = rows
        .query_one("select count(*) from hc.pairs", &[])
        .await
        .unwrap();
    let rest = store.archive(at(now), 1_000).await.unwrap();
    let gone = i64::try_from(rest.removed).unwrap();
    assert_eq!(
        left.get::<_, i64>(0) - gone,
        20 * 20 * 2 + 10 * 4 + 10 * 4 * 5
    );
    assert!(rest.done);
}

#[tokio::test(flavor = "multi_thread")]
async fn archive_skips_locked_rows() {
    let Some(server) = Postgres::start().await else {
        return;
    };
    let store = server.store("hc", two_weeks()).await;
    let weeks = 20_160;
    let pairs = [
        ("held", "s", back(weeks + 9)),
        ("free", "s", back(weeks + 8)),
    ];
    store.record(&batch(pairs)).await.unwrap();
    let mut other = server.client().await;
    let holding = other.transaction().await.unwrap();
    let hold = "select from hc.pairs where user_id = 'held' for update";
    assert_eq!(holding.execute(hold, &[]).await.unwrap(), 1);
    let step = store.archive(Timestamp::now(), 10).await.unwrap();
    assert_eq!((step.removed, step.done), (1, false));
    let step = store.archive(Timestamp::now(), 10).await.unwrap();
    assert_eq!(
        (step.removed, step.done),
        (0, true),
        "archive does not wait for the lock"
    );
    holding.rollback().await.unwrap();
    let step = store.archive(Timestamp::now(), 10).await.unwrap();
    assert_eq!((step.removed, step.done), (1, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_trend_keeps_a_point_an_hour_and_expires_after_400_days() {
    let Some(server) = Postgres::start().await else {
        return;
    };
    let store = server.store("hc", two_weeks()).await;
    let hour = Timestamp::now().as_second() / 3_600;
    let full = two_weeks().full_window();
    let point = |second: i64| TrendPoint {
        segment: segment("s"),
        window: full,
        count: Count {
            users: 7,
            as_of: Timestamp::from_second(second).unwrap(),
        },
    };
    let minutes: Vec<_> = (0..180).map(|n| point(hour * 3_600 + n * 60)).collect();
    store.record_trend(&minutes).await.unwrap();
    let ages = async |now: i64| {
        let now = Timestamp::from_second(now).unwrap();
        while !store.archive(now, 50).await.unwrap().done {}
        let points = store
            .trend(&segment("s"), full, Timestamp::UNIX_EPOCH, now)
            .await;
        let second = |count: &Count| count.as_of.as_second() - hour * 3_600;
        points.unwrap().iter().map(second).collect::<Vec<_>>()
    };
    let day = 86_400;
    let end = hour * 3_600 + 3 * 3_600;
    assert_eq!(ages(end).await.len(), 180);
    assert_eq!(
        ages(end + 2 * day - 3_600).await.len(),
        62,
        "two hours are old"
    );
    assert_eq!(ages(end + 30 * day).await, [59 * 60, 119 * 60, 179 * 60]);
    assert_eq!(
        ages(hour * 3_600 + 119 * 60 + 400 * day + 1).await,
        [179 * 60]
    );
    assert_eq!(ages(end + 400 * day).await, [0; 0]);
}
