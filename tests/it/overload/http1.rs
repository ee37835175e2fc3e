//! Misuse of HTTP/1.1.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{assert_serves, closes, get, growth_mib, read_response, within};
use crate::support::service::Service;

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_sends_a_byte_at_a_time_is_disconnected() {
    const SLOW: usize = 300;
    let folder = tempfile::tempdir().unwrap();
    let settings = [("HEADER_TIMEOUT", "1s")];
    let server = Service::start(folder.path(), &settings).await;
    let before = server.process().resident_bytes();
    let head = "POST /v1/pairs HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 100000\r\n\r\n";
    let endless_head = "GET / HTTP/1.1\r\nx-slow: ";
    let mut slow = tokio::task::JoinSet::new();
    for n in 0..SLOW {
        let stream = TcpStream::connect(server.address()).await.unwrap();
        let (mut read, mut write) = stream.into_split();
        let in_body = n % 2 == 0;
        let begin = if in_body { head } else { endless_head };
        write.write_all(begin.as_bytes()).await.unwrap();
        slow.spawn(async move {
            let dripping = async {
                while write.write_all(b"1").await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            };
            let mut said = Vec::new();
            // Both finish when the connection is closed. Everything that was received before that is read.
            let _ = futures::future::join(dripping, read.read_to_end(&mut said)).await;
            (in_body, said)
        });
    }
    assert_serves(&server).await;
    let growth = growth_mib(&server, before);
    assert!(growth < 32, "{growth} MiB");
    while let Some(ended) = within("slow clients are disconnected", slow.join_next()).await {
        let (in_body, said) = ended.unwrap();
        let said = String::from_utf8_lossy(&said);
        assert_eq!(said.starts_with("HTTP/1.1 408 "), in_body, "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_size_of_a_request_head_is_limited() {
    let folder = tempfile::tempdir().unwrap();
    let server = Service::start(folder.path(), &[]).await;
    let line = |target: &str| format!("GET {target} HTTP/1.1\r\nhost: localhost\r\n");
    let many: String = (0..200).map(|n| format!("x-{n}: y\r\n")).collect();
    for (what, head, statuses) in [
        (
            "a target of 70,000 bytes",
            line(&"/x".repeat(35_000)),
            &[414, 431][..],
        ),
        (
            "a target of 10 MB",
            line(&"/x".repeat(5_000_000)),
            &[414, 431],
        ),
        (
            "a header of 10 MB",
            line("/healthz") + "x: " + &"y".repeat(10_000_000) + "\r\n",
            &[431],
        ),
        ("200 headers", line("/healthz") + &many, &[431]),
    ] {
        let before = server.process().resident_bytes();
        let mut stream = TcpStream::connect(server.address()).await.unwrap();
        let (mut read, mut write) = stream.split();
        let mut said = Vec::new();
        let writing = async {
            // The service need not read it to its end.
            let _ = write.write_all(head.as_bytes()).await;
            let _ = write.write_all(b"\r\n").await;
        };
        let _ = within(
            what,
            futures::future::join(writing, read.read_to_end(&mut said)),
        )
        .await;
        let said = String::from_utf8_lossy(&said).into_owned();
        let growth = growth_mib(&server, before);
        assert!(growth < 16, "{what}: {growth} MiB");
        let status: u16 = said.get(9..12).unwrap_or("0").parse().unwrap();
        assert!(statuses.contains(&status), "{what}: {said}");
    }
    assert_serves(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_without_end_is_rejected() {
    let folder = tempfile::tempdir().unwrap();
    let server = Service::start(folder.path(), &[("MAX_BODY", "64 KiB")]).await;
    let before = server.process().resident_bytes();
    let head = "POST /v1/pairs HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-ndjson\r\ntransfer-encoding: chunked\r\n\r\n";
    let chunk = format!("1000\r\n{}\r\n", "x".repeat(0x1000));
    let tiny = "1\r\nx\r\n".repeat(1000);
    let extension = format!("1;{}\r\nx\r\n", "e".repeat(100_000));
    let trailers = "x-trailer: y\r\n".repeat(1000);
    for (what, begin, endless) in [
        ("chunks", "", &chunk),
        ("tiny chunks", "", &tiny),
        ("chunk extensions", "", &extension),
        ("trailers", "1\r\nx\r\n0\r\n", &trailers),
        ("a chunk length", "", &"0".repeat(1000)),
    ] {
        let mut stream = TcpStream::connect(server.address()).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(begin.as_bytes()).await.unwrap();
        let (mut read, mut write) = stream.into_split();
        let mut said = Vec::new();
        let flood = async { while write.write_all(endless.as_bytes()).await.is_ok() {} };
        let _ = within(
            what,
            futures::future::join(flood, read.read_to_end(&mut said)),
        )
        .await;
        let said = String::from_utf8_lossy(&said).into_owned();
        if !said.is_empty() {
            assert!(said.starts_with("HTTP/1.1 4"), "{what}: {said}");
        }
        assert_serves(&server).await;
    }
    let growth = growth_mib(&server, before);
    assert!(growth < 32, "{growth} MiB");
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_pipelined_requests_get_responses_in_order() {
    const REQUESTS: usize = 5_000;
    let folder = tempfile::tempdir().unwrap();
    let server = Service::start(folder.path(), &[]).await;
    let requests: String = (0..REQUESTS)
        .map(|n| format!("GET /v1/segments/s{n}/count HTTP/1.1\r\nhost: localhost\r\n\r\n"))
        .collect();
    let (mut read, mut write) = TcpStream::connect(server.address())
        .await
        .unwrap()
        .into_split();
    let writing = tokio::spawn(async move {
        write.write_all(requests.as_bytes()).await.unwrap();
        write
    });
    let mut said = String::new();
    let mut buffer = vec![0; 64 * 1024];
    while said.matches("HTTP/1.1 200").count() < REQUESTS || !said.ends_with('}') {
        let length = within("the next response", read.read(&mut buffer))
            .await
            .unwrap();
        assert!(length > 0);
        said.push_str(std::str::from_utf8(&buffer[..length]).unwrap());
    }
    let places: Vec<_> = said
        .split("\"segment\":\"s")
        .skip(1)
        .map(|rest| rest.split('"').next().unwrap().parse::<usize>().unwrap())
        .collect();
    assert!(places.iter().copied().eq(0..REQUESTS));
    drop(writing.await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_clients_are_disconnected() {
    let folder = tempfile::tempdir().unwrap();
    let settings = [("HEADER_TIMEOUT", "1s"), ("IDLE_TIMEOUT", "1s")];
    let server = Service::start(folder.path(), &settings).await;
    let mut silent = TcpStream::connect(server.address()).await.unwrap();
    let mut half = TcpStream::connect(server.address()).await.unwrap();
    half.write_all(b"POST /v1/pairs HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{").await.unwrap();
    let mut before = TcpStream::connect(server.address()).await.unwrap();
    assert_eq!(get(&mut before, "/healthz").await.unwrap().0, 200);
    within("silence from the beginning", closes(&mut silent)).await;
    within("silence after a response", closes(&mut before)).await;
    let (status, _) = within("silence in a body", read_response(&mut half))
        .await
        .unwrap();
    assert_eq!(status, 408);
}
