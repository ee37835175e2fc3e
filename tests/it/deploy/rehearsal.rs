//! `deploy/rehearse`, as a person runs it: through, then every query of dashboards and alerts, then Ctrl-C.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::queries::Servers;
use super::tools::{root, tool};
use crate::support::program::with_default_signals;

/// It takes half a minute; a machine under load may need much longer.
const PATIENCE: Duration = Duration::from_secs(600);

#[tokio::test(flavor = "multi_thread")]
async fn the_rehearsal_passes_its_queries_answer_and_ctrl_c_leaves_nothing() {
    let needed = [
        "influxd",
        "redis-server",
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
    refuse_a_pair(
        &servers.client,
        &after(" front "),
        read("secrets/token_uss").trim(),
    )
    .await;
    rehearsal
        .wait_for_metric(&servers, "headcount_pairs_rejected_total")
        .await;
    servers.answer_everything().await;
    rehearsal.interrupt();
    assert!(!Path::new(&directory).exists(), "{directory} is left");
    assert_eq!(processes_of(&directory), Vec::<String>::new());
}

/// So that there is a rejection to show.
async fn refuse_a_pair(client: &reqwest::Client, front: &str, token: &str) {
    let request = client.post(format!("{front}/v1/pairs")).bearer_auth(token);
    let body =
        serde_json::json!([{"user_id": "u", "segment": " s"}, {"user_id": "u1", "segment": "s00"}]);
    let answer = request.json(&body).send().await.unwrap();
    assert_eq!(answer.status(), 200);
}

/// The script; killed, and all that it started with it, when the test ends early.
struct Rehearsal {
    script: Child,
    lines: mpsc::Receiver<String>,
}

impl Rehearsal {
    /// With these programs on the script's path, wherever they are.
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
        // A shell can't trap what was ignored when it began.
        let mut script = with_default_signals(&script)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (tell, lines) = mpsc::channel();
        let out = BufReader::new(script.stdout.take().unwrap());
        std::thread::spawn(move || {
            // The test may have heard enough.
            let _ = out
                .lines()
                .map_while(Result::ok)
                .try_for_each(|line| tell.send(line));
        });
        Self { script, lines }
    }

    /// The line with `text`, or the story so far and a failure.
    fn wait_for(&self, text: &str) -> String {
        let mut story = String::new();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) if line.contains(text) => return line,
                Ok(line) => story += &format!("{line}\n"),
                Err(_) => panic!("the rehearsal failed:\n{story}"),
            }
        }
    }

    /// Prometheus asks every second.
    async fn wait_for_metric(&self, servers: &Servers, name: &str) {
        let deadline = Instant::now() + PATIENCE;
        let url = format!("{}/api/v1/query?query=rate({name}[5m])", servers.prometheus);
        loop {
            let answer = servers.client.get(&url).send().await.unwrap();
            if answer.text().await.unwrap().contains("\"value\"") {
                return;
            }
            assert!(Instant::now() < deadline, "{name} is never seen");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Ctrl-C, and the end.
    fn interrupt(&mut self) {
        let pid = self.script.id().to_string();
        let sent = Command::new("kill").args(["-INT", &pid]).status();
        assert!(sent.unwrap().success());
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.script.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "Ctrl-C does not end it");
            std::thread::sleep(Duration::from_millis(20));
        };
        assert_eq!(status.code(), Some(130));
    }
}

impl Drop for Rehearsal {
    fn drop(&mut self) {
        // One that has ended is not asked: another process may have its number by now.
        if !matches!(self.script.try_wait(), Ok(None)) {
            return;
        }
        // Asked first, so that it clears its directory away. What it started can not outlive it.
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

/// The command lines that name the directory.
fn processes_of(directory: &str) -> Vec<String> {
    let processes = std::fs::read_dir("/proc").unwrap().map_while(Result::ok);
    let commands = processes.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    let commands = commands.map(|bytes| String::from_utf8_lossy(&bytes).replace('\0', " "));
    commands
        .filter(|command| command.contains(directory))
        .collect()
}
