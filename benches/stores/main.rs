//! All stores side by side, and two of their servers used directly: `cargo bench --bench stores`.
//!
//! Runs those of InfluxDB, Redis and Postgres that are installed, one at a time, each empty. HEADCOUNT_BENCH_PAIRS
//! (1,000,000) is the number of pairs, of HEADCOUNT_BENCH_USERS (300,000) users in 200 segments, written in batches of
//! 5,000 from 4 callers. Every store has its default durability: one fsync per group of writes, in Redis one per second.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a bench fails by panicking and reports by printing"
)]

mod directly;
#[path = "../support/mod.rs"]
mod support;

use std::collections::HashSet;
use std::time::{Duration, Instant};

use domain::store::PairStore;
use domain::{Batch, Segment, Timestamp, Window};
use stores::embedded::{EmbeddedOptions, EmbeddedStore};
use stores::influx::{InfluxOptions, InfluxStore, set_up};
use support::influxd::Influxd;
use support::postgres::Postgres;
use support::redis::Redis;
use support::resp::{EVERY_SECOND, used_memory};
use support::setting;
use support::stores::{record_all, redis_store, size_of};
use support::traffic::{BATCH, DAY, SEGMENTS, Seen, Traffic, batch, frame};

const CALLERS: usize = 4;
const COUNTS: u32 = 20;
const LARGEST: &str = "segment-0";

/// The measurements of one store.
struct Row {
    name: &'static str,
    ingest: Duration,
    full: Duration,
    week: Duration,
    users: u64,
    /// The size of the pairs, and where they are.
    bytes: Vec<(f64, &'static str)>,
}

impl Row {
    fn print(&self, pairs: usize, kept: u64) {
        let rate = pairs as f64 / self.ingest.as_secs_f64();
        let sizes = self.bytes.iter();
        let sizes: Vec<_> = sizes
            .map(|(bytes, place)| format!("{:.1} {place}", bytes / kept as f64))
            .collect();
        println!(
            "| {:<34} | {rate:>9.0} | {:>10.1?} | {:>10.1?} | {} |",
            self.name,
            self.full,
            self.week,
            sizes.join(", ")
        );
    }
}

async fn count(store: &dyn PairStore, window: Window) -> (u64, Duration) {
    let segment = Segment::new(LARGEST).unwrap();
    let now = Timestamp::now();
    let users = store.count(&segment, window, now).await.unwrap().users;
    let started = Instant::now();
    for _ in 0..COUNTS {
        store.count(&segment, window, now).await.unwrap();
    }
    (users, started.elapsed() / COUNTS)
}

async fn measure(name: &'static str, store: &dyn PairStore, batches: &[Batch]) -> Row {
    let ingest = record_all(store, batches, CALLERS).await;
    let (users, full) = count(store, frame().full_window()).await;
    let (_, week) = count(store, week()).await;
    Row {
        name,
        ingest,
        full,
        week,
        users,
        bytes: Vec::new(),
    }
}

fn week() -> Window {
    frame().window(Duration::from_hours(7 * 24)).unwrap()
}

async fn embedded(batches: &[Batch]) -> Row {
    let directory = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(EmbeddedOptions::new(directory.path(), frame())).unwrap();
    let mut row = measure("embedded", &store, batches).await;
    let memory = store.stats().index_bytes as f64;
    row.bytes.push((memory, "in memory"));
    store.snapshot().await.unwrap();
    row.bytes.push((size_of(directory.path()), "on disk"));
    store.close().await.unwrap();
    row
}

async fn influx(batches: &[Batch]) -> Option<Row> {
    let server = Influxd::start().await?;
    let options = InfluxOptions {
        write_deadline: Duration::from_secs(60),
        ..server.options("b", frame())
    };
    set_up(&options, false).await.unwrap();
    let store = InfluxStore::open(options).unwrap();
    let mut row = measure("influx", &store, batches).await;
    let engine = server.directory().join("engine");
    row.bytes
        .push((size_of(&engine), "on disk, not yet compacted"));
    Some(row)
}

async fn redis(batches: &[Batch]) -> Option<Row> {
    let server = Redis::start_with(&EVERY_SECOND).await?;
    let store = redis_store(&server.url(), "hc");
    store.ping().await.unwrap();
    let before = used_memory(&server);
    let mut row = measure("redis", &store, batches).await;
    row.bytes.push((used_memory(&server) - before, "in memory"));
    Some(row)
}

async fn postgres(batches: &[Batch]) -> Option<Row> {
    let server = Postgres::start().await?;
    let store = server.store("headcount", frame()).await;
    let mut row = measure("postgres", &store, batches).await;
    row.bytes
        .push((table_size(&server, "headcount.pairs").await, "on disk"));
    Some(row)
}

/// The size of a table and its indexes in bytes.
async fn table_size(server: &Postgres, table: &str) -> f64 {
    let client = server.client().await;
    let row = client
        .query_one(
            "select pg_total_relation_size($1::text::regclass)",
            &[&table],
        )
        .await;
    let bytes: i64 = row.unwrap().get(0);
    bytes as f64
}

#[tokio::main]
async fn main() {
    let users = setting("HEADCOUNT_BENCH_USERS", 300_000);
    let wanted = usize::try_from(setting("HEADCOUNT_BENCH_PAIRS", 1_000_000)).unwrap();
    let pairs = wanted.next_multiple_of(BATCH);
    let seen: Vec<Seen> = Traffic::new(users, 12 * DAY).take(pairs).collect();
    let parts: Vec<&[Seen]> = seen.chunks(BATCH).collect();
    let batches: Vec<Batch> = parts
        .iter()
        .map(|part| batch(part.iter().copied()))
        .collect();
    let kept: HashSet<_> = seen.iter().map(|pair| (pair.user, pair.segment)).collect();
    let kept = kept.len() as u64;
    let mut rows = vec![embedded(&batches).await];
    rows.extend(influx(&batches).await);
    rows.extend(redis(&batches).await);
    rows.extend(directly::redis(&parts).await);
    rows.extend(postgres(&batches).await);
    rows.extend(directly::postgres(&parts).await);
    let largest = rows[0].users;
    println!(
        "\n{pairs} pairs, {kept} distinct, {SEGMENTS} segments; counts of one with {largest} users\n"
    );
    println!(
        "| Store | pairs/s | count, 14 d | count, 7 d | bytes a pair |\n|---|---|---|---|---|"
    );
    for row in &rows {
        assert_eq!(row.users, largest, "{} returns another count", row.name);
        row.print(pairs, kept);
    }
}
