//! The real binary as a child process, on a port that the system chose.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// A start takes well under a second; a machine under load may need much longer.
const DEADLINE: Duration = Duration::from_secs(60);

/// A running `headcount serve`. Dropping it kills it.
pub struct Server {
    child: Child,
    address: SocketAddr,
    client: reqwest::Client,
}

impl Server {
    /// Starts the service on `data_dir` and waits until it listens.
    pub async fn start(data_dir: &Path, settings: &[(&str, &str)]) -> Self {
        let settings = settings
            .iter()
            .map(|(name, value)| (format!("HEADCOUNT_{name}"), *value));
        let mut child = Command::new(env!("CARGO_BIN_EXE_headcount"))
            .arg("serve")
            .env("HEADCOUNT_DATA_DIR", data_dir)
            .env("HEADCOUNT_LISTEN", "127.0.0.1:0")
            .env("HEADCOUNT_LOG", "info")
            .envs(settings)
            .current_dir(data_dir)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let address = listening(child.stderr.take().unwrap());
        let address = address
            .recv_timeout(DEADLINE)
            .expect("the service must come to listen");
        Self {
            child,
            address,
            client: reqwest::Client::new(),
        }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Memory in use, in bytes.
    pub fn resident_bytes(&self) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib: u64 = line
            .unwrap()
            .trim()
            .trim_end_matches(" kB")
            .parse()
            .unwrap();
        kib * 1024
    }

    /// The count of `segment` over the full window.
    pub async fn count(&self, segment: &str) -> u64 {
        let url = format!("{}/v1/segments/{segment}/count", self.url());
        let answer = self.client.get(url).send().await.unwrap();
        let answer: serde_json::Value = answer.json().await.unwrap();
        answer["users"]
            .as_u64()
            .unwrap_or_else(|| panic!("no count in {answer}"))
    }

    /// Posts one JSON body and requires a 200.
    pub async fn post(&self, body: &'static str) {
        let post = self.client.post(format!("{}/v1/pairs", self.url()));
        let post = post.header("content-type", "application/json");
        let answer = post.body(body).send().await.unwrap();
        assert_eq!(answer.status(), 200);
    }

    /// kill -9.
    pub fn kill(&mut self) {
        // An error means that it has ended already.
        let _ = self.child.kill();
        self.child.wait().unwrap();
    }

    /// Sends a signal by name: `TERM`, `STOP`.
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let kill = Command::new("kill")
            .args([&format!("-{name}"), &pid])
            .status();
        assert!(kill.unwrap().success());
    }

    /// SIGTERM, then the exit code.
    pub async fn terminate(self) -> Option<i32> {
        self.signal("TERM");
        self.exit_code().await
    }

    /// Waits for the end. `None` when a signal ended it.
    pub async fn exit_code(mut self) -> Option<i32> {
        poll(async || self.child.try_wait().unwrap()).await.code()
    }

    /// Waits until the service accepts no more connections.
    pub async fn wait_until_refusing(&self) {
        let refuses = || std::net::TcpStream::connect(self.address).is_err();
        poll(async || refuses().then_some(())).await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Finds the address in what the service logs, and goes on reading, so that the pipe never fills.
fn listening(log: ChildStderr) -> mpsc::Receiver<SocketAddr> {
    let (found, address) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(log).lines().map_while(Result::ok) {
            if let Some((_, address)) = line.split_once("listening on http://") {
                // The test may have given up.
                let _ = found.send(address.trim().parse().unwrap());
            }
        }
    });
    address
}

/// Asks again until there is an answer, and gives up long after one was due.
async fn poll<T>(mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(
            Instant::now() < deadline,
            "what was waited for did not happen"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
