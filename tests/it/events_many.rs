//! A thousand clients of /v1/events, half of which never read: nobody else notices, and memory has its bound.

use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::support::service::Service;

const CLIENTS: usize = 1_000;
const SEGMENTS: usize = 500;
const ROUNDS: usize = 4;
/// Per client, reading or not: hyper's buffers and tasks, and 40 KiB of texts. What was told to a client, 800 KiB,
/// would be 400 MB for those that do not read.
const MAX_GROWTH: u64 = 150 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_clients_of_which_half_never_read() {
    if open_files() < CLIENTS as u64 + 200 {
        // The usual way to say that a test was left out.
        let text = "skipped: fewer than 1,200 files may be open (ulimit -n)\n";
        std::io::stderr().write_all(text.as_bytes()).unwrap();
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let server = Service::start(
        folder.path(),
        &[("REFRESH_MODE", "off"), ("SHUTDOWN_GRACE", "1h")],
    )
    .await;
    post(&server, 0).await;
    let before = server.process().resident_bytes();

    let mut deaf = Vec::new();
    let mut readers = Vec::new();
    for _ in 0..CLIENTS / 2 {
        deaf.push(open(server.address()).await);
        let mut stream = open(server.address()).await;
        readers.push(tokio::spawn(async move {
            let mut reader = Reader::default();
            // Until the place is known: from then on every change is told.
            reader
                .read_until(&mut stream, |reader| reader.has_begun)
                .await;
            (stream, reader)
        }));
    }
    let mut streams = Vec::new();
    for reader in readers {
        streams.push(reader.await.unwrap());
    }
    for round in 1..=ROUNDS {
        post(&server, round).await;
        let mut reading = Vec::new();
        for (mut stream, mut reader) in streams.drain(..) {
            reading.push(tokio::spawn(async move {
                let due = round * SEGMENTS;
                reader
                    .read_until(&mut stream, |reader| reader.events >= due)
                    .await;
                assert_eq!(reader.events, due, "each change is told once");
                (stream, reader)
            }));
        }
        for reader in reading {
            streams.push(reader.await.unwrap());
        }
    }
    let growth = server.process().resident_bytes().saturating_sub(before);
    assert!(growth < MAX_GROWTH, "{} MiB more", growth >> 20);

    // With an hour of grace, those who do not read would hold up the end for as long.
    assert_eq!(server.terminate().await, Some(0));
    drop(deaf);
}

/// Soft limit of this process and the one that it starts.
fn open_files() -> u64 {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"));
    let soft = line.and_then(|line| line.split_whitespace().next());
    soft.and_then(|soft| soft.parse().ok()).unwrap_or(u64::MAX)
}

/// Adds one more user to every segment.
async fn post(server: &Service, user: usize) {
    let lines: String = (0..SEGMENTS)
        .map(|n| {
            let segment = format!("{n}{}", "\"".repeat(120));
            serde_json::json!({"user_id": user.to_string(), "segment": segment}).to_string() + "\n"
        })
        .collect();
    let post = reqwest::Client::new().post(format!("{}/v1/pairs", server.url()));
    let post = post
        .header("content-type", "application/x-ndjson")
        .body(lines);
    assert_eq!(post.send().await.unwrap().status(), 200);
}

/// Asks for events on a connection that holds little by itself.
async fn open(address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(address).await.unwrap();
    let request = b"GET /v1/events HTTP/1.1\r\nhost: localhost\r\n\r\n";
    stream.write_all(request).await.unwrap();
    stream
}

/// Counts what comes, and sees that no event is missing in between.
#[derive(Default)]
struct Reader {
    rest: Vec<u8>,
    has_begun: bool,
    last: Option<u64>,
    events: usize,
}

impl Reader {
    async fn read_until(&mut self, stream: &mut TcpStream, is_enough: impl Fn(&Self) -> bool) {
        let mut buffer = vec![0; 16 * 1024];
        while !is_enough(self) {
            let read =
                tokio::time::timeout(Duration::from_secs(120), stream.read(&mut buffer)).await;
            let read = read.expect("nothing came").unwrap();
            assert!(read > 0, "the stream ended");
            self.rest.extend_from_slice(&buffer[..read]);
            while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                self.take(std::str::from_utf8(&line).unwrap().trim_end());
            }
        }
    }

    /// Lines of chunks' lengths lie in between; they are none of ours.
    fn take(&mut self, line: &str) {
        assert!(!line.starts_with("event: reset"), "a place was lost");
        if line.starts_with("event: count") {
            self.events += 1;
        }
        let Some(id) = line.strip_prefix("id: ") else {
            return;
        };
        let number: u64 = id.rsplit_once('-').unwrap().1.parse().unwrap();
        if let Some(last) = self.last {
            assert!(
                number == last + 1 || number == last,
                "{last} and then {number}"
            );
        }
        self.last = Some(number);
        self.has_begun = true;
    }
}
