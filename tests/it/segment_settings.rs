//! The settings of segments over HTTP: a window of its own in every count, list, trend and event, a description and a group.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use stores::influx::set_up;

use crate::support::app::{App, NOON_TEXT, Response};
use crate::support::events::Listener;
use crate::support::influxd::{Influxd, settings_at};
use crate::support::service::{Service, poll};
use crate::support::two_weeks;

const JSON: &str = "application/json";

async fn put(app: &App, segment: &str, settings: Value) -> Response {
    let path = format!("/v1/segments/{segment}");
    app.send_body(Method::PUT, &path, JSON, settings.to_string())
        .await
}

/// One user now, one 90 minutes ago, one two days ago.
async fn record(app: &App, segment: &str) {
    let at = |hours: f64| {
        let noon: domain::Timestamp = NOON_TEXT.parse().unwrap();
        noon - Duration::from_secs_f64(hours * 3_600.0)
    };
    let pairs: Vec<_> = [0.0, 1.5, 48.0]
        .iter()
        .enumerate()
        .map(|(n, hours)| json!({"user_id": n, "segment": segment, "at": at(*hours).to_string()}))
        .collect();
    let response = app.post(JSON, json!(pairs).to_string()).await;
    assert_eq!(response.status, 200, "{response:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_segment_is_counted_over_its_own_window_everywhere() {
    let app = App::start_with(&[("window", "14d")]).await;
    for segment in ["short", "plain"] {
        record(&app, segment).await;
    }
    assert_eq!(app.users("short").await, 3);
    let settings = json!({"window": "2h", "description": "Seen just now", "group": "live"});
    let response = put(&app, "short", settings).await;
    let expected = json!({
        "segment": "short", "window": "2h", "window_seconds": 7_200,
        "description": "Seen just now", "group": "live"
    });
    assert_eq!((response.status, &response.json), (200, &expected));
    assert_eq!(app.get("/v1/segments/short").await.json, expected);

    let count = app.get("/v1/segments/short/count").await.json;
    assert_eq!(
        (&count["users"], &count["window_seconds"]),
        (&2.into(), &7_200.into())
    );
    let fresh = app.get("/v1/segments/short/count?fresh=true").await.json;
    assert_eq!(fresh["users"], 2);
    let asked = app.get("/v1/segments/short/count?window=14d").await.json;
    assert_eq!(asked["users"], 3, "an explicit window wins");
    assert_eq!(app.users("plain").await, 3);

    let list = app.get("/v1/segments").await.json;
    let rows = list["segments"].as_array().unwrap();
    let row = |index: usize| {
        let row: &Value = &rows[index];
        (
            row["segment"].clone(),
            row["users"].clone(),
            row["window_seconds"].clone(),
        )
    };
    assert_eq!(row(0), (json!("plain"), json!(3), json!(1_209_600)));
    assert_eq!(row(1), (json!("short"), json!(2), json!(7_200)));
    assert_eq!(
        (&rows[1]["description"], &rows[1]["group"]),
        (&expected["description"], &expected["group"])
    );
    assert_eq!(rows[0].get("description"), None);
    let list = app.get("/v1/segments?window=14d").await.json;
    assert_eq!(list["segments"][1]["users"], 3);

    let refreshed = app.send(Method::POST, "/v1/admin/refresh").await;
    assert_eq!(refreshed.json["failed"], 0, "{refreshed:?}");
    let trend = app.get("/v1/segments/short/trend").await.json;
    assert_eq!(trend["window_seconds"], 7_200);
    assert_eq!(trend["points"][0]["users"], 2);
    let page = app.get("/segments/short").await.text;
    assert!(
        page.contains("2 hours"),
        "the page shows the window: {page}"
    );
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_count_over_the_own_window() {
    let app = App::start_with(&[("window", "14d")]).await;
    record(&app, "short").await;
    put(&app, "short", json!({"window": "2h"})).await;
    let url = format!("http://{}/v1/events", app.addr);
    let mut listener = Listener::open(&url, None).await;
    app.headcount.record([("new", "short")]).await.unwrap();
    let data = listener.event().await.data;
    assert_eq!((&data["users"], data.get("entered")), (&json!(3), None));
    // The one of 90 minutes ago leaves the window of the segment, and not the configured one.
    app.advance(3_600);
    let data = listener.event().await.data;
    assert_eq!(
        (&data["users"], &data["complete"]),
        (&json!(2), &json!(false))
    );
    // The store has every pair of the segment's window now, and not of the configured one.
    app.advance(7_200);
    let data = listener.event().await.data;
    assert_eq!(
        (&data["users"], &data["complete"]),
        (&json!(0), &json!(true))
    );
    let complete = async |target: &str| app.get(target).await.json["complete"].clone();
    let listed = [
        complete("/v1/segments?segment=short").await,
        complete("/v1/segments?segment=short&window=14d").await,
    ];
    assert_eq!(listed, [json!(true), json!(false)]);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_counts_in_rounds_counts_the_own_window_too() {
    let (app, store) = App::start_switchable(&[("window", "14d")]).await;
    record(&app, "short").await;
    record(&app, "plain").await;
    assert_eq!(
        put(&app, "short", json!({"window": "2h"})).await.status,
        200
    );
    assert_eq!(app.users("short").await, 2);
    let refreshed = app.send(Method::POST, "/v1/admin/refresh").await;
    assert_eq!(refreshed.json["failed"], 0, "{refreshed:?}");
    // What a refresh has counted is in the cache, and needs the store no more.
    store.set_unavailable(true);
    let count = app.get("/v1/segments/short/count").await.json;
    assert_eq!(
        (&count["users"], &count["stale"]),
        (&2.into(), &false.into())
    );
    let list = app.get("/v1/segments").await.json;
    let users: Vec<_> = list["segments"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["users"].as_u64())
        .collect();
    assert_eq!(users, [Some(3), Some(2)]);

    let failed = put(&app, "short", json!({"window": "1h"})).await;
    assert_eq!(failed.problem(), (503, "unavailable"));
    assert_eq!(
        app.get("/v1/segments/short").await.json["window"],
        "2h",
        "nothing changed"
    );
    store.set_unavailable(false);
    let trend = app.get("/v1/segments/short/trend").await.json;
    assert_eq!(trend["points"][0]["users"], 2);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_are_replaced_and_removed_and_survive_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().to_str().unwrap().to_owned();
    let settings: [(&str, &str); 2] = [("data_dir", &data), ("window", "14d")];
    let app = App::start_with(&settings).await;
    let whole = json!({"window": "3d", "description": "d", "group": "g"});
    assert_eq!(put(&app, "a%2Fb", whole).await.status, 200);
    let replaced = put(&app, "a%2Fb", json!({"group": "other"})).await.json;
    assert_eq!(replaced["window"], Value::Null);
    assert_eq!(replaced["window_seconds"], 1_209_600);
    assert_eq!(
        (&replaced["description"], &replaced["group"]),
        (&Value::Null, &"other".into())
    );
    assert_eq!(
        put(&app, "-?segment=..", json!({"window": "60s"}))
            .await
            .status,
        200
    );
    app.stop().await;
    let app = App::start_with(&settings).await;
    assert_eq!(app.get("/v1/segments/a%2Fb").await.json, replaced);
    let dots = app.get("/v1/segments/-?segment=..").await.json;
    assert_eq!(
        (&dots["segment"], &dots["window"]),
        (&"..".into(), &"1m".into())
    );
    assert_eq!(put(&app, "a%2Fb", json!({})).await.status, 200);
    let none = app.get("/v1/segments/a%2Fb").await.json;
    assert_eq!(none["group"], Value::Null);
    app.stop().await;
    // A window that the configured one no longer allows does not apply.
    let app = App::start_with(&[settings[0], ("window", "1h")]).await;
    let long = app.get("/v1/segments/long").await.json;
    assert_eq!(
        (&long["window"], &long["window_seconds"]),
        (&Value::Null, &3_600.into())
    );
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_can_not_be_are_refused() {
    let app = App::start_with(&[("window", "14d"), ("max_segments", "2")]).await;
    let long = "d".repeat(1_001);
    for (settings, problem) in [
        (json!({"window": "15d"}), (400, "invalid_window")),
        (json!({"window": "90s"}), (400, "invalid_window")),
        (json!({"window": "soon"}), (400, "invalid_window")),
        (json!({"window": 7}), (400, "malformed")),
        (json!({"windows": "7d"}), (400, "malformed")),
        (json!([]), (400, "malformed")),
        (json!({"description": long}), (400, "invalid_settings")),
        (json!({"description": "a\nb"}), (400, "invalid_settings")),
        (json!({"group": " shop"}), (400, "invalid_settings")),
    ] {
        let response = put(&app, "s", settings.clone()).await;
        assert_eq!(response.problem(), problem, "{settings}");
    }
    let path = "/v1/segments/s";
    for (kind, body, problem) in [
        (JSON, String::new(), (400, "malformed")),
        (
            JSON,
            "{\"window\": \"7d\", \"window\": \"8d\"}".to_owned(),
            (400, "malformed"),
        ),
        (
            "text/plain",
            "{}".to_owned(),
            (415, "unsupported_media_type"),
        ),
        (
            "application/x-ndjson",
            "{}".to_owned(),
            (415, "unsupported_media_type"),
        ),
        (JSON, " ".repeat(20_000), (413, "too_large")),
    ] {
        let response = app.send_body(Method::PUT, path, kind, body).await;
        assert_eq!(response.problem(), problem, "{kind}");
    }
    assert_eq!(
        put(&app, "%20", json!({})).await.problem(),
        (400, "invalid_segment")
    );
    for name in ["a", "b", "a"] {
        assert_eq!(put(&app, name, json!({"group": "g"})).await.status, 200);
    }
    let full = put(&app, "c", json!({"group": "g"})).await;
    assert_eq!(full.problem(), (409, "too_many_segments"));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_instance_on_a_store_follows_the_settings() {
    let Some(server) = Influxd::start().await else {
        return;
    };
    let options = server.options("b", two_weeks());
    set_up(&options, false).await.unwrap();
    let url = server.url();
    let directories = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [one, two] = [&directories[0], &directories[1]]
        .map(|directory| Service::launch(directory.path(), &settings_at(&url, &[]), &[]));
    let client = reqwest::Client::new();
    let set = async |window: &str| {
        let put = client.put(format!("{}/v1/segments/s", one.url()));
        let response = put.json(&json!({"window": window})).send().await.unwrap();
        assert_eq!(response.status(), 200);
        // At once here, and within ten seconds there.
        assert_eq!(one.get("/v1/segments/s").await["window"], window);
        poll(async || {
            let count = two.get("/v1/segments/s/count").await;
            let set: Duration = humantime(window);
            (count["window_seconds"] == set.as_secs()).then_some(())
        })
        .await;
    };
    set("1h").await;
    set("2h").await;
    let deleted = client.delete(format!("{}/v1/segments/s", one.url()));
    assert_eq!(deleted.send().await.unwrap().status(), 200);
    poll(async || (two.get("/v1/segments/s").await["window"] == Value::Null).then_some(())).await;
}

fn humantime(text: &str) -> Duration {
    let hours: u64 = text.strip_suffix('h').unwrap().parse().unwrap();
    Duration::from_hours(hours)
}
