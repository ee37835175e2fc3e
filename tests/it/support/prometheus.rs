//! A Prometheus server on this machine, with a configuration of the test.

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use super::servers::{Process, find, free_port};
use super::wait::until;

/// A server with its data in a directory of the test.
#[derive(Debug)]
pub struct Prometheus {
    url: String,
    client: reqwest::Client,
    _process: Process,
    _folder: TempDir,
}

impl Prometheus {
    /// Starts a server with this configuration, in JSON, which is YAML too. `history` is OpenMetrics with timestamps; the server
    /// begins with these samples. `None` without the program.
    pub async fn start(config: &Value, history: &str) -> Option<Self> {
        let program = find("prometheus", "HEADCOUNT_TEST_PROMETHEUS")?;
        let promtool = find("promtool", "HEADCOUNT_TEST_PROMTOOL")?;
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        if !history.is_empty() {
            let file = folder.path().join("history.txt");
            std::fs::write(&file, history).unwrap();
            backfill(&promtool, &file, &data);
        }
        let file = folder.path().join("prometheus.yml");
        std::fs::write(&file, config.to_string()).unwrap();
        let port = free_port();
        let mut command = Command::new(program);
        command
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", data.display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"));
        let mut process = Process::start_logging(&mut command, &folder.path().join("log"));
        let (url, client) = (format!("http://127.0.0.1:{port}"), reqwest::Client::new());
        until("prometheus is ready", async || {
            let log = std::fs::read_to_string(folder.path().join("log")).unwrap_or_default();
            assert!(process.is_running(), "{log}");
            let ready = client.get(format!("{url}/-/ready")).send().await;
            ready.is_ok_and(|ready| ready.status() == 200)
        })
        .await;
        Some(Self {
            url,
            client,
            _process: process,
            _folder: folder,
        })
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn client(&self) -> &reqwest::Client {
        &self.client
    }

    /// The data of an endpoint of its API.
    pub async fn get(&self, path: &str, query: &[(&str, &str)]) -> Value {
        let request = self.client.get(format!("{}/api/v1/{path}", self.url));
        let response = request.query(query).send().await.unwrap();
        let response: Value = response.json().await.unwrap();
        assert_eq!(
            response["status"], "success",
            "{path} {query:?}: {response}"
        );
        response["data"].clone()
    }

    /// The result of a query: labels and value of each series.
    pub async fn query(&self, expression: &str) -> Vec<(Value, f64)> {
        let data = self.get("query", &[("query", expression)]).await;
        let result = data["result"].as_array().unwrap();
        let series = result.iter().map(|series| {
            let value = series["value"][1].as_str().unwrap().parse().unwrap();
            (series["metric"].clone(), value)
        });
        series.collect()
    }
}

fn backfill(promtool: &Path, file: &Path, data: &Path) {
    let mut command = Command::new(promtool);
    command.args(["tsdb", "create-blocks-from", "openmetrics"]);
    let output = command.arg(file).arg(data).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{text}");
}
