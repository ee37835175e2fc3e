//! HTTP from outside: every route, hostile input, and the life cycle of connections.

mod bodies;
mod connections;
mod names;
mod responses;

use std::time::{Duration, Instant};

use async_compression::tokio::bufread::{GzipEncoder, ZstdEncoder};
use engine::refresher::{Outcome, Skip};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::app::{App, NOON, NOON_TEXT};

const JSON: &str = "application/json";
const NDJSON: &str = "application/x-ndjson";

/// Waits until the service has closed or reset the connection.
async fn wait_until_closed(stream: &mut TcpStream) {
    while let Ok(1..) = stream.read(&mut [0; 1024]).await {}
}

fn line(user: &str, segment: &str) -> String {
    format!("{}\n", json!({"user_id": user, "segment": segment}))
}

async fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    GzipEncoder::new(plain).read_to_end(&mut out).await.unwrap();
    out
}

async fn zstd(plain: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    ZstdEncoder::new(plain).read_to_end(&mut out).await.unwrap();
    out
}

/// `body` in chunks, as from a client that does not know its length.
fn chunked(body: &str) -> reqwest::Body {
    let pieces: Vec<Result<Vec<u8>, std::io::Error>> = body
        .as_bytes()
        .chunks((body.len() / 100).max(7))
        .map(|piece| Ok(piece.to_vec()))
        .collect();
    reqwest::Body::wrap_stream(futures::stream::iter(pieces))
}

#[tokio::test(flavor = "multi_thread")]
async fn posted_pairs_are_counted() {
    let app = App::start().await;
    let one = app
        .post(JSON, r#"{"user_id":"u1","segment":"sports"}"#)
        .await;
    assert_eq!(
        (one.status, &one.json),
        (200, &json!({"accepted": 1, "rejected": 0, "errors": []}))
    );
    let array =
        r#"[{"user_id":7,"segment":"sports"},{"user_id":"7","segment":"news","at":1795262399.5}]"#;
    assert_eq!(app.post(JSON, array).await.json["accepted"], 2);
    let lines = line("u1", "sports") + &line("u2", "sports") + &line("u2", "news");
    assert_eq!(app.post(NDJSON, lines).await.json["accepted"], 3);

    let count = app.get("/v1/segments/sports/count").await;
    assert_eq!(count.headers["content-type"], "application/json");
    assert_eq!(
        count.json,
        json!({
            "segment": "sports", "users": 3, "window_seconds": 1_209_600, "as_of": NOON_TEXT,
            "age_seconds": 0.0, "source": "store", "stale": false, "known": true, "withheld": false,
            "covered_since": NOON_TEXT, "complete": false,
        })
    );
    assert_eq!(app.users("news").await, 2);
    assert_eq!(app.users("nobody").await, 0);
    let fresh = app
        .get("/v1/segments/sports/count?window=1h&fresh=true")
        .await;
    assert_eq!(
        (&fresh.json["users"], &fresh.json["window_seconds"]),
        (&json!(3), &json!(3600))
    );

    app.advance(3600);
    assert_eq!(
        app.get("/v1/segments/sports/count?window=1h").await.json["users"],
        0
    );
    assert_eq!(app.users("sports").await, 3);
    app.advance(1_209_600 - 3600);
    assert_eq!(app.users("sports").await, 0);
    assert_eq!(
        app.metric(r#"headcount_pairs_accepted_total{to="store"}"#)
            .await,
        6.0
    );
    assert_eq!(app.stop().await.abandoned, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn segments_are_listed_in_pages() {
    let app = App::start().await;
    let mut lines = String::new();
    for (segment, users) in [
        ("sport/ski", 3),
        ("sport/run", 5),
        ("news", 5),
        ("sport", 1),
    ] {
        for user in 0..users {
            lines += &line(&format!("u{user}"), segment);
        }
    }
    app.post(NDJSON, lines).await;
    let names = |response: &crate::support::app::Response| {
        let segments = response.json["segments"].as_array().unwrap().clone();
        let name = |entry: &serde_json::Value| entry["segment"].as_str().unwrap().to_owned();
        segments.iter().map(name).collect::<Vec<_>>()
    };
    let all = app.get("/v1/segments").await;
    assert_eq!(names(&all), ["news", "sport", "sport/run", "sport/ski"]);
    assert_eq!(
        all.json["segments"][0],
        json!({"segment": "news", "window_seconds": 1_209_600, "users": 5, "as_of": NOON_TEXT, "stale": false, "known": true, "withheld": false})
    );
    assert_eq!(all.json["next"], json!(null));
    assert_eq!(all.json["window_seconds"], 1_209_600);
    assert_eq!(
        names(&app.get("/v1/segments?prefix=sport%2F").await),
        ["sport/run", "sport/ski"]
    );

    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let target = format!("/v1/segments?sort=users&limit=1&cursor={cursor}");
        let page = app.get(&target).await;
        seen.extend(names(&page));
        match page.json["next"].as_str() {
            Some(next) => next.clone_into(&mut cursor),
            None => break,
        }
    }
    assert_eq!(seen, ["news", "sport/run", "sport/ski", "sport"]);
    for bad in [
        "sort=age",
        "limit=0",
        "limit=1001",
        "limit=x",
        "cursor=x",
        "limit=1&limit=2",
    ] {
        let response = app.get(&format!("/v1/segments?{bad}")).await;
        assert_eq!(response.problem(), (400, "invalid_parameter"), "{bad}");
    }
    app.advance(3_600);
    app.post(NDJSON, line("u9", "late")).await;
    let hour = app.get("/v1/segments?window=1h").await;
    assert_eq!(names(&hour), ["late"]);
    assert_eq!(hour.json["window_seconds"], 3_600);
    assert_eq!(names(&app.get("/v1/segments?window=7d").await).len(), 5);
    let long = app.get("/v1/segments?window=15d").await;
    assert_eq!(long.problem(), (400, "invalid_window"));
    let other = format!("/v1/segments?sort=name&cursor={cursor}");
    assert_eq!(app.get(&other).await.problem(), (400, "invalid_parameter"));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refreshes_record_the_trend() {
    let app = App::start().await;
    app.post(NDJSON, line("u1", "a") + &line("u2", "b")).await;
    let refreshed = app.send(Method::POST, "/v1/admin/refresh").await;
    assert_eq!(
        (&refreshed.json["refreshed"], &refreshed.json["failed"]),
        (&json!(2), &json!(0))
    );
    assert!(refreshed.json["took_seconds"].as_f64().unwrap() >= 0.0);
    app.advance(60);
    app.post(NDJSON, line("u2", "a")).await;
    let one = app.send(Method::POST, "/v1/admin/refresh?segment=a").await;
    assert_eq!(one.json["refreshed"], 1);
    let trend = app.get("/v1/segments/a/trend").await;
    let points = json!([
        {"at": NOON_TEXT, "users": 1, "entered": 1, "left": 0},
        {"at": "2026-11-21T12:01:00Z", "users": 2, "entered": 1, "left": 0},
    ]);
    let whole = json!({
        "segment": "a", "window_seconds": 1_209_600, "points": points, "known": true,
        "covered_since": NOON_TEXT, "complete": false,
    });
    assert_eq!(trend.json, whole);
    let typo = app.get("/v1/segments/aa/trend").await;
    assert_eq!(
        (&typo.json["points"], &typo.json["known"]),
        (&json!([]), &json!(false))
    );
    let not_kept = app.get("/v1/segments/a/trend?window=7d").await;
    assert_eq!(not_kept.problem(), (400, "invalid_window"));
    let stepped = app.get("/v1/segments/a/trend?step=1h").await;
    assert_eq!(stepped.json["points"].as_array().unwrap().len(), 1);
    let exact = format!("/v1/segments/a/trend?from={NOON}&to=2026-11-21T12:00:30Z");
    assert_eq!(
        app.get(&exact).await.json["points"],
        json!([{"at": NOON_TEXT, "users": 1, "entered": 1, "left": 0}])
    );
    for bad in ["from=noon", "to=", "step=0s", "step=x", "from=2&to=1"] {
        let response = app.get(&format!("/v1/segments/a/trend?{bad}")).await;
        assert_eq!(response.problem(), (400, "invalid_parameter"), "{bad}");
    }
    let bad = app
        .send(Method::POST, "/v1/admin/refresh?segment=%20")
        .await;
    assert_eq!(bad.problem(), (400, "invalid_segment"));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abandoned_refresh_releases_its_lock() {
    let app = App::start().await;
    app.post(NDJSON, line("u1", "a")).await;
    drop(futures::poll!(std::pin::pin!(app.headcount.refresh(None))));
    let started = Instant::now();
    while app.headcount.refresh(None).await.unwrap() == Outcome::Skipped(Skip::UnderWay) {
        assert!(
            started.elapsed() < Duration::from_secs(120),
            "the lock is still held"
        );
        tokio::task::yield_now().await;
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn users_are_shown_and_erased() {
    let app = App::start().await;
    app.post(
        NDJSON,
        line("Юля/1", "a") + &line("Юля/1", "b") + &line("u2", "a"),
    )
    .await;
    let target = "/v1/users/%D0%AE%D0%BB%D1%8F%2F1";
    let shown = app.get(target).await;
    let stay = |segment| json!({"segment": segment, "last_seen": NOON_TEXT, "until": "2026-12-05T12:00:00Z"});
    assert_eq!(
        shown.json,
        json!({
            "user_id": "Юля/1", "segments": [stay("a"), stay("b")],
            "covered_since": NOON_TEXT, "complete": false,
        })
    );
    let receipt = app.send(Method::DELETE, target).await.json;
    assert_eq!(receipt["erased"], 2);
    assert_eq!(receipt["erased_at"], NOON_TEXT);
    let places = receipt["places"].as_array().unwrap();
    let place = |index: usize| {
        let place = &places[index];
        (&place["place"], &place["state"], &place["until"])
    };
    assert_eq!(place(0), (&"store".into(), &"erased".into(), &Value::Null));
    let until = "2026-11-21T13:00:00Z";
    assert_eq!(
        place(1),
        (&"embedded_files".into(), &"remains".into(), &until.into())
    );
    assert_eq!(place(2).0, "copies");
    assert_eq!(places.len(), 3, "no other place is listed: {receipt}");
    assert_eq!(app.send(Method::DELETE, target).await.json["erased"], 0);
    assert_eq!(app.get(target).await.json["segments"], json!([]));
    assert_eq!((app.users("a").await, app.users("b").await), (1, 0));
    assert_eq!(
        app.get("/v1/users/%ff").await.problem(),
        (400, "invalid_user_id")
    );
    let long = format!("/v1/users/{}", "x".repeat(257));
    assert_eq!(app.get(&long).await.problem(), (400, "invalid_user_id"));
    app.advance(1_209_600 + 60);
    let removed = app.send(Method::POST, "/v1/admin/archive").await;
    assert_eq!(removed.json, json!({"removed": 1}));
    let text = app.get("/metrics").await.text;
    assert!(
        !text.contains("u2") && text.contains(r#"route="/v1/users/{user_id}""#),
        "{text}"
    );
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn health_metrics_and_refusals() {
    let app = App::start().await;
    assert_eq!(app.get("/healthz").await.json, json!({"status": "ok"}));
    let ready = app.get("/readyz").await;
    assert_eq!(
        (ready.status, &ready.json["status"]),
        (200, &json!("ready"))
    );
    assert_eq!(ready.json["components"]["store"]["ok"], true);
    let metrics = app.get("/metrics").await;
    assert!(metrics.text.contains(
        r#"headcount_http_requests_total{route="/healthz",method="GET",status="200"} 1"#
    ));

    for path in [
        "/nowhere",
        "/v1",
        "/v2/pairs",
        "/v1/pairs/",
        "/v1/segments/",
        "/v1/users/",
        "//",
        "/v1/segments//count",
    ] {
        assert_eq!(app.get(path).await.problem(), (404, "not_found"), "{path}");
    }
    for (method, path, allow) in [
        (Method::GET, "/v1/pairs", "POST"),
        (Method::PUT, "/v1/users/u1", "GET, HEAD, DELETE"),
        (Method::POST, "/v1/segments/a/count", "GET, HEAD"),
        (Method::GET, "/v1/admin/refresh", "POST"),
        (Method::OPTIONS, "/v1/segments", "GET, HEAD"),
        (
            Method::from_bytes(b"BREW").unwrap(),
            "/healthz",
            "GET, HEAD",
        ),
    ] {
        let response = app.send(method, path).await;
        assert_eq!(response.problem(), (405, "method_not_allowed"), "{path}");
        assert_eq!(response.headers["allow"], allow);
    }
    let head = app.send(Method::HEAD, "/healthz").await;
    assert_eq!((head.status, head.text.as_str()), (200, ""));
    assert_eq!(
        head.headers["content-length"],
        r#"{"status":"ok"}"#.len().to_string()
    );

    let named = app
        .client
        .get(format!("http://{}/nowhere", app.addr))
        .header("x-request-id", "abc-1");
    assert_eq!(
        named.send().await.unwrap().headers()["x-request-id"],
        "abc-1"
    );
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unsupported_windows_are_rejected() {
    let app = App::start().await;
    for bad in ["15d", "90s", "0s", "x", ""] {
        let response = app.get(&format!("/v1/segments/a/count?window={bad}")).await;
        assert_eq!(response.problem(), (400, "invalid_window"), "{bad}");
    }
    let response = app.get("/v1/segments/a/count?fresh=maybe").await;
    assert_eq!(response.problem(), (400, "invalid_parameter"));
    assert_eq!(response.json["parameter"], "fresh");
    app.stop().await;
}
