//! The service and the program with Postgres.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use stores::postgres::set_up;

use crate::postgres::frame;
use crate::support::app::{App, NOON};
use crate::support::postgres::Postgres;
use crate::support::program::{self, Run};
use crate::support::service::Service;
use crate::support::two_weeks;
use crate::support::wait::until;

const PATIENCE: Duration = Duration::from_secs(120);
/// Users in one post, which appear in no other post.
const GROUP: u64 = 10;

fn settings<'a>(url: &'a str, more: &[(&'static str, &'a str)]) -> Vec<(&'static str, &'a str)> {
    let mut settings = vec![
        ("store", "postgres"),
        ("postgres_url", url),
        ("cache_ttl", "2s"),
        ("memory_ttl", "0s"),
        ("refresh_interval", "1s"),
    ];
    settings.extend(more);
    settings
}

async fn fresh(service: &Service) -> u64 {
    let answer = service.get("/v1/segments/s/count?fresh=true").await;
    answer["users"]
        .as_u64()
        .unwrap_or_else(|| panic!("no count: {answer}"))
}

/// Posts new users until it is stopped. Counts each status, and the acknowledged users.
#[derive(Default)]
struct Writers {
    stop: AtomicBool,
    stored: AtomicU64,
    spooled: AtomicU64,
    refused: AtomicU64,
}

impl Writers {
    async fn write(&self, service: &Service, name: &str) {
        let mut round = 0;
        while !self.stop.load(Ordering::SeqCst) {
            round += 1;
            let users: Vec<_> = (0..GROUP).map(|n| format!("{name}-{round}-{n}")).collect();
            loop {
                let counter = match service.post(&users, "s").await {
                    200 => &self.stored,
                    202 => &self.spooled,
                    503 => &self.refused,
                    status => panic!("status {status}"),
                };
                counter.fetch_add(1, Ordering::SeqCst);
                if !std::ptr::eq(counter, &self.refused) {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }

    fn acknowledged(&self) -> u64 {
        (self.stored.load(Ordering::SeqCst) + self.spooled.load(Ordering::SeqCst)) * GROUP
    }

    async fn until(&self, counter: &AtomicU64, posts: u64) {
        let (began, from) = (Instant::now(), counter.load(Ordering::SeqCst));
        while counter.load(Ordering::SeqCst) < from + posts {
            assert!(began.elapsed() < PATIENCE, "the condition was not reached");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Kills and restarts the server twice under load, and checks the counts at the end.
async fn killed_under_load(
    more: &[(&'static str, &str)],
    writers: Arc<Writers>,
    away: fn(&Writers) -> &AtomicU64,
) {
    let Some(mut server) = Postgres::start().await else {
        return;
    };
    set_up(&server.options("headcount", two_weeks()))
        .await
        .unwrap();
    let directory = tempfile::tempdir().unwrap();
    let url = server.url();
    let service = Arc::new(Service::start(directory.path(), &settings(&url, more)).await);
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..4 {
        let (service, writers) = (Arc::clone(&service), Arc::clone(&writers));
        tasks.spawn(async move { writers.write(&service, &format!("w{n}")).await });
    }
    writers.until(&writers.stored, 40).await;
    let (status, _) = service.try_get("/v1/segments/s/count").await;
    assert_eq!(status, 200, "from here on a count is known");
    for _ in 0..2 {
        server.kill();
        writers.until(away(&writers), 20).await;
        let began = Instant::now();
        loop {
            let (status, answer) = service.try_get("/v1/segments/s/count").await;
            assert_eq!(status, 200, "{answer}");
            if answer["stale"] == true {
                break;
            }
            assert!(began.elapsed() < PATIENCE, "never stale: {answer}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let (status, _) = service.try_get("/v1/segments/never/count").await;
        assert_eq!(status, 503);
        until("a probe fails", async || {
            let (_, ready) = service.try_get("/readyz").await;
            ready["components"]["store"]["ok"] == false
        })
        .await;
        server.restart().await;
        writers.until(&writers.stored, 40).await;
    }
    writers.stop.store(true, Ordering::SeqCst);
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    let ready = service.get("/readyz").await;
    if ready["components"]["spool"].is_object() {
        service.wait_until_drained().await;
    }
    assert_eq!(fresh(&service).await, writers.acknowledged(), "each once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_killed_under_load_loses_nothing_and_pairs_are_spooled() {
    let writers = Arc::new(Writers::default());
    killed_under_load(&[], Arc::clone(&writers), |writers| &writers.spooled).await;
    assert_eq!(writers.refused.load(Ordering::SeqCst), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_spool_clients_get_retry_after_and_no_acknowledged_pair_is_lost() {
    let writers = Arc::new(Writers::default());
    killed_under_load(&[("spool_dir", "off")], Arc::clone(&writers), |writers| {
        &writers.refused
    })
    .await;
    assert_eq!(writers.spooled.load(Ordering::SeqCst), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_503_has_retry_after() {
    let Some(mut server) = Postgres::start().await else {
        return;
    };
    let url = server.url();
    server.stop();
    let app = App::start_with(&[
        ("store", "postgres"),
        ("postgres_url", &url),
        ("spool_dir", "off"),
    ])
    .await;
    let pair = r#"{"user_id": "u", "segment": "s"}"#;
    let answer = app.post("application/json", pair).await;
    assert_eq!(answer.problem(), (503, "unavailable"));
    assert!(answer.headers.contains_key("retry-after"));
    // The server starts, is not set up yet, and then is: the service recovers without a restart.
    server.restart().await;
    let answer = app.post("application/json", pair).await;
    assert_eq!(answer.problem(), (503, "unavailable"));
    set_up(&server.options("headcount", two_weeks()))
        .await
        .unwrap();
    let answer = app.post("application/json", pair).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(app.users("s").await, 1);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn users_leave_a_window_of_four_minutes_to_the_second() {
    let Some(server) = Postgres::start().await else {
        return;
    };
    set_up(&server.options("headcount", frame(240, 1)))
        .await
        .unwrap();
    let url = server.url();
    let app = App::start_with(&[
        ("store", "postgres"),
        ("postgres_url", &url),
        ("window", "4m"),
        ("resolution", "1s"),
        ("spool_dir", "off"),
    ])
    .await;
    let json = "application/json";
    app.post(json, r#"{"user_id": "u1", "segment": "s"}"#).await;
    let late = format!(
        r#"{{"user_id": "u2", "segment": "s", "at": {}}}"#,
        NOON - 200
    );
    assert_eq!(app.post(json, late).await.status, 200);
    let users = async || {
        let answer = app.get("/v1/segments/s/count?fresh=true").await;
        answer.json["users"].as_u64().unwrap()
    };
    assert_eq!(users().await, 2);
    app.advance(39);
    assert_eq!(users().await, 2);
    app.advance(1);
    assert_eq!(users().await, 1, "seen 240 s ago is out");
    app.advance(199);
    assert_eq!(users().await, 1);
    let minute = app.get("/v1/segments/s/count?window=1m&fresh=true").await;
    assert_eq!(minute.json["users"], 0);
    app.advance(1);
    assert_eq!(users().await, 0);
    // Pairs that expired within `cache_ttl` are kept for audits.
    for (later, removed) in [(0, 0), (15 * 60, 2)] {
        app.advance(later);
        let archived = app.send(reqwest::Method::POST, "/v1/admin/archive").await;
        assert_eq!(archived.json["removed"], removed, "{archived:?}");
    }
    let metrics = app.get("/metrics").await.text;
    let gauge = r#"headcount_store_connections{work="write",state="in_use"} 0"#;
    assert!(metrics.contains(gauge), "{metrics}");
    app.stop().await;
}

fn run(server: &Postgres, arguments: &[&str], more: &[(&str, &str)]) -> Run {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("url"), server.url()).unwrap();
    let settings = [("store", "postgres"), ("postgres_url_file", "url")];
    program::run(directory.path(), &[&settings, more].concat(), arguments)
}

#[tokio::test(flavor = "multi_thread")]
async fn setup_check_config_refresh_and_archive_from_a_terminal() {
    let Some(server) = Postgres::start().await else {
        return;
    };
    let early = run(&server, &["refresh"], &[]);
    assert_eq!(early.code, Some(1));
    let advice = early.err;
    assert!(advice.contains("run `headcount setup`"), "{advice}");

    let first = run(&server, &["setup"], &[]);
    assert_eq!(first.code, Some(0), "{}", first.err);
    assert_eq!(
        first.out,
        "created    schema \"headcount\"\n\
         created    tables of version 4\n\
         created    slots of 60 s\n\
         created    the installation's key\n"
    );
    let again = run(&server, &["setup", "--json"], &[]);
    let again: serde_json::Value = again.json();
    assert_eq!(again["steps"][2]["change"], "unchanged");
    let tokens = run(&server, &["setup", "--tokens"], &[]);
    assert_eq!(tokens.code, Some(1));
    assert!(tokens.err.contains("roles"));

    let shown = run(&server, &["check-config"], &[]);
    assert_eq!(shown.code, Some(0));
    let shown = shown.out;
    let url = shown.lines().find(|line| line.starts_with("postgres_url "));
    assert!(url.unwrap().contains("***"), "{shown}");

    // A store with another resolution prevents the start, and the message states the right one.
    let other = run(&server, &["refresh"], &[("resolution", "1h")]);
    assert_eq!(other.code, Some(1));
    assert!(other.err.contains("`resolution` is 3600 s"));

    let client = server.client().await;
    // A cast alone would round, sometimes into the next minute.
    let now = "floor(extract(epoch from now()) / 60)::bigint";
    let pairs = format!(
        "insert into headcount.segments (name) values ('a b'); \
         insert into headcount.pairs (segment_id, user_id, seen_slot) values \
         (1, 'u1', {now}), (1, 'u2', {now} - 5), (1, 'gone', {now} - 20161 - 15)"
    );
    client.batch_execute(&pairs).await.unwrap();
    let refreshed = run(&server, &["refresh", "--json"], &[]);
    let refreshed: serde_json::Value = refreshed.json();
    assert_eq!(refreshed["refreshed"], 1);
    let kept = client
        .query_one("select users from headcount.trend", &[])
        .await
        .unwrap();
    assert_eq!(kept.get::<_, i64>(0), 2, "a refresh leaves a trend point");
    let archived = run(&server, &["archive"], &[]);
    assert_eq!(archived.out, "1 pairs removed\n");
}
