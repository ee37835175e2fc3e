//! All instances on a bucket share one key and the same `window`, `resolution` and `user_key`, on a real InfluxDB.

use std::time::{Duration, Instant};

use domain::store::conformance::batch;
use domain::store::{Change, PairStore};
use domain::{Segment, Slot, TimeFrame, Timestamp, UserId};
use stores::influx::{InfluxOptions, InfluxStore, set_up};

use crate::support::influxd::{Influxd, ORG, TOKEN};
use crate::support::program;
use crate::support::two_weeks;

fn present() -> Slot {
    two_weeks().resolution().slot_of(Timestamp::now())
}

fn frame(window_hours: u64, resolution_seconds: u64) -> TimeFrame {
    let frame = TimeFrame::new(
        Duration::from_hours(window_hours),
        Duration::from_secs(resolution_seconds),
        Duration::ZERO,
    );
    frame.unwrap()
}

const POINTS: &str = "from(bucket: \"b\") |> range(start: -15d, stop: 1d) |> filter(fn: (r) => \
                      r._measurement == \"pair\") |> group() |> keep(columns: [\"_time\", \"_value\"])";

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_instances_agree_on_one_key() {
    let Some(server) = Influxd::start().await else {
        return;
    };
    let options = server.options("b", two_weeks());
    set_up(&options, false).await.unwrap();
    for round in 0..3 {
        // The state of a bucket from a former version.
        server.delete("b_trend", "installation").await;
        server.delete("b", "pair").await;
        let slot = present();
        let mut racing = tokio::task::JoinSet::new();
        for _ in 0..6 {
            let options = options.clone();
            racing.spawn(async move {
                let (store, begun) = (InfluxStore::open(options).unwrap(), Instant::now());
                store.record(&batch([("u", "s", slot)])).await.unwrap();
                begun.elapsed()
            });
        }
        let mut slowest = Duration::ZERO;
        while let Some(took) = racing.join_next().await {
            slowest = slowest.max(took.unwrap());
        }
        let points = server.flux(POINTS).await;
        // If the server is slower than the instances wait for each other, they agree later.
        assert!(
            points.len() == 1 || slowest > Duration::from_secs(2),
            "round {round}: one key, so one point: {points:?}"
        );
        // Later instances use the agreed key, and the user counts once in any case.
        for _ in 0..2 {
            let late = InfluxStore::open(options.clone()).unwrap();
            late.record(&batch([("u", "s", slot)])).await.unwrap();
            assert_eq!(server.flux(POINTS).await, points, "round {round}");
            let sports = Segment::new("s").unwrap();
            let counted = late.count(&sports, two_weeks().full_window(), Timestamp::now());
            assert_eq!(counted.await.unwrap().users, 1, "round {round}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_installation_keeps_its_own_key() {
    let Some(server) = Influxd::start().await else {
        return;
    };
    let slot = present();
    let mut times = std::collections::BTreeSet::new();
    for _ in 0..2 {
        let options = server.options("b", two_weeks());
        let made = set_up(&options, false).await.unwrap();
        assert_eq!(made.steps[3].change, Change::Created, "{made:?}");
        let again = set_up(&options, false).await.unwrap();
        assert_eq!(again.steps[3].change, Change::Unchanged, "{again:?}");
        let store = InfluxStore::open(options).unwrap();
        store.record(&batch([("u", "s", slot)])).await.unwrap();
        let point = server.flux(POINTS).await[0].clone();
        assert!(times.insert(point), "the offset is no secret");
        server.delete("b_trend", "installation").await;
        server.delete("b", "pair").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_with_different_settings_fails_and_names_the_setting() {
    let Some(server) = Influxd::start().await else {
        return;
    };
    let options = server.options("b", two_weeks());
    set_up(&options, false).await.unwrap();
    let store = InfluxStore::open(options.clone()).unwrap();
    store.record(&batch([("u", "s", present())])).await.unwrap();
    let with = |frame, user_key: Option<&str>| InfluxOptions {
        frame,
        user_key: user_key.map(str::to_owned),
        ..options.clone()
    };
    for (other, named) in [
        (with(frame(14 * 24, 120), None), "resolution = \"60s\""),
        (with(frame(7 * 24, 60), None), "window = \"1209600s\""),
        (with(two_weeks(), Some("digest")), "user_key"),
    ] {
        let other = InfluxStore::open(other).unwrap();
        let now = Timestamp::now();
        let (segment, user) = (Segment::new("s").unwrap(), UserId::new("u").unwrap());
        let window = two_weeks().window(Duration::from_hours(1)).unwrap();
        let errors = [
            other.prepare().await.unwrap_err(),
            other
                .record(&batch([("v", "s", present())]))
                .await
                .unwrap_err(),
            other.count(&segment, window, now).await.unwrap_err(),
            other.segments(now).await.unwrap_err(),
            other.memberships(&user, now).await.unwrap_err(),
            other.forget(&user, now).await.unwrap_err(),
            other.ping().await.unwrap_err(),
        ];
        for error in errors {
            assert_eq!(error.name(), "damaged", "{error}");
            assert!(error.to_string().contains(named), "{named}: {error}");
        }
    }
    // With `any_window`, a store may read over another window.
    let reader = InfluxStore::open(InfluxOptions {
        any_window: true,
        ..with(frame(7 * 24, 60), None)
    });
    assert_eq!(
        reader
            .unwrap()
            .segments(Timestamp::now())
            .await
            .unwrap()
            .len(),
        1
    );

    // Set-up can change the window, but not the resolution or the key of existing pairs.
    let other = set_up(&with(frame(14 * 24, 120), None), false)
        .await
        .unwrap_err();
    assert!(other.to_string().contains("resolution"), "{other}");
    let other = set_up(&with(two_weeks(), Some("digest")), false)
        .await
        .unwrap_err();
    assert!(other.to_string().contains("user_key"), "{other}");
    let longer = with(frame(20 * 24, 60), None);
    let changed = set_up(&longer, false).await.unwrap();
    assert_eq!(changed.steps[3].change, Change::Updated);
    InfluxStore::open(longer).unwrap().ping().await.unwrap();
    let former = InfluxStore::open(options.clone()).unwrap();
    assert!(
        former
            .ping()
            .await
            .unwrap_err()
            .to_string()
            .contains("window")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_with_different_settings_does_not_start() {
    let Some(server) = Influxd::start().await else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let url = server.url();
    let run = |more: &[(&str, &str)], arguments: &[&str]| {
        let mut settings = vec![
            ("store", "influx"),
            ("influx_url", url.as_str()),
            ("influx_org", ORG),
            ("influx_token", TOKEN),
            ("spool_dir", "off"),
        ];
        settings.extend(more);
        program::run(folder.path(), &settings, arguments)
    };
    assert_eq!(run(&[], &["setup"]).code, Some(0));
    assert_eq!(run(&[], &["refresh"]).code, Some(0));
    for (setting, named) in [
        (("window", "7d"), "window"),
        (("resolution", "2m"), "resolution"),
        (("user_key", "0123456789abcdef"), "user_key"),
    ] {
        let refused = run(&[setting], &["refresh"]);
        assert_eq!(refused.code, Some(1), "{refused:?}");
        assert!(refused.err.contains(named), "{refused:?}");
        assert!(!refused.err.contains("0123456789abcdef"), "{refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_reads_a_bucket_without_a_key() {
    let Some(server) = Influxd::start().await else {
        return;
    };
    let options = server.options("b", two_weeks());
    let made = set_up(&options, true).await.unwrap();
    server.delete("b_trend", "installation").await;
    let with = |token: &str| {
        let token = token.to_owned();
        InfluxStore::open(InfluxOptions {
            token,
            ..options.clone()
        })
        .unwrap()
    };
    let reader = with(&made.tokens[1].token);
    assert_eq!(reader.segments(Timestamp::now()).await.unwrap(), []);
    assert_eq!(reader.prepare().await.unwrap_err().name(), "unavailable");
    // The service's own token creates the missing key.
    let service = with(&made.tokens[0].token);
    service
        .record(&batch([("u", "s", present())]))
        .await
        .unwrap();
    let again = set_up(&options, false).await.unwrap();
    assert_eq!(again.steps[3].change, Change::Unchanged);
    with(&made.tokens[1].token).prepare().await.unwrap();
}
