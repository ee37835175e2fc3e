//! The Redis store against the same server asked directly: `cargo bench --bench redis_store`.
//!
//! Needs redis-server on PATH or named by HEADCOUNT_TEST_REDIS. HEADCOUNT_BENCH_PAIRS (1,000,000) is how many pairs are
//! written, of HEADCOUNT_BENCH_USERS (300,000) users in 200 segments, in batches of 5,000 from 4 callers, with
//! `appendonly yes, appendfsync everysec`, seen in the last HEADCOUNT_BENCH_SLOTS (1,440) minutes. What is sent directly is encoded before the clock starts. Peers alternate,
//! so that a busy machine slows both.

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
    pub mod redis;
    pub mod servers;
}

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt;
use headcount::cache::{Prefix, RedisServer};
use headcount::config::Secret;
use headcount::domain::{Batch, BatchBuilder, Segment, Slot, TimeFrame, Timestamp, UserId};
use headcount::store::PairStore;
use headcount::store::redis::{RedisStore, RedisStoreOptions};
use support::redis::{Redis, RedisCluster};

const SEGMENTS: u64 = 200;
const BATCH: usize = 5_000;
const CALLERS: usize = 4;
const ROUNDS: usize = 3;
const DURABLE: [&str; 6] = [
    "--save",
    "",
    "--appendonly",
    "yes",
    "--appendfsync",
    "everysec",
];

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

fn frame() -> TimeFrame {
    let (day, minute) = (Duration::from_hours(24), Duration::from_secs(60));
    TimeFrame::new(14 * day, minute, 5 * minute).unwrap()
}

/// Pairs of the last slots. Segment n is picked with a weight of 1/(n+1), so that some are large.
fn batches(pairs: u64, users: u64) -> Vec<Batch> {
    let mut random = fastrand::Rng::with_seed(1);
    let present = frame().resolution().slot_of(Timestamp::now()).number();
    let slots = setting("HEADCOUNT_BENCH_SLOTS", 1_440);
    let count = usize::try_from(pairs).unwrap().div_ceil(BATCH);
    let mut batch = || {
        let mut batch = BatchBuilder::with_capacity(BATCH);
        for _ in 0..BATCH {
            let user = UserId::new(format!("u{}", random.u64(..users))).unwrap();
            let segment = (((SEGMENTS + 1) as f64).powf(random.f64()) - 1.0) as u64;
            let segment = format!("segment-{}", segment.min(SEGMENTS - 1));
            let slot = Slot::new(present - random.u64(..slots));
            batch.push_pair(&user, &segment, slot).unwrap();
        }
        batch.finish()
    };
    (0..count).map(|_| batch()).collect()
}

/// `ZADD GT` of these pairs, grouped by segment, `at_once` members a call; the bytes and how many calls they hold.
fn zadds<'a>(batches: impl Iterator<Item = &'a Batch>, at_once: usize) -> (Vec<u8>, usize) {
    let mut members: HashMap<&str, Vec<(String, String)>> = HashMap::new();
    for batch in batches {
        for pair in batch.pairs() {
            let (slot, user) = (
                pair.slot.number().to_string(),
                pair.user.as_str().to_owned(),
            );
            members
                .entry(pair.segment.as_str())
                .or_default()
                .push((slot, user));
        }
    }
    let (mut bytes, mut calls) = (Vec::new(), 0);
    for (segment, members) in members {
        for part in members.chunks(at_once) {
            let key = format!("raw:{{{segment}}}");
            let flat = part.iter().flat_map(|(slot, user)| [slot.as_str(), user]);
            let words: Vec<&str> = ["ZADD", &key, "GT"].into_iter().chain(flat).collect();
            write!(bytes, "*{}\r\n", words.len()).unwrap();
            for word in words {
                write!(bytes, "${}\r\n{word}\r\n", word.len()).unwrap();
            }
            calls += 1;
        }
    }
    (bytes, calls)
}

/// Sends pipelines on some connections, each waiting for its answers; how long that took.
fn send_raw(port: u16, pipelines: &[(Vec<u8>, usize)]) -> Duration {
    let next = AtomicUsize::new(0);
    let started = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..CALLERS {
            scope.spawn(|| {
                let mut connection = TcpStream::connect(("127.0.0.1", port)).unwrap();
                connection.set_nodelay(true).unwrap();
                let mut buffer = vec![0; 64 * 1024];
                while let Some((bytes, calls)) = pipelines.get(next.fetch_add(1, Ordering::Relaxed))
                {
                    connection.write_all(bytes).unwrap();
                    let mut answers = 0;
                    while answers < *calls {
                        let length = connection.read(&mut buffer).unwrap();
                        assert!(length > 0 && !buffer[..length].contains(&b'-'));
                        answers += buffer[..length]
                            .iter()
                            .filter(|byte| **byte == b'\n')
                            .count();
                    }
                }
            });
        }
    });
    started.elapsed()
}

async fn record_all(store: &Arc<RedisStore>, batches: &[Batch]) -> Duration {
    let started = Instant::now();
    futures::stream::iter(batches)
        .map(async |batch| store.record(batch).await.unwrap())
        .buffer_unordered(CALLERS)
        .collect::<()>()
        .await;
    started.elapsed()
}

fn store(url: &str) -> Arc<RedisStore> {
    let server = RedisServer::parse(&Secret::new(url)).unwrap();
    let options = RedisStoreOptions {
        command_timeout: Duration::from_secs(60),
        ..RedisStoreOptions::new(server, Prefix::new("hc").unwrap(), frame())
    };
    Arc::new(RedisStore::open(options).unwrap())
}

fn used_memory(redis: &Redis) -> f64 {
    let info = redis.cli(&["INFO", "memory"]);
    let line = info
        .lines()
        .find_map(|line| line.strip_prefix("used_memory:"));
    line.unwrap().trim().parse().unwrap()
}

/// Seconds that the server computed so far: what a busy machine does not falsify.
fn cpu(redis: &Redis) -> f64 {
    let info = redis.cli(&["INFO", "cpu"]);
    let value = |name: &str| -> f64 {
        let line = info.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap().trim().parse().unwrap()
    };
    value("used_cpu_user:") + value("used_cpu_sys:")
}

/// How long writing took on the clock, and the server's seconds of computing.
#[derive(Default)]
struct Taken {
    times: Vec<Duration>,
    cpu: Vec<f64>,
}

impl Taken {
    async fn note(&mut self, redis: &Redis, write: impl Future<Output = Duration>) {
        let before = cpu(redis);
        self.times.push(write.await);
        self.cpu.push(cpu(redis) - before);
    }

    fn tell(mut self, what: &str, pairs: usize) -> f64 {
        self.cpu.sort_by(f64::total_cmp);
        let each = self.cpu[self.cpu.len() / 2] / pairs as f64 * 1e6;
        let rate = rate(what, pairs, &mut self.times);
        println!("{:52} {each:>12.2} us of the server a pair", "");
        rate
    }
}

fn rate(what: &str, pairs: usize, times: &mut [Duration]) -> f64 {
    times.sort_unstable();
    let rate = pairs as f64 / times[times.len() / 2].as_secs_f64();
    println!("{what:52} {rate:>12.0} pairs/s   {times:.2?}");
    rate
}

#[tokio::main]
async fn main() {
    let Some(redis) = Redis::start_with(&DURABLE).await else {
        return;
    };
    let users = setting("HEADCOUNT_BENCH_USERS", 300_000);
    let batches = batches(setting("HEADCOUNT_BENCH_PAIRS", 1_000_000), users);
    let pairs = batches.len() * BATCH;
    let by_batch: Vec<_> = batches
        .iter()
        .map(|batch| zadds(std::iter::once(batch), 100))
        .collect();
    // As if the segments' users came together: fifty full calls a pipeline.
    let by_segment: Vec<_> = batches
        .chunks(200)
        .map(|some| zadds(some.iter(), 100))
        .collect();
    let store = store(&redis.url());
    store.ping().await.unwrap();

    let (mut ours, mut same, mut full) = <(Taken, Taken, Taken)>::default();
    let mut bytes = 0.0;
    for _ in 0..ROUNDS {
        redis.cli(&["FLUSHALL"]);
        same.note(&redis, async { send_raw(redis.port(), &by_batch) })
            .await;
        redis.cli(&["FLUSHALL"]);
        full.note(&redis, async { send_raw(redis.port(), &by_segment) })
            .await;
        redis.cli(&["FLUSHALL"]);
        store.ping().await.unwrap();
        let before = used_memory(&redis);
        ours.note(&redis, record_all(&store, &batches)).await;
        bytes = used_memory(&redis) - before;
    }
    println!(
        "{pairs} pairs of {users} users in {SEGMENTS} segments, {ROUNDS} rounds, {CALLERS} callers\n"
    );
    let same = same.tell("ZADD GT, pipelined, each batch by segment", pairs);
    let full = full.tell("ZADD GT, pipelined, 100 members a call", pairs);
    let ours = ours.tell("the store, batches of 5,000", pairs);
    println!(
        "\nstore / the same calls sent directly   {:.2}",
        ours / same
    );
    println!("store / 100 members a call             {:.2}", ours / full);

    let (window, now) = (frame().full_window(), Timestamp::now());
    let mut kept = 0;
    for segment in store.segments(now).await.unwrap() {
        kept += store.count(&segment, window, now).await.unwrap().users;
    }
    println!(
        "\n{:.1} bytes a pair, of {kept} different ones",
        bytes / kept as f64
    );
    let segment = Segment::new("segment-0").unwrap();
    let largest = store.count(&segment, window, now).await.unwrap().users;
    const COUNTS: u32 = 2_000;
    let started = Instant::now();
    for _ in 0..COUNTS {
        store.count(&segment, window, now).await.unwrap();
    }
    let each = started.elapsed() / COUNTS;
    println!("count of {largest} users, one after the other   {each:.1?}");
    let started = Instant::now();
    store.segments(now).await.unwrap();
    println!(
        "list of {SEGMENTS} segments, each counted   {:.1?}",
        started.elapsed()
    );

    let Some(cluster) = RedisCluster::start_with(&DURABLE[2..]).await else {
        return;
    };
    let on_cluster = self::store(&cluster.url());
    on_cluster.ping().await.unwrap();
    println!();
    rate(
        "the store, three masters",
        pairs,
        &mut [record_all(&on_cluster, &batches).await],
    );
}
