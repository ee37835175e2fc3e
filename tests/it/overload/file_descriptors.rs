//! More connections than the file descriptor limit of the process allows.

use std::process::Command;
use std::time::{Duration, Instant};

use headcount::open_files;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::{assert_serves, get, read_response, skip, within};
use crate::support::service::Service;
use crate::support::wait::until;

const IDLE: usize = 10_000;
/// The maximum memory of an idle connection, in bytes.
const BYTES_PER_IDLE: usize = 16 * 1024;
/// How long the service pauses after a failed accept.
const PAUSE: Duration = Duration::from_millis(100);

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_idle_connections_cost_little_and_are_closed() {
    // Both ends are on this machine, and other tests run concurrently.
    if open_files::raise().is_some_and(|limit| limit < IDLE as u64 + 2_000) {
        skip("10,000 idle connections: fewer than 12,000 files may be open (ulimit -Hn)");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let settings = [
        ("HEADER_TIMEOUT", "5m"),
        ("IDLE_TIMEOUT", "5m"),
        ("MAX_CONNECTIONS", "10050"),
    ];
    // The usual soft limit, which the service has to raise.
    let server = Service::start_with_file_limit("1024:12000", folder.path(), &settings);
    assert_eq!(
        server.logged("files open"),
        [""; 0],
        "the hard limit is enough"
    );
    assert_serves(&server).await;
    let (before, files) = (
        server.process().resident_bytes(),
        server.process().open_files(),
    );
    let mut idle = Vec::new();
    for n in 0..IDLE {
        let mut stream = TcpStream::connect(server.address()).await.unwrap();
        // Every other connection has sent a request before.
        if n % 2 == 0 {
            assert_eq!(get(&mut stream, "/healthz").await.unwrap().0, 200);
        }
        idle.push(stream);
    }
    assert_serves(&server).await;
    // Some connections that were open before may be closed by now.
    let accepted = async {
        while server.process().open_files() < files + IDLE - 10 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within("all connections are accepted", accepted).await;
    let growth = server.process().resident_bytes().saturating_sub(before);
    assert!(
        growth < (IDLE * BYTES_PER_IDLE) as u64,
        "{} MiB",
        growth >> 20
    );
    drop(idle);
    let gone = async {
        while server.process().open_files() > files + 10 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within("the descriptors are released", gone).await;
    assert_serves(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_limit_below_max_connections_is_logged_and_respected() {
    let folder = tempfile::tempdir().unwrap();
    let settings = [("HEADER_TIMEOUT", "2s")];
    let server = Service::start_with_file_limit("300:300", folder.path(), &settings);
    let said = server.logged("max_connections is 16384");
    assert!(
        matches!(said.as_slice(), [line] if line.contains(" 300 files") && line.contains(" 150 connections")),
        "{said:?}"
    );
    // The first connection stays open because it sends requests. The others fill the connection limit and the accept
    // queue.
    let mut first = TcpStream::connect(server.address()).await.unwrap();
    let mut others = Vec::new();
    for _ in 0..250 {
        others.push(TcpStream::connect(server.address()).await.unwrap());
        assert_eq!(get(&mut first, "/healthz").await.unwrap().0, 200);
    }
    // Descriptors are left for files that are not client connections.
    let pair = br#"{"user_id":"u1","segment":"a"}"#;
    let head = format!(
        "POST /v1/pairs HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        pair.len()
    );
    first.write_all(head.as_bytes()).await.unwrap();
    first.write_all(pair).await.unwrap();
    assert_eq!(read_response(&mut first).await.unwrap().0, 200);
    assert!(server.process().open_files() < 300 - 50);
    // Waiting connections are accepted after the idle ones are closed.
    assert_serves(&server).await;
    assert_eq!(server.logged("can't accept connections"), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_descriptor_accepting_pauses_and_resumes() {
    let folder = tempfile::tempdir().unwrap();
    let settings = [("HEADER_TIMEOUT", "5m")];
    let server = Service::start_with_file_limit("1000:1000", folder.path(), &settings);
    let mut known = TcpStream::connect(server.address()).await.unwrap();
    let failures = async |known: &mut TcpStream| {
        let (_, text) = get(known, "/metrics").await.unwrap();
        let line = "headcount_http_accept_errors_total ";
        let found = text.lines().find_map(|found| found.strip_prefix(line));
        found.map_or(0, |value| value.parse::<u64>().unwrap())
    };
    assert_eq!(failures(&mut known).await, 0);
    // The process has no free descriptor.
    set_limit(&server, server.process().open_files());
    let wait = async || {
        let mut waiting = TcpStream::connect(server.address()).await.unwrap();
        waiting
            .write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n")
            .await
            .unwrap();
        waiting
    };
    let started = Instant::now();
    let mut waiting = vec![wait().await];
    let mut shortages = 1;
    let several = async {
        while failures(&mut known).await == 0 {
            // A file that was open only while descriptors were counted left one descriptor free.
            set_limit(&server, server.process().open_files());
            shortages += 1;
            waiting.push(wait().await);
            tokio::time::sleep(PAUSE).await;
        }
        while failures(&mut known).await < 5 {}
    };
    within("several attempts to accept", several).await;
    let tried = failures(&mut known).await;
    // Measured after the attempts: however long this test was delayed, the attempts had as much time.
    let most = started.elapsed().as_millis() / PAUSE.as_millis() + 2;
    assert!(
        u128::from(tried) <= most + 1,
        "{tried} attempts, at most {most} were due"
    );
    let pair = r#"{"user_id":"u1","segment":"a"}"#;
    let post = format!(
        "POST /v1/pairs HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{pair}",
        pair.len()
    );
    known.write_all(post.as_bytes()).await.unwrap();
    assert_eq!(
        read_response(&mut known).await.unwrap().0,
        200,
        "writes continue"
    );
    set_limit(&server, 1000);
    for mut waiting in waiting {
        let (status, _) = within(
            "waiting requests get a response",
            read_response(&mut waiting),
        )
        .await
        .unwrap();
        assert_eq!(status, 200);
    }
    assert_serves(&server).await;
    // Each shortage is logged once, however many attempts it has.
    let said = server.logged("can't accept connections").len();
    assert!(
        (1..=shortages).contains(&said),
        "logged {said} times for {shortages} shortages"
    );
    // A client may receive its response before the line is logged.
    until("the end of each shortage is logged", async || {
        server.logged("accepted again").len() == said
    })
    .await;
}

/// Sets the soft limit of the running process.
fn set_limit(server: &Service, files: usize) {
    let pid = server.process().id().to_string();
    let done = Command::new("prlimit")
        .args(["--pid", &pid, &format!("--nofile={files}:")])
        .status();
    assert!(done.unwrap().success());
}
