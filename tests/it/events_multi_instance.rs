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
    let response = app.post("application/json", pair.to_string()).await;
    assert_eq!(response.status, 200, "{response:?}");
}

/// Whether a listener receives an event within a second. The event must be a count of one user in `segment`.
async fn receives(listener: &mut Listener, segment: &str) -> bool {
    let Some(event) = listener.event_within(Duration::from_secs(1)).await else {
        return false;
    };
    assert_eq!(
        (&event.data["segment"], &event.data["users"]),
        (&segment.into(), &1.into())
    );
    true
}

/// Calls `cause` until the first listener receives the event, then waits for it at all other listeners.
async fn cause_event(listeners: &mut [Listener], cause: impl AsyncFn(), segment: &str) {
    let [first, others @ ..] = listeners else {
        return;
    };
    until("the event is sent", async || {
        cause().await;
        receives(first, segment).await
    })
    .await;
    for listener in others {
        assert_eq!(listener.count().await, (segment.to_owned(), 1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_instance_sends_events_for_all_changes() {
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
        // A refresh on the other instance puts the count into the cache, unless a delay prevents it.
        let refresh = async || {
            let other = &apps[1 - round];
            other.send(Method::POST, "/v1/admin/refresh").await;
        };
        cause_event(&mut listeners, refresh, &segment).await;
    }
    // A load for a reader puts its count into the cache as well.
    for attempt in 0.. {
        let segment = format!("read {attempt}");
        post(&apps[0], "u1", &segment).await;
        assert_eq!(apps[0].users(&segment.replace(' ', "%20")).await, 1);
        // On a slow machine the event of an earlier attempt may come first.
        let event = listeners[0].event_within(Duration::from_secs(1)).await;
        if let Some(event) = event {
            assert_eq!(event.data["users"], 1);
            let read = event.data["segment"].as_str().unwrap().to_owned();
            assert!(read.starts_with("read "), "{read}");
            listeners[1].wait_for(&read, 1).await;
            break;
        }
        assert!(attempt < 60, "no read sent an event");
    }
    // A client that reconnects to the other instance gets a reset, because its id is unknown there.
    let url = format!("http://{}/v1/events", apps[0].addr);
    let id = {
        let mut first = Listener::open(&url, None).await;
        post(&apps[0], "u2", "from 0").await;
        let mut id = None;
        until("the event is sent", async || {
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
    // An erasure leaves the segment empty.
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
async fn changes_during_a_redis_outage_are_sent_after_recovery() {
    let Some(mut redis) =
        Redis::start_with(&["--appendonly", "yes", "--appendfsync", "always"]).await
    else {
        return;
    };
    let apps = [instance(&redis.url()).await, instance(&redis.url()).await];
    let url = format!("http://{}/v1/events", apps[1].addr);
    let mut listener = Listener::open(&url, None).await;
    post(&apps[0], "u1", "a").await;
    until("the event is sent", async || {
        apps[0].send(Method::POST, "/v1/admin/refresh").await;
        receives(&mut listener, "a").await
    })
    .await;
    redis.kill();
    redis.restart();
    let pair = serde_json::json!({"user_id": "u2", "segment": "a"}).to_string();
    until("the store has recovered", async || {
        let response = apps[0].post("application/json", pair.clone()).await;
        response.status == 200
    })
    .await;
    // Store and cache reconnect independently, so that the first refresh may not reach the cache.
    let mut received = None;
    until("the event is sent", async || {
        apps[0].send(Method::POST, "/v1/admin/refresh").await;
        received = listener.event_within(Duration::from_secs(1)).await;
        received.is_some()
    })
    .await;
    let event = received.unwrap();
    assert_eq!(
        (&event.data["segment"], &event.data["users"]),
        (&"a".into(), &2.into())
    );
    for app in apps {
        app.stop().await;
    }
}
