//! Counts of sets of segments, over HTTP: values, names that were never seen, and mistakes with their position.

use reqwest::{Method, Url};
use serde_json::{Value, json};

use crate::support::app::{App, Response};

async fn get(app: &App, expr: &str, more: &str) -> Response {
    let url = Url::parse_with_params("http://service/v1/count", [("expr", expr)]).unwrap();
    let target = format!("/v1/count?{}{more}", url.query().unwrap());
    app.send(Method::GET, &target).await
}

#[tokio::test(flavor = "multi_thread")]
async fn sets_are_counted_over_any_window() {
    let app = App::start().await;
    app.record([
        ("u1", "news"),
        ("u2", "news"),
        ("u2", "front page"),
        ("u3", "cars"),
    ])
    .await;
    app.advance(7200);
    app.record([
        ("u2", "news"),
        ("u3", "sports"),
        ("u4", "front page"),
        ("u4", "sports"),
    ])
    .await;
    for (expr, canonical, users, last_hour) in [
        ("news", "news", 2, 1),
        ("*", "*", 4, 3),
        ("news AND \"front page\"", "news AND \"front page\"", 1, 0),
        (
            "(news OR cars) NOT sports",
            "(news OR cars) AND NOT sports",
            2,
            1,
        ),
        ("NOT news", "NOT news", 2, 2),
        ("sports AND cars OR news", "sports AND cars OR news", 3, 1),
    ] {
        for (more, users) in [("", users), ("&fresh", users), ("&window=1h", last_hour)] {
            let response = get(&app, expr, more).await;
            assert_eq!(response.status, 200, "{expr}: {}", response.json);
            let mut document = response.json;
            let window = if more == "&window=1h" {
                3600
            } else {
                1_209_600
            };
            assert_eq!(document["age_seconds"].take(), json!(0.0));
            assert_eq!(
                document,
                json!({
                    "expr": canonical, "users": users, "withheld": false, "window_seconds": window, "as_of": "2026-11-21T14:00:00Z",
                    "age_seconds": null, "source": "store", "stale": false, "unknown": [],
                    "covered_since": "2026-11-21T12:00:00Z", "complete": window == 3_600
                })
            );
        }
    }
    assert_eq!(
        app.headcount.estimate_set("news OR sports").await.unwrap(),
        4
    );
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_was_never_seen_is_an_empty_segment() {
    let app = App::start().await;
    app.record([("u1", "news")]).await;
    let document = get(&app, "news OR newz OR (newz AND \"x y\")", "")
        .await
        .json;
    assert_eq!(document["users"], 1);
    assert_eq!(document["unknown"], json!(["newz", "x y"]));
    let document = get(&app, "newz", "").await.json;
    assert_eq!(
        (&document["users"], &document["unknown"]),
        (&json!(0), &json!(["newz"]))
    );
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mistakes_have_a_position() {
    let app = App::start().await;
    let deep = format!("{}a{}", "(".repeat(1000), ")".repeat(1000));
    let long = "a".repeat(10_000);
    let many = vec!["a"; 65].join(" OR ");
    for (expr, position, word) in [
        ("", 1, "empty"),
        ("news AND", 6, "nothing on its right"),
        ("OR news", 1, "nothing on its left"),
        ("NOT", 1, "nothing on its right"),
        ("(news OR) AND sports", 7, "nothing on its right"),
        ("news AND OR sports", 10, "follows AND"),
        ("a NOT", 3, "nothing on its right"),
        ("news sports", 6, "no operator between"),
        ("é and b", 3, "in capitals"),
        ("(news", 1, "never closed"),
        ("news)", 5, "no parenthesis is open"),
        ("\"news", 1, "never closed"),
        (&deep, 33, "parentheses"),
        (&long, 4097, "4096"),
        (&many, 321, "64"),
    ] {
        let response = get(&app, expr, "").await;
        let problem = response.json;
        assert_eq!(response.status, 400, "{problem}");
        assert_eq!(problem["code"], "invalid_expression", "{problem}");
        assert_eq!(problem["position"], position, "{problem}");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(word), "{detail}");
    }
    let missing = app.send(Method::GET, "/v1/count").await;
    assert_eq!(
        (missing.status, &missing.json["parameter"]),
        (400, &json!("expr"))
    );
    let twice = app.send(Method::GET, "/v1/count?expr=a&expr=b").await;
    assert_eq!(twice.json["detail"], "expr: is given twice");
    let window = get(&app, "a", "&window=15d").await;
    assert_eq!(window.json["code"], "invalid_window");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_without_users_in_memory_says_what_would_have_them() {
    let (app, _) = App::start_switchable(&[]).await;
    app.record([("u1", "news")]).await;
    let refused = get(&app, "news AND sports", "").await;
    let problem: Value = refused.json;
    assert_eq!(
        (refused.status, &problem["code"]),
        (501, &json!("unsupported"))
    );
    assert!(
        problem["detail"].as_str().unwrap().contains("live counts"),
        "{problem}"
    );
    // Every store counts a single segment.
    let single = get(&app, "news", "").await.json;
    assert_eq!(
        (&single["users"], &single["unknown"]),
        (&json!(1), &json!([]))
    );
    app.stop().await;
}
