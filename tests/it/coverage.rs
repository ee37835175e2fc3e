//! Since when the counts are complete: what every answer says, through losses, statements, restarts and several instances.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::app::{App, NOON_TEXT, Response};
use crate::support::events::Listener;
use crate::support::postgres::Postgres;
use crate::support::program;
use crate::support::redis::Redis;
use crate::support::service::{Service, poll};
use crate::support::wait::until;

const DAY: u64 = 86_400;

async fn post(app: &App) -> Response {
    app.post("application/json", r#"{"user_id":"u1","segment":"s"}"#)
        .await
}

/// The two members of an answer.
fn covered(answer: &Value) -> (Option<&str>, bool) {
    let complete = answer["complete"].as_bool();
    (
        answer["covered_since"].as_str(),
        complete.unwrap_or_else(|| panic!("no `complete` in {answer}")),
    )
}

/// The members of the count of `s`, which is never the remembered one.
async fn count(app: &App) -> (Option<String>, bool) {
    let answer = app.get("/v1/segments/s/count?fresh=true").await;
    let (since, complete) = covered(&answer.json);
    (since.map(str::to_owned), complete)
}

async fn put(app: &App, since: &str) -> Response {
    app.send(Method::PUT, &format!("/v1/admin/coverage?since={since}"))
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_says_that_a_new_store_is_not_complete_until_a_window_has_passed() {
    let app = App::start().await;
    assert_eq!(post(&app).await.status, 200);
    let answers = [
        "/v1/segments/s/count",
        "/v1/segments/unknown/count",
        "/v1/segments",
        "/v1/segments?prefix=none",
        "/v1/segments/s/trend",
        "/v1/users/u1",
        "/v1/coverage",
    ];
    for answer in answers {
        let document = app.get(answer).await.json;
        assert_eq!(covered(&document), (Some(NOON_TEXT), false), "{answer}");
    }
    let sentence = "users who were last seen before 2026-11-21 12:00 UTC may be missing";
    for page in ["/", "/segments/s"] {
        assert!(app.get(page).await.text.contains(sentence), "{page}");
    }
    let since = "headcount_covered_since_timestamp_seconds";
    assert_eq!(app.metric(since).await, 1_795_262_400.0);
    assert_eq!(app.metric("headcount_counts_complete").await, 0.0);
    // The window of one hour is complete earlier.
    app.advance(3600 - 60);
    let hour = app.get("/v1/segments/s/count?window=1h").await.json;
    assert_eq!(covered(&hour), (Some(NOON_TEXT), true));
    assert_eq!(count(&app).await, (Some(NOON_TEXT.to_owned()), false));
    let document = app.get("/v1/coverage").await.json;
    assert_eq!(document["complete_from"], "2026-12-05T11:59:00Z");
    app.advance(14 * DAY - 3600 - 1);
    assert!(!count(&app).await.1, "a second before");
    app.advance(1);
    for answer in answers {
        let document = app.get(answer).await.json;
        assert_eq!(covered(&document), (Some(NOON_TEXT), true), "{answer}");
    }
    for page in ["/", "/segments/s"] {
        assert!(
            !app.get(page).await.text.contains("may be missing"),
            "{page}"
        );
    }
    assert_eq!(app.metric("headcount_counts_complete").await, 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_moves_it_back_and_not_for_points_of_before() {
    let app = App::start_with(&[("window", "1h")]).await;
    assert_eq!(post(&app).await.status, 200);
    app.headcount.refresh(None).await.unwrap();
    for (since, parameter) in [
        ("2026-11-22", "since"),
        ("yesterday", "since"),
        ("", "since"),
    ] {
        let refused = put(&app, since).await;
        assert_eq!(refused.problem(), (400, "invalid_parameter"), "{since}");
        assert_eq!(refused.json["parameter"], parameter);
    }
    let missing = app.send(Method::PUT, "/v1/admin/coverage").await;
    assert_eq!(missing.problem(), (400, "invalid_parameter"));
    assert_eq!(count(&app).await, (Some(NOON_TEXT.to_owned()), false));
    app.advance(60);
    let stated = put(&app, "2026-11-15").await;
    assert_eq!(stated.status, 200, "{stated:?}");
    assert_eq!(covered(&stated.json), (Some("2026-11-15T00:00:00Z"), true));
    assert_eq!(stated.json["stated_since"], "2026-11-15T00:00:00Z");
    assert_eq!(stated.json["stated_at"], "2026-11-21T12:01:00Z");
    assert_eq!(stated.json["began"], NOON_TEXT);
    assert_eq!(
        count(&app).await,
        (Some("2026-11-15T00:00:00Z".to_owned()), true)
    );
    // The point was recorded before, when the history was not loaded.
    let trend = app.get("/v1/segments/s/trend").await.json;
    assert_eq!(trend["points"].as_array().map(Vec::len), Some(1), "{trend}");
    assert_eq!(covered(&trend), (Some(NOON_TEXT), false));
    app.headcount.refresh(None).await.unwrap();
    let trend = app
        .get("/v1/segments/s/trend?from=2026-11-21T12:00:30Z")
        .await
        .json;
    assert_eq!(covered(&trend), (Some("2026-11-15T00:00:00Z"), true));
}

#[tokio::test(flavor = "multi_thread")]
async fn events_carry_it() {
    let app = App::start().await;
    let url = format!("http://{}/v1/events", app.addr);
    let mut listener = Listener::open(&url, None).await;
    assert_eq!(post(&app).await.status, 200);
    let event = listener.event().await.data;
    assert_eq!(covered(&event), (Some(NOON_TEXT), false), "{event}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pairs_that_nothing_takes_move_it_forward() {
    let given = [("spool_dir", "off"), ("window", "1h"), ("cache_ttl", "1s")];
    let (app, store) = App::start_switchable(&given).await;
    until("the coverage is known", async || {
        count(&app).await.0.is_some()
    })
    .await;
    app.advance(DAY);
    assert_eq!(count(&app).await, (Some(NOON_TEXT.to_owned()), true));
    store.set_unavailable(true);
    assert_eq!(post(&app).await.status, 503);
    let lost = (Some("2026-11-22T12:00:00Z".to_owned()), false);
    store.set_unavailable(false);
    assert_eq!(count(&app).await, lost);
    let document = app.get("/v1/coverage").await.json;
    assert_eq!(
        document["losses"],
        json!([{
            "from": "2026-11-22T12:00:00Z", "until": "2026-11-22T12:00:00Z", "noted": "2026-11-22T12:00:00Z",
            "pairs": 1, "reason": "unavailable"
        }])
    );
    let pairs = app
        .metric("headcount_lost_pairs_total{reason=\"unavailable\"}")
        .await;
    assert_eq!(pairs, 1.0);
    // The clients have sent them again: an operator states it.
    app.advance(60);
    assert_eq!(put(&app, "2026-11-21T12:00:00Z").await.status, 200);
    assert_eq!(count(&app).await, (Some(NOON_TEXT.to_owned()), true));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_unavailable_leaves_what_was_last_known() {
    let (app, store) = App::start_switchable(&[("cache_ttl", "1h")]).await;
    until("the coverage is known", async || {
        count(&app).await.0.is_some()
    })
    .await;
    assert_eq!(post(&app).await.status, 200);
    assert_eq!(app.users("s").await, 1);
    store.set_unavailable(true);
    let answer = app.get("/v1/segments/s/count").await.json;
    assert_eq!(covered(&answer), (Some(NOON_TEXT), false));
    let refused = put(&app, "2026-11-15").await;
    assert_eq!(refused.problem(), (503, "unavailable"));
    let answer = app.get("/v1/segments/s/count").await.json;
    assert_eq!(
        covered(&answer),
        (Some(NOON_TEXT), false),
        "nothing was stated"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_is_loaded_stated_and_kept_through_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let mut service = Service::start(folder.path(), &[]).await;
    let url = service.url();
    let load = |arguments: &[&str]| {
        let mut all = vec!["load", "--url", &url];
        all.extend(arguments);
        program::run(folder.path(), &[], &all)
    };
    let now = domain::Timestamp::now();
    let ago = |hours| {
        now.checked_sub(jiff::SignedDuration::from_hours(hours))
            .unwrap()
    };
    let (lately, long_ago) = (ago(24), ago(24 * 20));
    let since = long_ago.strftime("%Y-%m-%d").to_string();
    let line = |user: &str, at| format!("{}\n", json!({"user_id": user, "segment": "s", "at": at}));
    let write = |name: &str, text: String| std::fs::write(folder.path().join(name), text).unwrap();
    // Pairs that are too old for the window are missing from no count, also if there are more than a response lists.
    let old = line("u2", long_ago.to_string()).repeat(250);
    write("history", line("u1", lately.to_string()) + &old);
    write("broken", line("u3", lately.to_string()) + "{\n");
    let broken = load(&["broken", "--covers-since", &since]);
    assert_eq!(broken.code, Some(1), "{broken:?}");
    assert!(broken.err.contains("1 pairs were rejected"), "{broken:?}");
    assert!(!covered(&service.get("/v1/segments/s/count").await).1);
    let wrong = load(&["history", "--covers-since", "last week"]);
    assert_eq!(wrong.code, Some(2), "{wrong:?}");
    let loaded = load(&["history", "--covers-since", &since]);
    assert_eq!(loaded.code, Some(0), "{loaded:?}");
    let stated = format!("{since}T00:00:00Z");
    let answer = service.get("/v1/segments/s/count").await;
    assert_eq!(covered(&answer), (Some(stated.as_str()), true));
    service.kill();
    let service = Service::start(folder.path(), &[]).await;
    let answer = service.get("/v1/segments/s/count").await;
    assert_eq!(covered(&answer), (Some(stated.as_str()), true));
    let url = service.url();
    let shown = program::run(folder.path(), &[], &["coverage", "--url", &url]);
    assert_eq!(shown.code, Some(0), "{shown:?}");
    assert!(
        shown.out.contains(&stated) && shown.out.contains("are complete\n"),
        "{shown:?}"
    );
    let moved = program::run(
        folder.path(),
        &[],
        &["coverage", "--url", &url, "--since", &now.to_string()],
    );
    assert_eq!(moved.code, Some(0), "{moved:?}");
    let counted = program::run(folder.path(), &[], &["count", "s", "--url", &url]);
    assert!(counted.err.contains("warning: not complete"), "{counted:?}");
}

/// Two instances on one store know the same.
async fn check_instances(store: &[(&str, &str)]) {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let setup = program::run(first.path(), store, &["setup"]);
    assert_eq!(setup.code, Some(0), "{setup:?}");
    let one = Service::start(first.path(), store).await;
    let known = poll(async || {
        let answer = one.get("/v1/coverage").await;
        answer["covered_since"].as_str().map(str::to_owned)
    })
    .await;
    let other = Service::start(second.path(), store).await;
    let is_known = async |service: &Service, since: &str| {
        poll(async || {
            let answer = service.get("/v1/segments/s/count").await;
            (answer["covered_since"] == since).then_some(())
        })
        .await;
    };
    is_known(&other, &known).await;
    let url = one.url();
    let stated = program::run(
        first.path(),
        &[],
        &["coverage", "--url", &url, "--since", "2026-01-01"],
    );
    assert_eq!(stated.code, Some(0), "{stated:?}");
    for service in [&one, &other] {
        is_known(service, "2026-01-01T00:00:00Z").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_on_redis_know_the_same() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    check_instances(&[("store", "redis"), ("redis_url", &redis.url())]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_on_postgres_know_the_same() {
    let Some(postgres) = Postgres::start().await else {
        return;
    };
    check_instances(&[("store", "postgres"), ("postgres_url", &postgres.url())]).await;
}
