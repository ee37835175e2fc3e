//! /v1/events of one instance: what is told, to whom, and how a stream ends.

use std::io::{BufRead, BufReader};

use reqwest::Method;

use crate::support::app::App;
use crate::support::events::Listener;
use crate::support::servers::find;
use crate::support::wait::until;

async fn post(app: &App, user: &str, segment: &str) {
    let pair = serde_json::json!({"user_id": user, "segment": segment});
    let answer = app.post("application/json", pair.to_string()).await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

async fn listen(app: &App, query: &str, last_id: Option<&str>) -> Listener {
    let url = format!("http://{}/v1/events{query}", app.addr);
    Listener::open(&url, last_id).await
}

fn told(segment: &str, users: u64) -> (String, u64) {
    (segment.to_owned(), users)
}

/// Waits until a metric has a value.
async fn wait_for_metric(app: &App, name: &str, value: f64) {
    until(name, async || app.metric(name).await == value).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_cause_of_a_change_is_told() {
    let app = App::start().await;
    post(&app, "u0", "old \"news\"").await;
    let mut listener = listen(&app, "", None).await;
    // What was there before is no change, and what changes nothing is none either.
    post(&app, "u0", "old \"news\"").await;
    post(&app, "u1", "a").await;
    assert_eq!(listener.count().await, told("a", 1));
    post(&app, "u2", "a").await;
    assert_eq!(listener.count().await, told("a", 2));
    app.send(Method::DELETE, "/v1/users/u1").await;
    assert_eq!(listener.count().await, told("a", 1));
    app.advance(14 * 86_400 + 60);
    let mut left = [listener.count().await, listener.count().await];
    left.sort();
    assert_eq!(left, [told("a", 0), told("old \"news\"", 0)]);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_for_some_segments_hears_of_no_others() {
    let app = App::start().await;
    let mut some = listen(&app, "?segment=a%2Fb&segment=c", None).await;
    let mut all = listen(&app, "", None).await;
    for segment in ["x", "a/b", "y", "c"] {
        post(&app, "u1", segment).await;
        assert_eq!(all.count().await, told(segment, 1));
    }
    assert_eq!(some.count().await, told("a/b", 1));
    assert_eq!(some.count().await, told("c", 1));
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
async fn who_comes_back_misses_nothing_or_is_told_so() {
    let app = App::start().await;
    let mut listener = listen(&app, "", None).await;
    post(&app, "u1", "a").await;
    let first = listener.event().await;
    drop(listener);
    // Also what changed while nobody listened.
    wait_for_metric(&app, "headcount_event_clients", 0.0).await;
    post(&app, "u2", "a").await;
    post(&app, "u1", "b").await;
    let mut back = listen(&app, "", Some(&first.id)).await;
    let mut missed = [back.count().await, back.count().await];
    missed.sort();
    assert_eq!(missed, [told("a", 2), told("b", 1)]);

    // From another instance, from before a restart, from nowhere.
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
        // A reset has an id too.
        let mut again = listen(&app, "", Some(&reset.id)).await;
        assert_eq!(again.event().await, after);
    }
    assert_eq!(app.metric("headcount_event_resets_total").await, 3.0);
    assert!(app.metric("headcount_events_total").await >= 6.0);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn there_are_so_many_places_and_those_who_leave_free_theirs() {
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
async fn open_streams_end_at_once_when_the_service_stops() {
    // As long as a test may take: if a stream held up the end, the test would know.
    let app = App::start_with(&[("shutdown_grace", "1h")]).await;
    let mut listener = listen(&app, "", None).await;
    app.begin_stop();
    while let Some(piece) = listener.piece().await {
        assert_eq!(piece.event, "");
    }
    assert_eq!(app.stop().await.abandoned, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_does_not_hold_up_the_end() {
    let app = App::start_with(&[("shutdown_grace", "1h")]).await;
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut deaf = socket.connect(app.addr).await.unwrap();
    let request = b"GET /v1/events HTTP/1.1\r\nhost: localhost\r\n\r\n";
    tokio::io::AsyncWriteExt::write_all(&mut deaf, request)
        .await
        .unwrap();
    wait_for_metric(&app, "headcount_event_clients", 1.0).await;
    let mut listener = listen(&app, "", None).await;
    // More than the system and the service hold for it: about 300 KiB of 400 bytes each.
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
    drop(deaf);
}

#[tokio::test(flavor = "multi_thread")]
async fn http_2_streams_too() {
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
    // Only now: a stream that is asked to end does so, whatever comes next.
    assert_eq!(app.stop().await.abandoned, 0);
    let text = std::io::read_to_string(output).unwrap();
    assert!(child.wait().unwrap().success(), "{text}");
    assert!(text.ends_with("version 2"), "{text}");
}
