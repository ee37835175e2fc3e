//! Faults of the Postgres store: locks, ended sessions, an unresponsive or misconfigured server.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use domain::store::{PairStore, StoreError};
use domain::{Secret, Timestamp};
use stores::postgres::{PostgresOptions, PostgresServer, PostgresStore, set_up};
use tokio_postgres::Client;

use crate::postgres::{back, batch, present, segment, user, users};
use crate::support::postgres::{Postgres, parsed};
use crate::support::proxy::Proxy;
use crate::support::service::poll;
use crate::support::two_weeks;
use crate::support::wait::until;

const PATIENCE: Duration = Duration::from_secs(120);

/// Waits until a session of this application waits for a lock.
async fn wait_until_blocked(client: &Client, application: &str) {
    let asked = "select count(*) from pg_stat_activity \
        where application_name = $1 and wait_event_type = 'Lock'";
    until("a wait for a lock", async || {
        let row = client.query_one(asked, &[&application]).await.unwrap();
        row.get::<_, i64>(0) == 1
    })
    .await;
}

fn patient(server: &Postgres) -> PostgresOptions {
    PostgresOptions {
        write_timeout: PATIENCE,
        ..server.options("hc", two_weeks())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_loses_a_deadlock_is_retried() {
    let quick = |_: &Path| vec!["deadlock_timeout=100ms".to_owned()];
    let Some(server) = Postgres::start_with(quick).await else {
        return;
    };
    set_up(&patient(&server)).await.unwrap();
    let store = Arc::new(PostgresStore::open(patient(&server)).unwrap());
    let of_all = |slot| ["a", "m", "z"].map(|name| (name, "s", slot));
    store.record(&batch(of_all(back(9)))).await.unwrap();
    // One slot for all pairs: a minute may end meanwhile.
    let newer = back(1);

    let touch = "update hc.pairs set seen_slot = seen_slot where user_id = $1";
    let mut gate = server.client().await;
    let gate = gate.transaction().await.unwrap();
    gate.execute(touch, &[&"m"]).await.unwrap();
    let other = server.client().await;
    // This session never checks for deadlocks, so the store detects the deadlock and is the victim.
    let patience = "set deadlock_timeout = '1h'; set application_name = 'other'; begin";
    other.batch_execute(patience).await.unwrap();
    other.execute(touch, &[&"z"]).await.unwrap();
    let watcher = server.client().await;
    let writer = Arc::clone(&store);
    let write = tokio::spawn(async move { writer.record(&batch(of_all(newer))).await });
    // The store holds "a" and waits at the gate. The other session holds "z" and waits for "a".
    wait_until_blocked(&watcher, "headcount").await;
    let other = tokio::spawn(async move {
        other.execute(touch, &[&"a"]).await.unwrap();
        other.batch_execute("commit").await.unwrap();
    });
    wait_until_blocked(&watcher, "other").await;
    // The store waits for "z", which completes the deadlock, and detects it.
    gate.commit().await.unwrap();
    other.await.unwrap();
    write.await.unwrap().unwrap();
    assert!(store.stats().retries > 0, "{:?}", store.stats());
    let now = Timestamp::now();
    for name in ["a", "m", "z"] {
        let found = store.memberships(&user(name), now).await.unwrap();
        assert_eq!(found[0].last_seen, newer, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_of_the_same_pairs_in_any_order_never_deadlock() {
    let Some(server) = Postgres::start().await else {
        return;
    };
    set_up(&patient(&server)).await.unwrap();
    let store = PostgresStore::open(patient(&server)).unwrap();
    let names: Vec<String> = (0..300).map(|n| format!("u{n}")).collect();
    let writers = (0..6).map(|seed| {
        let (store, names) = (&store, &names);
        async move {
            let mut random = fastrand::Rng::with_seed(seed);
            for round in 0..10 {
                let mut shuffled: Vec<(&str, String)> = names
                    .iter()
                    .flat_map(|name| [0, 1, 2].map(|s| (name.as_str(), format!("s{s}-{round}"))))
                    .collect();
                random.shuffle(&mut shuffled);
                let slot = back(random.u64(..50));
                let pairs = shuffled
                    .iter()
                    .map(|(name, segment)| (*name, segment.as_str(), slot));
                store.record(&batch(pairs)).await.unwrap();
            }
        }
    });
    futures::future::join_all(writers).await;
    assert_eq!(store.stats().retries, 0);
    for round in 0..10 {
        assert_eq!(users(&store, &format!("s1-{round}")).await, 300);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_that_are_ended_are_replaced() {
    let Some(server) = Postgres::start().await else {
        return;
    };
    set_up(&patient(&server)).await.unwrap();
    let store = Arc::new(PostgresStore::open(patient(&server)).unwrap());
    store.record(&batch([("a", "s", back(9))])).await.unwrap();
    let mut other = server.client().await;
    let end = "select pg_terminate_backend(pid) from pg_stat_activity \
        where application_name = 'headcount'";
    // While the store is idle.
    other.execute(end, &[]).await.unwrap();
    store.record(&batch([("b", "s", back(9))])).await.unwrap();
    assert_eq!(users_once_counted(&store).await, 2);

    // During a write.
    let transaction = other.transaction().await.unwrap();
    let touch = "update hc.pairs set seen_slot = seen_slot where user_id = 'b'";
    transaction.execute(touch, &[]).await.unwrap();
    let writer = Arc::clone(&store);
    let write = tokio::spawn(async move { writer.record(&batch([("b", "s", present())])).await });
    let watcher = server.client().await;
    wait_until_blocked(&watcher, "headcount").await;
    watcher.execute(end, &[]).await.unwrap();
    transaction.rollback().await.unwrap();
    write.await.unwrap().unwrap();
    assert!(store.stats().retries > 0);
    assert_eq!(users_once_counted(&store).await, 2);
}

/// The count of `s`, once a count succeeds: the store does not retry a count on a connection that has ended.
async fn users_once_counted(store: &PostgresStore) -> u64 {
    let (s, full) = (segment("s"), two_weeks().full_window());
    poll(async || store.count(&s, full, Timestamp::now()).await.ok())
        .await
        .users
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unresponsive_server_costs_only_a_timeout() {
    let Some(server) = Postgres::start().await else {
        return;
    };
    let proxy = Proxy::to(server.port()).await;
    let url = server.url_at(proxy.address().port());
    let options = PostgresOptions {
        server: parsed(&url),
        statement_timeout: Duration::from_secs(2),
        write_timeout: Duration::from_secs(2),
        ..server.options("hc", two_weeks())
    };
    set_up(&options).await.unwrap();
    let store = PostgresStore::open(options).unwrap();
    let (full, now) = (two_weeks().full_window(), Timestamp::now());
    // Each call has two seconds, also on a busy machine.
    let takes = async |name: &str| {
        let recorded = store.record(&batch([(name, "s", back(9))])).await;
        recorded.is_ok()
    };
    let counts = async |range: std::ops::RangeInclusive<u64>| {
        let counted = store.count(&segment("s"), full, now).await;
        counted.is_ok_and(|count| range.contains(&count.users))
    };
    until("a pair is accepted", async || takes("a").await).await;
    until("it is counted", async || counts(1..=1).await).await;

    proxy.stall();
    let errors = [
        store.ping().await.err(),
        store.record(&batch([("b", "s", back(9))])).await.err(),
        store.count(&segment("s"), full, now).await.err(),
    ];
    for error in errors {
        let error = error.unwrap();
        assert_eq!(error.name(), "timeout", "{error}");
    }
    // New connections fail as well.
    let error = store
        .record(&batch([("b", "s", back(9))]))
        .await
        .unwrap_err();
    assert_eq!(error.name(), "timeout", "{error}");
    proxy.restore();
    until("pairs are accepted again", async || takes("c").await).await;
    // A write that timed out may have taken effect.
    until("they are counted", async || counts(2..=3).await).await;

    proxy.cut();
    let error = store
        .record(&batch([("d", "s", back(9))]))
        .await
        .unwrap_err();
    assert_eq!(error.name(), "unavailable", "{error}");
    proxy.restore();
    until("it responds", async || store.ping().await.is_ok()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_call_leaves_no_waiting_connection() {
    let Some(server) = Postgres::start().await else {
        return;
    };
    let options = PostgresOptions {
        connections: 2,
        ..server.options("hc", two_weeks())
    };
    set_up(&options).await.unwrap();
    let store = PostgresStore::open(options).unwrap();
    store.record(&batch([("a", "s", back(9))])).await.unwrap();
    let mut other = server.client().await;
    let transaction = other.transaction().await.unwrap();
    let touch = "update hc.pairs set seen_slot = seen_slot where user_id = 'a'";
    transaction.execute(touch, &[]).await.unwrap();
    let blocked = batch([("a", "s", present())]);
    tokio::select! {
        result = store.record(&blocked) => panic!("it can't have ended: {result:?}"),
        () = async { wait_until_blocked(&server.client().await, "headcount").await } => {}
    }
    // The only connection for writes is a new one, and the next write does not wait for the old one.
    store.record(&batch([("b", "s", present())])).await.unwrap();
    assert_eq!(users(&store, "s").await, 2);
    transaction.rollback().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn server_errors_are_reported_without_secrets() {
    let Some(server) = Postgres::start().await else {
        return;
    };
    set_up(&server.options("hc", two_weeks())).await.unwrap();
    let admin = server.client().await;
    let roles = "create role few login connection limit 1 password 'few'; \
        grant usage on schema hc to few; \
        grant select, insert, update, delete on all tables in schema hc to few; \
        create role nobody_special login password 'hunter2'";
    admin.batch_execute(roles).await.unwrap();
    let error_of = async |url: String| -> StoreError {
        let options = PostgresOptions::new(parsed(&url), "hc", two_weeks());
        let store = PostgresStore::open(options).unwrap();
        let pair = batch([("secret user", "s", present())]);
        let error = store.record(&pair).await.unwrap_err();
        for secret in ["hunter2", "hunter3", "secret user"] {
            assert!(!error.to_string().contains(secret), "{error}");
        }
        error
    };
    let port = server.port();
    let at = |who: &str| format!("postgres://{who}@127.0.0.1:{port}/postgres");

    // A role with the least privileges works, with one connection at a time.
    let options = PostgresOptions::new(parsed(&at("few:few")), "hc", two_weeks());
    let store = PostgresStore::open(options).unwrap();
    store.record(&batch([("u", "s", present())])).await.unwrap();
    let error = error_of(at("few:few")).await;
    assert_eq!(error.name(), "busy", "{error}");
    let error = error_of(at("nobody_special:hunter2")).await;
    assert_eq!(error.name(), "unavailable", "{error}");
    assert!(error.to_string().contains("lacks a privilege"), "{error}");
    let error = error_of(at("nobody_special:hunter3")).await;
    assert_eq!(error.name(), "unavailable", "{error}");
    assert!(error.to_string().contains("password"), "{error}");
    let error = error_of(server.url().replace("/postgres", "/never_made")).await;
    assert_eq!(error.name(), "unavailable", "{error}");
    assert!(error.to_string().contains("create it"), "{error}");

    // A standby, or a primary that was demoted.
    let read_only = "alter role few set default_transaction_read_only = on; \
        alter role few connection limit -1";
    admin.batch_execute(read_only).await.unwrap();
    let error = error_of(at("few:few")).await;
    assert_eq!(error.name(), "unavailable", "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_pairs_are_durable_if_the_server_has_synchronous_commit_off() {
    let hasty = |_: &Path| vec!["synchronous_commit=off".to_owned()];
    let Some(mut server) = Postgres::start_with(hasty).await else {
        return;
    };
    // By itself the server would flush its write-ahead log only every ten seconds.
    let store = server.store("hc", two_weeks()).await;
    for n in 0..50 {
        let name = format!("u{n}");
        store
            .record(&batch([(name.as_str(), "s", present())]))
            .await
            .unwrap();
    }
    server.kill();
    server.restart().await;
    assert_eq!(users(&store, "s").await, 50);
}

/// Creates a self-signed certificate for localhost, and its key.
fn certificate(home: &Path, name: &str) {
    let path = |ending: &str| home.join(format!("{name}.{ending}"));
    let made = Command::new("openssl")
        .args([
            "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
        ])
        .args(["-subj", "/CN=headcount tests"])
        .args(["-addext", "subjectAltName=DNS:localhost"])
        .arg("-keyout")
        .arg(path("key"))
        .arg("-out")
        .arg(path("pem"))
        .output();
    assert!(made.unwrap().status.success(), "openssl failed");
    let private = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(path("key"), private).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_used_and_verified_as_the_url_requires() {
    let elsewhere = tempfile::tempdir().unwrap();
    certificate(elsewhere.path(), "stranger");
    let with_tls = |home: &Path| {
        certificate(home, "server");
        std::fs::copy(home.join("server.pem"), elsewhere.path().join("root.pem")).unwrap();
        let file = |ending: &str| home.join(format!("server.{ending}")).display().to_string();
        vec![
            "ssl=on".to_owned(),
            format!("ssl_cert_file={}", file("pem")),
            format!("ssl_key_file={}", file("key")),
        ]
    };
    let Some(server) = Postgres::start_with(with_tls).await else {
        return;
    };
    set_up(&server.options("hc", two_weeks())).await.unwrap();
    let admin = server.client().await;
    let root = format!(
        "sslrootcert={}",
        elsewhere.path().join("root.pem").display()
    );
    let stranger = format!(
        "sslrootcert={}",
        elsewhere.path().join("stranger.pem").display()
    );
    let url = |host: &str, query: &str| {
        let url = server.url().replace("127.0.0.1", host);
        format!("{url}?{query}&application_name=tls")
    };
    let cases = [
        ("127.0.0.1", "sslmode=disable".to_owned(), Some(false)),
        ("127.0.0.1", "sslmode=prefer".to_owned(), Some(true)),
        ("127.0.0.1", "sslmode=require".to_owned(), Some(true)),
        ("127.0.0.1", format!("sslmode=require&{root}"), Some(true)),
        ("127.0.0.1", format!("sslmode=require&{stranger}"), None),
        ("127.0.0.1", "sslmode=verify-ca".to_owned(), None),
        ("127.0.0.1", format!("sslmode=verify-ca&{root}"), Some(true)),
        (
            "localhost",
            format!("{root}&sslmode=verify-full"),
            Some(true),
        ),
        ("127.0.0.1", format!("sslmode=verify-full&{root}"), None),
        ("localhost", format!("sslmode=verify-full&{stranger}"), None),
        ("localhost", "sslmode=verify-full".to_owned(), None),
    ];
    for (host, query, encrypted) in cases {
        let options = PostgresOptions::new(parsed(&url(host, &query)), "hc", two_weeks());
        let store = PostgresStore::open(options).unwrap();
        let result = store.record(&batch([("u", "s", present())])).await;
        let asked = "select bool_and(ssl) from pg_stat_ssl join pg_stat_activity using (pid) \
            where application_name = 'tls'";
        let used: Option<bool> = admin.query_one(asked, &[]).await.unwrap().get(0);
        assert_eq!(used, encrypted, "{host} {query}: {result:?}");
        if let Err(error) = result {
            assert_eq!(error.name(), "unavailable", "{error}");
        }
        store.close().await.unwrap();
        wait_until_gone(&admin).await;
    }
    let no_file = url("localhost", "sslrootcert=/no/such/file");
    let error = PostgresServer::parse(&Secret::new(no_file)).unwrap_err();
    assert!(error.contains("/no/such/file"), "{error}");
    // A Unix socket has no TLS.
    let options = PostgresOptions::new(parsed(&server.socket_url()), "hc", two_weeks());
    PostgresStore::open(options).unwrap().ping().await.unwrap();
}

async fn wait_until_gone(client: &Client) {
    let asked = "select count(*) from pg_stat_activity where application_name = 'tls'";
    until("all connections are closed", async || {
        let row = client.query_one(asked, &[]).await.unwrap();
        row.get::<_, i64>(0) == 0
    })
    .await;
}
