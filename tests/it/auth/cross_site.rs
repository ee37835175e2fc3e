//! A service without tokens is protected against web pages of other sites in the same browser.

use super::*;

const EVIL: &str = "http://evil.example";

fn pair(user: &str) -> String {
    json!({"user_id": user, "segment": "a"}).to_string()
}

async fn post_pair(app: &App, headers: &[(&'static str, &str)]) -> Response {
    let headers = [&[NDJSON], headers].concat();
    app.post_with(&headers, pair("u1")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn dns_rebinding_reads_nothing() {
    let app = App::start().await;
    for (method, template, path, _, status) in ROUTES {
        let response = app
            .send_with(
                method.parse().unwrap(),
                path,
                &[("host", "evil.example:8080")],
            )
            .await;
        let is_probe = matches!(*template, "/healthz" | "/readyz" | "/health" | "/ping");
        let expected = if is_probe { *status } else { 421 };
        assert_eq!(response.status, expected, "{method} {template}");
        if !is_probe && *method != "HEAD" {
            assert_eq!(response.problem(), (421, "misdirected"));
        }
    }
    for host in [
        "localhost",
        "127.0.0.1:9",
        "[::1]",
        "headcount.localhost:80",
    ] {
        let response = app
            .send_with(Method::GET, "/v1/segments", &[("host", host)])
            .await;
        assert_eq!(response.status, 200, "{host}");
    }
    app.stop().await;

    // With tokens, a page would need one. With `auth = "off"`, the operator is responsible for host names.
    let file = TokensFile::new(&[token("read", &[Scope::Read])]);
    let app = App::start_with(&[("tokens_file", file.path())]).await;
    let headers = [
        ("host", "counts.example"),
        ("authorization", "Bearer read-token"),
    ];
    let response = app.send_with(Method::GET, "/v1/segments", &headers).await;
    assert_eq!(response.status, 200);
    app.stop().await;
    let app = App::start_with(&[("auth", "off")]).await;
    let response = app
        .send_with(Method::GET, "/v1/segments", &[("host", "counts.example")])
        .await;
    assert_eq!(response.status, 200);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cross_site_requests_change_nothing() {
    for auth in ["auto", "off"] {
        let app = App::start_with(&[("auth", auth)]).await;
        assert_eq!(post_pair(&app, &[]).await.status, 200, "not from a browser");
        let foreign: [&[(&str, &str)]; 5] = [
            &[("origin", EVIL)],
            &[("origin", "null")],
            &[("origin", EVIL), ("sec-fetch-site", "cross-site")],
            &[("sec-fetch-site", "same-site")],
            &[("sec-fetch-site", "cross-site")],
        ];
        for headers in foreign {
            assert_eq!(
                post_pair(&app, headers).await.problem(),
                (403, "cross_site")
            );
            for (method, path) in [
                (Method::POST, "/v1/admin/refresh"),
                (Method::POST, "/v1/admin/archive"),
                (Method::DELETE, "/v1/users/u1"),
            ] {
                let response = app.send_with(method, path, headers).await;
                assert_eq!(
                    response.problem(),
                    (403, "cross_site"),
                    "{path} {headers:?}"
                );
            }
        }
        assert_eq!(app.users("a").await, 1, "no user was erased");
        let trend = app.get("/v1/segments/a/trend").await;
        assert_eq!(trend.json["points"], json!([]), "nothing was recounted");
        let own = format!("http://{}", app.addr);
        for headers in [
            &[("origin", own.as_str())][..],
            &[("origin", own.as_str()), ("sec-fetch-site", "same-origin")],
            &[("sec-fetch-site", "none")],
        ] {
            assert_eq!(post_pair(&app, headers).await.status, 200, "{headers:?}");
        }
        app.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_listed_origins_may_write() {
    let named = ("origin", "https://app.example");
    let app = App::start_with(&[("cors_origins", named.1)]).await;
    let cross = ("sec-fetch-site", "cross-site");
    assert_eq!(post_pair(&app, &[named, cross]).await.status, 200);
    assert_eq!(
        post_pair(&app, &[("origin", EVIL), cross]).await.status,
        403
    );
    app.stop().await;

    // With `auth = "off"`, `*` opens reads to every page and opens nothing else.
    let app = App::start_with(&[("auth", "off"), ("cors_origins", "*")]).await;
    let response = app
        .send_with(Method::GET, "/v1/segments", &[("origin", EVIL), cross])
        .await;
    assert_eq!(response.headers["access-control-allow-origin"], "*");
    assert_eq!(
        post_pair(&app, &[("origin", EVIL), cross]).await.status,
        403
    );
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_segment_is_not_recounted() {
    let app = App::start_with(&[("max_segments", "1")]).await;
    assert_eq!(post_pair(&app, &[]).await.status, 200);
    for name in ["made-up", "another"] {
        let path = format!("/v1/admin/refresh?segment={name}");
        let response = app.send(Method::POST, &path).await;
        assert_eq!(response.problem(), (404, "unknown_segment"));
        let trend = app.get(&format!("/v1/segments/{name}/trend")).await;
        assert_eq!(trend.json["points"], json!([]), "{name}");
    }
    let response = app.send(Method::POST, "/v1/admin/refresh?segment=a").await;
    assert_eq!(response.json["refreshed"], 1);
    app.stop().await;
}
