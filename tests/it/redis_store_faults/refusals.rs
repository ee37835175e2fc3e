//! A server that is full, returns errors, or is not durable.

use std::time::{Duration, Instant};

use domain::Timestamp;
use domain::store::conformance::frame;
use domain::store::{PairStore, StoreError};
use stores::redis::store::{Eviction, Persistence, RedisStore};

use super::{RECOVERY, names, until_it_serves};
use crate::redis_store::{batch, options, present, store, users};
use crate::support::app::App;
use crate::support::redis::Redis;
use crate::support::service::Service;

#[tokio::test(flavor = "multi_thread")]
async fn a_full_server_is_full_and_recovers() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    let url = redis.url();
    let store = store(&url, "headcount");
    let settings = [("store", "redis"), ("redis_url", &*url)];
    let app = App::start_with(&[&settings[..], &[("spool_dir", "off")]].concat()).await;
    let body = r#"{"user_id": "u", "segment": "s"}"#;
    assert_eq!(app.post("application/json", body).await.status, 200);
    redis.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    let error = store
        .record(&batch([("v", "s", present())]))
        .await
        .unwrap_err();
    assert!(matches!(error, StoreError::Full(_)), "{error:?}");
    let refused = app.post("application/json", body).await;
    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(refused.headers.contains_key("retry-after"));
    assert_eq!(app.users("s").await, 1, "reads continue");
    assert!(
        store.archive(Timestamp::now(), 10).await.unwrap().done,
        "memory can be freed"
    );
    redis.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    assert_eq!(app.post("application/json", body).await.status, 200);
    app.stop().await;

    let directory = tempfile::tempdir().unwrap();
    let service = Service::start(directory.path(), &settings).await;
    redis.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    assert_eq!(service.post(&names("w", 10), "s").await, 202);
    redis.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    service.wait_until_drained().await;
    assert_eq!(service.fresh_count("s").await, 11);
}

#[tokio::test(flavor = "multi_thread")]
async fn server_errors_are_unavailable_and_never_rejected() {
    let Some(redis) = Redis::start_with(&["--save", "3600 100000000"]).await else {
        return;
    };
    let store = store(&redis.url(), "hc");
    let pair = batch([("u", "s", present())]);
    store.record(&pair).await.unwrap();
    let unavailable = async |store: &RedisStore, reason: &str| {
        let error = store.record(&pair).await.unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
        assert!(text.contains(reason) && !text.contains("hunter2"), "{text}");
    };
    // A snapshot that can't be written: a directory has its name.
    std::fs::create_dir(redis.directory().join("dump.rdb")).unwrap();
    redis.cli(&["BGSAVE"]);
    let began = Instant::now();
    while !redis
        .cli(&["INFO", "persistence"])
        .contains("rdb_last_bgsave_status:err")
    {
        assert!(began.elapsed() < RECOVERY, "the snapshot does not fail");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    unavailable(&store, "MISCONF").await;
    assert_eq!(users(&store, "s").await, 1, "reads continue");
    redis.cli(&["CONFIG", "SET", "stop-writes-on-bgsave-error", "no"]);
    store.record(&pair).await.unwrap();

    redis.cli(&["CONFIG", "SET", "min-replicas-to-write", "1"]);
    unavailable(&store, "NOREPLICAS").await;
    redis.cli(&["CONFIG", "SET", "min-replicas-to-write", "0"]);

    redis.cli(&["REPLICAOF", "127.0.0.1", "9"]);
    unavailable(&store, "").await;
    redis.cli(&["REPLICAOF", "NO", "ONE"]);
    until_it_serves(&store).await;
    store.record(&pair).await.unwrap();

    redis.cli(&["CONFIG", "SET", "requirepass", "correct"]);
    for user in ["", ":hunter2@", "joe:hunter2@"] {
        let url = format!("redis://{user}127.0.0.1:{}", redis.port());
        let unauthenticated = RedisStore::open(options(&url, "hc", frame(60))).unwrap();
        unavailable(&unauthenticated, "password").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_warns_when_a_200_is_not_durable() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let url = redis.url();
    let settings = [("store", "redis"), ("redis_url", &*url)];
    redis.cli(&["CONFIG", "SET", "maxmemory", "1gb"]);
    redis.cli(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    let service = Service::start(directory.path(), &settings).await;
    assert_eq!(service.post(&names("u", 1), "s").await, 200);
    let log = service.log();
    assert_eq!(log.matches("persistence is off").count(), 1, "{log}");
    assert_eq!(log.matches("evict whole segments").count(), 1, "{log}");
    drop(service);

    redis.cli(&["CONFIG", "SET", "appendonly", "yes"]);
    redis.cli(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    let service = Service::start(directory.path(), &settings).await;
    let log = service.log();
    assert!(log.contains("appendfsync everysec"), "{log}");
    assert!(!log.contains("WARN"), "{log}");
    drop(service);

    // A user with permission for only the commands that the store needs.
    let granted = redis.cli(&[
        "ACL",
        "SETUSER",
        "app",
        "on",
        ">pw",
        "~headcount:*",
        "+@sortedset",
        "+@hash",
        "+@string",
        "+@scripting",
        "+@connection",
        "+pexpire",
    ]);
    assert_eq!(granted, "OK");
    let store = store(
        &format!("redis://app:pw@127.0.0.1:{}", redis.port()),
        "headcount",
    );
    store.record(&batch([("u", "s", present())])).await.unwrap();
    let survey = store.survey().unwrap();
    assert_eq!(
        (survey.persistence, survey.eviction),
        (Persistence::Unknown, Eviction::Unknown)
    );
}
