//! The latency of reads of cached counts while many other counts are missing: Redis was emptied, and clients request the
//! counts of 500 other segments, which the service must query from InfluxDB.

use std::time::{Duration, Instant};

use stores::influx::set_up;

use super::client::{self, Request};
use super::report::Report;
use super::support::influxd::{Influxd, settings_at};
use super::support::open_loop::{OpenLoop, Script};
use super::support::peer::{Peer, get, post};
use super::support::redis::Redis;
use super::support::stores::record_all;
use super::support::traffic::{BATCH, Seen, batch, frame, present};
use super::table::{Table, rate, time};
use super::{Run, progress, seconds};

/// The number of segments whose counts the reading process has not cached.
const MISSING: u64 = 500;
const CLIENTS: u64 = 64;
/// The number of segments whose counts the reading process has cached in memory.
const CACHED: u64 = 50;
/// Reads of cached counts a second.
const READS: f64 = 1_000.0;

fn path(segment: u64) -> String {
    format!("/v1/segments/segment-{segment}/count")
}

/// Reads each of the cached counts in turn.
struct CachedReads;

impl Script for CachedReads {
    fn write_request(&self, n: u64, out: &mut Vec<u8>) {
        out.extend_from_slice(&get(&path(MISSING + n % CACHED)));
    }
}

pub(crate) fn measure(run: &Run) -> Report {
    let mut report = Report::default();
    let servers = run
        .runtime
        .block_on(async { (Influxd::start().await, Redis::start().await) });
    let (Some(influxd), Some(redis)) = servers else {
        report.paragraph("influxd or redis-server is not installed: skipped.");
        return report;
    };
    let each = run.pick(2_000, 400);
    progress("filling InfluxDB");
    run.runtime.block_on(async {
        let options = influxd.options("b", frame());
        set_up(&options, false).await.unwrap();
        let store = influxd.store("b", frame()).await;
        let latest = present();
        let pairs = (0..MISSING + CACHED).flat_map(|segment| {
            (0..each).map(move |user| Seen {
                user,
                segment,
                slot: latest - user % 19_000,
            })
        });
        let pairs: Vec<Seen> = pairs.collect();
        let batches: Vec<_> = pairs
            .chunks(BATCH)
            .map(|chunk| batch(chunk.iter().copied()))
            .collect();
        record_all(&store, &batches, 4).await;
    });
    let (url, redis_url) = (influxd.url(), redis.url());
    let settings = settings_at(
        &url,
        &[
            ("cache", "redis"),
            ("redis_url", redis_url.as_str()),
            ("refresh_mode", "off"),
        ],
    );
    let directories = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let [refresher, reader] =
        [0, 1].map(|n: usize| Peer::headcount(directories[n].path(), &settings));
    reader.wait_until_ready();
    progress("one process refreshes Redis, another one reads 50 counts");
    client::once(client::Peer::new(refresher.port(), 1, 1, |_| {
        Request::Http(post("/v1/admin/refresh", "", "application/json"))
    }));
    drop(refresher);
    for segment in MISSING..MISSING + CACHED {
        assert_eq!(reader.get(&path(segment))["users"], each);
    }
    let load = OpenLoop {
        address: reader.address(),
        rate: READS,
        connections: 16,
    };
    progress("cached counts alone");
    let alone = load.run(run.pick(seconds(5.0), seconds(2.0)), CachedReads);
    progress("cached counts while 64 clients request 500 others");
    redis.cli(&["flushall"]);
    let missing = client::Peer::new(reader.port(), CLIENTS, MISSING.div_ceil(CLIENTS), |n| {
        Request::Http(get(&path(n % MISSING)))
    });
    let (running, started) = (load.start(CachedReads), Instant::now());
    client::once(missing);
    let (took, during) = (started.elapsed(), running.stop());

    let mut table = Table::new(&[
        "Reads of 50 cached counts",
        "responses/s",
        "p50",
        "p99",
        "p99.9",
        "max",
    ]);
    for (what, tally) in [("alone", &alone), ("while 500 are missing", &during)] {
        assert_eq!(tally.of_status(200), tally.answers(), "{what}");
        let at = |quantile| time(seconds(tally.latency_ms(quantile) / 1e3));
        let row = [
            what.to_owned(),
            rate(READS),
            at(0.5),
            at(0.99),
            at(0.999),
            at(1.0),
        ];
        table.row(row);
    }
    report.paragraph(&format!(
        "{} segments of {each} users in InfluxDB. One process refreshed Redis, and another one read and cached the counts of {CACHED} segments. Then \
         Redis was emptied, and {CLIENTS} clients requested the other {MISSING} counts from the second process. This took {}, with at \
         most two concurrent counts. Reads are due at fixed instants, and latency is measured from these.",
        MISSING + CACHED,
        time(took)
    ));
    report.table(&table);
    let p99 = seconds(during.latency_ms(0.99) / 1e3);
    report.target(
        p99 < Duration::from_millis(100),
        &format!(
            "Cached counts while {MISSING} others are missing: p99 {}",
            time(p99)
        ),
        "100 ms",
    );
    report
}
