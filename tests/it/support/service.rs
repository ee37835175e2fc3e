//! The service as a separate process, on a port that the system chooses.

use std::ffi::OsStr;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::program::{headcount, with_default_signals};
use super::servers::Process;

/// Every wait takes well under a second. A machine under load may need much longer.
const DEADLINE: Duration = Duration::from_secs(120);

/// `headcount serve`, killed on drop.
#[derive(Debug)]
pub struct Service {
    process: Process,
    address: SocketAddr,
    log: PathBuf,
    client: reqwest::Client,
}

impl Service {
    /// Starts the service in `directory` with these settings, by name, and waits until it listens.
    pub async fn start(directory: &Path, settings: &[(&str, &str)]) -> Self {
        Self::launch(directory, settings, &[])
    }

    /// The same with arguments.
    pub fn launch(directory: &Path, settings: &[(&str, &str)], arguments: &[&str]) -> Self {
        let mut command = headcount(directory, settings, &["serve"]);
        if !arguments.contains(&"--listen") {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        Self::run(directory, command.args(arguments))
    }

    /// The same with environment variables for other programs.
    pub fn start_with_env(
        directory: &Path,
        settings: &[(&str, &str)],
        variables: &[(&str, &OsStr)],
    ) -> Self {
        let mut command = on_any_port(directory, settings);
        Self::run(directory, command.envs(variables.iter().copied()))
    }

    /// The same with another limit of open files, in the syntax of `prlimit`: `soft:hard`.
    pub fn start_with_file_limit(
        open_files: &str,
        directory: &Path,
        settings: &[(&str, &str)],
    ) -> Self {
        let mut prlimit = Command::new("prlimit");
        prlimit.arg(format!("--nofile={open_files}"));
        Self::run_by(prlimit, directory, settings)
    }

    /// The same, started by a program that executes the one in its arguments.
    pub fn start_under(program: &str, directory: &Path, settings: &[(&str, &str)]) -> Self {
        Self::run_by(Command::new(program), directory, settings)
    }

    /// The same with default signal handlers, whatever signals the tests ignore.
    pub fn start_with_default_signals(directory: &Path, settings: &[(&str, &str)]) -> Self {
        let mut command = with_default_signals(&on_any_port(directory, settings));
        Self::run(directory, &mut command)
    }

    fn run_by(mut command: Command, directory: &Path, settings: &[(&str, &str)]) -> Self {
        let program = on_any_port(directory, settings);
        command.arg(program.get_program()).args(program.get_args());
        for (name, value) in program.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        Self::run(directory, command.current_dir(directory))
    }

    /// A service that may not listen yet. This does not wait for it.
    pub fn spawn(directory: &Path, settings: &[(&str, &str)]) -> Process {
        Process::start_logging(&mut on_any_port(directory, settings), &log_in(directory))
    }

    /// A process that any command starts, and that logs its address as the service does.
    pub fn run(directory: &Path, command: &mut Command) -> Self {
        let log = log_in(directory);
        let mut service = Self {
            process: Process::start_logging(command, &log),
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            log,
            client: reqwest::Client::new(),
        };
        service.address = service.wait_until_listening();
        service
    }

    /// `headcount worker` in the same way, with its log in the file of [`log_in`].
    pub fn spawn_worker(directory: &Path, settings: &[(&str, &str)]) -> Process {
        let mut command = headcount(directory, settings, &["worker"]);
        Process::start_logging(&mut command, &log_in(directory))
    }

    /// Starts `headcount worker` in `directory`, without an HTTP server.
    pub fn worker(directory: &Path, settings: &[(&str, &str)]) -> Process {
        Process::start(&mut headcount(directory, settings, &["worker"]))
    }

    fn wait_until_listening(&mut self) -> SocketAddr {
        let began = Instant::now();
        loop {
            let log = self.log();
            let whole = log.rsplit_once('\n').map_or("", |(whole, _)| whole);
            let found = whole
                .lines()
                .find_map(|line| line.split_once("listening on http://"));
            if let Some((_, address)) = found {
                // A JSON log line continues after the address.
                let address = address.split('"').next().unwrap_or_default();
                return address.trim().parse().unwrap();
            }
            assert!(
                self.process.is_running() && began.elapsed() < DEADLINE,
                "the service does not listen: {log}"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// The lines of its log that contain `text`.
    pub fn logged(&self, text: &str) -> Vec<String> {
        let log = self.log();
        let found = log.lines().filter(|line| line.contains(text));
        found.map(str::to_owned).collect()
    }

    /// The lines of its audit trail that contain `text`. Its log is JSON.
    pub fn audited(&self, text: &str) -> Vec<Value> {
        let lines = self.logged("\"target\":\"audit\"");
        let lines = lines.iter().map(|line| serde_json::from_str(line).unwrap());
        lines
            .filter(|line: &Value| line.to_string().contains(text))
            .collect()
    }

    /// The process itself.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Kills it with SIGKILL.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Sends a signal by name: `TERM`, `STOP`.
    pub fn signal(&self, name: &str) {
        self.process.signal(name);
    }

    /// Sends SIGTERM, then returns the exit code.
    pub async fn terminate(self) -> Option<i32> {
        self.signal("TERM");
        self.exit_code().await
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        !self.process.is_running()
    }

    /// Waits for the exit. Returns `None` if a signal ended it.
    pub async fn exit_code(mut self) -> Option<i32> {
        poll(async || self.process.ended()).await.code()
    }

    /// Waits until the service refuses new connections.
    pub async fn wait_until_refusing(&self) {
        let refuses = || TcpStream::connect(self.address).is_err();
        poll(async || refuses().then_some(())).await;
    }

    /// Waits until the spool is empty.
    pub async fn wait_until_drained(&self) {
        poll(async || {
            let ready = self.get("/readyz").await;
            let spool = &ready["components"]["spool"];
            assert!(spool.is_object(), "no spool: {ready}");
            spool["detail"].is_null().then_some(())
        })
        .await;
    }

    /// Posts one pair for each user, seen now. Returns the status, or 0 without a response.
    pub async fn post(&self, users: &[String], segment: &str) -> u16 {
        let pairs: Vec<Value> = users
            .iter()
            .map(|user| json!({"user_id": user, "segment": segment}))
            .collect();
        let request = self.client.post(format!("{}/v1/pairs", self.url()));
        match request.json(&pairs).send().await {
            Ok(response) => response.status().as_u16(),
            Err(_) => 0,
        }
    }

    /// Posts one JSON body and requires a 200.
    pub async fn post_body(&self, body: impl Into<String>) {
        let post = self.client.post(format!("{}/v1/pairs", self.url()));
        let post = post.header("content-type", "application/json");
        let response = post.body(body.into()).send().await.unwrap();
        assert_eq!(response.status(), 200);
    }

    /// The count of `segment` over the full window.
    pub async fn count(&self, segment: &str) -> u64 {
        users(&self.get(&format!("/v1/segments/{segment}/count")).await)
    }

    /// The same, bypassing all caches.
    pub async fn fresh_count(&self, segment: &str) -> u64 {
        let path = format!("/v1/segments/{segment}/count?fresh=true");
        users(&self.get(&path).await)
    }

    /// Gets a document below the service's URL.
    pub async fn get(&self, path: &str) -> Value {
        let response = self
            .client
            .get(format!("{}{path}", self.url()))
            .send()
            .await;
        response.unwrap().json().await.unwrap()
    }

    /// The same with the status, or 0 without a complete response.
    pub async fn try_get(&self, path: &str) -> (u16, Value) {
        let Ok(response) = self
            .client
            .get(format!("{}{path}", self.url()))
            .send()
            .await
        else {
            return (0, Value::Null);
        };
        let status = response.status().as_u16();
        response
            .json()
            .await
            .map_or((0, Value::Null), |body| (status, body))
    }

    /// Gets a string below the service's URL.
    pub async fn text(&self, path: &str) -> String {
        let response = self
            .client
            .get(format!("{}{path}", self.url()))
            .send()
            .await;
        response.unwrap().text().await.unwrap()
    }
}

fn on_any_port(directory: &Path, settings: &[(&str, &str)]) -> Command {
    headcount(directory, settings, &["serve", "--listen", "127.0.0.1:0"])
}

/// The log file of the service or worker in this directory.
pub fn log_in(directory: &Path) -> PathBuf {
    directory.join("service.stderr")
}

fn users(count: &Value) -> u64 {
    count["users"]
        .as_u64()
        .unwrap_or_else(|| panic!("no count in {count}"))
}

/// Polls until there is a result, and fails the test at the deadline.
pub async fn poll<T>(mut check: impl AsyncFnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(result) = check().await {
            return result;
        }
        assert!(began.elapsed() < DEADLINE, "no result before the deadline");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
