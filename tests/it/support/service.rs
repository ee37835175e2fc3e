//! The service as its own process.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use super::servers::{Process, free_port};

/// `headcount serve`, killed when this goes.
#[derive(Debug)]
pub struct Service {
    process: Process,
    url: String,
    client: reqwest::Client,
}

impl Service {
    /// Starts the service in `directory` with these settings, by name, and waits until it answers.
    pub async fn start(directory: &Path, settings: &[(&str, impl AsRef<str>)]) -> Self {
        let port = free_port();
        let mut command = command("serve", directory, settings);
        command.env("HEADCOUNT_LISTEN", format!("127.0.0.1:{port}"));
        let mut service = Self {
            process: Process::start_logging(&mut command, &directory.join("service.log")),
            url: format!("http://127.0.0.1:{port}"),
            client: reqwest::Client::new(),
        };
        service.wait_until_up().await;
        service
    }

    /// Starts `headcount worker` in `directory`; it answers nobody.
    pub fn worker(directory: &Path, settings: &[(&str, impl AsRef<str>)]) -> Process {
        Process::start(&mut command("worker", directory, settings))
    }

    async fn wait_until_up(&mut self) {
        for _ in 0..600 {
            self.process.assert_running();
            let url = format!("{}/healthz", self.url);
            if self.client.get(url).send().await.is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the service did not come up within 30 s");
    }

    /// Kills it as `kill -9` does.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Posts one pair a user, seen now; returns the status.
    pub async fn post(&self, users: &[String], segment: &str) -> u16 {
        let pairs: Vec<Value> = users
            .iter()
            .map(|user| json!({"user_id": user, "segment": segment}))
            .collect();
        let request = self.client.post(format!("{}/v1/pairs", self.url));
        match request.json(&pairs).send().await {
            Ok(answer) => answer.status().as_u16(),
            Err(_) => 0,
        }
    }

    /// Gets a document below the service's URL.
    pub async fn get(&self, path: &str) -> Value {
        let answer = self.client.get(format!("{}{path}", self.url)).send().await;
        answer.unwrap().json().await.unwrap()
    }

    /// The same with the status, which is 0 where there was no whole answer.
    pub async fn try_get(&self, path: &str) -> (u16, Value) {
        let Ok(answer) = self.client.get(format!("{}{path}", self.url)).send().await else {
            return (0, Value::Null);
        };
        let status = answer.status().as_u16();
        answer
            .json()
            .await
            .map_or((0, Value::Null), |body| (status, body))
    }

    /// Gets a text below the service's URL.
    pub async fn text(&self, path: &str) -> String {
        let answer = self.client.get(format!("{}{path}", self.url)).send().await;
        answer.unwrap().text().await.unwrap()
    }

    /// Waits until nothing waits in the spool any more.
    pub async fn wait_until_drained(&self) {
        for _ in 0..1200 {
            let ready = self.get("/readyz").await;
            let spool = &ready["components"]["spool"];
            assert!(spool.is_object(), "no spool: {ready}");
            if spool["detail"].is_null() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the spool was not delivered within a minute");
    }
}

fn command(name: &str, directory: &Path, settings: &[(&str, impl AsRef<str>)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_headcount"));
    command.arg(name).current_dir(directory);
    for (name, value) in settings {
        command.env(format!("HEADCOUNT_{}", name.to_uppercase()), value.as_ref());
    }
    command
}
