//! The InfluxDB store against direct use of the same server: `cargo bench --bench influx`.
//!
//! Needs influxd on PATH or named by HEADCOUNT_TEST_INFLUXD. HEADCOUNT_BENCH_PAIRS (2,000,000) is the number of
//! pairs, of HEADCOUNT_BENCH_USERS (300,000) users in 200 segments. To recount 20 million, set
//! HEADCOUNT_BENCH_PAIRS=20000000 HEADCOUNT_BENCH_USERS=3000000. Peers alternate, so that a busy machine slows
//! both.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a bench fails by panicking and reports by printing"
)]

mod support;

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use domain::store::PairStore;
use domain::{Batch, Resolution, Slot, TimeFrame, Timestamp};
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::StreamExt;
use stores::influx::{InfluxOptions, InfluxStore, set_up};
use support::influxd::{Influxd, ORG, TOKEN};
use support::service::Service;
use support::setting;
use support::stores::record_all;
use support::traffic::{BATCH, DAY, SEGMENTS, Traffic, frame};

/// The number of pairs that both peers write. One peer writes the rest, which are only counted.
const COMPARED: u64 = 2_000_000;

/// Line protocol as a program without this library would write it.
fn lines(batch: &Batch, resolution: Resolution) -> Vec<u8> {
    let mut text = Vec::new();
    for (number, pair) in batch.pairs().enumerate() {
        let start = pair.slot.number() * u64::from(resolution.seconds()) * 1_000_000_000;
        let nanos = start + fastrand::u64(..59_000_000_000) + number as u64;
        let (segment, user) = (pair.segment, pair.user.as_str());
        writeln!(text, "pair,segment={segment} user=\"{user}\" {nanos}").unwrap();
    }
    text
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

/// Posts bodies on two connections. Returns how long that took.
async fn post_raw(server: &Influxd, bucket: &str, bodies: Vec<Vec<u8>>, gzipped: bool) -> Duration {
    let client = reqwest::Client::new();
    let started = Instant::now();
    let posts = bodies.into_iter().map(|body| {
        let mut request = client
            .post(format!("{}/api/v2/write", server.url()))
            .query(&[("org", ORG), ("bucket", bucket)])
            .header("Authorization", format!("Token {TOKEN}"));
        if gzipped {
            request = request.header("Content-Encoding", "gzip");
        }
        async move {
            let answer = request.body(body).send().await.unwrap();
            assert_eq!(answer.status(), 204);
        }
    });
    futures::stream::iter(posts)
        .buffer_unordered(2)
        .collect::<()>()
        .await;
    started.elapsed()
}

fn report(what: &str, pairs: u64, took: Duration) -> f64 {
    let rate = pairs as f64 / took.as_secs_f64();
    println!("{what:55} {rate:12.0} pairs/s");
    rate
}

/// The same query as a string, without this library.
async fn count_raw(
    client: &reqwest::Client,
    server: &Influxd,
    segment: &str,
    frame: &TimeFrame,
) -> u64 {
    let resolution = frame.resolution();
    let slots = frame
        .full_window()
        .slots_as_of(resolution.slot_of(Timestamp::now()));
    let start = resolution.start_of(*slots.start());
    let stop = resolution.start_of(Slot::new(slots.end().number() + 1));
    let flux = format!(
        "from(bucket: \"store\") |> range(start: {start}, stop: {stop}) |> filter(fn: (r) => \
         r._measurement == \"pair\" and r._field == \"user\" and r.segment == \"{segment}\") |> \
         keep(columns: [\"segment\", \"_field\", \"_value\"]) |> distinct() |> count()"
    );
    let body = serde_json::json!({"query": flux, "type": "flux"});
    let request = client
        .post(format!("{}/api/v2/query", server.url()))
        .query(&[("org", ORG)])
        .header("Authorization", format!("Token {TOKEN}"))
        .json(&body);
    let text = request.send().await.unwrap().text().await.unwrap();
    let row = text.lines().nth(1).unwrap_or_default();
    row.rsplit(',').next().unwrap().trim().parse().unwrap_or(0)
}

#[tokio::main]
async fn main() {
    let Some(server) = Influxd::start().await else {
        return;
    };
    let server = Arc::new(server);
    let total = setting("HEADCOUNT_BENCH_PAIRS", 2_000_000);
    let frame = frame();
    let mut pairs = Traffic::new(setting("HEADCOUNT_BENCH_USERS", 300_000), DAY);
    for bucket in ["raw", "store"] {
        set_up(&server.options(bucket, frame), false).await.unwrap();
    }
    let compared = total.min(COMPARED);
    println!("{total} pairs, {SEGMENTS} segments");
    let store = InfluxStore::open(server.options("store", frame)).unwrap();
    let rounds = 4;
    let each = (compared / rounds) as usize;
    let [mut plain, mut zipped, mut ours, mut small] = [Duration::ZERO; 4];
    for _ in 0..rounds {
        let batches: Vec<Batch> = (0..each / BATCH).map(|_| pairs.batch(BATCH)).collect();
        let bodies: Vec<_> = batches
            .iter()
            .map(|b| lines(b, frame.resolution()))
            .collect();
        let gzipped: Vec<_> = bodies.iter().map(|body| gzip(body)).collect();
        plain += post_raw(&server, "raw", bodies, false).await;
        zipped += post_raw(&server, "raw", gzipped, true).await;
        ours += record_all(&store, &batches, 8).await;
        let batches: Vec<Batch> = (0..each / 4 / 50).map(|_| pairs.batch(50)).collect();
        small += record_all(&store, &batches, 256).await;
    }
    let raw = report(
        "raw, pre-encoded, 5,000 a body, 2 connections",
        compared,
        plain,
    );
    let zipped = report("the same, pre-gzipped (level 1)", compared, zipped);
    let ours = report("record, 5,000 a batch, 8 callers", compared, ours);
    report("record, 50 a batch, 256 callers", compared / 4, small);
    println!(
        "record relative to the faster raw write: {:.0} %",
        100.0 * ours / raw.max(zipped)
    );

    let rest = (total - compared) as usize / BATCH;
    for _ in 0..rest.div_ceil(100) {
        let batches: Vec<_> = (0..rest.min(100)).map(|_| pairs.batch(BATCH)).collect();
        record_all(&store, &batches, 8).await;
    }

    for linger in [0, 1, 2, 5] {
        let store = InfluxStore::open(InfluxOptions {
            linger: Duration::from_millis(linger),
            ..server.options("store", frame)
        });
        let store = store.unwrap();
        let mut line = format!("linger {linger} ms:");
        for callers in [1, 16, 64, 256] {
            let batches: Vec<Batch> = (0..callers * 40).map(|_| pairs.batch(1)).collect();
            let count = batches.len();
            let took = record_all(&store, &batches, callers).await;
            let bodies = store.stats().bodies;
            let rate = count as f64 / took.as_secs_f64();
            let wait = took.as_secs_f64() * 1000.0 * callers as f64 / count as f64;
            line += &format!("  {callers} callers {rate:.0}/s {wait:.1} ms ({bodies} writes)");
        }
        println!("{line}");
    }

    let segments = store.segments(Timestamp::now()).await.unwrap();
    let names: Vec<String> = segments
        .iter()
        .map(|segment| segment.as_str().to_owned())
        .collect();
    // One client for all queries, as in the store. Otherwise each query would include a new connection.
    let client = reqwest::Client::new();
    let raw_counts = async || {
        let started = Instant::now();
        let counts = names.iter().map(|name| {
            let counted = count_raw(&client, &server, name, &frame);
            async move { (name.clone(), counted.await) }
        });
        let counts: BTreeMap<String, u64> = futures::stream::iter(counts)
            .buffer_unordered(2)
            .collect()
            .await;
        (started.elapsed().as_secs_f64(), counts)
    };
    let our_counts = async || {
        let started = Instant::now();
        let counts = segments.iter().map(|segment| async {
            let counted = store.count(segment, frame.full_window(), Timestamp::now());
            (segment.as_str().to_owned(), counted.await.unwrap().users)
        });
        let counts: BTreeMap<String, u64> = futures::stream::iter(counts)
            .buffer_unordered(2)
            .collect()
            .await;
        (started.elapsed().as_secs_f64(), counts)
    };
    println!("recount of {} segments, 2 at a time:", names.len());
    for round in 0..4 {
        // The peer that runs second finds a server that has just executed the same query.
        let (raw, ours) = match round % 2 {
            0 => (raw_counts().await, our_counts().await),
            _ => {
                let ours = our_counts().await;
                (raw_counts().await, ours)
            }
        };
        assert_eq!(ours.1, raw.1, "the same counts");
        let percent = 100.0 * (ours.0 / raw.0 - 1.0);
        println!(
            "  raw Flux {:.2} s, count {:.2} s, {percent:+.0} %",
            raw.0, ours.0
        );
    }
    misses(&server, &client, &frame).await;
}

/// Reads through the whole service, bypassing every cache.
async fn misses(server: &Influxd, client: &reqwest::Client, frame: &TimeFrame) {
    let directory = tempfile::tempdir().unwrap();
    let url = server.url();
    let settings = [
        ("store", "influx"),
        ("influx_url", url.as_str()),
        ("influx_org", ORG),
        ("influx_bucket", "store"),
        ("influx_token", TOKEN),
        ("refresh_mode", "off"),
    ];
    let service = Service::start(directory.path(), &settings).await;
    for segment in ["segment-0", "segment-150"] {
        let [mut raw, mut ours] = [Duration::ZERO; 2];
        let mut users = 0;
        for _ in 0..10 {
            let started = Instant::now();
            users = count_raw(client, server, segment, frame).await;
            raw += started.elapsed();
            let started = Instant::now();
            let path = format!("/v1/segments/{segment}/count?fresh=true");
            assert_eq!(service.get(&path).await["users"], users);
            ours += started.elapsed();
        }
        println!(
            "a miss, {segment} of {users} users: raw Flux {:.1} ms, GET count {:.1} ms",
            raw.as_secs_f64() * 100.0,
            ours.as_secs_f64() * 100.0
        );
    }
}
