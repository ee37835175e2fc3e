//! Refreshes on a real InfluxDB: the number of queries for many small segments, and the handling of a failed query.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use domain::Timestamp;
use serde_json::Value;
use stores::influx::set_up;

use crate::support::fault_server::{FaultServer, Reply};
use crate::support::influxd::{Influxd, settings_at};
use crate::support::service::Service;
use crate::support::two_weeks;

const SEGMENTS: usize = 60;
/// The segment whose count can be set to fail.
const FAILING: &str = "s07";

/// A service whose queries to InfluxDB are recorded.
struct Site {
    server: Influxd,
    between: FaultServer,
    is_failing: Arc<AtomicBool>,
    service: Service,
    _directory: tempfile::TempDir,
}

/// The number of queries of a refresh.
#[derive(Debug, PartialEq, Eq)]
struct Queries {
    counts: usize,
    erasures: usize,
}

impl Site {
    async fn start() -> Option<Self> {
        let server = Influxd::start().await?;
        let frame = two_weeks();
        set_up(&server.options("b", frame), false).await.unwrap();
        let is_failing = Arc::<AtomicBool>::default();
        let (fails, port) = (Arc::clone(&is_failing), server.port());
        let between = FaultServer::start(move |_, request| {
            let text = String::from_utf8_lossy(&request.body);
            let is_count = text.contains("distinct()") && text.contains(FAILING);
            match is_count && fails.load(Ordering::SeqCst) {
                true => Reply::status(500, "", r#"{"code":"internal error"}"#),
                false => Reply::Pass(port),
            }
        });
        let between = between.await;
        let directory = tempfile::tempdir().unwrap();
        let url = between.url();
        let settings = settings_at(&url, &[("refresh_mode", "off")]);
        let service = Service::start(directory.path(), &settings).await;
        Some(Self {
            server,
            between,
            is_failing,
            service,
            _directory: directory,
        })
    }

    /// Adds users to every segment, so that the n-th segment has `n % 9 + more`.
    async fn fill(&self, more: usize) {
        for (index, segment) in names().iter().enumerate() {
            let users: Vec<String> = (0..index % 9 + more)
                .map(|user| format!("u{user}"))
                .collect();
            assert_eq!(self.service.post(&users, segment).await, 200);
        }
    }

    /// Refreshes all segments. Returns the report and the queries that the server received.
    async fn refresh(&self) -> (Value, Queries) {
        let before = self.between.requests().len();
        let url = format!("{}/v1/admin/refresh", self.service.url());
        let response = reqwest::Client::new().post(url).send().await.unwrap();
        let report = response.json().await.unwrap();
        let requests = self.between.requests().split_off(before);
        let with = |text: &str| {
            let queries = requests.iter().filter(|request| {
                request.target.contains("/query")
                    && String::from_utf8_lossy(&request.body).contains(text)
            });
            queries.count()
        };
        let queries = Queries {
            counts: with("distinct()"),
            erasures: with(r#"_measurement == \"erased\""#),
        };
        (report, queries)
    }

    /// Checks the count of every segment. The counts must come from memory, without a query.
    async fn check_counts(&self, expected: impl Fn(usize) -> usize) {
        // Probes and background reads go on meanwhile.
        let counts = || {
            let requests = self.between.requests().into_iter();
            let bodies =
                requests.map(|request| String::from_utf8_lossy(&request.body).into_owned());
            bodies.filter(|body| body.contains("distinct()")).count()
        };
        let before = counts();
        for (index, segment) in names().iter().enumerate() {
            let users = self.service.count(segment).await;
            assert_eq!(users, expected(index) as u64, "{segment}");
        }
        assert_eq!(counts(), before, "all counts are in memory");
    }
}

fn names() -> Vec<String> {
    (0..SEGMENTS).map(|index| format!("s{index:02}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn small_segments_share_queries_and_every_count_is_exact() {
    let Some(site) = Site::start().await else {
        return;
    };
    site.fill(1).await;
    let (report, queries) = site.refresh().await;
    assert_eq!(report["refreshed"], SEGMENTS, "{report}");
    assert_eq!(
        queries,
        Queries {
            counts: SEGMENTS,
            erasures: 0
        },
        "no segment is known to be small"
    );
    site.fill(3).await;
    let (report, queries) = site.refresh().await;
    assert_eq!(
        (&report["refreshed"], &report["failed"]),
        (&SEGMENTS.into(), &0.into())
    );
    assert_eq!(
        queries,
        Queries {
            counts: 3,
            erasures: 0
        }
    );
    site.check_counts(|index| index % 9 + 3).await;
    let metrics = site.service.text("/metrics").await;
    for (operation, number) in [("count", SEGMENTS), ("count_many", 3)] {
        let line = format!(
            "headcount_store_call_duration_seconds_count{{operation=\"{operation}\",outcome=\"ok\"}} {number}\n"
        );
        assert!(metrics.contains(&line), "{line} {metrics}");
    }

    // Another instance erased a user from one segment. Each query reads the erasures once, and that segment takes one
    // more query.
    let slot = Timestamp::now().as_second() / 60 * 60 * 1_000_000_000;
    let erased = format!(
        "erased,segment=s30 points=1i {slot}\npair,segment=s30 user=\"\u{1}erased\" {}",
        slot + 7
    );
    assert_eq!(site.server.write_raw("b", erased).await, 204);
    let (_, queries) = site.refresh().await;
    assert_eq!(
        queries,
        Queries {
            counts: 4,
            erasures: 3
        }
    );
    site.check_counts(|index| index % 9 + 3).await;
    let (_, queries) = site.refresh().await;
    assert_eq!(
        queries,
        Queries {
            counts: 3,
            erasures: 2
        },
        "the erasure in s30 is known"
    );
    site.check_counts(|index| index % 9 + 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_shared_query_is_retried_per_segment() {
    let Some(site) = Site::start().await else {
        return;
    };
    site.fill(1).await;
    site.refresh().await;
    site.fill(3).await;
    site.is_failing.store(true, Ordering::SeqCst);
    let (report, queries) = site.refresh().await;
    assert_eq!(
        (&report["refreshed"], &report["failed"]),
        (&(SEGMENTS - 1).into(), &1.into())
    );
    assert_eq!(queries.counts, 3 + 25);
    let kept = |index| if names()[index] == FAILING { 1 } else { 3 };
    site.check_counts(|index| index % 9 + kept(index)).await;

    // From then on the failing segment costs one query.
    site.fill(5).await;
    let (report, queries) = site.refresh().await;
    assert_eq!((&report["failed"], queries.counts), (&1.into(), 2 + 25));
    site.is_failing.store(false, Ordering::SeqCst);
    let (report, _) = site.refresh().await;
    assert_eq!(
        (&report["refreshed"], &report["failed"]),
        (&SEGMENTS.into(), &0.into())
    );
    site.check_counts(|index| index % 9 + 5).await;
}
