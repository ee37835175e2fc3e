//! The Redis store while its server is unavailable, full, or misconfigured, and the effects on the service.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use domain::Timestamp;
use domain::store::conformance::frame;
use domain::store::{PairStore, StoreError};
use stores::redis::store::{Eviction, Persistence, RedisStore};

use crate::redis_store::{batch, options, present, segment, store, users};
use crate::support::app::App;
use crate::support::program::run;
use crate::support::proxy::Proxy;
use crate::support::redis::{Redis, RedisCluster};
use crate::support::service::Service;
use crate::support::wait::until;

const DURABLE: [&str; 6] = [
    "--save",
    "",
    "--appendonly",
    "yes",
    "--appendfsync",
    "always",
];
/// The maximum recovery time on a busy machine.
const RECOVERY: Duration = Duration::from_secs(120);

async fn until_it_serves(store: &RedisStore) {
    let began = Instant::now();
    while let Err(error) = store.ping().await {
        assert!(
            began.elapsed() < RECOVERY,
            "the store does not recover: {error}"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn names(prefix: &str, number: usize) -> Vec<String> {
    (0..number).map(|n| format!("{prefix}{n}")).collect()
}

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
    let ready = app.get("/readyz").await;
    assert_eq!(ready.json["components"]["store"]["ok"], false, "{ready:?}");
    assert_eq!(ready.json["writes"], false);
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
async fn a_cluster_with_a_lost_node_serves_the_segments_of_the_others() {
    // Otherwise the other nodes stop as well, which is the server's default.
    let args = [&DURABLE[2..], &["--cluster-require-full-coverage", "no"]].concat();
    let Some(mut cluster) = RedisCluster::start_with(&args).await else {
        return;
    };
    const NAMES: [&str; 12] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];
    let store = store(&cluster.url(), "hc");
    store
        .record(&batch(NAMES.map(|name| ("first", name, present()))))
        .await
        .unwrap();
    assert_eq!(store.survey().unwrap().persistence, Persistence::Always);

    let running = Arc::new(AtomicBool::new(true));
    let [written, failed] = [(); 2].map(|()| Arc::new(AtomicU64::new(0)));
    let writers: Vec<_> = NAMES
        .into_iter()
        .map(|name| {
            let (store, running) = (Arc::clone(&store), Arc::clone(&running));
            let (written, failed) = (Arc::clone(&written), Arc::clone(&failed));
            tokio::spawn(async move {
                let mut acknowledged = vec!["first".to_owned()];
                let mut number = 0;
                while running.load(Ordering::Relaxed) {
                    let user = format!("u{number}");
                    number += 1;
                    match store.record(&batch([(&user, name, present())])).await {
                        Ok(()) => {
                            acknowledged.push(user);
                            written.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(StoreError::Unavailable(_) | StoreError::Timeout(_)) => {
                            failed.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(other) => panic!("{name}: {other:?}"),
                    }
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                (name, acknowledged)
            })
        })
        .collect();
    // Not the node that holds the list: without it no write succeeds, which another test covers.
    let slot = cluster.nodes()[0].cli(&["CLUSTER", "KEYSLOT", "hc:{store}:segments"]);
    let slot: usize = slot.parse().unwrap();
    let of_the_list = slot * 3 / 16_384;
    let victim = (of_the_list + 1) % 3;
    until("all write", async || written.load(Ordering::Relaxed) > 200).await;
    cluster.nodes()[victim].kill();
    // Until a segment of another node was written several times, and read, and a write to the lost node failed.
    let began = Instant::now();
    let mut served = 0;
    while served < 100 || failed.load(Ordering::Relaxed) == 0 {
        assert!(
            began.elapsed() < RECOVERY,
            "the other nodes' segments are not served"
        );
        for name in NAMES {
            let pair = batch([("while away", name, present())]);
            let (segment, window) = (segment(name), frame(60).full_window());
            let count = store.count(&segment, window, Timestamp::now()).await;
            if store.record(&pair).await.is_ok() && count.is_ok() {
                served += 1;
            }
        }
    }
    cluster.nodes()[victim].restart();
    let began = Instant::now();
    for name in NAMES {
        while store
            .record(&batch([("last", name, present())]))
            .await
            .is_err()
        {
            assert!(began.elapsed() < RECOVERY, "{name} does not recover");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    running.store(false, Ordering::Relaxed);
    for writer in writers {
        let (name, acknowledged) = writer.await.unwrap();
        let slots = domain::Slot::new(0)..=present();
        let kept = store.export(&segment(name), slots).await.unwrap();
        let kept: std::collections::HashSet<_> = kept
            .pairs()
            .map(|pair| pair.user.as_str().to_owned())
            .collect();
        for user in &acknowledged {
            assert!(kept.contains(user), "{name} lost an acknowledged pair");
        }
    }
    let listed = store.segments(Timestamp::now()).await.unwrap();
    assert_eq!(listed.len(), NAMES.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn moving_slots_between_nodes_loses_nothing() {
    let Some(mut cluster) = RedisCluster::start().await else {
        return;
    };
    let store = store(&cluster.url(), "hc");
    const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
    let running = Arc::new(AtomicBool::new(true));
    let writing = {
        let (store, running) = (Arc::clone(&store), Arc::clone(&running));
        tokio::spawn(async move {
            let mut written = 0_u64;
            let (mut failed, mut number) = (0, 0);
            while running.load(Ordering::Relaxed) {
                let pairs = NAMES.map(|name| (format!("u{number}"), name, present()));
                // A failed batch is sent again, as the spool or a client does.
                match store.record(&batch(pairs)).await {
                    Ok(()) => {
                        written += 1;
                        number += 1;
                    }
                    Err(_) => failed += 1,
                }
            }
            (written, failed)
        })
    };
    let address = format!("127.0.0.1:{}", cluster.nodes()[0].port());
    let ids: Vec<_> = cluster
        .nodes()
        .iter()
        .map(|node| node.cli(&["CLUSTER", "MYID"]))
        .collect();
    for (from, to) in [(0, 1), (1, 2), (2, 0)] {
        let moved = std::process::Command::new("redis-cli")
            .args([
                "--cluster",
                "reshard",
                &address,
                "--cluster-yes",
                "--cluster-slots",
                "5000",
            ])
            .args(["--cluster-from", &ids[from], "--cluster-to", &ids[to]])
            .output()
            .unwrap();
        assert!(
            moved.status.success(),
            "{}",
            String::from_utf8_lossy(&moved.stdout)
        );
    }
    running.store(false, Ordering::Relaxed);
    let (written, failed) = writing.await.unwrap();
    for name in NAMES {
        let counted = users(&store, name).await;
        assert!(
            counted == written || counted == written + 1,
            "{counted} of {written}"
        );
    }
    assert!(
        failed * 20 <= written,
        "{failed} of {written} writes failed"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_server_fails_fast_and_is_used_after_recovery() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    let proxy = Proxy::to(redis.port()).await;
    let mut patience = options(&format!("redis://{}", proxy.address()), "hc", frame(60));
    patience.command_timeout = Duration::from_millis(500);
    let store = RedisStore::open(patience).unwrap();
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
    let told = |what: &str| !service.logged(what).is_empty();
    while !told("the store is unavailable; pairs wait in the spool, if there is one")
        || !told("is a read-only replica")
    {
        assert!(began.elapsed() < RECOVERY, "{}", service.log());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    proxy.redirect_to(promoted.port());
    while !told("the store is available again") {
        assert!(began.elapsed() < 2 * RECOVERY, "{}", service.log());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    service.wait_until_drained().await;
    assert_eq!(service.fresh_count("s").await, 20);
    let pairs = promoted.cli(&["ZCARD", "headcount:{s}:pairs"]);
    assert_eq!(pairs, "20", "{}", promoted.cli(&["KEYS", "*"]));
}

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
        let stranger = RedisStore::open(options(&url, "hc", frame(60))).unwrap();
        unavailable(&stranger, "password").await;
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
    let said = service.log();
    assert_eq!(said.matches("persistence is off").count(), 1, "{said}");
    assert_eq!(said.matches("evict whole segments").count(), 1, "{said}");
    drop(service);

    redis.cli(&["CONFIG", "SET", "appendonly", "yes"]);
    redis.cli(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    let service = Service::start(directory.path(), &settings).await;
    let said = service.log();
    assert!(said.contains("appendfsync everysec"), "{said}");
    assert!(!said.contains("WARN"), "{said}");
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

#[tokio::test(flavor = "multi_thread")]
async fn a_window_of_four_minutes_expires_second_by_second() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    let url = redis.url();
    let settings = [
        ("store", "redis"),
        ("redis_url", &*url),
        ("window", "4m"),
        ("resolution", "1s"),
        ("max_ahead", "10s"),
        ("spool_dir", "off"),
    ];
    let app = App::start_with(&settings).await;
    let post = async |user: &str, segment: &str| {
        let body = format!(r#"{{"user_id": "{user}", "segment": "{segment}"}}"#);
        assert_eq!(app.post("application/json", body).await.status, 200);
    };
    let fresh = async |query: &str| {
        let answer = app
            .get(&format!("/v1/segments/s/count?fresh=true{query}"))
            .await;
        answer.json["users"].as_u64().unwrap()
    };
    post("u1", "s").await;
    post("u1", "t").await;
    app.advance(1);
    post("u2", "s").await;
    assert_eq!((fresh("").await, fresh("&window=1s").await), (2, 1));
    // u1 was seen in second 0 and leaves at second 240.
    app.advance(238);
    assert_eq!(fresh("").await, 2);
    app.advance(1);
    assert_eq!(fresh("").await, 1);
    let listed = app.get("/v1/segments").await;
    assert!(!listed.text.contains("\"t\""), "{listed:?}");
    let gone = app.get("/v1/users/u1").await;
    assert_eq!(gone.json["segments"].as_array().unwrap().len(), 0);
    app.advance(1);
    assert_eq!(fresh("").await, 0);
    // Once no cached count of them is trusted any more, they are removed from Redis.
    app.advance(3_600);
    post("u3", "s").await;
    let archived = app.send(reqwest::Method::POST, "/v1/admin/archive").await;
    assert_eq!(archived.json["removed"], 3);
    assert_eq!(fresh("").await, 1);
    app.stop().await;

    // The same keys with slots of a minute.
    let directory = tempfile::tempdir().unwrap();
    let settings = [("store", "redis"), ("redis_url", url.as_str())];
    let serve = ["serve", "--listen", "127.0.0.1:0"];
    let refused = run(directory.path(), &settings, &serve);
    assert_ne!(refused.code, Some(0));
    assert!(refused.err.contains("resolution = \"1s\""), "{refused:?}");
}
