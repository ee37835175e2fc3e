//! Every route, and the scope that it requires.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn every_route_requires_exactly_its_scope() {
    let known: BTreeSet<_> = http::resources()
        .map(|(m, t, s)| (m, t, s.map(Scope::as_str)))
        .collect();
    let tested: BTreeSet<_> = ROUTES
        .iter()
        .map(|(m, t, _, s, _)| (*m, *t, s.map(Scope::as_str)))
        .collect();
    assert_eq!(
        known, tested,
        "each route of the service must be in the table of this test"
    );

    let mut expired = token("expired", &Scope::ALL);
    expired.expires = Some(Timestamp::from_second(NOON).unwrap());
    let mut tokens = vec![token("all", &Scope::ALL), expired];
    tokens.extend(Scope::ALL.map(|scope| token(scope.as_str(), &[scope])));
    let file = TokensFile::new(&tokens);
    let app = App::start_with(&[("tokens_file", file.path())]).await;
    for &(method, template, path, scope, status) in ROUTES {
        let Some(scope) = scope else {
            for given in [None, Some("Bearer nonsense"), Some("Bearer")] {
                let response = send_as(&app, method, path, given).await;
                assert_eq!(response.status, status, "{method} {template}");
            }
            continue;
        };
        let assert_challenge = |response: Response, code: &str, challenge: &str| {
            let status = if code == "insufficient_scope" {
                403
            } else {
                401
            };
            assert_refused(
                &response,
                method,
                status,
                code,
                &format!("Bearer realm=\"headcount\"{challenge}"),
            );
        };
        let response = send_as(&app, method, path, None).await;
        assert_challenge(response, "unauthenticated", "");
        let invalid =
            |why: &str| format!(", error=\"invalid_token\", error_description=\"the token {why}\"");
        let response = send_as(&app, method, path, Some("Bearer nonsense")).await;
        assert_challenge(
            response,
            "invalid_token",
            &invalid("is unknown, revoked or has an invalid signature"),
        );
        let response = send_as(&app, method, path, Some(&bearer("expired"))).await;
        assert_challenge(response, "invalid_token", &invalid("has expired"));
        for other in Scope::ALL.into_iter().filter(|other| *other != scope) {
            let response = send_as(&app, method, path, Some(&bearer(other.as_str()))).await;
            let challenge = format!(", error=\"insufficient_scope\", scope=\"{scope}\"");
            assert_challenge(response, "insufficient_scope", &challenge);
        }
        for right in [scope.as_str(), "all"] {
            let response = send_as(&app, method, path, Some(&bearer(right))).await;
            assert_eq!(response.status, status, "{method} {template} {response:?}");
            assert!(!response.headers.contains_key("www-authenticate"));
        }
    }
    // Unknown paths and methods are reported without authentication.
    assert_eq!(app.get("/v1/nothing").await.problem(), (404, "not_found"));
    assert_eq!(
        app.get("/v1/pairs").await.problem(),
        (405, "method_not_allowed")
    );
    let protected = ROUTES.iter().filter(|route| route.3.is_some()).count() as f64;
    for (reason, times) in [
        ("missing", 1.0),
        ("unknown", 1.0),
        ("expired", 1.0),
        ("scope", Scope::ALL.len() as f64 - 1.0),
    ] {
        let line = format!("headcount_auth_refusals_total{{reason=\"{reason}\"}}");
        assert_eq!(app.metric(&line).await, protected * times, "{reason}");
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_tokens_every_route_is_open_and_metrics_can_require_one() {
    let app = App::start().await;
    for &(method, template, path, _, status) in ROUTES {
        let response = send_as(&app, method, path, None).await;
        assert_eq!(response.status, status, "{method} {template}");
    }
    app.stop().await;

    let file = TokensFile::new(&[
        token("read", &[Scope::Read]),
        token("write", &[Scope::Write]),
    ]);
    let app = App::start_with(&[("tokens_file", file.path()), ("metrics_open", "false")]).await;
    assert_eq!(app.get("/metrics").await.status, 401);
    assert_eq!(
        send_as(&app, "GET", "/metrics", Some(&bearer("write")))
            .await
            .status,
        403
    );
    assert_eq!(
        send_as(&app, "GET", "/metrics", Some(&bearer("read")))
            .await
            .status,
        200
    );
    assert_eq!(app.get("/healthz").await.status, 200);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_authorization_headers_are_rejected() {
    let file = TokensFile::new(&[token("read", &[Scope::Read])]);
    let app = App::start_with(&[("tokens_file", file.path())]).await;
    for (headers, status, code) in [
        (&["Bearer read-token"][..], 200, ""),
        (&["bEaReR   read-token  "], 200, ""),
        (&["Bearer\tread-token"], 401, "unauthenticated"),
        (&[""], 401, "unauthenticated"),
        (&["Basic cmVhZDp0b2tlbg=="], 401, "unauthenticated"),
        (&["read-token"], 401, "unauthenticated"),
        (&["Bearer"], 401, "invalid_token"),
        (&["Bearer "], 401, "invalid_token"),
        (&["Bearer read-token x"], 401, "invalid_token"),
        (&["Bearer READ-TOKEN"], 401, "invalid_token"),
        (&["Bearer read-toke"], 401, "invalid_token"),
        (&["Bearer r\u{e9}ad-token"], 401, "invalid_token"),
        (
            &["Bearer read-token", "Bearer read-token"],
            400,
            "invalid_request",
        ),
        (&["Basic eDp5", "Bearer read-token"], 400, "invalid_request"),
    ] {
        let lines: String = headers
            .iter()
            .map(|value| format!("authorization: {value}\r\n"))
            .collect();
        let request = format!(
            "GET /v1/segments HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{lines}\r\n"
        );
        let response = app.send_raw(request.as_bytes()).await;
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        assert!(
            head.starts_with(&format!("HTTP/1.1 {status} ")),
            "{headers:?}: {head}"
        );
        assert_eq!(
            head.contains("www-authenticate: Bearer realm=\"headcount\""),
            status != 200
        );
        assert!(
            body.contains(&format!("\"code\":\"{code}\"")) || status == 200,
            "{body}"
        );
        assert!(
            !response.contains("read-toke"),
            "the response must not contain the token: {response}"
        );
    }
    app.stop().await;
}
