//! `headcount audit` of real stores and a real cache.

use std::path::Path;

use domain::Timestamp;
use domain::store::PairStore;
use domain::store::conformance::batch;
use serde_json::Value;
use stores::influx::{InfluxStore, set_up};

use crate::support::influxd::{Influxd, ORG, TOKEN, settings_at};
use crate::support::postgres::Postgres;
use crate::support::program::{Run, run};
use crate::support::redis::Redis;
use crate::support::service::{Service, poll};

/// The Redis key of the counts of `s`.
const COUNTS: &str = "headcount:{s}:counts";
/// The field of the count over two weeks.
const TWO_WEEKS: &str = "1209600";

/// A service on InfluxDB and Redis, with its settings.
struct Bench {
    influx: Influxd,
    redis: Redis,
    service: Service,
    folder: tempfile::TempDir,
    settings: Vec<(&'static str, String)>,
}

impl Bench {
    async fn start() -> Option<Self> {
        let influx = Influxd::start().await?;
        let redis = Redis::start().await?;
        let folder = tempfile::tempdir().unwrap();
        let settings = vec![
            ("store", "influx".to_owned()),
            ("influx_url", influx.url()),
            ("influx_org", ORG.to_owned()),
            ("influx_bucket", "b".to_owned()),
            ("influx_trend_bucket", "b_trend".to_owned()),
            ("influx_token", TOKEN.to_owned()),
            ("cache", "redis".to_owned()),
            ("redis_url", redis.url()),
            ("refresh_mode", "off".to_owned()),
        ];
        let frame = headcount::config::Settings::with([]).unwrap().frame;
        set_up(&influx.options("b", frame), false).await.unwrap();
        let service = Service::start(folder.path(), &as_strs(&settings)).await;
        Some(Self {
            influx,
            redis,
            service,
            folder,
            settings,
        })
    }

    async fn post(&self, prefix: &str, number: usize) {
        let users: Vec<_> = (0..number).map(|n| format!("{prefix}{n}")).collect();
        assert_eq!(self.service.post(&users, "s").await, 200);
    }

    /// Posts users who were seen two hours ago.
    async fn post_earlier(&self, prefix: &str, number: usize) {
        let at = Timestamp::now() - std::time::Duration::from_hours(2);
        let pair = |n| format!(r#"{{"user_id":"{prefix}{n}","segment":"s","at":"{at}"}}"#);
        let pairs: Vec<_> = (0..number).map(pair).collect();
        self.service
            .post_body(format!("[{}]", pairs.join(",")))
            .await;
    }

    /// Replaces the users of the cached count over two weeks.
    fn tamper(&self, users: u64) {
        let kept = self.redis.cli(&["HGET", COUNTS, TWO_WEEKS]);
        let (_, as_of) = kept.split_once(' ').unwrap();
        self.redis
            .cli(&["HSET", COUNTS, TWO_WEEKS, &format!("{users} {as_of}")]);
    }

    fn refresh(&self) {
        let done = self.run(&["refresh"]);
        assert_eq!(done.code, Some(0), "{done:?}");
    }

    fn run(&self, arguments: &[&str]) -> Run {
        run(self.folder.path(), &as_strs(&self.settings), arguments)
    }

    /// Runs `audit` and returns the exit code and the row of `s`.
    fn audit(&self, more: &[&str]) -> (Option<i32>, Value) {
        let mut arguments = vec!["audit", "--json"];
        arguments.extend(more);
        let done = self.run(&arguments);
        let rows = done.json()["segments"].as_array().unwrap().clone();
        let row = rows.into_iter().find(|row| row["segment"] == "s");
        (done.code, row.unwrap_or_else(|| panic!("no `s`: {done:?}")))
    }
}

fn as_strs<'a>(settings: &'a [(&'static str, String)]) -> Vec<(&'a str, &'a str)> {
    let settings = settings.iter();
    settings
        .map(|(name, value)| (*name, value.as_str()))
        .collect()
}

fn assert_rejected(folder: &Path, settings: &[(&str, &str)], arguments: &[&str], named: &str) {
    let done = run(folder, settings, arguments);
    assert_eq!(done.code, Some(2), "{arguments:?}: {done:?}");
    assert!(done.err.contains(named), "{arguments:?}: {done:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn audit_detects_a_tampered_cached_count_and_explains_new_users() {
    let Some(bench) = Bench::start().await else {
        return;
    };
    let done = bench.run(&["audit"]);
    assert!(
        done.code == Some(1) && done.err.contains("no segments"),
        "{done:?}"
    );
    bench.post_earlier("first", 20).await;
    // An audit that compares nothing must not succeed.
    let (code, row) = bench.audit(&[]);
    assert_eq!((code, &row["verdict"]), (Some(1), &"not_cached".into()));
    bench.refresh();
    let (code, row) = bench.audit(&["s"]);
    assert_eq!((code, &row["verdict"]), (Some(0), &"equal".into()));
    assert_eq!(
        (&row["cached"], &row["recounted"]),
        (&20.into(), &20.into())
    );

    bench.post("second", 5).await;
    let (code, row) = bench.audit(&[]);
    assert_eq!((code, &row["verdict"]), (Some(0), &"seen".into()));
    assert_eq!(row["difference"], 5);

    bench.tamper(7);
    let (code, row) = bench.audit(&[]);
    assert_eq!(
        (code, &row["verdict"]),
        (Some(1), &"too_low".into()),
        "{row}"
    );
    let row = loop {
        bench.refresh();
        bench.tamper(1000);
        let (code, row) = bench.audit(&[]);
        // InfluxDB drops whole shards: right after the start of an hour, the users that left the window are unknown.
        if row["verdict"] != "left_unknown" {
            assert_eq!(code, Some(1), "{row}");
            break row;
        }
    };
    assert_eq!(
        (&row["verdict"], &row["difference"]),
        (&"too_high".into(), &(-975).into())
    );
    let shown = bench.run(&["audit", "--sample", "1", "--seed", "3"]);
    assert_eq!(shown.code, Some(1));
    assert!(shown.out.contains("UNEXPLAINED: 975 too high") && shown.out.contains("seed 3"));
    assert!(shown.err.starts_with("error: 1 of 1 segments"), "{shown:?}");

    let (code, row) = bench.audit(&["--window", "1h"]);
    assert_eq!((code, &row["verdict"]), (Some(1), &"not_cached".into()));
    assert_eq!(row["recounted"], 5);
    bench.refresh();
    let (code, row) = bench.audit(&[]);
    assert_eq!((code, &row["verdict"]), (Some(0), &"equal".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_stores_are_compared() {
    let Some(mut bench) = Bench::start().await else {
        return;
    };
    let data = bench
        .folder
        .path()
        .join("data")
        .to_str()
        .unwrap()
        .to_owned();
    bench.settings.push(("data_dir", data));
    let Some(postgres) = Postgres::start().await else {
        return;
    };
    bench.settings.push(("postgres_url", postgres.url()));
    let set_up = bench.run(&["setup", "--store", "postgres"]);
    assert_eq!(set_up.code, Some(0), "{set_up:?}");
    bench.post("u", 300).await;
    bench.refresh();
    for other in ["redis", "postgres", "embedded"] {
        let copied = bench.run(&["copy", "--from", "influx", "--to", other]);
        assert_eq!(copied.code, Some(0), "{copied:?}");
        let (code, row) = bench.audit(&["--against", other]);
        assert_eq!((code, &row["against"]), (Some(0), &300.into()), "{row}");
        assert_eq!(row["agrees"], true);
    }
    record_one_more(&bench.influx).await;
    for other in ["redis", "postgres", "embedded"] {
        let (code, row) = bench.audit(&["--against", other]);
        assert_eq!((code, &row["agrees"]), (Some(1), &false.into()), "{row}");
        assert_eq!(
            (&row["recounted"], &row["against"]),
            (&301.into(), &300.into())
        );
    }
    let (code, row) = bench.audit(&[]);
    assert_eq!((code, &row["verdict"]), (Some(0), &"seen".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_embedded_store_is_audited_through_its_service() {
    let folder = tempfile::tempdir().unwrap();
    let server = Service::start(folder.path(), &[]).await;
    server
        .post_body(r#"[{"user_id":"u1","segment":"s"},{"user_id":"u2","segment":"s"}]"#)
        .await;
    let done = run(
        folder.path(),
        &[],
        &["audit", "--json", "--url", &server.url()],
    );
    assert_eq!(done.code, Some(0), "{done:?}");
    let row = done.json()["segments"][0].clone();
    assert_eq!(
        (&row["verdict"], &row["recounted"]),
        (&"live".into(), &2.into())
    );
    assert_eq!(server.terminate().await, Some(0));
}

/// Bypasses the service: records one more user of `s` in InfluxDB alone.
async fn record_one_more(influx: &Influxd) {
    let frame = headcount::config::Settings::with([]).unwrap().frame;
    let store = InfluxStore::open(influx.options("b", frame)).unwrap();
    let slot = frame.resolution().slot_of(Timestamp::now());
    let pair = batch([("one more", "s", slot)]);
    store.record(&pair).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn live_counts_are_compared_with_the_store() {
    let Some(influx) = Influxd::start().await else {
        return;
    };
    let frame = headcount::config::Settings::with([]).unwrap().frame;
    set_up(&influx.options("b", frame), false).await.unwrap();
    let (url, folder) = (influx.url(), tempfile::tempdir().unwrap());
    let service = Service::start(folder.path(), &settings_at(&url, &[("live", "here")])).await;
    let users: Vec<_> = (0..30).map(|n| format!("u{n}")).collect();
    assert_eq!(service.post(&users, "s").await, 200);
    poll(async || {
        let count = service.get("/v1/segments/s/count").await;
        (count["source"] == "live").then_some(())
    })
    .await;
    let audit = || {
        let at = service.url();
        let arguments = ["audit", "--json", "--url", &at, "--against", "influx", "s"];
        let done = run(folder.path(), &settings_at(&url, &[]), &arguments);
        (done.code, done.json()["segments"][0].clone())
    };
    let (code, row) = audit();
    assert_eq!((code, &row["verdict"]), (Some(0), &"live".into()), "{row}");
    assert_eq!(
        (&row["recounted"], &row["against"], &row["agrees"]),
        (&30.into(), &30.into(), &true.into())
    );
    record_one_more(&influx).await;
    let (code, row) = audit();
    assert_eq!((code, &row["agrees"]), (Some(1), &false.into()), "{row}");
    assert_eq!(row["against"], 31);
}

#[test]
fn audit_rejects_unsupported_settings_before_connecting() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let influx = [
        ("store", "influx"),
        ("influx_url", "http://127.0.0.1:9"),
        ("influx_token", "t"),
    ];
    assert_rejected(folder, &[], &["audit"], "--url");
    assert_rejected(folder, &influx, &["audit"], "cache");
    assert_rejected(
        folder,
        &influx,
        &["audit", "--against", "influx"],
        "--against",
    );
    assert_rejected(
        folder,
        &influx,
        &["audit", "--against", "redis"],
        "`redis_url`",
    );
    assert_rejected(folder, &influx, &["audit", "--window", "90s"], "--window");
    assert_rejected(folder, &influx, &["audit", " s"], "white space");
}
