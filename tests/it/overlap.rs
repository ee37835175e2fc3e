//! The users that segments have in common, over HTTP.

use std::path::Path;
use std::time::Duration;

use domain::TimeFrame;
use http::auth::{self, Scope, Token};
use reqwest::Method;
use serde_json::{Value, json};
use stores::postgres::set_up;

use crate::support::app::App;
use crate::support::postgres::Postgres;
use crate::support::program::headcount;
use crate::support::redis::Redis;
use crate::support::service::{Service, poll};
use crate::support::tokens::{app_with_token, token};

async fn get(app: &App, target: &str) -> Value {
    let response = app.send(Method::GET, target).await;
    assert_eq!(response.status, 200, "{target}: {}", response.json);
    response.json
}

/// `a` has u1, u2, u3, `b` has u2, u3, u4, and `c` u3 and u5; u1 and u2 were there two hours before the others.
async fn filled() -> App {
    let app = App::start().await;
    app.record([("u1", "a"), ("u2", "a"), ("u2", "b")]).await;
    app.advance(7200);
    let later = [
        ("u3", "a"),
        ("u3", "b"),
        ("u4", "b"),
        ("u3", "c"),
        ("u5", "c"),
    ];
    app.record(later).await;
    app
}

#[tokio::test(flavor = "multi_thread")]
async fn each_pair_of_segments_is_counted() {
    let app = filled().await;
    for more in ["", "&fresh"] {
        let target = format!("/v1/overlap?segment=b&segment=a&segment=nobody&segment=c{more}");
        let mut all = get(&app, &target).await;
        assert_eq!(all["age_seconds"].take(), json!(0.0));
        assert_eq!(
            all,
            json!({
                "segments": ["b", "a", "nobody", "c"],
                "both": [[3, 2, 0, 1], [2, 3, 0, 1], [0, 0, 0, 0], [1, 1, 0, 2]],
                "everybody": 5, "window_seconds": 1_209_600, "as_of": "2026-11-21T14:00:00Z", "age_seconds": null,
                "source": "store", "stale": false, "unknown": ["nobody"],
                "covered_since": "2026-11-21T12:00:00Z", "complete": false
            })
        );
    }
    let hour = get(&app, "/v1/overlap?segment=a&segment=b&window=1h").await;
    assert_eq!(hour["both"], json!([[1, 1], [1, 2]]));
    assert_eq!(hour["everybody"], 3);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_best_pairs_of_all_are_listed() {
    let app = filled().await;
    let top = get(&app, "/v1/overlap/top").await;
    assert_eq!(
        top["pairs"],
        json!([
            {"a": "a", "b": "b", "both": 2, "users_a": 3, "users_b": 3, "jaccard": 0.5, "lift": 10.0 / 9.0},
            {"a": "a", "b": "c", "both": 1, "users_a": 3, "users_b": 2, "jaccard": 0.25, "lift": 5.0 / 6.0},
            {"a": "b", "b": "c", "both": 1, "users_a": 3, "users_b": 2, "jaccard": 0.25, "lift": 5.0 / 6.0},
        ])
    );
    assert_eq!(
        (&top["everybody"], &top["as_of"]),
        (&json!(5), &json!("2026-11-21T14:00:00Z"))
    );
    // From what was counted before: the answer says of when it is, also over another window.
    app.advance(5);
    app.record([("u5", "a")]).await;
    let kept = get(&app, "/v1/overlap/top?window=1h&by=lift&limit=1").await;
    assert_eq!(
        kept["pairs"],
        json!([{"a": "a", "b": "b", "both": 1, "users_a": 1, "users_b": 2, "jaccard": 0.5, "lift": 1.5}])
    );
    assert_eq!(
        (&kept["as_of"], &kept["age_seconds"]),
        (&json!("2026-11-21T14:00:00Z"), &json!(5.0))
    );
    let matrix = get(&app, "/v1/overlap?segment=a&segment=c").await;
    assert_eq!(
        (&matrix["both"], &matrix["age_seconds"]),
        (&json!([[3, 1], [1, 2]]), &json!(5.0))
    );
    let fresh = get(&app, "/v1/overlap/top?window=1h&by=jaccard&fresh").await;
    assert_eq!(
        fresh["pairs"][0],
        json!({"a": "a", "b": "c", "both": 2, "users_a": 2, "users_b": 2, "jaccard": 1.0, "lift": 1.5})
    );
    assert_eq!(fresh["age_seconds"], 0.0);
    // A window that is no multiple of a step.
    let minutes = get(&app, "/v1/overlap/top?window=90m&at_least=2").await;
    assert_eq!(minutes["pairs"].as_array().unwrap().len(), 1);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_that_mean_nothing_are_refused() {
    let app = filled().await;
    let many: String = (0..101).map(|n| format!("&segment=s{n}")).collect();
    for (target, parameter) in [
        ("/v1/overlap", "segment"),
        ("/v1/overlap?segment=a", "segment"),
        ("/v1/overlap?segment=a&segment=b&segment=a", "segment"),
        (&format!("/v1/overlap?{}", &many[1..]), "segment"),
        ("/v1/overlap?segment=a&segment=b&min_users=-1", "min_users"),
        ("/v1/overlap/top?by=size", "by"),
        ("/v1/overlap/top?limit=0", "limit"),
        ("/v1/overlap/top?at_least=x", "at_least"),
    ] {
        let refused = app.send(Method::GET, target).await;
        assert_eq!(refused.status, 400, "{target}");
        assert_eq!(refused.json["parameter"], parameter, "{}", refused.json);
    }
    let name = app
        .send(Method::GET, "/v1/overlap?segment=a&segment=%20b")
        .await;
    assert_eq!(name.json["code"], "invalid_segment");
    app.stop().await;
    let (app, _) = App::start_switchable(&[]).await;
    for target in ["/v1/overlap?segment=a&segment=b", "/v1/overlap/top"] {
        let refused = app.send(Method::GET, target).await;
        assert_eq!(
            (refused.status, &refused.json["code"]),
            (501, &json!("unsupported"))
        );
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bound_token_compares_its_own_segments() {
    let bound = Token {
        segments: Some(vec!["a".into(), "b".into()]),
        ..token("bound", "secret", &[Scope::Read])
    };
    let (app, _folder) = app_with_token(bound).await;
    app.record([
        ("u1", "a"),
        ("u1", "b"),
        ("u1", "c"),
        ("u2", "c"),
        ("u2", "b"),
    ])
    .await;
    let get = async |target| {
        let header = [("authorization", "Bearer secret")];
        app.send_with(Method::GET, target, &header).await
    };
    let own = get("/v1/overlap?segment=a&segment=b").await;
    assert_eq!(
        (&own.json["both"], &own.json["everybody"]),
        (&json!([[1, 1], [1, 2]]), &Value::Null)
    );
    let other = get("/v1/overlap?segment=a&segment=c").await;
    assert_eq!(
        (other.status, &other.json["code"]),
        (403, &json!("forbidden_segment"))
    );
    // The best pair of all is not among its own.
    let top = get("/v1/overlap/top?limit=1").await;
    assert_eq!(
        (&top.json["pairs"], &top.json["everybody"]),
        (
            &json!([{"a": "a", "b": "b", "both": 1, "users_a": 1, "users_b": 2, "jaccard": 0.5, "lift": null}]),
            &Value::Null
        )
    );
    app.stop().await;
}

fn run(command: &str, directory: &Path, settings: &[(&str, &str)]) -> Service {
    let arguments = [command, "--listen", "127.0.0.1:0"];
    Service::run(directory, &mut headcount(directory, settings, &arguments))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bound_token_finds_its_pairs_far_below_the_highest_of_a_live_process() {
    let (Some(server), Some(redis)) = (Postgres::start().await, Redis::start().await) else {
        return;
    };
    let [window, second] = [3_600, 1].map(Duration::from_secs);
    let frame = TimeFrame::new(window, second, second).unwrap();
    set_up(&server.options("headcount", frame)).await.unwrap();
    let (url, redis_url) = (server.url(), redis.url());
    let settings = [
        ("store", "postgres"),
        ("postgres_url", &*url),
        ("cache", "redis"),
        ("redis_url", &*redis_url),
        ("live", "redis"),
        ("window", "1h"),
        ("resolution", "1s"),
    ];
    let folders = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let tokens = folders[0].path().join("tokens.toml");
    let own = Token {
        segments: Some(vec!["own *".into()]),
        ..token("bound", "secret", &[Scope::Read])
    };
    auth::edit(&tokens, |tokens| tokens.add(own)).unwrap();
    let bound = [&settings[..], &[("tokens_file", tokens.to_str().unwrap())]].concat();
    let bound = run("serve", folders[0].path(), &bound);
    let service = run("serve", folders[1].path(), &settings);
    let _live_process = run("live", folders[2].path(), &settings);
    // More than a thousand pairs have more users than the one of the token.
    let users = ["u1", "u2", "u3"].map(str::to_owned);
    for number in 0..47 {
        assert_eq!(service.post(&users, &format!("s{number}")).await, 200);
    }
    for segment in ["own 1", "own 2"] {
        assert_eq!(service.post(&users[..2], segment).await, 200);
    }
    let client = reqwest::Client::new();
    let pair = poll(async || {
        let url = format!("{}/v1/overlap/top?limit=1&fresh", bound.url());
        let response = client.get(url).bearer_auth("secret").send().await.ok()?;
        let top: Value = response.json().await.ok()?;
        top["pairs"].get(0).cloned()
    });
    assert_eq!(
        pair.await,
        json!({"a": "own 1", "b": "own 2", "both": 2, "users_a": 2, "users_b": 2, "jaccard": 1.0, "lift": null})
    );
}
