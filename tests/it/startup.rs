//! A start with a store that does not respond: the service responds, accepts pairs, and stops on a signal.

use std::sync::Arc;
use std::time::{Duration, Instant};

use domain::{ManualClock, SteadyClock, Timestamp};
use engine::Headcount;
use engine::Opened;
use headcount::config::Settings;
use headcount::wiring;
use stores::memory::MemoryCache;
use telemetry::Metrics;
use tokio::net::TcpListener;

use crate::support::fault_server::{FaultServer, Reply};
use crate::support::servers::Process;
use crate::support::service::{Service, log_in, poll};
use crate::support::switchable::SwitchableStore;

/// Only a hang takes as long.
const EVER: Duration = Duration::from_mins(2);

/// The log message after the list of segments failed or timed out.
const GIVEN_UP: &str = "can't list its segments";

fn influx(url: &str) -> [(&str, &str); 6] {
    [
        ("store", "influx"),
        // The timeout of a client for such a store.
        ("write_deadline", "1s"),
        ("influx_url", url),
        ("influx_org", "o"),
        ("influx_bucket", "b"),
        ("influx_token", "t"),
    ]
}

/// A server that accepts requests and never responds.
async fn silent_server() -> FaultServer {
    FaultServer::start(|_, _| Reply::Stall).await
}

/// Waits for the exit after a signal.
async fn exit_code(process: &mut Process) -> Option<i32> {
    poll(async || process.ended()).await.code()
}

#[tokio::test]
async fn a_store_that_does_not_list_its_segments_delays_neither_start_nor_shutdown() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let settings = [("data_dir", path("data")), ("spool_dir", path("spool"))];
    let settings = settings.iter().map(|(name, value)| (*name, value.as_str()));
    let settings = Settings::with(settings.chain([("max_segments", "2")])).unwrap();
    let clock = Arc::new(ManualClock::new(
        Timestamp::from_second(1_800_000_000).unwrap(),
    ));
    let metrics = Arc::<Metrics>::default();
    let inner = wiring::open_store(&settings, &metrics).await.unwrap();
    let store = Arc::new(SwitchableStore::new(inner.store));
    store.hold_lists();
    let opened = Opened {
        store: store.clone(),
        head: None,
        live: None,
    };
    let cache = Arc::<MemoryCache>::default();
    let opening = Headcount::open_over(&settings, opened, cache, clock, metrics);
    let app = tokio::time::timeout(EVER, opening);
    let app = app.await.expect("the start waits for a list").unwrap();
    app.record([("u1", "sports"), ("u2", "news")])
        .await
        .unwrap();
    assert_eq!(app.estimate("sports").await.unwrap(), 1);
    let ending = tokio::time::timeout(EVER, app.shut_down());
    ending
        .await
        .expect("the shutdown waits for a list")
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn serve_responds_while_influxdb_is_silent_and_stops_immediately() {
    let silent = silent_server().await;
    let directory = tempfile::tempdir().unwrap();
    let service = Service::start(directory.path(), &influx(&silent.url())).await;
    assert_eq!(service.get("/healthz").await["status"], "ok");
    assert_eq!(service.logged(GIVEN_UP), [""; 0], "it waited for the list");
    let users = ["u1".to_owned()];
    assert_eq!(service.post(&users, "sports").await, 202);
    let asked = Instant::now();
    let ready = service.get("/readyz").await;
    assert!(asked.elapsed() < Duration::from_secs(1), "it waits");
    assert_eq!(
        (&ready["status"], &ready["writes"]),
        (&"degraded".into(), &true.into())
    );
    let store = &ready["components"]["store"];
    assert!(store["age_seconds"].as_f64() < Some(4.0), "{ready}");
    // No count is known yet. A load balancer asks another instance then, and must not wait for half a minute before.
    let asked = Instant::now();
    let (status, _) = service.try_get("/v1/segments/sports/count").await;
    assert_eq!(status, 503);
    assert!(asked.elapsed() < Duration::from_secs(20), "it waits");
    assert_eq!(service.terminate().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_ends_a_waiting_start() {
    let silent = silent_server().await;
    let url = silent.url();
    let settings = [&influx(&url)[..], &[("refresh_interval", "1s")]].concat();
    let directory = tempfile::tempdir().unwrap();
    let mut worker = Service::spawn_worker(directory.path(), &settings);
    poll(async || (!silent.requests().is_empty()).then_some(())).await;
    worker.signal("TERM");
    assert_eq!(exit_code(&mut worker).await, Some(0));
    let log = std::fs::read_to_string(log_in(directory.path())).unwrap();
    assert!(!log.contains(GIVEN_UP), "it waited for the list: {log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_redis_and_postgres_do_not_delay_a_start() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let silent = tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            held.push(stream);
        }
    });
    for (store, url, value) in [
        ("redis", "redis_url", format!("redis://127.0.0.1:{port}")),
        (
            "postgres",
            "postgres_url",
            format!("postgres://u:p@127.0.0.1:{port}/d?sslmode=disable"),
        ),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let settings = [
            ("store", store),
            (url, value.as_str()),
            ("write_deadline", "1s"),
        ];
        let service = Service::start(directory.path(), &settings).await;
        let users = ["u1".to_owned()];
        assert_eq!(service.post(&users, "sports").await, 202, "{store}");
        assert_eq!(service.terminate().await, Some(0), "{store}");
    }
    silent.abort();
}

#[tokio::test]
async fn a_directory_is_unlocked_when_shut_down_returns_and_soon_after_a_drop() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let settings = [("data_dir", path("data")), ("spool_dir", path("spool"))];
    let settings = settings.iter().map(|(name, value)| (*name, value.as_str()));
    let settings = Settings::with(settings).unwrap();
    let open = async || Headcount::open(&settings).await;
    let first = open().await.unwrap();
    first.record([("u1", "sports")]).await.unwrap();
    first.shut_down().await.unwrap();
    let second = open().await.expect("shut_down releases the directory");
    drop(first);
    second.record([("u2", "sports")]).await.unwrap();
    drop(second);
    let third = poll(async || open().await.ok()).await;
    assert_eq!(third.estimate("sports").await.unwrap(), 2);
    third.shut_down().await.unwrap();
}

/// The same for a spool whose delivery is retrying against a store that rejects its pairs.
#[tokio::test]
async fn a_spool_is_unlocked_when_shut_down_returns_and_soon_after_a_drop() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let settings = [("data_dir", path("data")), ("spool_dir", path("spool"))];
    let settings = settings.iter().map(|(name, value)| (*name, value.as_str()));
    let settings = Settings::with(settings).unwrap();
    let metrics = Arc::<Metrics>::default();
    let inner = wiring::open_store(&settings, &metrics).await;
    let inner = inner.unwrap().store;
    let open = async || {
        let store = SwitchableStore::new(inner.clone());
        store.set_unavailable(true);
        let opened = Opened {
            store: Arc::new(store),
            head: None,
            live: None,
        };
        let (cache, clock) = (Arc::<MemoryCache>::default(), Arc::<SteadyClock>::default());
        Headcount::open_over(&settings, opened, cache, clock, metrics.clone()).await
    };
    let first = open().await.unwrap();
    first.record([("u1", "sports")]).await.unwrap();
    drop(first);
    let second = poll(async || open().await.ok()).await;
    second.record([("u2", "sports")]).await.unwrap();
    second.shut_down().await.unwrap();
    let third = open().await.expect("shut_down releases the spool");
    let waiting = third.readiness().components;
    let spool = waiting.iter().find(|part| part.name == "spool").unwrap();
    let detail = spool.detail.as_deref().unwrap_or_default();
    assert!(detail.starts_with("2 pairs wait"), "{detail}");
    drop(second);
    third.shut_down().await.unwrap();
}
