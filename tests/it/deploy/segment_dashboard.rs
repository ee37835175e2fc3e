//! The dashboard of segments and the example alerts, on a real Prometheus that scrapes a real service as deploy/prometheus does, with
//! eight days of history.

use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use domain::store::conformance::HOSTILE_NAMES;
use serde_json::{Value, json};

use super::grafana::dashboard;
use super::prometheus::{SEGMENT_RULES, alerts_of};
use super::queries::promql;
use super::tools::{items, read, root, string, yaml};
use crate::support::program;
use crate::support::prometheus::Prometheus;
use crate::support::service::Service;
use crate::support::wait::until;

const DAYS: u64 = 8;
/// Seconds between two samples of the history: Prometheus looks back five minutes.
const STEP: u64 = 240;

/// Segments, how many users they have, and how many they had.
fn segments() -> Vec<(String, u64, u64)> {
    let hostile = HOSTILE_NAMES.iter().enumerate();
    let hostile = hostile.map(|(number, name)| ((*name).to_owned(), number as u64 + 1, 1));
    let plain = [("sports", 100, 400), ("news", 90, 30)];
    let plain = plain.map(|(name, now, before)| (name.to_owned(), now, before));
    hostile.chain(plain).collect()
}

/// A token with this scope, in the tokens file of `folder`.
fn new_token(folder: &std::path::Path, scope: &str) -> String {
    let arguments = [
        "token",
        "new",
        "--name",
        scope,
        "--scope",
        scope,
        "--tokens-file",
        "t.toml",
    ];
    let token = program::run(folder, &[], &arguments).out.trim().to_owned();
    assert!(!token.is_empty());
    token
}

/// The jobs of deploy/prometheus/prometheus.yml for services, with another target and shorter intervals.
fn config(target: &str, token_file: &str) -> Value {
    let file = &yaml(&read("deploy/prometheus/prometheus.yml"))[0];
    let jobs = ["headcount", "headcount-segments"].map(|name| {
        let mut jobs = items(&file["scrape_configs"]);
        let mut job = jobs.find(|job| job["job_name"] == name).unwrap().clone();
        job["static_configs"] = json!([{"targets": [target]}]);
        job["scrape_interval"] = json!("1s");
        job["scrape_timeout"] = json!("1s");
        if let Some(file) = job.pointer_mut("/authorization/credentials_file") {
            *file = json!(token_file);
        }
        job
    });
    json!({
        "global": {"evaluation_interval": "1s"},
        "rule_files": [root().join(SEGMENT_RULES)],
        "scrape_configs": jobs
    })
}

/// What the job of segments would have scraped in the last days.
fn history(target: &str) -> String {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let mut text = "# TYPE headcount_segment_users gauge\n".to_owned();
    for (segment, _, users) in segments() {
        let escaped = segment.replace('\\', "\\\\").replace('"', "\\\"");
        let mut at = now - DAYS * 86_400;
        while at < now - 900 {
            let labels = format!(
                r#"job="headcount-segments",instance="{target}",segment="{escaped}",window="14d""#
            );
            writeln!(text, "headcount_segment_users{{{labels}}} {users} {at}").unwrap();
            at += STEP;
        }
    }
    text + "# EOF\n"
}

async fn post(service: &Service, token: &str) {
    let pairs = segments().into_iter().flat_map(|(segment, users, _)| {
        (0..users).map(move |user| json!({"user_id": user, "segment": segment}))
    });
    let pairs: Vec<_> = pairs.collect();
    let client = reqwest::Client::new();
    let request = client.post(format!("{}/v1/pairs", service.url()));
    let response = request
        .bearer_auth(token)
        .json(&pairs)
        .send()
        .await
        .unwrap();
    let response: Value = response.json().await.unwrap();
    assert_eq!(response["accepted"], pairs.len(), "{response}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_query_returns_data_and_every_alert_is_evaluated() {
    let folder = tempfile::tempdir().unwrap();
    let [reader, writer] = ["read", "write"].map(|scope| new_token(folder.path(), scope));
    let token_file = folder.path().join("reader");
    std::fs::write(&token_file, reader).unwrap();
    let service = Service::start(folder.path(), &[("tokens_file", "t.toml")]).await;
    let target = service.address().to_string();
    let config = config(&target, token_file.to_str().unwrap());
    let Some(prometheus) = Prometheus::start(&config, &history(&target)).await else {
        return;
    };
    // Entries need a scrape before the users.
    until("the job of segments is up", async || {
        let up = prometheus
            .query("up{job=\"headcount-segments\"} == 1")
            .await;
        !up.is_empty()
    })
    .await;
    post(&service, &writer).await;
    until("entries are counted twice", async || {
        let rate = "rate(headcount_segment_users_entered_total{segment=\"sports\"}[5m])";
        !prometheus.query(rate).await.is_empty()
    })
    .await;
    check_panels(&prometheus).await;
    check_alerts(&prometheus).await;
}

async fn check_panels(prometheus: &Prometheus) {
    let run = async |place: &str, expression: &str| {
        promql(prometheus.client(), prometheus.url(), place, expression).await
    };
    let dashboard = dashboard("segments-prometheus");
    let mut ran = 0;
    for panel in items(&dashboard["panels"]) {
        let title = string(&panel["title"]);
        for target in items(&panel["targets"]) {
            let expression = string(&target["expr"]);
            let rows = run(title, expression).await;
            assert!(!rows.is_empty(), "{title}: no data: {expression}");
            ran += 1;
            let of = |segment: &str| {
                let row = rows.iter().find(|row| row["metric"]["segment"] == segment);
                row.map(|row| string(&row["value"][1]).to_owned())
            };
            match (title, string(&target["refId"])) {
                ("Change", "C") => {
                    assert_eq!(of("sports").as_deref(), Some("-300"));
                    assert_eq!(of("news").as_deref(), Some("60"));
                }
                ("Users", _) => {
                    assert_eq!(rows.len(), 10);
                    assert_eq!(of("sports").as_deref(), Some("100"));
                }
                ("Change within a day", _) => {
                    assert_eq!(of("sports").as_deref(), Some("-0.75"));
                }
                _ => {}
            }
        }
    }
    assert!(ran >= 15, "{ran}");
    for variable in items(&dashboard["templating"]["list"]) {
        let query = variable["query"]["query"].as_str().unwrap_or_default();
        if let Some(arguments) = query.strip_prefix("label_values(") {
            let (selector, label) = arguments.rsplit_once(", ").unwrap();
            let rows = run(query, selector).await;
            let label = label.trim_end_matches(')');
            assert!(
                rows.iter().any(|row| row["metric"][label].is_string()),
                "{query}"
            );
        }
    }
    for mark in items(&dashboard["annotations"]["list"]) {
        let name = string(&mark["name"]);
        let rows = run(name, string(&mark["target"]["expr"])).await;
        if name == "Starts" {
            let at: f64 = string(&rows[0]["value"][1]).parse().unwrap();
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
            let ago = now.as_millis() as f64 - at;
            assert!((0.0..600_000.0).contains(&ago), "{ago} ms ago");
            assert!(rows[0]["metric"]["version"].is_string(), "{rows:?}");
        }
    }
}

async fn check_alerts(prometheus: &Prometheus) {
    let expected = alerts_of(SEGMENT_RULES).len();
    until("every rule is evaluated", async || {
        let rules = prometheus.get("rules", &[]).await;
        let rules: Vec<_> = items(&rules["groups"])
            .flat_map(|group| items(&group["rules"]))
            .cloned()
            .collect();
        assert_eq!(rules.len(), expected);
        let broken = rules.iter().find(|rule| rule["health"] == "err");
        assert!(broken.is_none(), "{broken:?}");
        rules.iter().all(|rule| rule["health"] == "ok")
    })
    .await;
    // It had 400 users until a quarter of an hour ago, and has 100; 90 are fewer than 1,000.
    let of = |name: &'static str| async move {
        let alerts = prometheus.get("alerts", &[]).await;
        let alerts = items(&alerts["alerts"]).filter(|alert| alert["labels"]["alertname"] == name);
        alerts
            .map(|alert| string(&alert["labels"]["segment"]).to_owned())
            .collect::<Vec<_>>()
    };
    until("sports is too small", async || {
        of("HeadcountSegmentSmall").await == ["sports"]
    })
    .await;
    // The installation is younger than its window, so counts are not complete: that is no fall.
    assert!(of("HeadcountSegmentFell").await.is_empty());
}
