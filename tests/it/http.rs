//! HTTP from outside: every route, hostile input, and how connections begin and end.

use std::time::{Duration, Instant};

use async_compression::tokio::bufread::{GzipEncoder, ZstdEncoder};
use engine::refresher::{Outcome, Skip};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::app::{App, NOON};

const JSON: &str = "application/json";
const NDJSON: &str = "application/x-ndjson";
const NOON_TEXT: &str = "2026-11-21T12:00:00Z";

/// Waits until the service has closed the connection. A reset is an end, too.
async fn closes(stream: &mut TcpStream) {
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
async fn pairs_go_in_and_counts_come_out() {
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
            "age_seconds": 0.0, "source": "store", "pending": 0, "stale": false, "known": true,
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
async fn bodies_come_compressed_and_chunked() {
    let app = App::start().await;
    let body = line("u1", "a") + &line("u2", "a");
    let twice = [
        gzip(body.as_bytes()).await,
        gzip(line("u3", "a").as_bytes()).await,
    ]
    .concat();
    for (coding, body, accepted) in [
        ("gzip", gzip(body.as_bytes()).await, 2),
        ("gzip", twice, 3),
        ("zstd", zstd(body.as_bytes()).await, 2),
        ("identity", body.clone().into_bytes(), 2),
    ] {
        let headers = [("content-type", NDJSON), ("content-encoding", coding)];
        let answer = app.post_with(&headers, body).await;
        assert_eq!(
            (answer.status, &answer.json["accepted"]),
            (200, &json!(accepted)),
            "{coding}"
        );
    }
    assert_eq!(app.post(NDJSON, chunked(&body)).await.json["accepted"], 2);
    // Large enough to be parsed elsewhere.
    let many: String = (0..20_000)
        .map(|user| line(&format!("many{user}"), "b"))
        .collect();
    assert_eq!(
        app.post(NDJSON, many.clone()).await.json["accepted"],
        20_000
    );
    let headers = [("content-type", NDJSON), ("content-encoding", "zstd")];
    let answer = app.post_with(&headers, zstd(many.as_bytes()).await).await;
    assert_eq!(answer.json["accepted"], 20_000);
    assert_eq!((app.users("a").await, app.users("b").await), (3, 20_000));

    let whole = gzip(body.as_bytes()).await;
    for bad in [&whole[..whole.len() - 3], b"plain"] {
        let headers = [("content-type", NDJSON), ("content-encoding", "gzip")];
        assert_eq!(
            app.post_with(&headers, bad.to_vec()).await.problem(),
            (400, "malformed")
        );
    }
    let headers = [("content-type", NDJSON), ("content-encoding", "br")];
    assert_eq!(
        app.post_with(&headers, body).await.problem(),
        (415, "unsupported_media_type")
    );
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_bodies_get_clear_errors() {
    let app = App::start().await;
    for (kind, body, problem) in [
        (JSON, &b"nonsense"[..], (400, "malformed")),
        (
            JSON,
            b"[{\"user_id\":\"u\",\"segment\":\"lost\"},{",
            (400, "malformed"),
        ),
        (JSON, b"", (400, "malformed")),
        (JSON, b" \n ", (400, "malformed")),
        (JSON, b"7", (400, "malformed")),
        (
            JSON,
            b"{\"user_id\":\"\xff\",\"segment\":\"a\"}",
            (400, "malformed"),
        ),
        (JSON, b"[]", (422, "empty")),
        (NDJSON, b"", (400, "malformed")),
        (NDJSON, b"\n\n", (422, "empty")),
        (NDJSON, b"nonsense", (422, "nothing_accepted")),
        (NDJSON, b"\xff\xfe", (422, "nothing_accepted")),
        ("text/plain", b"{}", (415, "unsupported_media_type")),
    ] {
        let answer = app.post(kind, body).await;
        assert_eq!(
            answer.problem(),
            problem,
            "{:?}",
            String::from_utf8_lossy(body)
        );
        assert!(!answer.json["detail"].as_str().unwrap().is_empty());
    }
    let untyped = app.post_with(&[], "{}").await;
    assert_eq!(untyped.problem(), (415, "unsupported_media_type"));
    assert!(
        untyped.json["detail"]
            .as_str()
            .unwrap()
            .contains("application/x-ndjson")
    );
    assert_eq!(app.users("lost").await, 0);

    // A line of 10 MB, declared and chunked; a bomb of 64 MB.
    let long = "x".repeat(10_000_000);
    assert_eq!(
        app.post(NDJSON, long.clone()).await.problem(),
        (413, "too_large")
    );
    assert_eq!(
        app.post(NDJSON, chunked(&long)).await.problem(),
        (413, "too_large")
    );
    // Compressed, and no header says so.
    let packed = gzip(line("u1", "a").as_bytes()).await;
    let answer = app.post(NDJSON, packed).await;
    assert_eq!(answer.problem(), (400, "malformed"));
    assert!(
        answer.text.contains("content-encoding: gzip"),
        "{}",
        answer.text
    );
    let bomb = gzip(&vec![b' '; 1 << 26]).await;
    let headers = [("content-type", NDJSON), ("content-encoding", "gzip")];
    assert_eq!(
        app.post_with(&headers, bomb).await.problem(),
        (413, "too_large")
    );
    assert_eq!(app.metric("headcount_http_panics_total").await, 0.0);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_item_never_loses_a_neighbour() {
    let app = App::start().await;
    let bad = [
        (
            r#"{"user_id":"u","segment":"a","at":"9999-12-31T23:59:59Z"}"#,
            "in_future",
        ),
        (r#"{"user_id":"u","segment":"a","at":-1}"#, "expired"),
        (
            r#"{"user_id":"u","segment":"a","at":"1969-12-31T23:59:59Z"}"#,
            "expired",
        ),
        (r#"{"user_id":"u","segment":"a","at":"noon"}"#, "invalid_at"),
        (r#"{"user_id":"u","segment":" a"}"#, "invalid_segment"),
        (r#"{"user_id":1.5,"segment":"a"}"#, "invalid_user_id"),
        (
            r#"{"user_id":"u","user_id":"u","segment":"a"}"#,
            "malformed",
        ),
        (r#"[]"#, "malformed"),
    ];
    let long = json!({"user_id": "x".repeat(257), "segment": "a"}).to_string();
    let bad = bad.into_iter().chain([(long.as_str(), "invalid_user_id")]);
    for (position, (text, code)) in bad.enumerate() {
        let (first, last) = (format!("first{position}"), format!("last{position}"));
        let lines = line(&first, "near") + text + "\n\n" + &line(&last, "near");
        let answer = app.post(NDJSON, lines).await;
        assert_eq!(
            (answer.status, answer.errors()),
            (200, vec![(1, code)]),
            "{text}"
        );
        let array = format!("[{},{text},{}]", line(&first, "near"), line(&last, "near"));
        let answer = app.post(JSON, array).await;
        assert_eq!(
            (answer.status, answer.errors()),
            (200, vec![(1, code)]),
            "{text}"
        );
        assert_eq!(answer.json["rejected"], 1);
        assert_eq!(app.users("near").await, (position as u64 + 1) * 2);
        let alone = app.post(JSON, text.to_owned()).await;
        if text != "[]" {
            assert_eq!(
                (alone.problem(), alone.errors()),
                ((422, "nothing_accepted"), vec![(0, code)])
            );
        }
    }
    let mixed = [
        line("ok1", "utf8").into_bytes(),
        b"{\"user_id\":\"\xff\"}\n".to_vec(),
        line("ok2", "utf8").into_bytes(),
    ];
    let answer = app.post(NDJSON, mixed.concat()).await;
    assert_eq!(answer.errors(), [(1, "malformed")]);
    assert_eq!(app.users("utf8").await, 2);
    let many = "x\n".repeat(150) + &line("ok", "utf8");
    let answer = app.post(NDJSON, many).await;
    assert_eq!(
        (answer.errors().len(), &answer.json["rejected"]),
        (100, &json!(150))
    );
    assert_eq!(
        app.metric(r#"headcount_pairs_rejected_total{code="in_future"}"#)
            .await,
        3.0
    );
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_names_keep_their_own_counts() {
    let app = App::start().await;
    let names = [
        ("../../etc", "..%2F..%2Fetc"),
        ("%2F", "%252F"),
        ("a/b", "a%2Fb"),
        ("🏀", "%F0%9F%8F%80"),
        ("100%", "100%25"),
        ("a b+c", "a%20b+c"),
        ("?x=1#y", "%3Fx=1%23y"),
        ("..", "%2E%2E"),
        ("count", "count"),
    ];
    for (position, (name, _)) in names.iter().enumerate() {
        let lines: String = (0..=position)
            .map(|user| line(&format!("u{user}"), name))
            .collect();
        assert_eq!(app.post(NDJSON, lines).await.status, 200, "{name}");
    }
    for (position, (name, encoded)) in names.iter().enumerate() {
        // Said as it stands: a client would tidy some of these paths.
        let request = format!(
            "GET /v1/segments/{encoded}/count HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
        );
        let answer = app.say(request.as_bytes()).await;
        let body = answer.split("\r\n\r\n").nth(1).unwrap();
        let count: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(count["segment"], *name, "{answer}");
        assert_eq!(count["users"], position + 1, "{name}");
    }
    for bad in ["%", "%zz", "%ff", "a%00", "%20a", "a%5C"] {
        let request = format!(
            "GET /v1/segments/{bad}/count HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
        );
        let answer = app.say(request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{bad}: {answer}");
        assert!(
            answer.contains("\"invalid_segment\"") && answer.contains("x-request-id: "),
            "{answer}"
        );
    }
    app.stop().await;
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
    let names = |answer: &crate::support::app::Answer| {
        let segments = answer.json["segments"].as_array().unwrap().clone();
        let name = |entry: &serde_json::Value| entry["segment"].as_str().unwrap().to_owned();
        segments.iter().map(name).collect::<Vec<_>>()
    };
    let all = app.get("/v1/segments").await;
    assert_eq!(names(&all), ["news", "sport", "sport/run", "sport/ski"]);
    assert_eq!(
        all.json["segments"][0],
        json!({"segment": "news", "users": 5, "as_of": NOON_TEXT, "stale": false})
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
        let answer = app.get(&format!("/v1/segments?{bad}")).await;
        assert_eq!(answer.problem(), (400, "invalid_parameter"), "{bad}");
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
async fn refreshes_make_the_trend() {
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
        {"at": NOON_TEXT, "users": 1},
        {"at": "2026-11-21T12:01:00Z", "users": 2},
    ]);
    let whole =
        json!({"segment": "a", "window_seconds": 1_209_600, "points": points, "known": true});
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
        json!([{"at": NOON_TEXT, "users": 1}])
    );
    for bad in ["from=noon", "to=", "step=0s", "step=x", "from=2&to=1"] {
        let answer = app.get(&format!("/v1/segments/a/trend?{bad}")).await;
        assert_eq!(answer.problem(), (400, "invalid_parameter"), "{bad}");
    }
    let bad = app
        .send(Method::POST, "/v1/admin/refresh?segment=%20")
        .await;
    assert_eq!(bad.problem(), (400, "invalid_segment"));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_whose_caller_left_holds_up_no_other() {
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
        json!({"user_id": "Юля/1", "segments": [stay("a"), stay("b")]})
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
    assert_eq!(places.len(), 3, "nobody else has anything: {receipt}");
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
        "/v1/segments/a",
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
        let answer = app.send(method, path).await;
        assert_eq!(answer.problem(), (405, "method_not_allowed"), "{path}");
        assert_eq!(answer.headers["allow"], allow);
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
async fn windows_that_can_not_be_counted_are_refused() {
    let app = App::start().await;
    for bad in ["15d", "90s", "0s", "x", ""] {
        let answer = app.get(&format!("/v1/segments/a/count?window={bad}")).await;
        assert_eq!(answer.problem(), (400, "invalid_window"), "{bad}");
    }
    let answer = app.get("/v1/segments/a/count?fresh=maybe").await;
    assert_eq!(answer.problem(), (400, "invalid_parameter"));
    assert_eq!(answer.json["parameter"], "fresh");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn too_much_at_once_is_turned_away_whole() {
    let app = App::start_with(&[("max_segments", "2")]).await;
    let answer = app
        .post(NDJSON, line("u", "a") + &line("u", "b") + &line("u", "c"))
        .await;
    assert_eq!(answer.errors(), [(2, "too_many_segments")]);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_peers_are_let_go() {
    let app = App::start_with(&[("header_timeout", "1s"), ("max_connections", "2")]).await;
    let started = Instant::now();
    // One says nothing, one never ends its head; both hold all the room there is.
    let mut silent = app.connect().await;
    let mut endless = app.connect().await;
    endless
        .write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n")
        .await
        .unwrap();
    // The third waits until there is room.
    let third = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    let answer = app.say(third).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(
        started.elapsed() >= Duration::from_secs(1),
        "{:?}",
        started.elapsed()
    );
    let mut rest = Vec::new();
    silent.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, b"");
    closes(&mut endless).await;
    // A body that stops coming is told so.
    let slow = b"POST /v1/pairs HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{";
    let answer = app.say(slow).await;
    assert!(
        answer.starts_with("HTTP/1.1 408 ") && answer.contains("\"timeout\""),
        "{answer}"
    );
    app.stop().await;
}

/// A connection with a request of which the end of the body is missing.
async fn begin_post(app: &App) -> TcpStream {
    let head = b"POST /v1/pairs HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\nexpect: 100-continue\r\ncontent-length: 31\r\n\r\n";
    let mut stream = app.connect().await;
    stream.write_all(head).await.unwrap();
    // The service asks for the body once the request is under way, and not before.
    let mut asked = [0; 25];
    stream.read_exact(&mut asked).await.unwrap();
    assert_eq!(&asked, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"{\"user_id\":").await.unwrap();
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_under_way_are_finished() {
    // As long as a test may take: if anything held up the end, the test would know.
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
    let mut answer = String::new();
    finishing.read_to_string(&mut answer).await.unwrap();
    assert!(answer.contains("{\"accepted\":1,"), "{answer}");
    assert_eq!(app.stop().await.abandoned, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_outlast_the_grace_are_cut() {
    let app = App::start_with(&[("shutdown_grace", "200ms"), ("header_timeout", "5m")]).await;
    let stuck = begin_post(&app).await;
    let started = Instant::now();
    assert_eq!(app.stop().await.abandoned, 1);
    assert!(started.elapsed() >= Duration::from_millis(200));
    drop(stuck);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_turns_away_whole_requests() {
    let app = App::start_with(&[("queue_pairs", "1")]).await;
    let posts = (0..64).map(|user| app.post(NDJSON, line(&format!("u{user}"), "a")));
    let mut accepted = 0;
    for answer in futures::future::join_all(posts).await {
        match answer.status {
            200 => accepted += 1,
            _ => {
                assert_eq!(answer.problem(), (429, "busy"));
                assert_eq!(answer.headers["retry-after"], "1");
            }
        }
    }
    assert!(accepted > 0);
    assert_eq!(app.users("a").await, accepted);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_that_nobody_reads_are_refused_everywhere() {
    let app = App::start().await;
    for (method, target, parameter, nearest) in [
        (
            Method::GET,
            "/v1/segments/a/count?windw=7d",
            "windw",
            Some("window"),
        ),
        (
            Method::GET,
            "/v1/segments/a/trend?windows=7d",
            "windows",
            Some("window"),
        ),
        (Method::GET, "/v1/segments?Limit=1", "Limit", Some("limit")),
        (
            Method::GET,
            "/v1/events?segments=a",
            "segments",
            Some("segment"),
        ),
        (Method::GET, "/v1/users/u1?fresh=true", "fresh", None),
        (Method::DELETE, "/v1/users/u1?dry_run=true", "dry_run", None),
        (Method::POST, "/v1/pairs?durable=false", "durable", None),
        (
            Method::POST,
            "/v1/admin/refresh?segmnt=a",
            "segmnt",
            Some("segment"),
        ),
        (Method::POST, "/v1/admin/archive?before=7d", "before", None),
        (Method::GET, "/healthz?x", "x", None),
        (Method::GET, "/readyz?verbose", "verbose", None),
        (Method::GET, "/metrics?name[]=up", "name[]", None),
        (Method::GET, "/openapi.json?x=1", "x", None),
        (Method::GET, "/docs?x=1", "x", None),
        (Method::GET, "/docs/swagger-ui.css?x=1", "x", None),
        (Method::GET, "/?serch=a", "serch", None),
        (Method::GET, "/segments/a?windw=1d", "windw", Some("window")),
        (Method::GET, "/sign-in?nxt=a", "nxt", Some("next")),
        (Method::GET, "/assets/page.js?x=1", "x", None),
        (Method::HEAD, "/v1/segments?x=1", "", None),
    ] {
        let answer = app.send(method.clone(), target).await;
        if method == Method::HEAD {
            assert_eq!(answer.status, 400, "{target}");
            continue;
        }
        assert_eq!(answer.problem(), (400, "unknown_parameter"), "{target}");
        assert_eq!(answer.json["parameter"], parameter, "{target}");
        assert_eq!(answer.json["nearest"].as_str(), nearest, "{target}");
    }
    let answer = app.get("/v1/segments/a/count?windw=7d").await;
    assert_eq!(
        answer.json["detail"],
        "this resource has no query parameter `windw`; did you mean `window`?"
    );
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_no_path_can_have_are_given_beside_it() {
    let app = App::start().await;
    for (name, users) in [(".", 1), ("..", 2), ("-", 3)] {
        let lines: String = (0..users)
            .map(|user| line(&format!("u{user}"), name))
            .collect();
        app.post(NDJSON, lines).await;
    }
    app.post(NDJSON, line("..", "sports")).await;
    app.headcount.refresh(None).await.unwrap();
    for (name, users) in [(".", 1), ("..", 2), ("-", 3)] {
        let count = app
            .get(&format!("/v1/segments/-/count?segment={name}"))
            .await;
        assert_eq!(
            (&count.json["segment"], &count.json["users"]),
            (&json!(name), &json!(users))
        );
        let trend = app
            .get(&format!("/v1/segments/-/trend?segment={name}&step=1h"))
            .await;
        assert_eq!(trend.json["points"][0]["users"], users, "{trend:?}");
        // The page links to where it is.
        let list = app.get("/").await.text;
        let link = match name {
            "-" => "/segments/-".to_owned(),
            name => format!("/segments/-?segment={name}"),
        };
        assert!(list.contains(&format!("href=\"{link}\"")), "{list}");
        let page = app.get(&link).await;
        assert!(
            page.text
                .contains(&format!("<h1><bdi dir=\"auto\">{name}</bdi></h1>")),
            "{page:?}"
        );
    }
    assert_eq!(
        app.users("-").await,
        3,
        "without the parameter it is a name"
    );
    let both = app.get("/v1/segments/sports/count?segment=..").await;
    assert_eq!(both.problem(), (400, "invalid_parameter"));
    let user = app.get("/v1/users/-?user_id=..").await;
    assert_eq!(
        (&user.json["user_id"], &user.json["segments"][0]["segment"]),
        (&json!(".."), &json!("sports"))
    );
    let erased = app.send(Method::DELETE, "/v1/users/-?user_id=..").await;
    assert_eq!(erased.json["erased"], 1);
    assert_eq!(app.users("sports").await, 0);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_look_like_others_are_refused_alone() {
    let app = App::start().await;
    let lines = [
        line("u1", "sports"),
        line("u1 ", "sports"),
        line("   ", "sports"),
        line("\u{feff}u1", "sports"),
        line("u1", "sport\u{200b}s"),
        line("u1", "\u{202e}sports"),
        line("u1", "👨\u{200d}👩\u{200d}👧"),
    ];
    let answer = app.post(NDJSON, lines.concat()).await;
    assert_eq!(answer.json["accepted"], 2, "{answer:?}");
    let user = "invalid_user_id";
    let segment = "invalid_segment";
    assert_eq!(
        answer.errors(),
        [(1, user), (2, user), (3, user), (4, segment), (5, segment)]
    );
    let told = answer.json["errors"][3]["message"].as_str().unwrap();
    assert!(told.contains("U+200B (zero width space)"), "{told}");
    // One of a former version can still be erased.
    assert_eq!(
        app.send(Method::DELETE, "/v1/users/u1%20").await.json["erased"],
        0
    );
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_kept_by_nobody_and_are_what_they_say() {
    let app = App::start().await;
    for target in [
        "/v1/segments",
        "/v1/segments/a/count",
        "/v1/users/u1",
        "/healthz",
        "/metrics",
        "/nowhere",
        "/",
    ] {
        let answer = app.get(target).await;
        assert_eq!(
            answer.headers["x-content-type-options"], "nosniff",
            "{target}"
        );
        assert_eq!(answer.headers["cache-control"], "no-store", "{target}");
    }
    let asset = app.get("/assets/page.css?v=1").await;
    assert!(
        asset.headers["cache-control"]
            .to_str()
            .unwrap()
            .contains("immutable")
    );
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_names_one_host() {
    let app = App::start().await;
    for (hosts, expected) in [
        ("host: a\r\n", "200"),
        ("host: a:8080\r\n", "200"),
        ("", "400"),
        ("host: a\r\nhost: b\r\n", "400"),
        ("host: a\r\nhost: a\r\n", "400"),
        ("host:\r\n", "400"),
        ("host: a, b\r\n", "400"),
        ("host: a/b\r\n", "400"),
        ("host: user@a\r\n", "400"),
    ] {
        let request = format!("GET /healthz HTTP/1.1\r\n{hosts}connection: close\r\n\r\n");
        let answer = app.say(request.as_bytes()).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {expected} ")),
            "{hosts:?}: {answer}"
        );
        assert!(
            expected == "200" || answer.contains("\"invalid_host\""),
            "{answer}"
        );
    }
    let old = app.say(b"GET /healthz HTTP/1.0\r\n\r\n").await;
    assert!(old.contains(" 200 OK"), "{old}");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_empty_members_is_refused() {
    let app = App::start().await;
    for (coding, empty) in [("gzip", gzip(b"").await), ("zstd", zstd(b"").await)] {
        let body = empty.repeat((8 << 20) / empty.len());
        let headers = [("content-type", NDJSON), ("content-encoding", coding)];
        let answer = app.post_with(&headers, body).await;
        assert_eq!(answer.problem(), (400, "malformed"), "{coding}");
        assert!(
            answer.json["detail"].as_str().unwrap().contains("4096"),
            "{answer:?}"
        );
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_connection_outlasts_the_time_for_heads() {
    let app = App::start_with(&[("header_timeout", "100ms")]).await;
    let request = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";
    let mut answered = [0; 12];
    // A busy machine may be too slow for such a short time.
    let mut kept = loop {
        let mut kept = app.connect().await;
        if kept.write_all(request).await.is_ok() && kept.read_exact(&mut answered).await.is_ok() {
            break kept;
        }
    };
    // A head on a connection beside it shows that the time for heads is over.
    for _ in 0..3 {
        let mut endless = app.connect().await;
        endless.write_all(&request[..20]).await.unwrap();
        closes(&mut endless).await;
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
    let mut answer = String::new();
    kept.read_to_string(&mut answer).await.unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 200 "),
        "closed once it was idle: {answer}"
    );
    app.stop().await;
}
