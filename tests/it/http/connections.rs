//! Connections: limits, timeouts and shutdown.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn pairs_beyond_the_segment_limit_are_rejected() {
    let app = App::start_with(&[("max_segments", "2")]).await;
    let response = app
        .post(NDJSON, line("u", "a") + &line("u", "b") + &line("u", "c"))
        .await;
    assert_eq!(response.errors(), [(2, "too_many_segments")]);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_peers_are_disconnected() {
    let app = App::start_with(&[("header_timeout", "1s"), ("max_connections", "2")]).await;
    let started = Instant::now();
    // One client sends nothing and one never ends its headers. Together they use all connections.
    let mut silent = app.connect().await;
    let mut endless = app.connect().await;
    endless
        .write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n")
        .await
        .unwrap();
    // The third connection waits until one is free.
    let third = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    let response = app.send_raw(third).await;
    assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
    assert!(
        started.elapsed() >= Duration::from_secs(1),
        "{:?}",
        started.elapsed()
    );
    let mut rest = Vec::new();
    silent.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, b"");
    wait_until_closed(&mut endless).await;
    // A stalled body gets a 408.
    let slow = b"POST /v1/pairs HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{";
    let response = app.send_raw(slow).await;
    assert!(
        response.starts_with("HTTP/1.1 408 ") && response.contains("\"timeout\""),
        "{response}"
    );
    app.stop().await;
}

/// Opens a connection and sends a request with an incomplete body.
async fn begin_post(app: &App) -> TcpStream {
    let head = b"POST /v1/pairs HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\nexpect: 100-continue\r\ncontent-length: 31\r\n\r\n";
    let mut stream = app.connect().await;
    stream.write_all(head).await.unwrap();
    // The service sends `100 Continue` only once it handles the request.
    let mut interim = [0; 25];
    stream.read_exact(&mut interim).await.unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"{\"user_id\":").await.unwrap();
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn in_flight_requests_finish_on_shutdown() {
    // Longer than a test may take: anything that delays shutdown fails the test.
    let app = App::start_with(&[("shutdown_grace", "1h"), ("header_timeout", "5m")]).await;
    let mut finishing = begin_post(&app).await;
    let mut idle = app.connect().await;
    idle.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n")
        .await
        .unwrap();
    let mut answered = [0; 12];
    idle.read_exact(&mut answered).await.unwrap();
    assert_eq!(&answered, b"HTTP/1.1 200");
    app.begin_stop();
    let mut rest = Vec::new();
    idle.read_to_end(&mut rest).await.unwrap();
    assert!(!app.has_stopped(), "an idle connection is closed at once");
    finishing
        .write_all(b"\"u1\",\"segment\":\"ab\"}")
        .await
        .unwrap();
    let mut response = String::new();
    finishing.read_to_string(&mut response).await.unwrap();
    assert!(response.contains("{\"accepted\":1,"), "{response}");
    assert_eq!(app.stop().await.abandoned, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_beyond_the_shutdown_grace_are_cut() {
    let app = App::start_with(&[("shutdown_grace", "200ms"), ("header_timeout", "5m")]).await;
    let stuck = begin_post(&app).await;
    let started = Instant::now();
    assert_eq!(app.stop().await.abandoned, 1);
    assert!(started.elapsed() >= Duration::from_millis(200));
    drop(stuck);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_rejects_whole_requests() {
    let app = App::start_with(&[("queue_pairs", "1")]).await;
    let posts = (0..64).map(|user| app.post(NDJSON, line(&format!("u{user}"), "a")));
    let mut accepted = 0;
    for response in futures::future::join_all(posts).await {
        match response.status {
            200 => accepted += 1,
            _ => {
                assert_eq!(response.problem(), (429, "busy"));
                assert_eq!(response.headers["retry-after"], "1");
            }
        }
    }
    assert!(accepted > 0);
    assert_eq!(app.users("a").await, accepted);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keep_alive_connection_outlives_the_header_timeout() {
    let app = App::start_with(&[("header_timeout", "100ms")]).await;
    let request = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";
    let mut answered = [0; 12];
    // A busy machine may exceed such a short timeout.
    let mut kept = loop {
        let mut kept = app.connect().await;
        if kept.write_all(request).await.is_ok() && kept.read_exact(&mut answered).await.is_ok() {
            break kept;
        }
    };
    // Incomplete headers on another connection show that the header timeout has passed.
    for _ in 0..3 {
        let mut endless = app.connect().await;
        endless.write_all(&request[..20]).await.unwrap();
        wait_until_closed(&mut endless).await;
    }
    let last = b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    kept.write_all(last).await.unwrap();
    let mut rest = Vec::new();
    kept.read_to_end(&mut rest).await.unwrap();
    let rest = String::from_utf8_lossy(&rest);
    assert!(rest.contains("HTTP/1.1 200 OK"), "{rest}");
    app.stop().await;

    let app = App::start_with(&[("header_timeout", "1h"), ("idle_timeout", "100ms")]).await;
    let mut kept = app.connect().await;
    kept.write_all(request).await.unwrap();
    let mut response = String::new();
    kept.read_to_string(&mut response).await.unwrap();
    assert!(
        response.starts_with("HTTP/1.1 200 "),
        "closed once it was idle: {response}"
    );
    app.stop().await;
}
