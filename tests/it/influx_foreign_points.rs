//! Points of another program in our measurements, on a real InfluxDB: they hide no user and are reported.

use std::time::Duration;

use domain::store::PairStore;
use domain::store::conformance::batch;
use domain::{Count, Segment, Slot, Timestamp, TrendPoint, UserId};
use stores::influx::{InfluxOptions, InfluxStore, set_up};

use crate::support::influxd::{Influxd, settings_at};
use crate::support::program::{self, Run};
use crate::support::service::{Service, poll};
use crate::support::two_weeks;

const DAY: u64 = 24 * 60;

fn segment(name: &str) -> Segment {
    Segment::new(name).unwrap()
}

fn back(minutes: u64) -> Slot {
    let present = two_weeks().resolution().slot_of(Timestamp::now());
    Slot::new(present.number() - minutes)
}

/// A line of another program in the measurement of pairs, `minutes` ago.
fn foreign_line(value: &str, minutes: u64) -> String {
    let seconds = back(minutes).number() * 60;
    format!("pair,segment=x user={value} {seconds}000000000")
}

async fn users(store: &InfluxStore, name: &str, window: Duration) -> u64 {
    let window = two_weeks().window(window).unwrap();
    let counted = store.count(&segment(name), window, Timestamp::now()).await;
    counted.unwrap().users
}

/// Records users of a week ago, of yesterday and of today in the segments `s` and `x`.
async fn fill(store: &InfluxStore) {
    let pairs = [
        ("u1", "s", back(7 * DAY)),
        ("u2", "s", back(DAY)),
        ("u3", "s", back(0)),
        ("u3", "s", back(DAY)),
        ("u1", "x", back(7 * DAY)),
        ("u4", "x", back(0)),
    ];
    store.record(&batch(pairs)).await.unwrap();
}

async fn check(store: &InfluxStore, what: &str) {
    let now = Timestamp::now();
    let full = Duration::from_hours(14 * 24);
    assert_eq!(users(store, "s", full).await, 3, "{what}");
    assert_eq!(users(store, "x", full).await, 2, "{what}");
    assert_eq!(
        users(store, "s", Duration::from_hours(3 * 24)).await,
        2,
        "{what}"
    );
    let listed = store.segments(now).await.unwrap();
    assert_eq!(listed, [segment("s"), segment("x")], "{what}");
    let user = UserId::new("u1").unwrap();
    let memberships = store.memberships(&user, now).await.unwrap();
    assert_eq!(memberships.len(), 2, "{what}");
    let exported = store
        .export(&segment("s"), back(13 * DAY)..=back(0))
        .await
        .unwrap();
    assert_eq!(exported.len(), 4, "{what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_field_types_hide_no_user() {
    let Some(server) = Influxd::start().await else {
        return;
    };
    // Each type: in a day before all pairs, in a day between them, and in several days.
    for (number, (value, minutes)) in [
        ("1i", &[10 * DAY][..]),
        ("1", &[4 * DAY]),
        ("true", &[10 * DAY, 4 * DAY]),
        ("7u", &[3 * DAY]),
    ]
    .into_iter()
    .enumerate()
    {
        let bucket = format!("bucket {number}");
        let store = server.store(&bucket, two_weeks()).await;
        fill(&store).await;
        check(&store, "before").await;
        assert_eq!(
            store.strangers(Timestamp::now()).await.unwrap(),
            Vec::<String>::new()
        );
        for minutes in minutes {
            let status = server
                .write_raw(&bucket, foreign_line(value, *minutes))
                .await;
            assert_eq!(status, 204);
        }
        let what = format!("{value} {minutes:?} minutes ago");
        check(&store, &what).await;
        // Check again with the known field types, then with a new store that has not read them yet.
        check(&store, &what).await;
        let other = InfluxStore::open(server.options(&bucket, two_weeks())).unwrap();
        check(&other, &what).await;
        let warnings = other.strangers(Timestamp::now()).await.unwrap();
        assert_eq!(warnings.len(), 1 + minutes.len(), "{warnings:?}");
        assert!(warnings[1].contains("influx delete"), "{warnings:?}");
        let user = UserId::new("u1").unwrap();
        assert_eq!(other.forget(&user, Timestamp::now()).await.unwrap(), 2);
        assert_eq!(users(&store, "s", Duration::from_hours(14 * 24)).await, 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_fraction_hides_no_trend_point() {
    let Some(server) = Influxd::start().await else {
        return;
    };
    let store = server.store("b", two_weeks()).await;
    let now = Timestamp::now();
    let ago = |days: u64| now.saturating_sub(Duration::from_hours(24 * days)).unwrap();
    let window = two_weeks().full_window();
    let points = [ago(30), ago(8), ago(0)].map(|as_of| TrendPoint {
        segment: segment("s"),
        window,
        count: Count { users: 5, as_of },
    });
    store.record_trend(&points).await.unwrap();
    let line = format!(
        "segment_users,segment=s,window=1209600s users=0.5 {}000000000",
        ago(50).as_second()
    );
    assert_eq!(server.write_raw("b_trend", line).await, 204);
    for _ in 0..2 {
        let trend = store
            .trend(&segment("s"), window, ago(60), now)
            .await
            .unwrap();
        assert_eq!(trend.len(), 3);
    }
    assert_eq!(store.strangers(now).await.unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn set_up_and_audit_report_foreign_points() {
    let Some(server) = Influxd::start().await else {
        return;
    };
    let options = server.options("b", two_weeks());
    let quiet = set_up(&options, false).await.unwrap();
    assert_eq!(quiet.warnings, Vec::<String>::new());
    let store = InfluxStore::open(options.clone()).unwrap();
    fill(&store).await;
    assert_eq!(
        server.write_raw("b", foreign_line("1i", 10 * DAY)).await,
        204
    );
    let report = set_up(&options, false).await.unwrap();
    assert_eq!(report.warnings.len(), 2, "{:?}", report.warnings);

    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("data");
    let url = server.url();
    let settings = settings_at(
        &url,
        &[
            ("spool_dir", "off"),
            ("data_dir", data_dir.to_str().unwrap()),
        ],
    );
    let done: Run = program::run(folder.path(), &settings, &["setup"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(done.err.contains("another program"), "{done:?}");
    let audit = ["audit", "--against", "embedded", "--json"];
    let found: Run = program::run(folder.path(), &settings, &audit);
    assert_eq!(found.code, Some(1), "{found:?}");
    assert_eq!(found.json()["strangers"].as_array().unwrap().len(), 2);
    assert_eq!(found.json()["segments"][0]["recounted"], 3, "{found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_is_degraded_while_pairs_of_some_days_are_refused() {
    let Some(server) = Influxd::start().await else {
        return;
    };
    set_up(&server.options("b", two_weeks()), false)
        .await
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let url = server.url();
    let settings = settings_at(&url, &[("influx_trend_bucket", "b_trend")]);
    let service = Service::start(folder.path(), &settings).await;
    assert_eq!(service.get("/readyz").await["status"], "ready");
    assert_eq!(
        server.write_raw("b", foreign_line("1i", 10 * DAY)).await,
        204
    );
    let ready = poll(async || {
        let ready = service.get("/readyz").await;
        (ready["status"] == "degraded").then_some(ready)
    })
    .await;
    assert_eq!(
        (&ready["writes"], &ready["reads"]),
        (&true.into(), &true.into())
    );
    let detail = ready["components"]["foreign_points"]["detail"].as_str();
    assert!(
        detail.is_some_and(|detail| detail.contains("whose field user has type integer")),
        "{ready}"
    );
    assert!(!service.text("/").await.contains("Everything works"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_with_mixed_types_is_exported_without_duplicates() {
    let Some(server) = Influxd::start().await else {
        return;
    };
    let store = server.store("b", two_weeks()).await;
    fill(&store).await;
    assert_eq!(
        server.write_raw("b", foreign_line("1i", 4 * DAY)).await,
        204
    );
    // A new store that has not read the field types yet.
    let other = InfluxStore::open(server.options("b", two_weeks())).unwrap();
    let exported = other
        .export(&segment("s"), back(13 * DAY)..=back(0))
        .await
        .unwrap();
    let mut pairs: Vec<_> = exported
        .pairs()
        .map(|pair| (pair.user.as_str().to_owned(), pair.slot))
        .collect();
    pairs.sort();
    let all = pairs.len();
    pairs.dedup();
    assert_eq!((all, pairs.len()), (4, 4), "{pairs:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn field_types_are_read_with_a_reader_token_and_from_a_bucket_with_a_slash() {
    let Some(server) = Influxd::start().await else {
        return;
    };
    let options = server.options("a/b", two_weeks());
    let made = set_up(&options, true).await.unwrap();
    let store = InfluxStore::open(options.clone()).unwrap();
    fill(&store).await;
    check(&store, "a slash").await;
    assert_eq!(store.strangers(Timestamp::now()).await.unwrap().len(), 0);
    let reader = InfluxStore::open(InfluxOptions {
        token: made.tokens[1].token.clone(),
        ..options
    });
    let reader = reader.unwrap();
    check(&reader, "a reader").await;
    assert_eq!(
        server.write_raw("a/b", foreign_line("1i", 10 * DAY)).await,
        204
    );
    check(&reader, "a reader, mixed").await;
    assert_eq!(reader.strangers(Timestamp::now()).await.unwrap().len(), 2);
}
