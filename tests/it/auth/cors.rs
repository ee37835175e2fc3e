//! CORS: web pages of other origins.

use super::*;
use reqwest::header::HeaderName;

#[tokio::test(flavor = "multi_thread")]
async fn cors_allows_only_the_configured_origins() {
    const GOOD: (&str, &str) = ("origin", "https://app.example");
    const PREFLIGHT: (&str, &str) = ("access-control-request-method", "GET");
    let file = TokensFile::new(&[token("read", &[Scope::Read])]);
    let origins = ("cors_origins", "https://app.example, http://localhost:3000");
    let app = App::start_with(&[("tokens_file", file.path()), origins]).await;
    let allowed = |response: &Response| {
        let headers = &response.headers;
        assert!(!headers.contains_key("access-control-allow-credentials"));
        let origin = headers.get("access-control-allow-origin");
        origin.map(|origin| origin.to_str().unwrap().to_owned())
    };
    let path = "/v1/segments";
    let response = app
        .send_with(Method::OPTIONS, path, &[GOOD, PREFLIGHT])
        .await;
    assert_eq!(
        (response.status, allowed(&response).as_deref()),
        (200, Some(GOOD.1)),
        "without a token"
    );
    let methods = &response.headers["access-control-allow-methods"];
    assert_eq!(methods, "GET,HEAD,POST,PUT,DELETE");
    assert!(
        response.headers["access-control-allow-headers"]
            .to_str()
            .unwrap()
            .contains("authorization")
    );
    assert_eq!(response.headers["vary"], "origin");
    let authorization = bearer("read");
    for (headers, status, origin) in [
        (
            &[GOOD, ("authorization", authorization.as_str())][..],
            200,
            Some(GOOD.1),
        ),
        // The page may read the error of the refusal.
        (&[GOOD], 401, Some(GOOD.1)),
        (
            &[("origin", "http://localhost:3000")],
            401,
            Some("http://localhost:3000"),
        ),
        (&[("origin", "https://app.example.evil.example")], 401, None),
        (&[("origin", "https://APP.example")], 401, None),
        (&[("origin", "http://app.example")], 401, None),
        (&[("origin", "null")], 401, None),
        (&[], 401, None),
    ] {
        let response = app.send_with(Method::GET, path, headers).await;
        assert_eq!(
            (response.status, allowed(&response).as_deref()),
            (status, origin),
            "{headers:?}"
        );
        let mut vary = response.headers.get_all("vary").iter();
        assert!(
            vary.any(|name| name == "origin"),
            "caches must key on the origin"
        );
    }
    // A script reads a header only if it is exposed.
    let headers = [
        GOOD,
        ("authorization", &authorization),
        ("accept", "text/csv"),
    ];
    let response = app.send_with(Method::GET, path, &headers).await;
    let exposed = &response.headers["access-control-expose-headers"];
    let exposed: Vec<_> = exposed.to_str().unwrap().split(',').collect();
    let names = response.headers.keys().map(HeaderName::as_str);
    let ours: Vec<_> = names
        .filter(|name| name.starts_with("headcount-"))
        .collect();
    assert!(ours.contains(&"headcount-complete"), "{response:?}");
    assert!(
        ours.iter().all(|name| exposed.contains(name)),
        "{ours:?} of {exposed:?}"
    );
    assert!(exposed.contains(&"headcount-covered-since"));
    let evil = ("origin", "https://evil.example");
    let response = app
        .send_with(Method::OPTIONS, path, &[evil, PREFLIGHT])
        .await;
    assert_eq!(allowed(&response), None);
    let preflights =
        r#"headcount_http_requests_total{route="preflight",method="OPTIONS",status="200"}"#;
    assert_eq!(app.metric(preflights).await, 2.0);
    app.stop().await;

    let app = App::start_with(&[("tokens_file", file.path()), ("cors_origins", "*")]).await;
    let headers = [GOOD, ("authorization", authorization.as_str())];
    let response = app.send_with(Method::GET, path, &headers).await;
    assert_eq!(
        (response.status, allowed(&response).as_deref()),
        (200, Some("*"))
    );
    app.stop().await;
    let app = App::start().await;
    for headers in [&[GOOD][..], &[GOOD, PREFLIGHT]] {
        let response = app.send_with(Method::GET, path, headers).await;
        let mut vary = response.headers.get_all("vary").iter();
        assert!(vary.all(|name| name != "origin"), "{response:?}");
        assert_eq!(allowed(&response), None);
    }
    assert_eq!(
        app.send_with(Method::OPTIONS, path, &[GOOD, PREFLIGHT])
            .await
            .status,
        405
    );
    app.stop().await;
}
