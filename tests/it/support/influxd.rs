//! A real InfluxDB for each test.

#![allow(dead_code, reason = "tests and benches use parts of it")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use domain::TimeFrame;
use serde_json::json;
use stores::influx::{InfluxOptions, InfluxStore, set_up};
use tempfile::TempDir;

use super::servers::{Process, find, free_port};

/// The organisation on every test server.
pub const ORG: &str = "headcount tests";
/// The all-access token of that organisation.
pub const TOKEN: &str = "all-access-token-of-a-test";

/// The settings of a service that uses the bucket `b` of the server at `url`, and `more`.
pub fn settings_at<'a>(url: &'a str, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let mut settings = vec![
        ("store", "influx"),
        ("influx_url", url),
        ("influx_org", ORG),
        ("influx_bucket", "b"),
        ("influx_token", TOKEN),
    ];
    settings.extend(more);
    settings
}

/// Sets the store of `options` up and opens it.
pub async fn open(options: InfluxOptions) -> InfluxStore {
    set_up(&options, false).await.unwrap();
    InfluxStore::open(options).unwrap()
}

/// A server in its own directory. Both are removed on drop.
#[derive(Debug)]
pub struct Influxd {
    program: PathBuf,
    args: Vec<&'static str>,
    directory: TempDir,
    port: u16,
    process: Process,
    client: reqwest::Client,
}

impl Influxd {
    /// A fresh server with a first user, or `None` if influxd is not installed.
    pub async fn start() -> Option<Self> {
        Self::start_with(&[]).await
    }

    /// The same with additional arguments.
    pub async fn start_with(args: &[&'static str]) -> Option<Self> {
        let program = find("influxd", "HEADCOUNT_TEST_INFLUXD")?;
        let directory = tempfile::tempdir().unwrap();
        let port = free_port();
        let process = launch(&program, &directory, port, args);
        let mut server = Self {
            program,
            args: args.to_vec(),
            directory,
            port,
            process,
            // It reads all certificates of the system once, which takes 40 ms. No connection is used after a restart.
            client: reqwest::Client::builder()
                .pool_max_idle_per_host(0)
                .build()
                .unwrap(),
        };
        server.wait_until_healthy().await;
        let body = json!({"username": "admin", "password": "a password", "org": ORG,
                          "bucket": "first", "token": TOKEN});
        let made = server.post("api/v2/setup", &body).await;
        assert_eq!(made.status(), 201, "the first user was not created");
        // The default bucket of the trend.
        server.create_bucket("headcount_trend").await;
        Some(server)
    }

    /// Kills the server as `kill -9` does.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again on its former port and data.
    pub async fn restart(&mut self) {
        self.process = launch(&self.program, &self.directory, self.port, &self.args);
        self.wait_until_healthy().await;
    }

    /// The directory of its files.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The process itself.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Options for a store in `bucket`, which may not exist yet.
    pub fn options(&self, bucket: &str, frame: TimeFrame) -> InfluxOptions {
        InfluxOptions::new(&self.url(), ORG, bucket, TOKEN, frame)
    }

    /// An empty store in a new bucket.
    pub async fn store(&self, bucket: &str, frame: TimeFrame) -> InfluxStore {
        open(self.options(bucket, frame)).await
    }

    /// Posts JSON with the all-access token.
    pub async fn post(&self, path: &str, body: &serde_json::Value) -> reqwest::Response {
        let url = format!("{}/{path}", self.url());
        let request = self.client.post(url).json(body);
        request
            .header("Authorization", format!("Token {TOKEN}"))
            .send()
            .await
            .unwrap()
    }

    /// Writes lines as another client might.
    pub async fn write_raw(&self, bucket: &str, lines: String) -> u16 {
        let url = format!("{}/api/v2/write", self.url());
        let request = self
            .client
            .post(url)
            .query(&[("org", ORG), ("bucket", bucket)]);
        let request = request
            .header("Authorization", format!("Token {TOKEN}"))
            .body(lines);
        request.send().await.unwrap().status().as_u16()
    }

    /// The path of influxd.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Reads JSON with the all-access token.
    pub async fn get(&self, path: &str) -> serde_json::Value {
        let answer = self
            .client
            .get(format!("{}/{path}", self.url()))
            .header("Authorization", format!("Token {TOKEN}"))
            .send()
            .await
            .unwrap();
        answer.json().await.unwrap()
    }

    /// Creates a bucket with infinite retention.
    pub async fn create_bucket(&self, name: &str) {
        let orgs = self.get("api/v2/orgs").await;
        let body = json!({"orgID": orgs["orgs"][0]["id"], "name": name, "retentionRules": []});
        assert_eq!(self.post("api/v2/buckets", &body).await.status(), 201);
    }

    /// Runs Flux and returns the rows of the result, each split at its commas.
    pub async fn flux(&self, query: &str) -> Vec<Vec<String>> {
        let path = format!("api/v2/query?org={}", ORG.replace(' ', "%20"));
        let body = json!({"query": query, "type": "flux"});
        let answer = self.post(&path, &body).await;
        assert_eq!(answer.status(), 200, "{query}");
        let text = answer.text().await.unwrap();
        let rows = text.lines().filter(|line| line.starts_with(",_result"));
        rows.map(|row| row.split(',').map(str::to_owned).collect())
            .collect()
    }

    /// Deletes all points of a measurement.
    pub async fn delete(&self, bucket: &str, measurement: &str) {
        let path = format!(
            "api/v2/delete?org={}&bucket={bucket}",
            ORG.replace(' ', "%20")
        );
        let body = json!({"start": "1970-01-01T00:00:00Z", "stop": "2200-01-01T00:00:00Z",
                          "predicate": format!("_measurement=\"{measurement}\"")});
        assert_eq!(self.post(&path, &body).await.status(), 204);
    }

    async fn wait_until_healthy(&mut self) {
        let url = format!("{}/health", self.url());
        for _ in 0..2_400 {
            self.process.assert_running();
            if reqwest::get(&url)
                .await
                .is_ok_and(|answer| answer.status() == 200)
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("influxd did not become healthy within two minutes");
    }
}

fn launch(program: &PathBuf, directory: &TempDir, port: u16, args: &[&str]) -> Process {
    let path = |name: &str| directory.path().join(name);
    Process::start(
        Command::new(program)
            .arg("--bolt-path")
            .arg(path("bolt"))
            .arg("--sqlite-path")
            .arg(path("sqlite"))
            .arg("--engine-path")
            .arg(path("engine"))
            .arg("--http-bind-address")
            .arg(format!("127.0.0.1:{port}"))
            .arg("--reporting-disabled")
            .args(args),
    )
}
