//! Clients that send requests and never read the responses: the service has to hold unread data, bounded in size and in
//! time.

use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;

use super::frames::{self, ACK, END_HEADERS, END_STREAM, HEADERS, PING, SETTINGS, frame, head};
use super::{DEADLINE, assert_serves, connect_narrow, growth_mib, within};
use crate::support::service::Service;
use crate::support::wait::until;

/// A response of about 60 KB.
const LARGE: &str = "/v1/segments?limit=1000";
const SEGMENTS: usize = 300;

async fn server_with_large_answers(folder: &std::path::Path) -> Service {
    let server = Service::start(folder, &[("HEADER_TIMEOUT", "1s"), ("MAX_BODY", "1 MiB")]).await;
    let lines: String = (0..SEGMENTS)
        .map(|n| format!("{{\"user_id\":1,\"segment\":\"{n:0>120}\"}}\n"))
        .collect();
    // The header timeout is short for a busy machine.
    until("the pairs are accepted", async || {
        let post = reqwest::Client::new().post(format!("{}/v1/pairs", server.url()));
        let post = post.header("content-type", "application/x-ndjson");
        let answer = post.body(lines.clone()).send().await;
        answer.is_ok_and(|answer| answer.status() == 200)
    })
    .await;
    server
}

#[tokio::test(flavor = "multi_thread")]
async fn unread_responses_are_bounded_in_number_and_time() {
    const CLIENTS: usize = 100;
    let folder = tempfile::tempdir().unwrap();
    let server = server_with_large_answers(folder.path()).await;
    let (before, files) = (
        server.process().resident_bytes(),
        server.process().open_files(),
    );
    let mut deaf = Vec::new();
    for _ in 0..CLIENTS {
        let mut stream = connect_narrow(server.address()).await;
        let request = format!("GET {LARGE} HTTP/1.1\r\nhost: localhost\r\n\r\n").repeat(100);
        // The service may have closed a connection for which a busy machine was too slow.
        let _ = stream.write_all(request.as_bytes()).await;
        deaf.push(stream);
    }
    assert_serves(&server).await;
    // The service resets the connections. The clients do not notice, since their receive windows are closed to that as
    // well.
    let mut most = 0;
    let gone = async {
        loop {
            most = most.max(growth_mib(&server, before));
            let open = server.process().open_files().saturating_sub(files);
            if open <= CLIENTS / 10 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    within("clients that do not read are disconnected", gone).await;
    // One response each, however many requests a client sent.
    assert!(most < 64, "{most} MiB");
    drop(deaf);
    assert_serves(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unread_streams_are_bounded_in_number_and_time() {
    const CLIENTS: usize = 10;
    const STREAMS: u32 = 100;
    let folder = tempfile::tempdir().unwrap();
    let server = server_with_large_answers(folder.path()).await;
    let before = server.process().resident_bytes();
    let started = Instant::now();
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..CLIENTS {
        // A window of zero: no stream may be sent a byte.
        let (mut read, mut write) = frames::open(server.address(), 0).await;
        for n in 0..STREAMS {
            let get = frame(
                HEADERS,
                END_HEADERS | END_STREAM,
                2 * n + 1,
                &head("GET", LARGE),
            );
            write.write_all(&get).await.unwrap();
        }
        clients.spawn(async move {
            // The client answers pings and is well-behaved apart from that.
            let mut answers = 0;
            while let Some((kind, flags, _, payload)) = frames::next(&mut read).await {
                match (kind, flags) {
                    (PING, 0) => write
                        .write_all(&frame(PING, ACK, 0, &payload))
                        .await
                        .unwrap(),
                    (SETTINGS, 0) => write
                        .write_all(&frame(SETTINGS, ACK, 0, &[]))
                        .await
                        .unwrap(),
                    (HEADERS, _) => answers += 1,
                    _ => {}
                }
            }
            answers
        });
    }
    let mut most = 0;
    let mut answers = 0;
    while !clients.is_empty() {
        assert_serves(&server).await;
        most = most.max(growth_mib(&server, before));
        let next = tokio::time::timeout(Duration::from_millis(50), clients.join_next());
        if let Ok(Some(ended)) = next.await {
            answers += ended.unwrap();
        }
        assert!(
            started.elapsed() < 2 * DEADLINE,
            "{} clients were not disconnected",
            clients.len()
        );
    }
    assert!(answers > 0);
    // A thousand responses, and the cost of the streams.
    assert!(most < 60 + 64, "{most} MiB");
}
