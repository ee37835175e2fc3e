//! /v1/events of several instances that share a store and a cache.

use std::time::{Duration, Instant};

use reqwest::Method;

use crate::support::app::App;
use crate::support::events::Listener;
use crate::support::redis::Redis;

async fn instance(url: &str) -> App {
    App::start_with(&[
        ("store", "redis"),
        ("cache", "redis"),
        ("redis_url", url),
        ("spool_dir", "off"),
    ])
    .await
}

async fn post(app: &App, user: &str, segment: &str) {
    let pair = serde_json::json!({"user_id": user, "segment": segment});
    let answer = app.post("application/json", pair.to_string()).await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_instance_tells_all_changes() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    let apps = [instance(&redis.url()).await, instance(&redis.url()).await];
    let mut listeners = Vec::new();
    for app in &apps {
        let url = format!("http://{}/v1/events", app.addr);
        listeners.push(Listener::open(&url, None).await);
    }
    for (round, app) in apps.iter().enumerate() {
        let segment = format!("from {round}");
        post(app, "u1", &segment).await;
        // A refresh on the other one brings the count into the cache.
        let refreshed = apps[1 - round]
            .send(Method::POST, "/v1/admin/refresh")
            .await;
        assert_eq!(refreshed.json["failed"], 0, "{refreshed:?}");
        for listener in &mut listeners {
            assert_eq!(listener.count().await, (segment.clone(), 1));
        }
    }
    // So does a load for a reader.
    post(&apps[0], "u1", "read").await;
    assert_eq!(apps[0].users("read").await, 1);
    for listener in &mut listeners {
        assert_eq!(listener.count().await, ("read".to_owned(), 1));
    }
    // Who moves on to the other instance is told that its place is not known there.
    let url = format!("http://{}/v1/events", apps[0].addr);
    let id = {
        let mut first = Listener::open(&url, None).await;
        post(&apps[0], "u2", "read").await;
        apps[0].get("/v1/segments/read/count?fresh=true").await;
        first.event().await.id
    };
    let url = format!("http://{}/v1/events", apps[1].addr);
    let mut moved = Listener::open(&url, Some(&id)).await;
    assert_eq!(moved.event().await.event, "reset");
    // A user who was erased, and a segment that is empty from then on.
    apps[0].send(Method::DELETE, "/v1/users/u1").await;
    apps[1].send(Method::POST, "/v1/admin/refresh").await;
    for listener in &mut listeners {
        listener.wait_for("from 1", 0).await;
    }
    for app in apps {
        assert_eq!(app.stop().await.abandoned, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changed_while_redis_was_away_is_told_when_it_is_back() {
    let Some(mut redis) =
        Redis::start_with(&["--appendonly", "yes", "--appendfsync", "always"]).await
    else {
        return;
    };
    let apps = [instance(&redis.url()).await, instance(&redis.url()).await];
    let url = format!("http://{}/v1/events", apps[1].addr);
    let mut listener = Listener::open(&url, None).await;
    post(&apps[0], "u1", "a").await;
    apps[0].send(Method::POST, "/v1/admin/refresh").await;
    assert_eq!(listener.count().await, ("a".to_owned(), 1));
    redis.kill();
    redis.restart();
    let pair = serde_json::json!({"user_id": "u2", "segment": "a"}).to_string();
    let deadline = Instant::now() + Duration::from_secs(60);
    while apps[0].post("application/json", pair.clone()).await.status != 200 {
        assert!(Instant::now() < deadline, "it does not come back");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // Store and cache come back each by itself, so that the first refresh may not reach the cache.
    let event = loop {
        apps[0].send(Method::POST, "/v1/admin/refresh").await;
        if let Some(event) = listener.event_within(Duration::from_secs(1)).await {
            break event;
        }
        assert!(Instant::now() < deadline, "nothing is told");
    };
    assert_eq!(
        (&event.data["segment"], &event.data["users"]),
        (&"a".into(), &2.into())
    );
    for app in apps {
        app.stop().await;
    }
}
