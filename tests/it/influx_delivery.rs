//! The service in front of an InfluxDB that refuses lines, is slow, sends `Retry-After` or has a short retention.
//! Clients do not affect each other, and no acknowledged pair is lost.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use domain::store::{PairStore, StoreError};
use domain::{Batch, BatchBuilder, Clock, Segment, Slot, Timestamp, UserId};
use reqwest::Method;
use serde_json::json;
use stores::influx::{InfluxStore, set_up};
use tempfile::TempDir;

use crate::support::app::App;
use crate::support::fault_server::{FaultServer, Reply, Request};
use crate::support::influxd::{Influxd, TOKEN, settings_at};
use crate::support::two_weeks;
use crate::support::wait::until;

/// Long enough for direct writes on a busy machine.
const LONG_DEADLINE: [(&str, &str); 1] = [("write_deadline", "1m")];

/// How often each line was sent and how often it was stored.
#[derive(Default)]
struct Lines {
    sent: Mutex<BTreeMap<String, usize>>,
    stored: Mutex<BTreeMap<String, usize>>,
}

impl Lines {
    fn add_lines(of: &Mutex<BTreeMap<String, usize>>, request: &Request) {
        let mut of = of.lock().unwrap();
        for line in request.text().lines() {
            *of.entry(user_of(line)).or_default() += 1;
        }
    }

    fn has(&self, user: &str) -> bool {
        self.stored.lock().unwrap().contains_key(user)
    }

    fn most_sent(&self) -> usize {
        self.sent.lock().unwrap().values().copied().max().unwrap()
    }
}

fn user_of(line: &str) -> String {
    line.split('"').nth(1).unwrap().to_owned()
}

/// Starts a server that calls `respond` for each write. Its queries return no rows.
async fn server(
    respond: impl Fn(&Request) -> Reply + Send + Sync + 'static,
) -> (FaultServer, Arc<Lines>) {
    let lines = Arc::<Lines>::default();
    let recorder = Arc::clone(&lines);
    let server = FaultServer::start(move |_, request| {
        if !request.target.starts_with("/api/v2/write") {
            return Reply::csv("\r\n");
        }
        if request.target.contains("bucket=headcount_trend") {
            return Reply::written();
        }
        Lines::add_lines(&recorder.sent, request);
        let reply = respond(request);
        let mut outcome = &reply;
        while let Reply::After(_, then) = outcome {
            outcome = then;
        }
        if matches!(outcome, Reply::Bytes(bytes) if bytes.starts_with(b"HTTP/1.1 204")) {
            Lines::add_lines(&recorder.stored, request);
        }
        reply
    })
    .await;
    (server, lines)
}

async fn app(server: &FaultServer, more: &[(&str, &str)]) -> (App, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let (url, spool) = (server.url(), folder.path().join("spool"));
    let mut settings = vec![
        ("store", "influx"),
        ("influx_url", url.as_str()),
        ("influx_token", "t"),
        ("spool_dir", spool.to_str().unwrap()),
    ];
    settings.extend(more);
    (App::start_with(&settings).await, folder)
}

fn body(users: impl IntoIterator<Item = String>) -> String {
    let pair = |user| json!({"user_id": user, "segment": "s"}).to_string();
    users.into_iter().map(pair).collect::<Vec<_>>().join("\n")
}

async fn post(app: &App, users: impl IntoIterator<Item = String>) -> crate::support::app::Response {
    app.post("application/x-ndjson", body(users)).await
}

fn refused() -> Reply {
    Reply::status(400, "", r#"{"code":"invalid","message":"unable to parse"}"#)
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_lines_of_one_client_do_not_affect_other_clients() {
    let respond = |request: &Request| match request.text().contains("bad") {
        true => refused().after(Duration::from_millis(5)),
        false => Reply::written().after(Duration::from_millis(5)),
    };
    let (server, lines) = server(respond).await;
    let (app, folder) = app(&server, &LONG_DEADLINE).await;
    let good = (0..19).map(|client| {
        let app = &app;
        async move {
            for round in 0..20 {
                let users = (0..5).map(|n| format!("good{client}-{round}-{n}"));
                let response = post(app, users).await;
                assert_eq!(
                    (response.status, &response.json["rejected"]),
                    (200, &0.into())
                );
            }
        }
    });
    let bad = async {
        for position in 0..20 {
            let name = |n| match n == position || n == 19 - position {
                true => format!("bad{position}-{n}"),
                false => format!("fine{position}-{n}"),
            };
            let response = post(&app, (0..20).map(name)).await;
            assert_eq!(response.status, 200, "{response:?}");
            let (low, high) = (position.min(19 - position), position.max(19 - position));
            assert_eq!(
                response.errors(),
                [(low, "store_refused"), (high, "store_refused")]
            );
            assert_eq!(response.json["accepted"], 18);
        }
    };
    tokio::join!(futures::future::join_all(good), bad);
    for client in 0..19 {
        for (round, n) in (0..20).flat_map(|round| (0..5).map(move |n| (round, n))) {
            assert!(lines.has(&format!("good{client}-{round}-{n}")));
        }
    }
    let response = post(&app, ["bad alone".to_owned()]).await;
    assert_eq!(response.problem(), (422, "nothing_accepted"));
    assert_eq!(response.errors(), [(0, "store_refused")]);
    let kept = std::fs::read_to_string(folder.path().join("spool/refused.lp")).unwrap();
    let kept: Vec<_> = kept.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(kept.len(), 41, "each refused pair is kept once");
    assert!(kept.iter().all(|line| line.contains("bad")));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_full_of_bad_lines_is_spooled_and_does_not_delay_others() {
    // Every second line is bad and a write takes 20 ms: isolating all of them takes longer than the deadline.
    let respond = |request: &Request| match request.text().contains("odd") {
        true => refused().after(Duration::from_millis(20)),
        false => Reply::written().after(Duration::from_millis(20)),
    };
    let (server, lines) = server(respond).await;
    let (app, _folder) = app(&server, &[("write_deadline", "1s")]).await;
    let name = |n: usize| match n % 2 {
        0 => format!("even{n}"),
        _ => format!("odd{n}"),
    };
    let response = post(&app, (0..120).map(name)).await;
    assert_eq!(response.status, 202, "{response:?}");
    for n in 0..20 {
        let user = format!("good{n}");
        let response = post(&app, [user.clone()]).await;
        assert!(matches!(response.status, 200 | 202), "{response:?}");
        until("the pair is delivered", async || lines.has(&user)).await;
    }
    until("the spool is empty", async || {
        // Quarantined pairs are due by the clock of the service.
        app.advance(1);
        app.metric("headcount_spool_pairs").await == 0.0
    })
    .await;
    assert!((0..120).step_by(2).all(|n| lines.has(&name(n))));
    assert!((0..120).skip(1).step_by(2).all(|n| !lines.has(&name(n))));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pair_that_always_fails_is_quarantined() {
    let respond = |request: &Request| match request.text().contains("poison") {
        true => Reply::status(500, "", r#"{"code":"internal error","message":"x"}"#),
        false => Reply::written(),
    };
    let (server, lines) = server(respond).await;
    let (app, _folder) = app(&server, &LONG_DEADLINE).await;
    assert_eq!(post(&app, ["poison".to_owned()]).await.status, 202);
    assert_eq!(post(&app, ["good0".to_owned()]).await.status, 202);
    until("the pair is quarantined", async || {
        app.metric("headcount_spool_quarantined_pairs").await == 1.0
    })
    .await;
    assert!(lines.has("good0"));
    for n in 1..20 {
        assert_eq!(post(&app, [format!("good{n}")]).await.status, 200);
    }
    assert_eq!(app.metric("headcount_spool_pairs").await, 1.0);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_server_receives_each_line_at_most_three_times() {
    // Slower than the write deadline of a client and the initial write timeout.
    let times = Arc::new(Mutex::new([1900, 200, 2600, 700, 1300].into_iter().cycle()));
    let respond = move |_: &Request| {
        let millis = times.lock().unwrap().next().unwrap();
        Reply::written().after(Duration::from_millis(millis))
    };
    let (server, lines) = server(respond).await;
    let timeouts = [("write_deadline", "1s"), ("influx_write_timeout", "1500ms")];
    let (app, _folder) = app(&server, &timeouts).await;
    let posts = (0..12).map(|n| post(&app, (0..5).map(move |user| format!("u{n}-{user}"))));
    for response in futures::future::join_all(posts).await {
        assert!(matches!(response.status, 200 | 202), "{response:?}");
    }
    until("the spool is empty", async || {
        app.advance(1);
        app.metric("headcount_spool_pairs").await == 0.0
    })
    .await;
    for (n, user) in (0..12).flat_map(|n| (0..5).map(move |user| (n, user))) {
        assert!(lines.has(&format!("u{n}-{user}")));
    }
    assert!(lines.most_sent() <= 3, "{} times", lines.most_sent());
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retry_after_of_the_server_is_honoured_and_passed_on_with_a_cap() {
    for (requested, cap) in [("30", 30), ("18446744073709551615", 60)] {
        let respond =
            move |_: &Request| Reply::status(429, &format!("Retry-After: {requested}\r\n"), "");
        let (server, lines) = server(respond).await;
        let (app, _folder) = app(&server, &[]).await;
        for n in 0..20 {
            let response = post(&app, [format!("u{n}")]).await;
            assert_eq!(response.status, 429, "{response:?}");
            let wait: u64 = response.headers["retry-after"]
                .to_str()
                .unwrap()
                .parse()
                .unwrap();
            assert!((1..=cap).contains(&wait), "{wait} s");
        }
        assert_eq!(
            lines.sent.lock().unwrap().len(),
            1,
            "no further write during the pause"
        );
        app.stop().await;
    }
}

/// Sets the retention of the bucket to a week, as an operator might to save space.
async fn shorten_retention(server: &Influxd) {
    let client = reqwest::Client::new();
    let authorized = |request: reqwest::RequestBuilder| {
        request
            .header("Authorization", format!("Token {TOKEN}"))
            .send()
    };
    let url = format!("{}/api/v2/buckets", server.url());
    let listed = authorized(client.get(&url).query(&[("name", "b")])).await;
    let listed: serde_json::Value = listed.unwrap().json().await.unwrap();
    let id = listed["buckets"][0]["id"].as_str().unwrap();
    let week = json!({"retentionRules": [{"type": "expire", "everySeconds": 604_800}]});
    let changed = authorized(client.patch(format!("{url}/{id}")).json(&week)).await;
    assert_eq!(changed.unwrap().status(), 200);
}

fn back(minutes: u64) -> Slot {
    let now = two_weeks().resolution().slot_of(Timestamp::now());
    Slot::new(now.number() - minutes)
}

fn batch(pairs: impl IntoIterator<Item = (String, Slot)>) -> Batch {
    let mut batch = BatchBuilder::default();
    for (user, slot) in pairs {
        let user = UserId::new(user).unwrap();
        batch.push_pair(&user, "s", slot).unwrap();
    }
    batch.finish()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_with_a_field_type_conflict_rejects_only_the_pairs_of_that_day() {
    let Some(server) = Influxd::start().await else {
        return;
    };
    let options = server.options("b", two_weeks());
    set_up(&options, false).await.unwrap();
    let store = InfluxStore::open(options).unwrap();
    // The middle of a day, so that the neighbouring days are in other shards.
    let day = back(5 * 1440).number() / 1440;
    let foreign = format!(
        "pair,segment=x user=1i {}000000000",
        (day * 1440 + 720) * 60
    );
    assert_eq!(server.write_raw("b", foreign).await, 204);
    let pairs: Vec<_> = (0..5_000_u64)
        .map(|n| (format!("u{n}"), back(n * 1440 * 13 / 5_000)))
        .collect();
    let conflicting: Vec<usize> = (0..pairs.len())
        .filter(|n| pairs[*n].1.number() / 1440 == day)
        .collect();
    assert!(conflicting.len() > 300);
    let neighbour = batch((0..50).map(|n| (format!("neighbour{n}"), back(n))));
    let (many, few) = (batch(pairs.clone()), neighbour);
    let (many, few) = tokio::join!(store.record(&many), store.record(&few));
    few.unwrap();
    let Err(StoreError::Partly(partly)) = many else {
        panic!("{many:?}");
    };
    assert_eq!(partly.refused, conflicting);
    assert!(partly.open.is_empty());
    let stats = store.stats();
    assert_eq!(stats.refused, conflicting.len() as u64);
    // Export each shard by itself, because a query over mixed types behaves differently.
    let mut stored = BTreeSet::new();
    for shard in (0..15).map(|ago| back(0).number() / 1440 - ago) {
        let slots = Slot::new(shard * 1440)..=Slot::new(shard * 1440 + 1439);
        if shard != day {
            let segment = Segment::new("s").unwrap();
            let found = store.export(&segment, slots).await.unwrap();
            stored.extend(found.pairs().map(|pair| pair.user.as_str().to_owned()));
        }
    }
    assert_eq!(stored.len(), 5_000 - conflicting.len() + 50);
    assert!(
        conflicting
            .iter()
            .all(|n| !stored.contains(&format!("u{n}")))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retention_shorter_than_the_window_is_reported_as_not_set_up() {
    let Some(server) = Influxd::start().await else {
        return;
    };
    let options = server.options("b", two_weeks());
    set_up(&options, false).await.unwrap();
    shorten_retention(&server).await;
    let store = InfluxStore::open(options.clone()).unwrap();
    let error = store.ping().await.unwrap_err();
    assert_eq!(error.name(), "not_set_up");
    assert!(error.to_string().contains("604800 s"), "{error}");
    store
        .record(&batch([("new".into(), back(10))]))
        .await
        .unwrap();
    let old = batch([("new".into(), back(10)), ("old".into(), back(10 * 1440))]);
    assert_eq!(store.record(&old).await.unwrap_err().name(), "not_set_up");
    set_up(&options, false).await.unwrap();
    store.ping().await.unwrap();
    store.record(&old).await.unwrap();
    let segment = Segment::new("s").unwrap();
    let counted = store
        .count(&segment, two_weeks().full_window(), Timestamp::now())
        .await;
    assert_eq!(counted.unwrap().users, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn pairs_beyond_a_short_retention_are_spooled_until_set_up() {
    let Some(server) = Influxd::start().await else {
        return;
    };
    let options = server.options("b", two_weeks());
    set_up(&options, false).await.unwrap();
    shorten_retention(&server).await;
    let folder = tempfile::tempdir().unwrap();
    let (url, spool) = (server.url(), folder.path().join("spool"));
    let settings = settings_at(&url, &[("spool_dir", spool.to_str().unwrap())]);
    let app = App::start_with(&settings).await;
    let ago = Duration::from_hours(24 * 10);
    // The clock of the test is behind the server's clock.
    app.clock.not_before(Timestamp::now());
    let at = Timestamp::now() - ago;
    let pair = json!({"user_id": "old", "segment": "s", "at": at.to_string()});
    let response = app.post("application/json", pair.to_string()).await;
    assert_eq!(response.status, 202, "{response:?}");
    until("a probe finds the retention", async || {
        let ready = app.send(Method::GET, "/readyz").await;
        ready.json["components"]["store"]["ok"] == false
    })
    .await;
    set_up(&options, false).await.unwrap();
    until("the spool is empty", async || {
        app.metric("headcount_spool_pairs").await == 0.0
    })
    .await;
    assert_eq!(app.users("s").await, 1);
    app.stop().await;
}
