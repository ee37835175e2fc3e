//! /v1/events of several instances that share a store and a cache.

use std::time::Duration;

use reqwest::Method;

use crate::support::app::App;
use crate::support::events::Listener;
use crate::support::redis::Redis;
use crate::support::wait::until;

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

/// Whether the next event that a listener receives soon is a count of one user in `segment`.
async fn hear(listener: &mut Listener, segment: &str) -> bool {
    let Some(event) = listener.event_within(Duration::from_secs(1)).await else {
        return false;
    };
    assert_eq!(
        (&event.data["segment"], &event.data["users"]),
        (&segment.into(), &1.into())
    );
    true
}

/// Causes a change until it is told, then waits for all others who are told of it.
async fn tell_all(listeners: &mut [Listener], cause: impl AsyncFn(), segment: &str) {
    let [first, others @ ..] = listeners else {
        return;
    };
    until("a change is told", async || {
        cause().await;
        hear(first, segment).await
    })
    .await;
    for listener in others {
        assert_eq!(listener.count().await, (segment.to_owned(), 1));
    }
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
        // A refresh on the other one brings the count into the cache, unless a slow moment kept it out.
        let refresh = async || {
            let other = &apps[1 - round];
            other.send(Method::POST, "/v1/admin/refresh").await;
        };
        tell_all(&mut listeners, refresh, &segment).await;
    }
    // So does a load for a reader.
    for attempt in 0.. {
        let segment = format!("read {attempt}");
        post(&apps[0], "u1", &segment).await;
        assert_eq!(apps[0].users(&segment.replace(' ', "%20")).await, 1);
        // On a slow machine that of an earlier attempt may come first.
        let event = listeners[0].event_within(Duration::from_secs(1)).await;
        if let Some(event) = event {
            assert_eq!(event.data["users"], 1);
            let read = event.data["segment"].as_str().unwrap().to_owned();
            assert!(read.starts_with("read "), "{read}");
            listeners[1].wait_for(&read, 1).await;
            break;
        }
        assert!(attempt < 60, "no read is told");
    }
    // Who moves on to the other instance is told that its place is not known there.
    let url = format!("http://{}/v1/events", apps[0].addr);
    let id = {
        let mut first = Listener::open(&url, None).await;
        post(&apps[0], "u2", "from 0").await;
        let mut id = None;
        until("a change is told", async || {
            apps[0].get("/v1/segments/from%200/count?fresh=true").await;
            let event = first.event_within(Duration::from_secs(1)).await;
            id = event.map(|event| event.id);
            id.is_some()
        })
        .await;
        id.unwrap()
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
    until("a change is told", async || {
        apps[0].send(Method::POST, "/v1/admin/refresh").await;
        hear(&mut listener, "a").await
    })
    .await;
    redis.kill();
    redis.restart();
    let pair = serde_json::json!({"user_id": "u2", "segment": "a"}).to_string();
    until("the store is back", async || {
        let answer = apps[0].post("application/json", pair.clone()).await;
        answer.status == 200
    })
    .await;
    // Store and cache come back each by itself, so that the first refresh may not reach the cache.
    let mut told = None;
    until("it is told", async || {
        apps[0].send(Method::POST, "/v1/admin/refresh").await;
        told = listener.event_within(Duration::from_secs(1)).await;
        told.is_some()
    })
    .await;
    let event = told.unwrap();
    assert_eq!(
        (&event.data["segment"], &event.data["users"]),
        (&"a".into(), &2.into())
    );
    for app in apps {
        app.stop().await;
    }
}
