//! Services as separate processes, identified by their ports.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::open_loop::Connection;
use super::resident;
use super::servers::free_port;

/// A process that listens on a port. It is killed on drop.
#[derive(Debug)]
pub struct Peer {
    child: Child,
    port: u16,
}

impl Peer {
    /// Starts `headcount serve` in a directory, with further settings by name, and waits until it listens.
    pub fn headcount(directory: &Path, settings: &[(&str, &str)]) -> Self {
        let peer = Self::headcount_starting(directory, settings);
        peer.wait_until_it_listens();
        peer
    }

    /// The same, without waiting until it listens.
    pub fn headcount_starting(directory: &Path, settings: &[(&str, &str)]) -> Self {
        let port = free_port();
        let mut command = Command::new(env!("CARGO_BIN_EXE_headcount"));
        command.arg("serve").current_dir(directory);
        command
            .env("HEADCOUNT_LISTEN", format!("127.0.0.1:{port}"))
            .env("HEADCOUNT_LOG", "warn");
        for (name, value) in settings {
            command.env(format!("HEADCOUNT_{}", name.to_uppercase()), value);
        }
        Self::start(&mut command, port)
    }

    /// Starts this program again. Its first argument selects another role, and its second is the port.
    pub fn this_program(role: &str) -> Self {
        let port = free_port();
        let mut command = Command::new(std::env::current_exe().unwrap());
        let peer = Self::start(command.args([role, &port.to_string()]), port);
        peer.wait_until_it_listens();
        peer
    }

    fn start(command: &mut Command, port: u16) -> Self {
        let child = command.stdout(Stdio::null()).spawn().unwrap();
        Self { child, port }
    }

    fn wait_until_it_listens(&self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(self.address()).is_err() {
            assert!(Instant::now() < deadline, "the service does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until `/readyz` returns 200.
    pub fn wait_until_ready(&self) {
        let deadline = Instant::now() + Duration::from_secs(300);
        while self
            .try_get("/readyz")
            .is_none_or(|(status, _)| status != 200)
        {
            assert!(
                Instant::now() < deadline,
                "the service does not become ready"
            );
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }

    /// Its resident memory in bytes.
    pub fn resident(&self) -> u64 {
        resident(&self.child.id().to_string())
    }

    /// GETs a JSON document.
    pub fn get(&self, path: &str) -> Value {
        let (status, body) = self.try_get(path).unwrap();
        assert_eq!(status, 200, "{path}");
        serde_json::from_slice(&body).unwrap()
    }

    fn try_get(&self, path: &str) -> Option<(u16, Vec<u8>)> {
        let mut connection = Connection::open(self.address()).ok()?;
        let mut body = Vec::new();
        let (status, _) = connection.exchange(&get(path), &mut body).ok()?;
        Some((status, body))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// A GET request.
pub fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").into_bytes()
}

/// A POST request with JSON or NDJSON.
pub fn post(path: &str, body: &str, content_type: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}
