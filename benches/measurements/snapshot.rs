//! The additional latency of writes while a snapshot is taken.

use std::path::Path;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::client::{self, Request, compare};
use super::filled::DATA;
use super::report::Report;
use super::support::open_loop::{OpenLoop, Script, Tally};
use super::support::peer::{Peer, post};
use super::support::traffic::{DAY, Traffic};
use super::table::{Table, grouped, rate, ratio, time};
use super::{Run, progress, seconds};

const CONNECTIONS: usize = 64;
const KIND: &str = "application/json";

pub(crate) fn measure(run: &Run) -> Report {
    let sizes: &[u64] = run.pick(&[10_000_000, 50_000_000], &[10_000_000]);
    let rounds = run.pick(3, 1);
    let mut report = Report::default();
    let mut table = Table::new(&[
        "Pairs",
        "Single POSTs",
        "took",
        "p50",
        "p99",
        "p99.9",
        "max",
        "send delay, p99",
    ]);
    let mut half = None;
    for pairs in sizes {
        let (mut without, mut during, mut took) = <(Tally, Tally, Vec<Duration>)>::default();
        for _ in 0..rounds {
            progress(&format!("a snapshot of {} pairs", grouped(*pairs)));
            let quiet = run.filled.with_snapshot(*pairs, &run.runtime);
            let service = Service::start(&quiet);
            let half = *half.get_or_insert_with(|| service.capacity() / 2.0);
            without.add(&service.load(half).run(seconds(3.0), Single));
            drop(service);

            let due = run.filled.with_log(*pairs, &run.runtime);
            let service = Service::start(&due);
            // The log is larger than `snapshot_after`: a snapshot begins within a second.
            let running = service.load(half).start(Single);
            wait_for(&due.path().join(DATA), |name| name.contains(".snapshot"));
            let began = Instant::now();
            running.take();
            wait_for(&due.path().join(DATA), |name| name.ends_with(".snapshot"));
            took.push(began.elapsed());
            during.add(&running.take());
            drop(running.stop());
        }
        took.sort_unstable();
        for (what, tally, took) in [
            ("without a snapshot", &without, "-".to_owned()),
            ("while one is taken", &during, time(took[rounds / 2])),
        ] {
            assert_eq!(tally.answers(), tally.of_status(200), "{tally}");
            let at = [0.5, 0.99, 0.999, 1.0].map(|quantile| ms(tally.latency_ms(quantile)));
            let head = [grouped(*pairs), what.to_owned(), took];
            table.row(
                head.into_iter()
                    .chain(at)
                    .chain([ms(tally.lateness_ms(0.99))]),
            );
        }
        let of = |quantile| during.latency_ms(quantile) / without.latency_ms(quantile);
        let head = [grouped(*pairs), "ratio".to_owned(), "-".to_owned()];
        let ratios = [0.5, 0.99, 0.999, 1.0].map(|quantile| ratio(of(quantile)));
        table.row(head.into_iter().chain(ratios).chain(["-".to_owned()]));
    }
    report.paragraph(&format!(
        "POSTs of one pair, {} a second on {CONNECTIONS} connections, which is half of the rate of a closed loop, in which each connection sends its next \
         request immediately after the response. Each request is due at a fixed instant, and its latency is measured from that, so that no \
         stall is hidden. The delay of the client itself is in the last column. *Pairs* is the number of pairs in `headcount serve`. \
         Rounds of each kind, in turn: {rounds}.",
        rate(half.unwrap())
    ));
    report.table(&table);
    report
}

fn ms(milliseconds: f64) -> String {
    time(seconds(milliseconds / 1e3))
}

/// A service that is ready.
struct Service(Peer);

impl Service {
    fn start(directory: &TempDir) -> Self {
        let service = Peer::headcount(directory.path(), &[]);
        service.wait_until_ready();
        Self(service)
    }

    fn load(&self, rate: f64) -> OpenLoop {
        OpenLoop {
            address: self.0.address(),
            rate,
            connections: CONNECTIONS,
        }
    }

    /// POSTs of single pairs a second, in a closed loop.
    fn capacity(&self) -> f64 {
        let request = |n| {
            let mut out = Vec::new();
            Single.write_request(n, &mut out);
            Request::Http(out)
        };
        let peer = client::Peer::new(self.0.port(), CONNECTIONS as u64, 100, request);
        compare(vec![peer], 3, seconds(1.0))[0].rate
    }
}

/// One pair a request.
struct Single;

impl Script for Single {
    fn write_request(&self, n: u64, out: &mut Vec<u8>) {
        let mut traffic = Traffic::new(1_000_000, DAY).seeded(n);
        let pair = traffic.next().unwrap();
        let (user, segment) = (pair.user, pair.segment);
        let body = format!("{{\"user_id\":\"u{user}\",\"segment\":\"segment-{segment}\"}}");
        out.extend_from_slice(&post("/v1/pairs", &body, KIND));
    }
}

/// Waits until a file with a matching name exists.
fn wait_for(directory: &Path, matches: impl Fn(&str) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(120);
    let exists = || {
        let entries = std::fs::read_dir(directory).unwrap();
        // Files may be created and removed at the same time.
        entries
            .flatten()
            .any(|entry| matches(&entry.file_name().to_string_lossy()))
    };
    while !exists() {
        assert!(Instant::now() < deadline, "no snapshot was taken");
        std::thread::sleep(Duration::from_millis(2));
    }
}
