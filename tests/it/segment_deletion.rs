//! A deleted segment, and a user who is erased from one: at once everywhere, for good, and only what came before.

use std::path::Path;

use reqwest::Method;
use serde_json::{Value, json};
use stores::influx::set_up;

use crate::support::app::App;
use crate::support::influxd::{Influxd, settings_at};
use crate::support::program;
use crate::support::proxy::Proxy;
use crate::support::service::{Service, poll};
use crate::support::two_weeks;

const JSON: &str = "application/json";

async fn post(app: &App, users: &[&str], segment: &str) {
    let pairs = users
        .iter()
        .map(|user| json!({"user_id": user, "segment": segment}));
    let body = json!(pairs.collect::<Vec<_>>()).to_string();
    assert_eq!(app.post(JSON, body).await.status, 200);
}

async fn listed(app: &App) -> Vec<(String, u64)> {
    let list = app.get("/v1/segments").await;
    let rows = list.rows().into_iter();
    rows.map(|(name, users)| (name.to_owned(), users.unwrap()))
        .collect()
}

fn owned(rows: &[(&str, u64)]) -> Vec<(String, u64)> {
    rows.iter()
        .map(|(name, users)| ((*name).to_owned(), *users))
        .collect()
}

async fn deletes(app: &App) {
    post(app, &["u1", "u2"], "gone").await;
    post(app, &["u1", "u3"], "stays").await;
    let settings = app
        .send_body(Method::PUT, "/v1/segments/gone", JSON, "{\"group\":\"g\"}")
        .await;
    assert_eq!(settings.status, 200);
    app.send(Method::POST, "/v1/admin/refresh").await;
    assert_eq!(listed(app).await, owned(&[("gone", 2), ("stays", 2)]));

    let receipt = app.send(Method::DELETE, "/v1/segments/gone").await;
    assert_eq!(
        (receipt.status, &receipt.json["users"]),
        (200, &json!(2)),
        "{receipt:?}"
    );
    assert_eq!(receipt.json["places"][0]["place"], "store");
    assert_eq!(app.users("gone").await, 0);
    assert_eq!(listed(app).await, owned(&[("stays", 2)]));
    assert_eq!(
        app.get("/v1/segments/gone").await.json["group"],
        Value::Null
    );
    let trend = app.get("/v1/segments/gone/trend").await.json;
    assert_eq!(trend["points"], json!([]));
    let user = app.get("/v1/users/u1").await.json;
    assert_eq!(user["segments"].as_array().unwrap().len(), 1);
    let again = app.send(Method::DELETE, "/v1/segments/gone").await;
    assert_eq!((again.status, &again.json["users"]), (200, &json!(0)));
    post(app, &["u2"], "gone").await;
    app.advance(1_000);
    assert_eq!(app.users("gone").await, 1, "a pair that came since counts");

    let receipt = app
        .send(Method::DELETE, "/v1/segments/stays/users/u1")
        .await;
    assert_eq!(
        (receipt.status, &receipt.json["erased"]),
        (200, &json!(1)),
        "{receipt:?}"
    );
    assert_eq!(app.users("stays").await, 1);
    assert_eq!(app.users("gone").await, 1);
    let again = app
        .send(Method::DELETE, "/v1/segments/stays/users/u1")
        .await;
    assert_eq!(again.json["erased"], 0);
    let bad = app
        .send(Method::DELETE, "/v1/segments/stays/users/%00")
        .await;
    assert_eq!(bad.problem(), (400, "invalid_user_id"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_segment_is_gone_and_counts_again_what_comes_later() {
    let app = App::start().await;
    deletes(&app).await;
    app.stop().await;
    let (app, store) = App::start_switchable(&[]).await;
    deletes(&app).await;
    store.set_unavailable(true);
    let failed = app.send(Method::DELETE, "/v1/segments/stays").await;
    assert_eq!(failed.problem(), (503, "unavailable"));
    store.set_unavailable(false);
    assert_eq!(app.users("stays").await, 1, "nothing was erased");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_survives_a_crash() {
    let directory = tempfile::tempdir().unwrap();
    let service = Service::start(directory.path(), &[]).await;
    let users: Vec<String> = (0..50).map(|n| format!("u{n}")).collect();
    assert_eq!(service.post(&users, "gone").await, 200);
    assert_eq!(service.post(&users, "stays").await, 200);
    let url = service.url();
    let run = |arguments: &[&str]| {
        let target = ["--url", &url];
        program::run(directory.path(), &[], &[arguments, &target].concat())
    };
    let refused = run(&["segment", "delete", "gone"]);
    assert_eq!(refused.code, Some(2), "without --yes: {refused:?}");
    let deleted = run(&["segment", "delete", "gone", "--yes"]);
    assert_eq!(deleted.code, Some(0), "{deleted:?}");
    assert!(
        deleted.out.starts_with("gone: erased, with 50 users\n"),
        "{deleted:?}"
    );
    let erased = run(&["segment", "delete", "stays", "--user", "u7"]);
    assert!(
        erased.out.starts_with("stays: the user is erased\n"),
        "{erased:?}"
    );
    let set = run(&[
        "segment", "set", "stays", "--window", "1h", "--group", "shop",
    ]);
    assert_eq!(set.code, Some(0), "{set:?}");
    let kept = run(&["segment", "set", "stays", "--group", ""]);
    assert!(kept.out.contains("window       1h (its own)"), "{kept:?}");
    assert!(kept.out.contains("group        -"), "{kept:?}");
    let mut service = service;
    service.kill();
    let service = Service::start(directory.path(), &[]).await;
    assert_eq!(service.fresh_count("gone").await, 0);
    assert_eq!(service.fresh_count("stays").await, 49);
    assert_eq!(service.get("/v1/segments/stays").await["window"], "1h");
}

async fn start(directory: &Path, url: &str, live: bool) -> Service {
    let mut more = vec![("write_deadline", "1m")];
    if live {
        more.push(("live", "here"));
    }
    Service::start(directory, &settings_at(url, &more)).await
}

fn names(users: &[&str]) -> Vec<String> {
    users.iter().map(|user| (*user).to_owned()).collect()
}

async fn delete(service: &Service, path: &str) -> Value {
    let request = reqwest::Client::new().delete(format!("{}{path}", service.url()));
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 200);
    response.json().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn pairs_from_before_the_deletion_do_not_come_back_from_the_spool_of_another_instance() {
    let Some(server) = Influxd::start().await else {
        return;
    };
    let options = server.options("b", two_weeks());
    set_up(&options, false).await.unwrap();
    let (near, far) = (
        Proxy::to(server.port()).await,
        Proxy::to(server.port()).await,
    );
    let directories = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [at_near, at_far] = [near.address(), far.address()].map(|it| format!("http://{it}"));
    let one = start(directories[0].path(), &at_near, false).await;
    let two = start(directories[1].path(), &at_far, false).await;
    assert_eq!(one.post(&names(&["stored"]), "s").await, 200);
    far.cut();
    for segment in ["s", "t"] {
        assert_eq!(two.post(&names(&["a", "b"]), segment).await, 202);
    }
    let receipt = delete(&one, "/v1/segments/s").await;
    assert_eq!(receipt["users"], 1, "{receipt}");
    assert_eq!(delete(&one, "/v1/segments/t/users/a").await["erased"], 0);
    assert_eq!(one.post(&names(&["later"]), "s").await, 200);
    far.restore();
    two.wait_until_drained().await;
    assert_eq!(
        two.fresh_count("s").await,
        1,
        "only what came after the deletion"
    );
    assert_eq!(two.fresh_count("t").await, 1, "without the erased user");
    assert_eq!(two.post(&names(&["a"]), "s").await, 200);
    assert_eq!(one.fresh_count("s").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn live_counts_follow_a_deletion_and_what_comes_after_it() {
    let Some(server) = Influxd::start().await else {
        return;
    };
    let options = server.options("b", two_weeks());
    set_up(&options, false).await.unwrap();
    let (url, directory) = (server.url(), tempfile::tempdir().unwrap());
    let service = start(directory.path(), &url, true).await;
    let live = async |segment: &str, users: u64| {
        poll(async || {
            let count = service.get(&format!("/v1/segments/{segment}/count")).await;
            (count["source"] == "live" && count["users"] == users).then_some(())
        })
        .await;
    };
    let users: Vec<String> = (0..300).map(|n| format!("u{n}")).collect();
    assert_eq!(service.post(&users, "s").await, 200);
    assert_eq!(service.post(&users, "t").await, 200);
    live("s", 300).await;
    assert_eq!(delete(&service, "/v1/segments/s").await["users"], 300);
    assert_eq!(service.post(&users[..7], "s").await, 200);
    live("s", 7).await;
    assert_eq!(
        delete(&service, "/v1/segments/t/users/u5").await["erased"],
        1
    );
    live("t", 299).await;
    let compared = reqwest::Client::new().post(format!("{}/v1/admin/refresh", service.url()));
    let compared: Value = compared.send().await.unwrap().json().await.unwrap();
    assert_eq!(compared["differences"], 0, "{compared}");
    // A restart replays the same.
    assert_eq!(service.terminate().await, Some(0));
    let service = start(directory.path(), &url, true).await;
    poll(async || {
        let count = service.get("/v1/segments/s/count").await;
        (count["source"] == "live" && count["users"] == 7).then_some(())
    })
    .await;
    assert_eq!(service.count("t").await, 299);
}
