//! The commands of the program on a real InfluxDB.

use std::time::Duration;

use domain::store::PairStore;
use domain::{BatchBuilder, Segment, TimeFrame, Timestamp, UserId};
use stores::influx::InfluxStore;

use crate::support::fault_server::{FaultServer, Reply};
use crate::support::influxd::{Influxd, ORG, TOKEN};
use crate::support::program::{self, Run, headcount};
use crate::support::servers::{Process, free_port};
use crate::support::wait::until;

fn run(server: &Influxd, token: &str, arguments: &[&str]) -> Run {
    let directory = tempfile::tempdir().unwrap();
    let url = server.url();
    let settings = [
        ("store", "influx"),
        ("influx_url", url.as_str()),
        ("influx_org", ORG),
        ("influx_token", token),
    ];
    program::run(directory.path(), &settings, arguments)
}

#[tokio::test(flavor = "multi_thread")]
async fn setup_writes_token_files_and_a_worker_reports_its_health() {
    let Some(server) = Influxd::start().await else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let tokens = folder.path().join("tokens");
    let set_up = ["setup", "--tokens-dir", tokens.to_str().unwrap()];
    for _ in 0..2 {
        let done = run(&server, TOKEN, &set_up);
        assert_eq!(done.code, Some(0), "{}", done.err);
        assert!(!done.out.contains("token"), "a token in the output");
    }
    let token = std::fs::read_to_string(tokens.join("service.token")).unwrap();
    let worker = Worker::start(&server, &token).await;
    assert_eq!(worker.status("healthz").await, 200);
    assert_eq!(worker.status("readyz").await, 200);
    assert_eq!(worker.status("v1/segments").await, 404);
    let never = "\nheadcount_refresh_last_success_timestamp_seconds 0.0\n";
    until("a refresh", async || {
        !worker.metrics().await.contains(never)
    })
    .await;
    let health = run(&server, "", &["health", "--ready", "--url", &worker.url]);
    assert!(
        health
            .out
            .starts_with("ready (refresher: a round was completed "),
        "{health:?}"
    );

    std::fs::remove_file(tokens.join("reader.token")).unwrap();
    let lost = run(&server, TOKEN, &set_up);
    assert_eq!(lost.code, Some(1));
    assert!(lost.err.contains("reader.token is missing"));
}

/// A running `headcount worker` that refreshes every second.
struct Worker {
    url: String,
    _process: Process,
    _directory: tempfile::TempDir,
}

impl Worker {
    async fn start(server: &Influxd, token: &str) -> Self {
        let address = format!("127.0.0.1:{}", free_port());
        let directory = tempfile::tempdir().unwrap();
        let url = server.url();
        let settings = [
            ("worker_listen", address.as_str()),
            ("refresh_interval", "1s"),
            ("store", "influx"),
            ("influx_url", &url),
            ("influx_org", ORG),
            ("influx_token", token),
        ];
        let mut command = headcount(directory.path(), &settings, &["worker"]);
        let worker = Self {
            url: format!("http://{address}"),
            _process: Process::start(&mut command),
            _directory: directory,
        };
        let health = format!("{}/healthz", worker.url);
        until("the worker listens", async || {
            reqwest::get(&health).await.is_ok()
        })
        .await;
        worker
    }

    async fn status(&self, path: &str) -> u16 {
        let response = reqwest::get(format!("{}/{path}", self.url)).await;
        response.unwrap().status().as_u16()
    }

    async fn metrics(&self) -> String {
        let response = reqwest::get(format!("{}/metrics", self.url)).await;
        response.unwrap().text().await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn setup_then_refresh_without_a_service() {
    let Some(server) = Influxd::start().await else {
        return;
    };
    let early = run(&server, TOKEN, &["refresh"]);
    assert_eq!(early.code, Some(1));
    let advice = early.err;
    assert!(advice.contains("run `headcount setup`"), "{advice}");

    let first = run(&server, TOKEN, &["setup", "--tokens", "--json"]);
    assert_eq!(first.code, Some(0), "{}", first.err);
    let made: serde_json::Value = first.json();
    assert_eq!(made["steps"][1]["change"], "created");
    let service = made["tokens"][0]["token"].as_str().unwrap().to_owned();
    let again = run(&server, TOKEN, &["setup"]);
    assert_eq!(again.out.matches("unchanged").count(), 4);

    let wrong = run(&server, "wrong", &["setup"]);
    assert_eq!(wrong.code, Some(1));
    assert!(wrong.err.contains("influx_token"));

    let frame = TimeFrame::new(
        Duration::from_hours(14 * 24),
        Duration::from_secs(60),
        Duration::from_secs(300),
    );
    let frame = frame.unwrap();
    let mut options = server.options("headcount", frame);
    options.token.clone_from(&service);
    let store = InfluxStore::open(options).unwrap();
    let mut batch = BatchBuilder::default();
    for user in ["u1", "u2"] {
        let slot = frame.resolution().slot_of(Timestamp::now());
        let user = UserId::new(user).unwrap();
        batch.push_pair(&user, "a b", slot).unwrap();
    }
    store.record(&batch.finish()).await.unwrap();
    let refreshed = run(&server, &service, &["refresh", "--json"]);
    assert_eq!(refreshed.code, Some(0), "{}", refreshed.err);
    let document: serde_json::Value = refreshed.json();
    assert_eq!(
        (&document["refreshed"], &document["failed"]),
        (&1.into(), &0.into())
    );
    let (segment, window) = (Segment::new("a b").unwrap(), frame.full_window());
    let (from, to) = (Timestamp::UNIX_EPOCH, Timestamp::now());
    let trend = store.trend(&segment, window, from, to).await.unwrap();
    assert_eq!(trend.len(), 1, "a refresh records a trend point");
    assert_eq!(trend[0].users, 2);

    let archived = run(&server, &service, &["archive"]);
    assert_eq!(archived.out, "0 pairs removed\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_to_a_local_server_bypass_the_proxy() {
    let Some(server) = Influxd::start().await else {
        return;
    };
    let proxy = FaultServer::start(|_, _| Reply::status(502, "", "")).await;
    let folder = tempfile::tempdir().unwrap();
    let url = server.url();
    let settings = [
        ("store", "influx"),
        ("influx_url", url.as_str()),
        ("influx_org", ORG),
        ("influx_token", TOKEN),
    ];
    for command in ["setup", "refresh"] {
        let mut program = headcount(folder.path(), &settings, &[command]);
        for name in ["HTTP_PROXY", "http_proxy", "ALL_PROXY"] {
            program.env(name, proxy.url());
        }
        let done = program.output().unwrap();
        assert!(done.status.success(), "{command}: {done:?}");
    }
    assert_eq!(proxy.requests().len(), 0, "the token went to the proxy");
    // Requests to other hosts use the proxy, unless `NO_PROXY` names the host.
    let settings = [
        ("store", "influx"),
        ("influx_url", "http://influxdb.invalid:8086"),
        ("influx_org", ORG),
        ("influx_token", TOKEN),
    ];
    let setup = ["setup", "--retry-for", "0s"];
    let mut through = headcount(folder.path(), &settings, &setup);
    through.env("http_proxy", proxy.url()).output().unwrap();
    let proxied = proxy.requests().len();
    assert!(proxied > 0);
    let mut direct = headcount(folder.path(), &settings, &setup);
    direct
        .env("http_proxy", proxy.url())
        .env("NO_PROXY", "influxdb.invalid");
    direct.output().unwrap();
    assert_eq!(proxy.requests().len(), proxied);
}
