//! Messages of analytics libraries, and CloudEvents.

use serde_json::{Value, json};

use super::*;
use crate::support::app::NOON_TEXT;

async fn post_json(app: &App, target: &str, body: &Value) -> Response {
    let authorization = basic(TOKEN, "");
    post(app, target, &authorization, body.to_string()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_endpoint_takes_its_messages() {
    let (app, _folder) = app().await;
    let message = |user: &str| json!({"userId": user, "properties": {"segment": "sports"}});
    for (number, path) in ["track", "identify", "page", "screen", "group", "alias"]
        .iter()
        .enumerate()
    {
        let response = post_json(
            &app,
            &format!("/v1/{path}"),
            &message(&format!("u{number}")),
        )
        .await;
        assert_eq!(
            (response.status, &response.json["success"]),
            (200, &true.into()),
            "{path}: {response:?}"
        );
        assert_eq!(users(&app, "sports").await, number as u64 + 1);
    }
    let batch = json!({"batch": [message("u7"), message("u8"), {"userId": "u9"}, 5]});
    assert_eq!(post_json(&app, "/v1/batch", &batch).await.status, 200);
    assert_eq!(
        post_json(&app, "/v1/import", &json!({"batch": [message("u8")]}))
            .await
            .status,
        200
    );
    assert_eq!(users(&app, "sports").await, 8);
    assert_eq!(app.metric("headcount_items_ignored_total").await, 1.0);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_without_a_good_message_is_refused() {
    let (app, _folder) = app().await;
    for (target, body, status, code) in [
        (
            "/v1/batch",
            json!({"batch": [{"event": "e"}, 7]}),
            400,
            "nothing_accepted",
        ),
        ("/v1/batch", json!({"messages": []}), 400, "malformed"),
        ("/v1/track", json!([]), 400, "nothing_accepted"),
    ] {
        let response = post_json(&app, target, &body).await;
        assert_eq!(response.problem(), (status, code), "{target}: {response:?}");
    }
    assert_eq!(
        post_json(&app, "/v1/batch", &json!({"batch": []}))
            .await
            .status,
        200
    );
    let batch = json!({"batch": [{"userId": "u", "event": "e"}]}).to_string();
    let refused = post(
        &app,
        "/v1/batch",
        &basic("hc_of_nobody", ""),
        batch.as_str(),
    )
    .await;
    assert_eq!(refused.problem(), (401, "invalid_token"));
    let refused = post(&app, "/v1/batch", "", batch).await;
    assert_eq!(refused.problem(), (401, "unauthenticated"));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_in_the_body_has_its_limits() {
    let mut bound = token("client", TOKEN, &[http::auth::Scope::Write]);
    bound.segments = Some(vec!["sp*".parse().unwrap()]);
    bound.requests_per_second = std::num::NonZeroU32::new(2);
    let (app, _folder) = app_with_token(bound).await;
    let batch = |key: &str, segment: &str| {
        let event = json!({"event": "e", "distinct_id": "u", "properties": {"segment": segment}});
        json!({"api_key": key, "batch": [event]}).to_string()
    };
    assert_eq!(
        post(&app, "/batch/", "", batch(TOKEN, "sports"))
            .await
            .status,
        200
    );
    let beyond = post(&app, "/batch/", "", batch(TOKEN, "news")).await;
    assert_eq!(beyond.problem(), (400, "nothing_accepted"));
    assert_eq!(beyond.json["errors"][0]["code"], "forbidden_segment");
    let limited = post(&app, "/batch/", "", batch(TOKEN, "sports")).await;
    assert_eq!(limited.problem(), (429, "rate_limited"));
    for (body, code) in [
        (batch("hc_of_nobody", "sports"), "invalid_token"),
        (batch("", "sports"), "unauthenticated"),
        (batch("no token", "sports"), "invalid_token"),
        (String::new(), "unauthenticated"),
    ] {
        assert_eq!(post(&app, "/batch/", "", body).await.problem(), (401, code));
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_segment_is_where_the_settings_say() {
    let app = App::start_with(&[("event_segment", "groupId, name")]).await;
    let batch = json!({"batch": [
        {"type": "group", "userId": "u1", "groupId": "g1"},
        {"type": "page", "userId": "u1", "name": "Home"},
        {"type": "track", "userId": "u1", "event": "e", "properties": {"segment": "s"}},
    ]});
    assert_eq!(post_json(&app, "/v1/batch", &batch).await.status, 200);
    let segments = ["g1", "Home", "e", "s"];
    for (segment, expected) in segments.into_iter().zip([1, 1, 0, 0]) {
        assert_eq!(app.users(segment).await, expected, "{segment}");
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cloud_events_are_pairs() {
    let app = App::start().await;
    let event = json!({"specversion": "1.0", "id": "1", "source": "uss", "type": "seen",
                       "subject": "u1", "time": NOON_TEXT, "data": {"segment": "sports"}});
    let kind = "application/cloudevents+json";
    let response = app.post(kind, event.to_string()).await;
    assert_eq!(
        (response.status, &response.json["accepted"]),
        (200, &1.into()),
        "{response:?}"
    );
    let batch = json!([event, {"subject": "u2", "data": {"segment": "sports"}}, {"subject": "u3"}]);
    let response = app
        .post("application/cloudevents-batch+json", batch.to_string())
        .await;
    assert_eq!(response.json["accepted"], 2);
    assert_eq!(response.json["errors"][0]["code"], "invalid_segment");
    let headers = [
        ("content-type", "application/json"),
        ("ce-specversion", "1.0"),
        ("ce-subject", "u%20%C3%A4"),
        ("ce-time", NOON_TEXT),
    ];
    let response = app.post_with(&headers, "{\"segment\": \"sports\"}").await;
    assert_eq!(response.json["accepted"], 1, "{response:?}");
    assert_eq!(app.users("sports").await, 3);
    assert_eq!(
        app.get("/v1/users/u%20%C3%A4").await.json["segments"][0]["segment"],
        "sports"
    );
    let lines = app.post(kind, format!("{event}\n{event}")).await;
    assert_eq!(lines.problem(), (400, "malformed"));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_gets_a_name_counts_once() {
    let (app, store) = App::start_switchable(&[]).await;
    let send = async |target: &str, body: Value| {
        let headers = [("content-type", "application/json")];
        let body = body.to_string();
        app.send_body_with(reqwest::Method::POST, target, &headers, body)
            .await
            .status
    };
    let track = |user: &str, segment: &str| json!({"anonymousId": user, "properties": {"segment": segment}});
    assert_eq!(send("/v1/track", track("a1", "s")).await, 200);
    assert_eq!(send("/v1/track", track("a2", "s")).await, 200);
    let identify = json!({"userId": "u", "anonymousId": "a1"});
    assert_eq!(send("/v1/identify", identify.clone()).await, 200);
    let alias = json!({"batch": [
        {"type": "alias", "userId": "u", "previousId": "a2"},
        {"type": "track", "userId": "u", "properties": {"segment": "t"}},
        {"type": "alias", "userId": "", "previousId": "a3"},
    ]});
    assert_eq!(send("/v1/batch", alias).await, 200);
    assert_eq!(send("/v1/track", track("a2", "t")).await, 200);
    let posthog = json!({"batch": [
        {"event": "$identify", "distinct_id": "u", "properties": {"$anon_distinct_id": "a4"}},
    ]});
    assert_eq!(send("/batch/", posthog).await, 200);
    assert_eq!(send("/v1/track", track("a4", "t")).await, 200);
    let count = async |segment: &str| {
        let target = format!("/v1/segments/{segment}/count?fresh=true");
        app.get(&target).await.json["users"].as_u64().unwrap()
    };
    assert_eq!((count("s").await, count("t").await), (1, 1));
    // Repeated, it asks the store nothing, so it succeeds without one.
    store.set_unavailable(true);
    assert_eq!(send("/v1/identify", identify).await, 200);
    let new = json!({"userId": "u", "anonymousId": "a9"});
    assert_eq!(send("/v1/identify", new.clone()).await, 503);
    store.set_unavailable(false);
    assert_eq!(send("/v1/identify", new).await, 200);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_bound_to_segments_merges_nobody() {
    let mut bound = token("client", TOKEN, &[Scope::Write, Scope::Read]);
    bound.segments = Some(vec!["sp*".parse().unwrap()]);
    let (app, _folder) = app_with_token(bound).await;
    let message = json!({"anonymousId": "a", "properties": {"segment": "sports"}});
    assert_eq!(post_json(&app, "/v1/track", &message).await.status, 200);
    let identify = json!({"userId": "u", "anonymousId": "a", "properties": {"segment": "sports"}});
    assert_eq!(post_json(&app, "/v1/identify", &identify).await.status, 200);
    assert_eq!(
        users(&app, "sports").await,
        2,
        "the pair counts, and the merge does not"
    );
    app.stop().await;
}
