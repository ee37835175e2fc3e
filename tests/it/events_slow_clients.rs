//! A thousand clients of /v1/events, half of which never read: the others are not affected, and memory is bounded.

use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::support::service::Service;

const CLIENTS: usize = 1_000;
const SEGMENTS: usize = 500;
const ROUNDS: usize = 4;
/// The limit allows hyper's buffers and tasks and 40 KiB of queued events per client. Queueing all 800 KiB for each
/// client that does not read would handle_line 400 MB.
const MAX_GROWTH: u64 = 150 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_event_clients_of_which_half_never_read() {
    if open_files() < CLIENTS as u64 + 200 {
        // The usual line for a skipped test.
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

    let mut unread = Vec::new();
    let mut readers = Vec::new();
    for _ in 0..CLIENTS / 2 {
        unread.push(open(server.address()).await);
        let mut stream = open(server.address()).await;
        readers.push(tokio::spawn(async move {
            let mut reader = Reader::default();
            // Read up to the first id. From then on every change is sent.
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
                assert_eq!(reader.events, due, "each change is sent once");
                (stream, reader)
            }));
        }
        for reader in reading {
            streams.push(reader.await.unwrap());
        }
    }
    let growth = server.process().resident_bytes().saturating_sub(before);
    assert!(growth < MAX_GROWTH, "{} MiB more", growth >> 20);

    // The grace is an hour: a delay by clients that do not read would fail the test.
    assert_eq!(server.terminate().await, Some(0));
    drop(unread);
}

/// The soft limit on open files of this process and of the service that it starts.
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

/// Opens an event stream on a connection with a small receive buffer.
async fn open(address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(address).await.unwrap();
    let request = b"GET /v1/events HTTP/1.1\r\nhost: localhost\r\n\r\n";
    stream.write_all(request).await.unwrap();
    stream
}

/// Counts the events and checks that none is missing.
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
            let read = read.expect("no event arrived").unwrap();
            assert!(read > 0, "the stream ended");
            self.rest.extend_from_slice(&buffer[..read]);
            while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                self.handle_line(std::str::from_utf8(&line).unwrap().trim_end());
            }
        }
    }

    /// Handles a line of the stream. Lines with chunk lengths lie in between and are ignored.
    fn handle_line(&mut self, line: &str) {
        assert!(
            !line.starts_with("event: reset"),
            "the client lost its position"
        );
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
                "event {number} follows {last}"
            );
        }
        self.last = Some(number);
        self.has_begun = true;
    }
}
