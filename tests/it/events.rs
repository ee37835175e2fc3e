//! /v1/events of one instance: which events are sent to which clients, and how a stream ends.

use std::io::{BufRead, BufReader};

use reqwest::Method;

use crate::support::app::App;
use crate::support::events::Listener;
use crate::support::servers::find;
use crate::support::wait::until;

async fn post(app: &App, user: &str, segment: &str) {
    let pair = serde_json::json!({"user_id": user, "segment": segment});
    let response = app.post("application/json", pair.to_string()).await;
    assert_eq!(response.status, 200, "{response:?}");
}

async fn listen(app: &App, query: &str, last_id: Option<&str>) -> Listener {
    let url = format!("http://{}/v1/events{query}", app.addr);
    Listener::open(&url, last_id).await
}

fn count_of(segment: &str, users: u64) -> (String, u64) {
    (segment.to_owned(), users)
}

/// Waits until a metric has a value.
async fn wait_for_metric(app: &App, name: &str, value: f64) {
    until(name, async || app.metric(name).await == value).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_of_a_count_sends_an_event() {
    let app = App::start().await;
    post(&app, "u0", "old \"news\"").await;
    let mut listener = listen(&app, "", None).await;
    // Counts from before the stream are not sent, and a repeated pair changes no count.
    post(&app, "u0", "old \"news\"").await;
    post(&app, "u1", "a").await;
    assert_eq!(listener.count().await, count_of("a", 1));
    post(&app, "u2", "a").await;
    assert_eq!(listener.count().await, count_of("a", 2));
    app.send(Method::DELETE, "/v1/users/u1").await;
    assert_eq!(listener.count().await, count_of("a", 1));
    app.advance(14 * 86_400 + 60);
    let mut left = [listener.count().await, listener.count().await];
    left.sort();
    assert_eq!(left, [count_of("a", 0), count_of("old \"news\"", 0)]);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_segment_filter_limits_the_events() {
    let app = App::start().await;
    let mut some = listen(&app, "?segment=a%2Fb&segment=c", None).await;
    let mut all = listen(&app, "", None).await;
    for segment in ["x", "a/b", "y", "c"] {
        post(&app, "u1", segment).await;
        assert_eq!(all.count().await, count_of(segment, 1));
    }
    assert_eq!(some.count().await, count_of("a/b", 1));
    assert_eq!(some.count().await, count_of("c", 1));
    let many = format!("/v1/events?{}", "segment=a&".repeat(101));
    for (bad, code) in [
        ("/v1/events?segment=", "invalid_segment"),
        ("/v1/events?segment=a&segment=%20", "invalid_segment"),
        (&many, "invalid_parameter"),
    ] {
        assert_eq!(app.get(bad).await.problem(), (400, code), "{bad}");
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reconnect_resumes_or_gets_a_reset() {
    let app = App::start().await;
    let mut listener = listen(&app, "", None).await;
    post(&app, "u1", "a").await;
    let first = listener.event().await;
    drop(listener);
    // Changes without a connected client are kept as well.
    wait_for_metric(&app, "headcount_event_clients", 0.0).await;
    post(&app, "u2", "a").await;
    post(&app, "u1", "b").await;
    let mut back = listen(&app, "", Some(&first.id)).await;
    let mut missed = [back.count().await, back.count().await];
    missed.sort();
    assert_eq!(missed, [count_of("a", 2), count_of("b", 1)]);

    // An id of another instance or of an earlier process, an empty id, and an invalid id.
    for id in ["0000000000000000-1", "", "nonsense"] {
        let mut lost = listen(&app, "", Some(id)).await;
        let reset = lost.event().await;
        assert_eq!((&*reset.event, reset.data.is_object()), ("reset", true));
        let users = 10 + id.len();
        post(&app, &format!("u{users}"), "c").await;
        let after = lost.event().await;
        assert_eq!(
            (&*after.event, &after.data["segment"]),
            ("count", &"c".into())
        );
        drop(lost);
        // The id of a reset can be resumed as well.
        let mut again = listen(&app, "", Some(&reset.id)).await;
        assert_eq!(again.event().await, after);
    }
    assert_eq!(app.metric("headcount_event_resets_total").await, 3.0);
    assert!(app.metric("headcount_events_total").await >= 6.0);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn event_clients_are_limited_and_a_disconnect_frees_a_slot() {
    let app = App::start_with(&[("max_event_clients", "2")]).await;
    let first = listen(&app, "", None).await;
    let _second = listen(&app, "", None).await;
    assert_eq!(app.metric("headcount_event_clients").await, 2.0);
    let full = app.get("/v1/events").await;
    assert_eq!(full.problem(), (503, "unavailable"));
    assert_eq!(full.headers["retry-after"], "10");
    drop(first);
    wait_for_metric(&app, "headcount_event_clients", 1.0).await;
    let head = app.send(Method::HEAD, "/v1/events").await;
    assert_eq!((head.status, &*head.text), (200, ""));
    wait_for_metric(&app, "headcount_event_clients", 1.0).await;
    listen(&app, "", None).await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn open_streams_end_immediately_on_shutdown() {
    // Longer than a test may take: a stream that delays shutdown fails the test.
    let app = App::start_with(&[("shutdown_grace", "1h")]).await;
    let mut listener = listen(&app, "", None).await;
    app.begin_stop();
    while let Some(block) = listener.next_block().await {
        assert_eq!(block.event, "");
    }
    assert_eq!(app.stop().await.abandoned, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_does_not_delay_shutdown() {
    let app = App::start_with(&[("shutdown_grace", "1h")]).await;
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut unread = socket.connect(app.addr).await.unwrap();
    let request = b"GET /v1/events HTTP/1.1\r\nhost: localhost\r\n\r\n";
    tokio::io::AsyncWriteExt::write_all(&mut unread, request)
        .await
        .unwrap();
    wait_for_metric(&app, "headcount_event_clients", 1.0).await;
    let mut listener = listen(&app, "", None).await;
    // More than the socket and the service buffer for the client: about 300 KiB of 400 bytes each.
    for user in 0..3 {
        let pairs = (0..1000).map(|n| {
            let segment = format!("{n}{}", "\"".repeat(120));
            serde_json::json!({"user_id": user.to_string(), "segment": segment})
        });
        let body = serde_json::Value::from(pairs.collect::<Vec<_>>());
        assert_eq!(
            app.post("application/json", body.to_string()).await.status,
            200
        );
        for _ in 0..1000 {
            assert_eq!(listener.count().await.1, user + 1);
        }
    }
    assert_eq!(app.stop().await.abandoned, 0);
    drop(unread);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_stream_over_http_2() {
    let Some(curl) = find("curl", "HEADCOUNT_TEST_CURL") else {
        return;
    };
    let app = App::start_with(&[("shutdown_grace", "1h")]).await;
    let mut child = std::process::Command::new(curl)
        .args(["-sSN", "--http2-prior-knowledge"])
        .args(["-w", "version %{http_version}"])
        .arg(format!("http://{}/v1/events", app.addr))
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    wait_for_metric(&app, "headcount_event_clients", 1.0).await;
    post(&app, "u1", "a").await;
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let (text, output) = tokio::task::spawn_blocking(move || {
        let mut text = String::new();
        while !text.contains("data: {\"segment\":\"a\",\"users\":1,") {
            assert!(output.read_line(&mut text).unwrap() > 0, "{text}");
        }
        (text, output)
    })
    .await
    .unwrap();
    assert!(text.contains("event: count\ndata: "), "{text}");
    // Stop only after the event: a stream ends on shutdown without sending further events.
    assert_eq!(app.stop().await.abandoned, 0);
    let text = std::io::read_to_string(output).unwrap();
    assert!(child.wait().unwrap().success(), "{text}");
    assert!(text.ends_with("version 2"), "{text}");
}
