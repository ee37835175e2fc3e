//! Bodies of `POST /v1/pairs`: encodings, hostile bodies, and good items beside bad ones.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn compressed_and_chunked_bodies_are_accepted() {
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
        let response = app.post_with(&headers, body).await;
        assert_eq!(
            (response.status, &response.json["accepted"]),
            (200, &json!(accepted)),
            "{coding}"
        );
    }
    assert_eq!(app.post(NDJSON, chunked(&body)).await.json["accepted"], 2);
    // Large enough to be parsed on another thread.
    let many: String = (0..20_000)
        .map(|user| line(&format!("many{user}"), "b"))
        .collect();
    assert_eq!(
        app.post(NDJSON, many.clone()).await.json["accepted"],
        20_000
    );
    let headers = [("content-type", NDJSON), ("content-encoding", "zstd")];
    let response = app.post_with(&headers, zstd(many.as_bytes()).await).await;
    assert_eq!(response.json["accepted"], 20_000);
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
        let response = app.post(kind, body).await;
        assert_eq!(
            response.problem(),
            problem,
            "{:?}",
            String::from_utf8_lossy(body)
        );
        assert!(!response.json["detail"].as_str().unwrap().is_empty());
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

    // A line of 10 MB, with a declared length and chunked.
    let long = "x".repeat(10_000_000);
    assert_eq!(
        app.post(NDJSON, long.clone()).await.problem(),
        (413, "too_large")
    );
    assert_eq!(
        app.post(NDJSON, chunked(&long)).await.problem(),
        (413, "too_large")
    );
    // A compressed body without `content-encoding`.
    let packed = gzip(line("u1", "a").as_bytes()).await;
    let response = app.post(NDJSON, packed).await;
    assert_eq!(response.problem(), (400, "malformed"));
    assert!(
        response.text.contains("content-encoding: gzip"),
        "{}",
        response.text
    );
    // A decompression bomb of 64 MB.
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
async fn a_bad_item_does_not_affect_its_neighbours() {
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
        let response = app.post(NDJSON, lines).await;
        assert_eq!(
            (response.status, response.errors()),
            (200, vec![(1, code)]),
            "{text}"
        );
        let array = format!("[{},{text},{}]", line(&first, "near"), line(&last, "near"));
        let response = app.post(JSON, array).await;
        assert_eq!(
            (response.status, response.errors()),
            (200, vec![(1, code)]),
            "{text}"
        );
        assert_eq!(response.json["rejected"], 1);
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
    let response = app.post(NDJSON, mixed.concat()).await;
    assert_eq!(response.errors(), [(1, "malformed")]);
    assert_eq!(app.users("utf8").await, 2);
    let many = "x\n".repeat(150) + &line("ok", "utf8");
    let response = app.post(NDJSON, many).await;
    assert_eq!(
        (response.errors().len(), &response.json["rejected"]),
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
async fn a_body_of_empty_compression_members_is_rejected() {
    let app = App::start().await;
    for (coding, empty) in [("gzip", gzip(b"").await), ("zstd", zstd(b"").await)] {
        let body = empty.repeat((8 << 20) / empty.len());
        let headers = [("content-type", NDJSON), ("content-encoding", coding)];
        let response = app.post_with(&headers, body).await;
        assert_eq!(response.problem(), (400, "malformed"), "{coding}");
        assert!(
            response.json["detail"].as_str().unwrap().contains("4096"),
            "{response:?}"
        );
    }
    app.stop().await;
}
