//! `GET /metrics/segments`: the same counts as the list over every store, what each caller may see, and names that a real
//! Prometheus reads back.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::process::{Command, Stdio};

use domain::Segment;
use domain::store::conformance::HOSTILE_NAMES;
use http::auth::Scope;
use reqwest::Method;
use serde_json::{Value, json};
use stores::postgres::set_up;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::app::{App, NOON};
use crate::support::influxd::{Influxd, settings_at};
use crate::support::postgres::Postgres;
use crate::support::prometheus::Prometheus;
use crate::support::redis::Redis;
use crate::support::service::{Service, poll};
use crate::support::tokens::{app_with_token, token};
use crate::support::wait::until;
use crate::support::{servers, two_weeks};

const METRICS: &str = "/metrics/segments";
const SECRET: &str = "segment-metrics-token";
const OPEN_METRICS: (&str, &str) = ("accept", "application/openmetrics-text;version=1.0.0");
/// The names in the property test.
const NAMES: usize = 500;

/// The samples of a response: each line up to its value, and the value.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let samples = lines.map(|line| {
        let (series, value) = line.rsplit_once(' ').unwrap();
        (series.to_owned(), value.parse().unwrap())
    });
    samples.collect()
}

async fn scrape(app: &App, query: &str) -> BTreeMap<String, f64> {
    let response = app.get(&format!("{METRICS}{query}")).await;
    assert_eq!(response.status, 200, "{response:?}");
    samples(&response.text)
}

fn users(segment: &str) -> String {
    format!(r#"headcount_segment_users{{segment="{segment}",window="14d"}}"#)
}

fn left_out(reason: &str) -> String {
    format!(r#"headcount_segments_left_out{{reason="{reason}"}}"#)
}

/// Records the first users of `sizes` into each segment.
async fn fill(app: &App, sizes: &[(&str, usize)]) {
    for (segment, users) in sizes {
        let names: Vec<_> = (0..*users).map(|user| format!("u{user}")).collect();
        app.record(names.iter().map(|user| (user.as_str(), *segment)))
            .await;
    }
}

/// Compares the response with the list.
async fn check_store(place: &str, settings: &[(&str, &str)], counts_entries: bool) {
    let app = App::start_with(settings).await;
    fill(&app, &[("sports", 9), ("sp", 4), ("news", 2)]).await;
    let own = json!({"window": "7d"}).to_string();
    let put = app.send_body(Method::PUT, "/v1/segments/news", "application/json", own);
    assert_eq!(put.await.status, 200, "{place}");
    let list = app.get("/v1/segments").await.json;
    let found = scrape(&app, "").await;
    for row in list["segments"].as_array().unwrap() {
        let window = format!("{}d", row["window_seconds"].as_u64().unwrap() / 86_400);
        let labels = format!(
            r#"{{segment="{}",window="{window}"}}"#,
            row["segment"].as_str().unwrap()
        );
        let users = found[&format!("headcount_segment_users{labels}")];
        assert_eq!(json!(users as u64), row["users"], "{place}");
        let as_of = found[&format!("headcount_segment_as_of_seconds{labels}")];
        assert!((as_of - NOON as f64).abs() < 1.0, "{place}: {as_of}");
    }
    assert_eq!(
        found[r#"headcount_segment_users{segment="news",window="7d"}"#], 2.0,
        "{place}"
    );
    let entered = r#"headcount_segment_users_entered_total{segment="news",window="14d"}"#;
    let expected = counts_entries.then_some(2.0);
    assert_eq!(found.get(entered).copied(), expected, "{place}");
    for window in ["7d", "14d"] {
        let of_window = |name: &str| found[&format!(r#"{name}{{window="{window}"}}"#)];
        assert_eq!(of_window("headcount_segment_counts_stale"), 0.0, "{place}");
        // The installation is younger than its window.
        assert_eq!(
            of_window("headcount_segment_counts_complete"),
            0.0,
            "{place}"
        );
    }
    for reason in ["limit", "withheld", "unknown"] {
        assert_eq!(found[&left_out(reason)], 0.0, "{place}");
    }
    let prefixed = scrape(&app, "?prefix=sp&window=1d").await;
    let named: Vec<_> = prefixed
        .keys()
        .filter(|it| it.starts_with("headcount_segment_users{"))
        .collect();
    assert_eq!(
        named,
        [
            r#"headcount_segment_users{segment="sp",window="1d"}"#,
            r#"headcount_segment_users{segment="sports",window="1d"}"#
        ],
        "{place}"
    );
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_store_returns_the_counts_of_the_list() {
    check_store("embedded", &[], true).await;
    if let Some(influxd) = Influxd::start().await {
        influxd.store("b", two_weeks()).await;
        check_store(
            "influx",
            &settings_at(&influxd.url(), &[("live", "off")]),
            false,
        )
        .await;
    }
    if let Some(postgres) = Postgres::start().await {
        let options = postgres.options("headcount", two_weeks());
        set_up(&options).await.unwrap();
        let url = postgres.url();
        check_store(
            "postgres",
            &[("store", "postgres"), ("postgres_url", &url)],
            false,
        )
        .await;
    }
    if let Some(redis) = Redis::start().await {
        let url = redis.url();
        check_store("redis", &[("store", "redis"), ("redis_url", &url)], false).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_largest_are_returned_and_the_others_are_reported() {
    let app = App::start_with(&[("max_segments", "3")]).await;
    fill(&app, &[("a", 1), ("b", 5), ("c", 3)]).await;
    let found = scrape(&app, "?limit=2").await;
    assert_eq!(found[&left_out("limit")], 1.0);
    assert!(!found.contains_key(&users("a")), "{found:?}");
    assert_eq!((found[&users("b")], found[&users("c")]), (5.0, 3.0));
    assert_eq!(scrape(&app, "").await[&left_out("limit")], 0.0);
    // A named segment is returned without users, too.
    let named = scrape(&app, "?segment=a&segment=never").await;
    assert_eq!((named[&users("a")], named[&users("never")]), (1.0, 0.0));
    for (query, code) in [
        ("?limit=0", "invalid_parameter"),
        ("?window=15d", "invalid_window"),
        ("?segment=%20", "invalid_segment"),
        ("?sort=users", "unknown_parameter"),
    ] {
        let response = app.get(&format!("{METRICS}{query}")).await;
        assert_eq!(response.problem(), (400, code), "{query}");
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_named_request_is_bounded_by_max_segments() {
    let app = App::start_with(&[("max_segments", "2")]).await;
    fill(&app, &[("a", 1), ("b", 2)]).await;
    let found = scrape(&app, "?segment=a&segment=b&segment=c").await;
    assert_eq!(found[&left_out("limit")], 1.0);
    assert!(!found.contains_key(&users("c")));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bound_token_sees_its_segments_only() {
    let mut bound = token("team", SECRET, &[Scope::Read]);
    bound.segments = Some(vec!["mine/*".to_owned()]);
    let (app, _folder) = app_with_token(bound).await;
    fill(&app, &[("mine/a", 2), ("yours", 3)]).await;
    let bearer = format!("Bearer {SECRET}");
    let header = [("authorization", bearer.as_str())];
    assert_eq!(app.get(METRICS).await.status, 401);
    let seen = app.send_with(Method::GET, METRICS, &header).await;
    assert_eq!(seen.status, 200);
    let seen = samples(&seen.text);
    assert_eq!(seen[&users("mine/a")], 2.0);
    assert!(
        !seen.keys().any(|series| series.contains("yours")),
        "{seen:?}"
    );
    // Nor how many there are.
    assert!(
        seen.iter()
            .all(|(series, value)| !series.contains("left_out") || *value == 0.0)
    );
    let refused = app.send_with(Method::GET, "/metrics/segments?segment=yours", &header);
    assert_eq!(refused.await.problem(), (403, "forbidden_segment"));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_below_the_floor_are_left_out() {
    let app = App::start_with(&[("min_users", "4")]).await;
    fill(&app, &[("few", 3), ("many", 4)]).await;
    let found = scrape(&app, "").await;
    assert_eq!(found[&users("many")], 4.0);
    assert_eq!(found[&left_out("withheld")], 1.0);
    let text = app.get(METRICS).await.text;
    assert!(
        !text.contains("\"few\"") && !text.contains("entered"),
        "{text}"
    );
    let other = app.get("/metrics/segments?window=2d").await;
    assert_eq!(other.problem(), (400, "invalid_window"));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn last_known_counts_are_stale_and_others_are_missing() {
    let settings = [
        ("cache_ttl", "2s"),
        ("memory_ttl", "0s"),
        ("refresh_interval", "1s"),
    ];
    let (app, store) = App::start_switchable(&settings).await;
    fill(&app, &[("a", 2)]).await;
    app.headcount.refresh(None).await.unwrap();
    store.set_unavailable(true);
    app.advance(60);
    let found = scrape(&app, "").await;
    assert_eq!(found[&users("a")], 2.0);
    assert_eq!(
        found[r#"headcount_segment_counts_stale{window="14d"}"#],
        1.0
    );
    let as_of = found[r#"headcount_segment_as_of_seconds{segment="a",window="14d"}"#];
    assert_eq!(as_of, NOON as f64);
    let named = scrape(&app, "?segment=a&segment=never").await;
    assert_eq!(named[&left_out("unknown")], 1.0);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_count_from_the_start_of_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("kept");
    let settings = [("data_dir", data.to_str().unwrap())];
    let entered = r#"headcount_segment_users_entered_total{segment="a",window="14d"}"#;
    let left = r#"headcount_segment_users_left_total{segment="a",window="14d"}"#;
    let app = App::start_with(&settings).await;
    fill(&app, &[("a", 3)]).await;
    let found = scrape(&app, "").await;
    assert_eq!((found[entered], found[left]), (3.0, 0.0));
    app.stop().await;
    // Replaying the log is not entering.
    let app = App::start_with(&settings).await;
    let found = scrape(&app, "").await;
    assert_eq!((found[entered], found[left]), (0.0, 0.0));
    fill(&app, &[("a", 5)]).await;
    assert_eq!(app.send(Method::DELETE, "/v1/users/u0").await.status, 200);
    let found = scrape(&app, "").await;
    assert_eq!(
        (found[entered], found[left], found[&users("a")]),
        (2.0, 1.0, 4.0)
    );
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn live_counts_of_a_store_on_the_network_tell_who_entered_and_left() {
    let Some(postgres) = Postgres::start().await else {
        return;
    };
    let options = postgres.options("headcount", two_weeks());
    set_up(&options).await.unwrap();
    let (url, folder) = (postgres.url(), tempfile::tempdir().unwrap());
    let store = [("store", "postgres"), ("postgres_url", &*url)];
    let before = Service::start(folder.path(), &store).await;
    let names: Vec<_> = (0..9).map(|user| format!("u{user}")).collect();
    assert_eq!(before.post(&names[..4], "a").await, 200);
    // The store does not count entries.
    assert!(!before.text(METRICS).await.contains("entered"));
    assert_eq!(before.terminate().await, Some(0));
    let settings = [&store[..], &[("live", "here")]].concat();
    let service = Service::start(folder.path(), &settings).await;
    // Those whom the replica reads from the store did not enter.
    expect_flow(&service, [4.0, 0.0, 0.0]).await;
    assert_eq!(service.post(&names, "a").await, 200);
    expect_flow(&service, [9.0, 5.0, 0.0]).await;
    for user in ["u0", "u8"] {
        let erase = format!("{}/v1/users/{user}", service.url());
        let erased = reqwest::Client::new().delete(erase).send().await.unwrap();
        assert_eq!(erased.status(), 200);
    }
    expect_flow(&service, [7.0, 5.0, 2.0]).await;
    assert_eq!(service.post(&names[8..], "a").await, 200);
    expect_flow(&service, [8.0, 6.0, 2.0]).await;
    assert_eq!(service.terminate().await, Some(0));
    // Nor did those whom it kept over a restart.
    let service = Service::start(folder.path(), &settings).await;
    expect_flow(&service, [8.0, 0.0, 0.0]).await;
}

/// Waits until the metrics have these users of `a`, and those who entered and left.
async fn expect_flow(service: &Service, expected: [f64; 3]) {
    let names = ["users", "users_entered_total", "users_left_total"];
    let names =
        names.map(|name| format!(r#"headcount_segment_{name}{{segment="a",window="14d"}}"#));
    let mut last = [None; 3];
    let reached = poll(async || {
        let found = samples(&service.text(METRICS).await);
        last = names.each_ref().map(|name| found.get(name).copied());
        (last == expected.map(Some)).then_some(())
    });
    let reached = tokio::time::timeout(std::time::Duration::from_secs(20), reached).await;
    assert!(reached.is_ok(), "{last:?}, not {expected:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn both_formats_are_sent_and_promtool_reports_no_problem() {
    let app = App::start().await;
    fill(&app, &[("sports", 2), ("a \"b\" \\c", 1)]).await;
    let plain = app.get(METRICS).await;
    assert_eq!(
        plain.headers["content-type"],
        "text/plain; version=0.0.4; charset=utf-8"
    );
    assert_eq!(plain.headers["vary"], "accept");
    let open = app.send_with(Method::GET, METRICS, &[OPEN_METRICS]).await;
    assert_eq!(
        open.headers["content-type"],
        "application/openmetrics-text; version=1.0.0; charset=utf-8"
    );
    assert!(open.text.ends_with("# EOF\n"));
    assert_eq!(samples(&open.text), samples(&plain.text));
    app.stop().await;
    let Some(promtool) = servers::find("promtool", "HEADCOUNT_TEST_PROMTOOL") else {
        return;
    };
    let mut command = Command::new(promtool);
    let command = command.args(["check", "metrics"]).stdin(Stdio::piped());
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(plain.text.as_bytes())
        .unwrap();
    let judged = child.wait_with_output().unwrap();
    let said = [judged.stdout, judged.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(judged.status.success() && said.is_empty(), "{said}");
}

/// Valid names with every character that may need an escape, and characters of several bytes.
fn names(random: &mut fastrand::Rng) -> BTreeSet<String> {
    const PARTS: [&str; 20] = [
        "\\", "\"", "\\n", "\\\"", "{", "}", ",", "=", "#", " ", "'", "`", "a", "Z", "0", "é",
        "🏀", "e\u{301}", "# EOF", "%00",
    ];
    let mut names: BTreeSet<String> = HOSTILE_NAMES
        .iter()
        .map(|name| (*name).to_owned())
        .collect();
    while names.len() < NAMES {
        let length = random.usize(1..8);
        let name: String = (0..length)
            .map(|_| PARTS[random.usize(..PARTS.len())])
            .collect();
        if Segment::new(&name).is_ok() {
            names.insert(name);
        }
    }
    names
}

/// Serves `text` in the older format on a port. A scraper that prefers OpenMetrics would not get it from the service.
async fn relay(text: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/plain; version=0.0.4\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        text.len()
    );
    let response = head + &text;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                match stream.read_buf(&mut request).await {
                    Ok(read) if read > 0 => {}
                    _ => break,
                }
            }
            // The scraper may be gone.
            let _ = stream.write_all(response.as_bytes()).await;
        }
    });
    address
}

/// Prometheus is the independent parser, of both formats.
#[tokio::test(flavor = "multi_thread")]
async fn prometheus_reads_every_name_back() {
    let seed = fastrand::u64(..);
    let names = names(&mut fastrand::Rng::with_seed(seed));
    let app = App::start().await;
    for (number, name) in names.iter().enumerate() {
        fill(&app, &[(name, number % 3 + 1)]).await;
    }
    let plain = relay(app.get(METRICS).await.text).await;
    let job = |name: &str, target: &str| {
        json!({
            "job_name": name, "metrics_path": METRICS, "static_configs": [{"targets": [target]}]
        })
    };
    let config = json!({
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s"},
        "scrape_configs": [job("open", &app.addr.to_string()), job("plain", &plain)]
    });
    let Some(prometheus) = Prometheus::start(&config, "").await else {
        return;
    };
    let expected: BTreeMap<String, f64> = names
        .iter()
        .enumerate()
        .map(|(number, name)| (name.clone(), (number % 3 + 1) as f64))
        .collect();
    for job in ["open", "plain"] {
        let query = format!("headcount_segment_users{{job=\"{job}\"}}");
        until("Prometheus has scraped", async || {
            !prometheus.query(&query).await.is_empty()
        })
        .await;
        let read = prometheus.query(&query).await.into_iter();
        let read: BTreeMap<String, f64> = read
            .map(|(labels, users)| (text(&labels["segment"]), users))
            .collect();
        assert!(read == expected, "seed {seed}, {job}: {read:?}");
        let target = format!("{{job=\"{job}\"}}");
        let kinds = prometheus
            .get("targets/metadata", &[("match_target", &target)])
            .await;
        let of = |name: &str| {
            let mut all = kinds.as_array().unwrap().iter();
            all.find(|it| it["metric"] == name)
                .map(|it| text(&it["type"]))
        };
        assert_eq!(
            of("headcount_segment_users").as_deref(),
            Some("gauge"),
            "{kinds}"
        );
    }
    app.stop().await;
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}
