//! A user who was known by another id before: both count once from the merge on, over every store, also for pairs that were on
//! their way, after a restart, and with live counts.

use std::path::Path;

use domain::Timestamp;
use reqwest::Method;
use serde_json::{Value, json};
use stores::influx::set_up;

use crate::support::app::App;
use crate::support::influxd::{Influxd, settings_at};
use crate::support::postgres::Postgres;
use crate::support::proxy::Proxy;
use crate::support::redis::Redis;
use crate::support::service::{Service, poll};
use crate::support::two_weeks;

const JSON: &str = "application/json";

/// A name that does not occur on a disk by chance.
const NAME: &str = "merged-3f9c1e";

/// Posts pairs of a user and a segment, seen this many minutes ago.
async fn post(service: &Service, pairs: &[(&str, &str, i64)]) {
    let now = Timestamp::now().as_second();
    let pair = |(user, segment, minutes): &(&str, &str, i64)| json!({"user_id": user, "segment": segment, "at": now - minutes * 60});
    let body: Vec<Value> = pairs.iter().map(pair).collect();
    service.post_body(json!(body).to_string()).await;
}

async fn try_merge(service: &Service, from: &str, into: &str) -> (u16, Value) {
    let url = format!("{}/v1/users/{from}/merge", service.url());
    let request = reqwest::Client::new()
        .post(url)
        .json(&json!({"into": into}));
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    (status, response.json().await.unwrap())
}

async fn merge(service: &Service, from: &str, into: &str) -> u64 {
    let (status, merged) = try_merge(service, from, into).await;
    assert_eq!(status, 200, "{merged}");
    merged["merged"].as_u64().unwrap()
}

async fn erase(service: &Service, user: &str) -> u64 {
    let url = format!("{}/v1/users/{user}", service.url());
    let response = reqwest::Client::new().delete(url).send().await.unwrap();
    let receipt: Value = response.json().await.unwrap();
    receipt["erased"].as_u64().unwrap()
}

/// The segments of a user, and how many minutes ago the user was seen there, by the start of the slot.
async fn seen(service: &Service, user: &str) -> Vec<(String, i64)> {
    let now = Timestamp::now().as_second();
    let document = service.get(&format!("/v1/users/{user}")).await;
    let segments = document["segments"].as_array().unwrap();
    let seen = |it: &Value| {
        let at: Timestamp = it["last_seen"].as_str().unwrap().parse().unwrap();
        let name = it["segment"].as_str().unwrap().to_owned();
        (name, (now - at.as_second()) / 60)
    };
    segments.iter().map(seen).collect()
}

/// Waits until a user is in this number of segments, and returns them: with live counts, they are a moment behind.
async fn in_segments(service: &Service, user: &str, segments: usize) -> Vec<(String, i64)> {
    let mut found = Vec::new();
    for _ in 0..500 {
        found = seen(service, user).await;
        if found.len() == segments {
            return found;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("{user} is not in {segments} segments, but in {found:?}");
}

/// Waits until the count of each segment is `users`: with live counts, it is a moment behind.
async fn counts(service: &Service, expected: &[(&str, u64)], is_live: bool) {
    for (segment, users) in expected {
        let path = match is_live {
            true => format!("/v1/segments/{segment}/count"),
            false => format!("/v1/segments/{segment}/count?fresh=true"),
        };
        let mut last = Value::Null;
        let mut left = 500;
        loop {
            last.clone_from(&service.get(&path).await);
            let is_right = last["users"] == *users && (!is_live || last["source"] == "live");
            if is_right {
                break;
            }
            left -= 1;
            assert!(is_live && left > 0, "{segment}: {last}, not {users}");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }
}

/// Everything that a merge promises, one after another. It takes a few seconds, so ages in minutes are exact or one more.
pub async fn merges(service: &Service, is_live: bool) {
    post(
        service,
        &[
            ("anon", "into_later", 50),
            ("u", "into_later", 20),
            ("anon", "from_later", 20),
            ("u", "from_later", 50),
            ("anon", "only_from", 40),
            ("u", "only_into", 40),
            ("other", "into_later", 10),
            ("other", "from_later", 10),
            ("other", "only_from", 10),
            ("other", "only_into", 10),
        ],
    )
    .await;
    counts(service, &[("into_later", 3), ("only_from", 2)], is_live).await;
    assert_eq!(merge(service, "anon", "u").await, 3);
    let all = [
        ("into_later", 2),
        ("from_later", 2),
        ("only_from", 2),
        ("only_into", 2),
    ];
    counts(service, &all, is_live).await;
    let expected = [
        ("from_later", 20),
        ("into_later", 20),
        ("only_from", 40),
        ("only_into", 40),
    ];
    let found = in_segments(service, "u", expected.len()).await;
    for ((name, minutes), (right, ago)) in found.iter().zip(expected) {
        let is_right = name == right && (ago..=ago + 1).contains(minutes);
        assert!(is_right, "{found:?}");
    }
    in_segments(service, "anon", 0).await;
    assert_eq!(merge(service, "anon", "u").await, 0, "repeated");
    assert_eq!(merge(service, "nobody", "u").await, 0, "unknown");
    counts(service, &all, is_live).await;

    // From then on.
    post(service, &[("anon", "late", 1), ("u", "late", 2)]).await;
    counts(service, &[("late", 1)], is_live).await;
    in_segments(service, "u", 5).await;

    // A chain, and a user who is the first one again.
    assert_eq!(merge(service, "u", "w").await, 5);
    post(service, &[("anon", "chain", 0), ("u", "chain", 0)]).await;
    in_segments(service, "w", 6).await;
    counts(service, &[("chain", 1), ("late", 1)], is_live).await;
    assert_eq!(merge(service, "w", "anon").await, 6);
    for (user, segments) in [("anon", 6), ("u", 0), ("w", 0)] {
        in_segments(service, user, segments).await;
    }
    post(
        service,
        &[("u", "cycle", 0), ("w", "cycle", 0), ("anon", "cycle", 0)],
    )
    .await;
    counts(service, &[("cycle", 1)], is_live).await;
    counts(service, &all, is_live).await;

    // Erased for good, also under the other ids.
    assert_eq!(erase(service, "anon").await, 7);
    for (segment, _) in all {
        counts(service, &[(segment, 1)], is_live).await;
    }
    counts(service, &[("late", 0), ("chain", 0), ("cycle", 0)], is_live).await;
    assert_eq!(merge(service, "w", "anon").await, 0);

    for (from, into, status, code) in [
        ("u", "u", 400, "same_user"),
        ("u", "", 400, "invalid_user_id"),
        ("%00", "u", 400, "invalid_user_id"),
    ] {
        let (answered, problem) = try_merge(service, from, into).await;
        assert_eq!((answered, &problem["code"]), (status, &json!(code)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn users_are_merged_in_the_embedded_store() {
    let directory = tempfile::tempdir().unwrap();
    let service = Service::start(directory.path(), &[]).await;
    merges(&service, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn users_are_merged_in_influxdb_also_with_live_counts() {
    let Some(server) = Influxd::start().await else {
        return;
    };
    set_up(&server.options("b", two_weeks()), false)
        .await
        .unwrap();
    let url = server.url();
    let directory = tempfile::tempdir().unwrap();
    merges(
        &Service::start(directory.path(), &settings_at(&url, &[])).await,
        false,
    )
    .await;
    let Some(server) = Influxd::start().await else {
        return;
    };
    set_up(&server.options("b", two_weeks()), false)
        .await
        .unwrap();
    let url = server.url();
    let directory = tempfile::tempdir().unwrap();
    let live = settings_at(&url, &[("live", "here")]);
    let service = Service::start(directory.path(), &live).await;
    merges(&service, true).await;
    agrees_with_the_store(&service).await;
}

/// A comparison of live counts with the store's own finds no difference.
async fn agrees_with_the_store(service: &Service) {
    let url = format!("{}/v1/admin/refresh", service.url());
    let compared = reqwest::Client::new().post(url).send().await.unwrap();
    let compared: Value = compared.json().await.unwrap();
    assert_eq!(compared["differences"], 0, "{compared}");
}

#[tokio::test(flavor = "multi_thread")]
async fn users_are_merged_in_postgres_also_with_live_counts() {
    let Some(server) = Postgres::start().await else {
        return;
    };
    stores::postgres::set_up(&server.options("headcount", two_weeks()))
        .await
        .unwrap();
    let url = server.url();
    for live in ["off", "here"] {
        let directory = tempfile::tempdir().unwrap();
        let settings = [
            ("store", "postgres"),
            ("postgres_url", url.as_str()),
            ("live", live),
        ];
        let service = Service::start(directory.path(), &settings).await;
        merges(&service, live == "here").await;
        if live == "here" {
            agrees_with_the_store(&service).await;
        }
        for user in ["other", "u"] {
            erase(&service, user).await;
        }
        let client = server.client().await;
        client.execute("delete from erasures", &[]).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn users_are_merged_in_redis() {
    let Some(server) = Redis::start().await else {
        return;
    };
    let url = server.url();
    let directory = tempfile::tempdir().unwrap();
    let settings = [("store", "redis"), ("redis_url", url.as_str())];
    merges(&Service::start(directory.path(), &settings).await, false).await;
}

/// Whether any file below `directory` contains this string.
fn is_on_disk(directory: &Path, text: &str) -> bool {
    std::fs::read_dir(directory).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() {
            return is_on_disk(&path, text);
        }
        let bytes = std::fs::read(path).unwrap_or_default();
        bytes.windows(text.len()).any(|it| it == text.as_bytes())
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_merge_survives_a_crash_and_leaves_no_name_on_the_disk() {
    let directory = tempfile::tempdir().unwrap();
    let into = format!("into-{NAME}");
    let mut service = Service::start(directory.path(), &[]).await;
    post(&service, &[(NAME, "s", 1), (&into, "s", 2), (NAME, "t", 2)]).await;
    assert_eq!(merge(&service, NAME, &into).await, 2);
    for round in 0..2 {
        service.kill();
        service = Service::start(directory.path(), &[]).await;
        counts(&service, &[("s", 1), ("t", 1)], false).await;
        let segment = format!("again{round}");
        post(&service, &[(NAME, &segment, 0), (&into, &segment, 0)]).await;
        counts(&service, &[(&segment, 1)], false).await;
    }
    in_segments(&service, NAME, 0).await;
    assert!(!is_on_disk(&directory.path().join("headcount-data"), NAME));
}

fn names(users: &[&str]) -> Vec<String> {
    users.iter().map(|user| (*user).to_owned()).collect()
}

/// Two services over one InfluxDB, the second of which can be cut off.
#[tokio::test(flavor = "multi_thread")]
async fn pairs_in_a_spool_count_for_the_user_of_today_unless_that_one_was_erased() {
    let Some(server) = Influxd::start().await else {
        return;
    };
    set_up(&server.options("b", two_weeks()), false)
        .await
        .unwrap();
    let far = Proxy::to(server.port()).await;
    let directories = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let urls = [server.url(), format!("http://{}", far.address())];
    let settings = urls
        .each_ref()
        .map(|url| settings_at(url, &[("write_deadline", "1m")]));
    let one = Service::start(directories[0].path(), &settings[0]).await;
    let two = Service::start(directories[1].path(), &settings[1]).await;
    assert_eq!(one.post(&names(&["u", "a", "gone"]), "stored").await, 200);
    far.cut();
    assert_eq!(two.post(&names(&["a", "u", "x"]), "s").await, 202);
    assert_eq!(two.post(&names(&["b", "y"]), "t").await, 202);
    assert_eq!(merge(&one, "a", "u").await, 1);
    assert_eq!(merge(&one, "b", "gone").await, 0);
    assert_eq!(erase(&one, "gone").await, 1);
    far.restore();
    two.wait_until_drained().await;
    counts(&one, &[("stored", 1), ("s", 2), ("t", 1)], false).await;
    in_segments(&one, "a", 0).await;
    in_segments(&one, "u", 2).await;
    for user in ["b", "gone"] {
        assert_eq!(seen(&one, user).await, [], "{user} does not come back");
    }
    // The other instance knows the note by now.
    assert_eq!(two.post(&names(&["a"]), "new").await, 200);
    in_segments(&one, "u", 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_merge_that_the_store_can_not_do_now_is_refused_and_can_be_repeated() {
    let (app, store) = App::start_switchable(&[]).await;
    app.record([("a", "s"), ("b", "s")]).await;
    store.set_unavailable(true);
    let merge = async |from: &str, body: &str| {
        let target = format!("/v1/users/{from}/merge");
        app.send_body(Method::POST, &target, JSON, body.to_owned())
            .await
    };
    let failed = merge("a", r#"{"into":"b"}"#).await;
    assert_eq!(failed.problem(), (503, "unavailable"));
    assert!(failed.headers.contains_key("retry-after"));
    store.set_unavailable(false);
    assert_eq!(app.users("s").await, 2);
    assert_eq!(merge("a", r#"{"into":"b"}"#).await.json["merged"], 1);
    app.advance(1_000);
    assert_eq!(app.users("s").await, 1);
    let metric = app.metric("headcount_merges_total{result=\"moved\"}").await;
    assert_eq!(metric, 1.0);
    assert_eq!(app.metric("headcount_merges_known").await, 1.0);
    for body in ["", "[]", "{}", r#"{"into":"b","x":1}"#, r#"{"into":7}"#] {
        assert_eq!(
            merge("a", body).await.problem(),
            (400, "malformed"),
            "{body}"
        );
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_users_who_got_a_name_count_once_on_each_instance() {
    let Some(server) = Postgres::start().await else {
        return;
    };
    stores::postgres::set_up(&server.options("headcount", two_weeks()))
        .await
        .unwrap();
    let url = server.url();
    let settings = [("store", "postgres"), ("postgres_url", url.as_str())];
    let directories = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let one = Service::start(directories[0].path(), &settings).await;
    let two = Service::start(directories[1].path(), &settings).await;
    let users = |kind: &str| -> Vec<String> { (0..1_000).map(|n| format!("{kind}{n}")).collect() };
    assert_eq!(one.post(&users("anon"), "s").await, 200);
    assert_eq!(two.post(&users("anon"), "t").await, 200);
    assert_eq!(two.post(&users("user"), "t").await, 200);
    let client = reqwest::Client::new();
    for part in (0..1_000).collect::<Vec<_>>().chunks(100) {
        let identify = |n: &i32| json!({"type": "identify", "userId": format!("user{n}"), "anonymousId": format!("anon{n}")});
        let batch: Vec<Value> = part.iter().map(identify).collect();
        let request = client.post(format!("{}/v1/batch", one.url()));
        let response = request.json(&json!({"batch": batch})).send().await.unwrap();
        assert_eq!(response.status(), 200);
    }
    counts(&one, &[("s", 1_000), ("t", 1_000)], false).await;
    assert_eq!(one.post(&users("anon"), "later").await, 200);
    assert_eq!(one.post(&users("user"), "later").await, 200);
    counts(&two, &[("later", 1_000)], false).await;
    // The other instance reads the notes when it starts.
    assert_eq!(two.terminate().await, Some(0));
    let two = Service::start(directories[1].path(), &settings).await;
    assert_eq!(two.post(&users("anon"), "later").await, 200);
    counts(&two, &[("later", 1_000), ("t", 1_000)], false).await;
    poll(async || {
        let known = two.text("/metrics").await;
        known.contains("headcount_merges_known 1000").then_some(())
    })
    .await;
}
