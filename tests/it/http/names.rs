//! Names in paths and parameters, and the host of a request.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn hostile_names_have_separate_counts() {
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
        // Sent as raw bytes: an HTTP client would normalize some of these paths.
        let request = format!(
            "GET /v1/segments/{encoded}/count HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
        );
        let response = app.send_raw(request.as_bytes()).await;
        let body = response.split("\r\n\r\n").nth(1).unwrap();
        let count: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(count["segment"], *name, "{response}");
        assert_eq!(count["users"], position + 1, "{name}");
    }
    for bad in ["%", "%zz", "%ff", "a%00", "%20a", "a%5C"] {
        let request = format!(
            "GET /v1/segments/{bad}/count HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
        );
        let response = app.send_raw(request.as_bytes()).await;
        assert!(response.starts_with("HTTP/1.1 400 "), "{bad}: {response}");
        assert!(
            response.contains("\"invalid_segment\"") && response.contains("x-request-id: "),
            "{response}"
        );
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_parameters_are_rejected_on_every_route() {
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
        let response = app.send(method.clone(), target).await;
        if method == Method::HEAD {
            assert_eq!(response.status, 400, "{target}");
            continue;
        }
        assert_eq!(response.problem(), (400, "unknown_parameter"), "{target}");
        assert_eq!(response.json["parameter"], parameter, "{target}");
        assert_eq!(response.json["nearest"].as_str(), nearest, "{target}");
    }
    let response = app.get("/v1/segments/a/count?windw=7d").await;
    assert_eq!(
        response.json["detail"],
        "this resource has no query parameter `windw`; did you mean `window`?"
    );
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_paths_can_not_carry_are_passed_as_parameters() {
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
        // The list page links to the page of the segment.
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
        "without the parameter `-` is a name"
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
async fn confusable_names_are_rejected_individually() {
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
    let response = app.post(NDJSON, lines.concat()).await;
    assert_eq!(response.json["accepted"], 2, "{response:?}");
    let user = "invalid_user_id";
    let segment = "invalid_segment";
    assert_eq!(
        response.errors(),
        [(1, user), (2, user), (3, user), (4, segment), (5, segment)]
    );
    let message = response.json["errors"][3]["message"].as_str().unwrap();
    assert!(message.contains("U+200B (zero width space)"), "{message}");
    // A name that a former version accepted can still be erased.
    assert_eq!(
        app.send(Method::DELETE, "/v1/users/u1%20").await.json["erased"],
        0
    );
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_must_name_exactly_one_host() {
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
        let response = app.send_raw(request.as_bytes()).await;
        assert!(
            response.starts_with(&format!("HTTP/1.1 {expected} ")),
            "{hosts:?}: {response}"
        );
        assert!(
            expected == "200" || response.contains("\"invalid_host\""),
            "{response}"
        );
    }
    let old = app.send_raw(b"GET /healthz HTTP/1.0\r\n\r\n").await;
    assert!(old.contains(" 200 OK"), "{old}");
    app.stop().await;
}
