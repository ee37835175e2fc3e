//! `deploy/rehearse` as a user runs it: the whole script, then every query of dashboards and alerts, then Ctrl-C.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::queries::Servers;
use super::tools::{root, tool};
use crate::support::program::with_default_signals;

/// The rehearsal takes two minutes. A machine under load may need much longer.
const TIMEOUT: Duration = Duration::from_secs(600);

#[tokio::test(flavor = "multi_thread")]
async fn the_rehearsal_passes_its_queries_return_data_and_ctrl_c_cleans_up() {
    let needed = [
        "influxd",
        "redis-server",
        "redis-cli",
        "haproxy",
        "prometheus",
        "curl",
        "setpriv",
    ];
    let found = needed.map(tool);
    if found.iter().any(Option::is_none) {
        return;
    }
    let mut rehearsal = Rehearsal::start(found.iter().flatten());
    let line = rehearsal.wait_for(" directory ");
    let after = |word: &str| {
        let (_, rest) = line.split_once(word).unwrap();
        rest.split_whitespace().next().unwrap().to_owned()
    };
    let directory = after(" directory ");
    let read = |name: &str| std::fs::read_to_string(Path::new(&directory).join(name)).unwrap();
    let servers = Servers {
        influx: after(" influx "),
        token: read("tokens/reader.token"),
        prometheus: after(" prometheus "),
        client: reqwest::Client::new(),
    };
    post_rejected_pair(
        &servers.client,
        &after(" front "),
        read("secrets/token_uss").trim(),
    )
    .await;
    rehearsal
        .wait_for_metric(&servers, "headcount_pairs_rejected_total")
        .await;
    rehearsal
        .wait_for_metric(&servers, "headcount_segment_users")
        .await;
    servers.run_all_queries().await;
    rehearsal.interrupt();
    assert!(!Path::new(&directory).exists(), "{directory} is left");
    assert_eq!(processes_of(&directory), Vec::<String>::new());
}

/// Posts a pair that is rejected, so that the rejection metrics have a value.
async fn post_rejected_pair(client: &reqwest::Client, front: &str, token: &str) {
    let request = client.post(format!("{front}/v1/pairs")).bearer_auth(token);
    let body =
        serde_json::json!([{"user_id": "u", "segment": " s"}, {"user_id": "u1", "segment": "s00"}]);
    let response = request.json(&body).send().await.unwrap();
    assert_eq!(response.status(), 200);
}

/// The running script. It is stopped with everything that it started when the test ends early.
struct Rehearsal {
    script: Child,
    lines: mpsc::Receiver<String>,
}

impl Rehearsal {
    /// Starts the script with the folders of these programs on its `PATH`.
    fn start<'a>(programs: impl Iterator<Item = &'a PathBuf>) -> Self {
        let own = std::env::var("PATH").unwrap();
        let folders = programs.filter_map(|program| Some(program.parent()?.to_str()?.to_owned()));
        let path: Vec<String> = folders.chain([own]).collect();
        let mut script = Command::new(root().join("deploy/rehearse"));
        script
            .env("PATH", path.join(":"))
            .arg("--stay")
            .env("HEADCOUNT", env!("CARGO_BIN_EXE_headcount"))
            .env("REHEARSE_PAIRS", "1500");
        // A shell can't trap signals that were ignored when it started.
        let mut script = with_default_signals(&script)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = mpsc::channel();
        let out = BufReader::new(script.stdout.take().unwrap());
        std::thread::spawn(move || {
            // The receiver may be closed already.
            let _ = out
                .lines()
                .map_while(Result::ok)
                .try_for_each(|line| sender.send(line));
        });
        Self { script, lines }
    }

    /// Waits for a line that contains `text`. Fails with the output so far if the script ends or the time runs out.
    fn wait_for(&self, text: &str) -> String {
        let mut output = String::new();
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) if line.contains(text) => return line,
                Ok(line) => output += &format!("{line}\n"),
                Err(_) => panic!("the rehearsal failed:\n{output}"),
            }
        }
    }

    /// Waits until Prometheus, which scrapes every second, has a rate of the metric.
    async fn wait_for_metric(&self, servers: &Servers, name: &str) {
        let deadline = Instant::now() + TIMEOUT;
        let url = format!("{}/api/v1/query?query=rate({name}[5m])", servers.prometheus);
        loop {
            let response = servers.client.get(&url).send().await.unwrap();
            if response.text().await.unwrap().contains("\"value\"") {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "Prometheus has no rate of {name}"
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Sends Ctrl-C and waits for the end.
    fn interrupt(&mut self) {
        let pid = self.script.id().to_string();
        let sent = Command::new("kill").args(["-INT", &pid]).status();
        assert!(sent.unwrap().success());
        let deadline = Instant::now() + TIMEOUT;
        let status = loop {
            if let Some(status) = self.script.try_wait().unwrap() {
                break status;
            }
            assert!(
                Instant::now() < deadline,
                "the script does not end after Ctrl-C"
            );
            std::thread::sleep(Duration::from_millis(20));
        };
        assert_eq!(status.code(), Some(130));
    }
}

impl Drop for Rehearsal {
    fn drop(&mut self) {
        // Do not signal a script that has ended: its process id may be reused.
        if !matches!(self.script.try_wait(), Ok(None)) {
            return;
        }
        // SIGTERM first, so that the script removes its directory. Its child processes can not outlive it.
        let pid = self.script.id().to_string();
        let _ = Command::new("kill").args(["-TERM", &pid]).status();
        for _ in 0..600 {
            if !matches!(self.script.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = self.script.kill();
        let _ = self.script.wait();
    }
}

/// The command lines of processes that name the directory.
fn processes_of(directory: &str) -> Vec<String> {
    let processes = std::fs::read_dir("/proc").unwrap().map_while(Result::ok);
    let commands = processes.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    let commands = commands.map(|bytes| String::from_utf8_lossy(&bytes).replace('\0', " "));
    commands
        .filter(|command| command.contains(directory))
        .collect()
}
