//! A server that is killed, stalled or replaced by its replica.

use std::time::{Duration, Instant};

use domain::Timestamp;
use domain::store::conformance::frame;
use domain::store::{PairStore, StoreError};
use stores::redis::store::RedisStore;

use super::{DURABLE, RECOVERY, names, until_it_serves};
use crate::redis_store::{batch, options, present, segment, store, users};
use crate::support::app::App;
use crate::support::proxy::Proxy;
use crate::support::redis::Redis;
use crate::support::service::Service;
use crate::support::wait::until;

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_pairs_survive_kill_and_restart_of_a_server_under_load() {
    let Some(mut redis) = Redis::start_with(&DURABLE).await else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let url = redis.url();
    let settings = [("store", "redis"), ("redis_url", url.as_str())];
    let service = Service::start(directory.path(), &settings).await;
    let (mut stored, mut spooled) = (0, 0);
    for round in 0..60 {
        if matches!(round, 15 | 40) {
            redis.kill();
        }
        if matches!(round, 25 | 45) {
            redis.restart();
        }
        let posts = (0..4).map(|writer| {
            let users = names(&format!("u{round}-{writer}-"), 25);
            let service = &service;
            async move { service.post(&users, "s").await }
        });
        for status in futures::future::join_all(posts).await {
            match status {
                200 => stored += 25,
                202 => spooled += 25,
                other => panic!("round {round}: status {other}"),
            }
        }
    }
    assert!(
        stored > 0 && spooled > 0,
        "{stored} stored, {spooled} spooled"
    );
    service.wait_until_drained().await;
    assert_eq!(service.fresh_count("s").await, stored + spooled);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_spool_the_service_sends_retry_after() {
    let Some(mut redis) = Redis::start_with(&DURABLE).await else {
        return;
    };
    let url = redis.url();
    let settings = [
        ("store", "redis"),
        ("redis_url", &*url),
        ("spool_dir", "off"),
    ];
    let app = App::start_with(&settings).await;
    let body = r#"{"user_id": "u", "segment": "s"}"#;
    assert_eq!(app.post("application/json", body).await.status, 200);
    redis.kill();
    let refused = app.post("application/json", body).await;
    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(refused.headers.contains_key("retry-after"));
    until("a probe fails", async || {
        let ready = app.get("/readyz").await.json;
        ready["components"]["store"]["ok"] == false && ready["writes"] == false
    })
    .await;
    redis.restart();
    let began = Instant::now();
    while app.post("application/json", body).await.status != 200 {
        assert!(began.elapsed() < RECOVERY, "the store does not recover");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(app.users("s").await, 1);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_or_a_closed_connection_causes_no_error() {
    let Some(mut redis) = Redis::start_with(&DURABLE).await else {
        return;
    };
    let store = store(&redis.url(), "hc");
    store.record(&batch([("u", "s", present())])).await.unwrap();
    redis.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
    assert_eq!(users(&store, "s").await, 1);
    redis.kill();
    redis.restart();
    until_it_serves(&store).await;
    store.record(&batch([("v", "s", present())])).await.unwrap();
    assert_eq!(users(&store, "s").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_server_fails_fast_and_is_used_after_recovery() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    let proxy = Proxy::to(redis.port()).await;
    let mut short_timeouts = options(&format!("redis://{}", proxy.address()), "hc", frame(60));
    short_timeouts.command_timeout = Duration::from_millis(500);
    let store = RedisStore::open(short_timeouts).unwrap();
    until_it_serves(&store).await;
    proxy.stall();
    let error = store
        .record(&batch([("u", "s", present())]))
        .await
        .unwrap_err();
    assert!(matches!(error, StoreError::Timeout(_)), "{error:?}");
    // One timeout may be a slow moment. If a `PING` times out as well, later calls fail immediately.
    let began = Instant::now();
    while let StoreError::Timeout(_) = store
        .record(&batch([("u", "s", present())]))
        .await
        .unwrap_err()
    {
        assert!(
            began.elapsed() < RECOVERY,
            "every call runs into its timeout"
        );
    }
    proxy.restore();
    // The timeout of a call is short, also for a busy machine.
    until("it is used again", async || {
        let recorded = store.record(&batch([("u", "s", present())])).await;
        recorded.is_ok()
    })
    .await;
    let (segment, window) = (segment("s"), frame(60).full_window());
    until("it counts again", async || {
        let counted = store.count(&segment, window, Timestamp::now()).await;
        counted.is_ok_and(|count| count.users == 1)
    })
    .await;
}

/// Two servers swap their roles, and all sessions stay open: the demoted one responds and accepts no write.
#[tokio::test(flavor = "multi_thread")]
async fn a_failover_that_keeps_sessions_is_followed_and_logged() {
    let Some((former, promoted)) = Redis::pair().await else {
        return;
    };
    let proxy = Proxy::to(former.port()).await;
    let directory = tempfile::tempdir().unwrap();
    let url = format!("redis://{}", proxy.address());
    let settings = [
        ("store", "redis"),
        ("cache", "redis"),
        ("redis_url", url.as_str()),
    ];
    let service = Service::start(directory.path(), &settings).await;
    assert_eq!(service.post(&names("before", 10), "s").await, 200);
    // A replica receives a write after the client has its response, and a failover loses the writes that it did not
    // receive.
    let replicated = || promoted.cli(&["ZCARD", "headcount:{s}:pairs"]);
    until("the replica has them", async || replicated() == "10").await;
    assert_eq!(promoted.cli(&["REPLICAOF", "NO", "ONE"]), "OK");
    former.follow(&promoted).await;

    assert_eq!(service.post(&names("meanwhile", 10), "s").await, 202);
    let began = Instant::now();
    let logged = |what: &str| !service.logged(what).is_empty();
    while !logged("the store is unavailable; pairs wait in the spool, if there is one")
        || !logged("is a read-only replica")
    {
        assert!(began.elapsed() < RECOVERY, "{}", service.log());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    proxy.redirect_to(promoted.port());
    while !logged("the store is available again") {
        assert!(began.elapsed() < 2 * RECOVERY, "{}", service.log());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    service.wait_until_drained().await;
    assert_eq!(service.fresh_count("s").await, 20);
    let pairs = promoted.cli(&["ZCARD", "headcount:{s}:pairs"]);
    assert_eq!(pairs, "20", "{}", promoted.cli(&["KEYS", "*"]));
}
