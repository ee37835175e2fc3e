//! Every store side by side, and two of their servers asked directly: `cargo bench --bench stores`.
//!
//! Runs what is installed of InfluxDB, Redis and Postgres, each empty and alone. HEADCOUNT_BENCH_PAIRS (1,000,000) is
//! how many pairs are written, of HEADCOUNT_BENCH_USERS (300,000) users in 200 segments, in batches of 5,000 from 4
//! callers. Every store is durable as it comes: an fsync each group, Redis each second.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    missing_docs,
    unreachable_pub,
    dead_code,
    reason = "a bench fails by panicking, tells by printing, and borrows helpers from the tests"
)]

#[path = "../tests/it/support"]
mod support {
    pub mod influxd;
    pub mod postgres;
    pub mod redis;
    pub mod servers;
}

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use futures::StreamExt;
use headcount::cache::{Prefix, RedisServer};
use headcount::config::Secret;
use headcount::domain::{Batch, BatchBuilder, Segment, Slot, TimeFrame, Timestamp, UserId, Window};
use headcount::store::PairStore;
use headcount::store::embedded::{EmbeddedOptions, EmbeddedStore};
use headcount::store::influx::{InfluxOptions, InfluxStore, set_up};
use headcount::store::redis::{RedisStore, RedisStoreOptions};
use support::influxd::Influxd;
use support::postgres::Postgres;
use support::redis::Redis;

const SEGMENTS: u64 = 200;
const BATCH: usize = 5_000;
const CALLERS: usize = 4;
const COUNTS: u32 = 20;
const LARGEST: &str = "segment-0";

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

fn frame() -> TimeFrame {
    let (day, minute) = (Duration::from_hours(24), Duration::from_secs(60));
    TimeFrame::new(14 * day, minute, 5 * minute).unwrap()
}

/// Pairs of the last twelve days. Segment n is picked with a weight of 1/(n+1), so that some are large.
fn batches(pairs: u64, users: u64) -> Vec<Batch> {
    let mut random = fastrand::Rng::with_seed(1);
    let present = frame().resolution().slot_of(Timestamp::now()).number();
    let mut batch = || {
        let mut batch = BatchBuilder::with_capacity(BATCH);
        for _ in 0..BATCH {
            let user = UserId::new(format!("u{}", random.u64(..users))).unwrap();
            let segment = (((SEGMENTS + 1) as f64).powf(random.f64()) - 1.0) as u64;
            let segment = format!("segment-{}", segment.min(SEGMENTS - 1));
            let slot = Slot::new(present - random.u64(..12 * 1_440));
            batch.push_pair(&user, &segment, slot).unwrap();
        }
        batch.finish()
    };
    let count = usize::try_from(pairs).unwrap() / BATCH;
    (0..count).map(|_| batch()).collect()
}

/// What was measured of one store.
struct Row {
    name: &'static str,
    ingest: Duration,
    full: Duration,
    week: Duration,
    users: u64,
    /// What the pairs take, and where.
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

async fn record_all(store: &dyn PairStore, batches: &[Batch]) -> Duration {
    let started = Instant::now();
    futures::stream::iter(batches)
        .map(async |batch| {
            // A busy machine may be too slow for a deadline; a service would spool, and try again as well.
            while let Err(error) = store.record(batch).await {
                println!("again after: {error}");
            }
        })
        .buffer_unordered(CALLERS)
        .collect::<()>()
        .await;
    started.elapsed()
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
    let ingest = record_all(store, batches).await;
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

fn size_of(directory: &Path) -> f64 {
    let entries = std::fs::read_dir(directory).unwrap();
    let sizes = entries.map(|entry| {
        let entry = entry.unwrap();
        match entry.metadata().unwrap() {
            data if data.is_dir() => size_of(&entry.path()),
            data => data.len() as f64,
        }
    });
    sizes.sum()
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

fn used_memory(redis: &Redis) -> f64 {
    let info = redis.cli(&["INFO", "memory"]);
    let line = info
        .lines()
        .find_map(|line| line.strip_prefix("used_memory:"));
    line.unwrap().trim().parse().unwrap()
}

const APPEND_ONLY: [&str; 6] = [
    "--save",
    "",
    "--appendonly",
    "yes",
    "--appendfsync",
    "everysec",
];

async fn redis(batches: &[Batch]) -> Option<Row> {
    let server = Redis::start_with(&APPEND_ONLY).await?;
    let address = RedisServer::parse(&Secret::new(server.url())).unwrap();
    let options = RedisStoreOptions {
        command_timeout: Duration::from_secs(60),
        ..RedisStoreOptions::new(address, Prefix::new("hc").unwrap(), frame())
    };
    let store = RedisStore::open(options).unwrap();
    store.ping().await.unwrap();
    let before = used_memory(&server);
    let mut row = measure("redis", &store, batches).await;
    row.bytes.push((used_memory(&server) - before, "in memory"));
    Some(row)
}

/// `ZADD GT` and `ZCOUNT` without this library.
async fn redis_directly(batches: &[Batch]) -> Option<Row> {
    let server = Redis::start_with(&APPEND_ONLY).await?;
    let client = redis::Client::open(server.url()).unwrap();
    let pipelines: Vec<_> = batches
        .iter()
        .map(|batch| {
            let mut members: BTreeMap<&str, Vec<(u64, String)>> = BTreeMap::new();
            for pair in batch.pairs() {
                let member = (pair.slot.number(), pair.user.as_str().to_owned());
                let segment = pair.segment.as_str();
                members.entry(segment).or_default().push(member);
            }
            let mut pipeline = redis::pipe();
            for (segment, members) in members {
                for some in members.chunks(100) {
                    let call = pipeline.cmd("ZADD").arg(segment).arg("GT");
                    for (slot, user) in some {
                        call.arg(slot).arg(user);
                    }
                    call.ignore();
                }
            }
            pipeline
        })
        .collect();
    let before = used_memory(&server);
    let started = Instant::now();
    futures::stream::iter(pipelines)
        .map(|pipeline| {
            let client = &client;
            async move {
                let mut connection = client.get_multiplexed_async_connection().await.unwrap();
                pipeline.exec_async(&mut connection).await.unwrap();
            }
        })
        .buffer_unordered(CALLERS)
        .collect::<()>()
        .await;
    let ingest = started.elapsed();
    let memory = used_memory(&server) - before;
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let mut users = 0;
    let mut times = [Duration::ZERO; 2];
    for (window, time) in [frame().full_window(), week()].iter().zip(&mut times) {
        let slots = window.slots_as_of(frame().resolution().slot_of(Timestamp::now()));
        let started = Instant::now();
        for _ in 0..COUNTS {
            let counted: u64 = redis::cmd("ZCOUNT")
                .arg(LARGEST)
                .arg(slots.start().number())
                .arg(slots.end().number())
                .query_async(&mut connection)
                .await
                .unwrap();
            users = users.max(counted);
        }
        *time = started.elapsed() / COUNTS;
    }
    Some(Row {
        name: "  ZADD GT, ZCOUNT without us",
        ingest,
        full: times[0],
        week: times[1],
        users,
        bytes: vec![(memory, "in memory")],
    })
}

async fn postgres(batches: &[Batch]) -> Option<Row> {
    let server = Postgres::start().await?;
    let store = server.store("headcount", frame()).await;
    let mut row = measure("postgres", &store, batches).await;
    row.bytes
        .push((table_size(&server, "headcount.pairs").await, "on disk"));
    Some(row)
}

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

/// The rows of one statement, which must not hold a key twice: keys in order, as columns.
fn columns(batch: &Batch) -> (Vec<String>, Vec<String>, Vec<i64>) {
    let mut rows = BTreeMap::new();
    for pair in batch.pairs() {
        let key = (
            pair.segment.as_str().to_owned(),
            pair.user.as_str().to_owned(),
        );
        let slot = i64::try_from(pair.slot.number()).unwrap();
        let latest = rows.entry(key).or_insert(slot);
        *latest = slot.max(*latest);
    }
    let (keys, slots): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
    let (segments, users) = keys.into_iter().unzip();
    (segments, users, slots)
}

/// An upsert and a count as somebody would write them by hand, without this library.
async fn sql_directly(batches: &[Batch]) -> Option<Row> {
    let server = Postgres::start().await?;
    let client = server.client().await;
    client
        .batch_execute(
            "create table pairs (segment text, user_id text, seen bigint, primary key (segment, user_id));
             create index on pairs (segment, seen)",
        )
        .await
        .unwrap();
    let statements: Vec<_> = batches.iter().map(columns).collect();
    let mut clients = Vec::new();
    for _ in 0..CALLERS {
        clients.push(server.client().await);
    }
    let started = Instant::now();
    let work = clients.iter().enumerate().map(|(first, client)| {
        let mine = statements.iter().skip(first).step_by(CALLERS);
        async move {
            let upsert =
                "insert into pairs select * from unnest($1::text[], $2::text[], $3::bigint[])
                          on conflict (segment, user_id) do update set seen = excluded.seen
                          where pairs.seen < excluded.seen";
            for (segments, users, slots) in mine {
                client
                    .execute(upsert, &[segments, users, slots])
                    .await
                    .unwrap();
            }
        }
    });
    futures::future::join_all(work).await;
    let ingest = started.elapsed();
    let mut users = 0;
    let mut times = [Duration::ZERO; 2];
    for (window, time) in [frame().full_window(), week()].iter().zip(&mut times) {
        let slots = window.slots_as_of(frame().resolution().slot_of(Timestamp::now()));
        let [from, to] =
            [slots.start(), slots.end()].map(|slot| i64::try_from(slot.number()).unwrap());
        let started = Instant::now();
        for _ in 0..COUNTS {
            let select = "select count(*) from pairs where segment = $1 and seen between $2 and $3";
            let row = client
                .query_one(select, &[&LARGEST, &from, &to])
                .await
                .unwrap();
            users = users.max(u64::try_from(row.get::<_, i64>(0)).unwrap());
        }
        *time = started.elapsed() / COUNTS;
    }
    let bytes = vec![(table_size(&server, "pairs").await, "on disk")];
    Some(Row {
        name: "  plain SQL without us",
        ingest,
        full: times[0],
        week: times[1],
        users,
        bytes,
    })
}

#[tokio::main]
async fn main() {
    let users = setting("HEADCOUNT_BENCH_USERS", 300_000);
    let batches = batches(setting("HEADCOUNT_BENCH_PAIRS", 1_000_000), users);
    let pairs = batches.len() * BATCH;
    let mut kept = std::collections::HashSet::new();
    for batch in &batches {
        kept.extend(
            batch
                .pairs()
                .map(|pair| (pair.segment.clone(), pair.user.as_str().to_owned())),
        );
    }
    let kept = kept.len() as u64;
    let mut rows = vec![embedded(&batches).await];
    rows.extend(influx(&batches).await);
    rows.extend(redis(&batches).await);
    rows.extend(redis_directly(&batches).await);
    rows.extend(postgres(&batches).await);
    rows.extend(sql_directly(&batches).await);
    let largest = rows[0].users;
    println!(
        "\n{pairs} pairs, {kept} different ones, {SEGMENTS} segments; counts of one with {largest} users\n"
    );
    println!(
        "| Store | pairs/s | count, 14 d | count, 7 d | bytes a pair |\n|---|---|---|---|---|"
    );
    for row in &rows {
        assert_eq!(row.users, largest, "{} counts otherwise", row.name);
        row.print(pairs, kept);
    }
}
