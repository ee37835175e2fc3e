//! Tokens that are bound to some segments.

use super::*;
use crate::support::events::Listener;

/// A token of every scope that is bound to `mine*`, and an unbound one.
fn bound() -> TokensFile {
    let mine = Token {
        segments: Some(vec!["mine*".into()]),
        ..token("mine", &Scope::ALL)
    };
    TokensFile::new(&[mine, token("all", &Scope::ALL)])
}

async fn post(app: &App, name: &str, segments: &[&str]) -> Response {
    let lines: String = segments
        .iter()
        .map(|segment| format!("{}\n", json!({"user_id": "u1", "segment": segment})))
        .collect();
    let authorization = bearer(name);
    app.post_with(&[NDJSON, ("authorization", &authorization)], lines)
        .await
}

/// Checks the response to a bound token on every route that takes or returns segments.
async fn assert_bound(app: &App, bearer: &str) {
    let send = async |method: &str, path: &str| send_as(app, method, path, Some(bearer)).await;
    for (method, path, status) in [
        ("GET", "/v1/segments/mine/count", 200),
        ("GET", "/v1/segments/mine%2Fnew/trend", 200),
        ("GET", "/segments/mine", 200),
        ("GET", "/v1/segments/yours/count", 403),
        ("HEAD", "/v1/segments/yours/count", 403),
        ("GET", "/v1/segments/yours/trend", 403),
        ("GET", "/v1/segments/nobodys/count", 403),
        ("GET", "/segments/yours", 403),
        ("GET", "/v1/events?segment=mine&segment=yours", 403),
        ("GET", "/v1/segments?segment=mine&segment=mine/3", 200),
        ("GET", "/v1/segments?segment=mine&segment=yours", 403),
        ("GET", "/v1/segments?segment=nobodys", 403),
        ("GET", "/v1/segments/mine/flow", 200),
        ("GET", "/v1/segments/yours/flow", 403),
        ("GET", "/v1/segments/mine", 200),
        ("GET", "/v1/segments/yours", 403),
        ("PUT", "/v1/segments/yours", 403),
        ("DELETE", "/v1/segments/yours", 403),
        ("DELETE", "/v1/segments/mine/users/u9", 200),
        ("DELETE", "/v1/segments/yours/users/u1", 403),
        ("GET", "/v1/count?expr=mine+NOT+mine%2F3", 200),
        ("GET", "/v1/count?expr=mine+NOT+yours", 403),
        ("GET", "/v1/count?expr=*", 403),
        ("GET", "/v1/overlap?segment=mine&segment=mine%2F3", 200),
        ("GET", "/v1/overlap?segment=mine&segment=yours", 403),
        ("GET", "/v1/overlap/top", 200),
        ("DELETE", "/v1/users/u1", 403),
        ("POST", "/v1/admin/refresh", 403),
        ("POST", "/v1/admin/refresh?segment=yours", 403),
        ("POST", "/v1/admin/refresh?segment=mine", 200),
        ("POST", "/v1/admin/archive", 403),
        ("PUT", "/v1/admin/coverage?since=2026-01-01", 403),
        ("GET", "/v1/coverage", 200),
    ] {
        let response = send(method, path).await;
        assert_eq!(response.status, status, "{method} {path}: {response:?}");
        if status == 403 {
            let challenge = "Bearer realm=\"headcount\", error=\"insufficient_scope\"";
            assert_refused(&response, method, 403, "forbidden_segment", challenge);
        }
    }
    let list = send("GET", "/v1/segments").await;
    assert_eq!(list.rows(), [("mine", Some(1))]);
    assert_eq!(list.json["total"], 1, "others are not counted either");
    let top = send("GET", "/v1/overlap/top?at_least=0").await;
    assert!(!top.text.contains("yours"), "{top:?}");
    assert_eq!(top.json["everybody"], Value::Null);
    let trends = async |segments: Value| {
        let headers = [
            ("authorization", bearer),
            ("content-type", "application/json"),
        ];
        let body = json!({"segments": segments}).to_string();
        app.send_body_with(Method::POST, "/v1/trends", &headers, body)
            .await
    };
    assert_eq!(trends(json!(["mine", "mine/3"])).await.status, 200);
    let refused = trends(json!(["mine", "yours"])).await;
    assert_eq!(refused.problem(), (403, "forbidden_segment"));
    let user = send("GET", "/v1/users/u1").await;
    assert_eq!(
        user.json["segments"].as_array().unwrap().len(),
        1,
        "{user:?}"
    );
    let page = send("GET", "/").await;
    assert!(page.text.contains("/segments/mine") && !page.text.contains("yours"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_segment_bound_token_accesses_only_its_segments() {
    let file = bound();
    let signer = Signer::hs256(SECRET);
    let app = App::start_with(&[("tokens_file", file.path()), ("jwt_key", SECRET)]).await;
    assert_eq!(post(&app, "all", &["mine", "yours"]).await.status, 200);

    let response = post(&app, "mine", &["mine", "yours", "mine/2"]).await;
    assert_eq!(
        (response.status, &response.json["accepted"]),
        (200, &json!(2))
    );
    assert_eq!(response.errors(), [(1, "forbidden_segment")]);
    let response = post(&app, "mine", &["yours"]).await;
    assert_eq!(response.problem(), (422, "nothing_accepted"));
    let erased = send_as(&app, "DELETE", "/v1/users/u1", Some(&bearer("all"))).await;
    assert_eq!(erased.json["erased"], 3);
    assert_eq!(post(&app, "all", &["mine", "yours"]).await.status, 200);

    assert_bound(&app, &bearer("mine")).await;
    let scopes = "read write users erase admin";
    let jwt = |segments: Value| {
        let claims = json!({"sub": "s", "scope": scopes, "exp": NOON + 60, "segments": segments});
        format!("Bearer {}", signer.token(&claims))
    };
    for segments in [json!("mine*"), json!(["mine*"]), json!(["mine", "mine/*"])] {
        assert_bound(&app, &jwt(segments)).await;
    }
    // A claim that can not be enforced denies access instead of granting it.
    for (segments, status) in [
        (json!(null), 200),
        (json!(["*"]), 200),
        (json!([]), 403),
        (json!([" x"]), 401),
        (json!([1]), 401),
        (json!({}), 401),
    ] {
        let jwt = jwt(segments.clone());
        let response = send_as(&app, "GET", "/v1/segments/yours/count", Some(&jwt)).await;
        assert_eq!(response.status, status, "{segments}");
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_segment_bound_token_receives_only_events_of_its_segments() {
    let file = bound();
    let app = App::start_with(&[("tokens_file", file.path())]).await;
    let url = format!("http://{}/v1/events", app.addr);
    let mut listener = Listener::open_with(&url, &[("authorization", &bearer("mine"))]).await;
    assert_eq!(post(&app, "all", &["yours"]).await.status, 200);
    assert_eq!(post(&app, "all", &["mine"]).await.status, 200);
    assert_eq!(listener.count().await, ("mine".to_owned(), 1));
    drop(listener);
    app.stop().await;
}
