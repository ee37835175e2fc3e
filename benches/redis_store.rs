//! The Redis store against direct use of the same server: `cargo bench --bench redis_store`.
//!
//! Needs redis-server on PATH or named by HEADCOUNT_TEST_REDIS. HEADCOUNT_BENCH_PAIRS (1,000,000) is the number of pairs,
//! of HEADCOUNT_BENCH_USERS (300,000) users in 200 segments, seen in the last HEADCOUNT_BENCH_SLOTS (1,440) minutes,
//! written in batches of 5,000 from 4 callers, with `appendonly yes, appendfsync everysec`. Direct requests are encoded
//! before the clock starts. Peers alternate, so that a busy machine slows both.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a bench fails by panicking and reports by printing"
)]

mod support;

use std::time::{Duration, Instant};

use domain::store::PairStore;
use domain::{Segment, Timestamp};
use support::redis::{Redis, RedisCluster};
use support::resp::{EVERY_SECOND, Pipeline, info, send_all, used_memory};
use support::setting;
use support::stores::{record_all, redis_store};
use support::traffic::{BATCH, DAY, SEGMENTS, Seen, Traffic, batch, frame};

const CALLERS: usize = 4;
const ROUNDS: usize = 3;

/// The CPU seconds of the server so far, which don't depend on how busy the machine is.
fn cpu(redis: &Redis) -> f64 {
    info(redis, "cpu", "used_cpu_user") + info(redis, "cpu", "used_cpu_sys")
}

/// The duration of writing, and the CPU seconds of the server.
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

    fn report(mut self, what: &str, pairs: usize) -> f64 {
        self.cpu.sort_by(f64::total_cmp);
        let each = self.cpu[self.cpu.len() / 2] / pairs as f64 * 1e6;
        let rate = rate(what, pairs, &mut self.times);
        println!("{:52} {each:>12.2} us of server CPU per pair", "");
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
    let Some(redis) = Redis::start_with(&EVERY_SECOND).await else {
        return;
    };
    let users = setting("HEADCOUNT_BENCH_USERS", 300_000);
    let wanted = usize::try_from(setting("HEADCOUNT_BENCH_PAIRS", 1_000_000)).unwrap();
    let pairs = wanted.next_multiple_of(BATCH);
    let slots = setting("HEADCOUNT_BENCH_SLOTS", DAY);
    let seen: Vec<Seen> = Traffic::new(users, slots).take(pairs).collect();
    let batches: Vec<_> = seen
        .chunks(BATCH)
        .map(|some| batch(some.iter().copied()))
        .collect();
    let by_batch: Vec<_> = seen
        .chunks(BATCH)
        .map(|some| Pipeline::zadds(some.iter().copied(), 100))
        .collect();
    // As if the users of a segment arrived together: fifty full calls a pipeline.
    let by_segment: Vec<_> = seen
        .chunks(200 * BATCH)
        .map(|some| Pipeline::zadds(some.iter().copied(), 100))
        .collect();
    let store = redis_store(&redis.url(), "hc");
    store.ping().await.unwrap();

    let (mut ours, mut same, mut full) = <(Taken, Taken, Taken)>::default();
    let mut bytes = 0.0;
    for _ in 0..ROUNDS {
        redis.cli(&["FLUSHALL"]);
        same.note(&redis, async { send_all(redis.port(), &by_batch, CALLERS) })
            .await;
        redis.cli(&["FLUSHALL"]);
        full.note(&redis, async {
            send_all(redis.port(), &by_segment, CALLERS)
        })
        .await;
        redis.cli(&["FLUSHALL"]);
        store.ping().await.unwrap();
        let before = used_memory(&redis);
        ours.note(&redis, record_all(&store, &batches, CALLERS))
            .await;
        bytes = used_memory(&redis) - before;
    }
    println!(
        "{pairs} pairs of {users} users in {SEGMENTS} segments, {ROUNDS} rounds, {CALLERS} callers\n"
    );
    let same = same.report("ZADD GT, pipelined, each batch by segment", pairs);
    let full = full.report("ZADD GT, pipelined, 100 members a call", pairs);
    let ours = ours.report("the store, batches of 5,000", pairs);
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
        "\n{:.1} bytes per pair, of {kept} distinct pairs",
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
    println!("count of {largest} users, sequentially   {each:.1?}");
    let started = Instant::now();
    store.segments(now).await.unwrap();
    println!(
        "list of {SEGMENTS} segments, each counted   {:.1?}",
        started.elapsed()
    );

    let Some(cluster) = RedisCluster::start_with(&EVERY_SECOND[2..]).await else {
        return;
    };
    let on_cluster = redis_store(&cluster.url(), "hc");
    on_cluster.ping().await.unwrap();
    println!();
    rate(
        "the store, three masters",
        pairs,
        &mut [record_all(&on_cluster, &batches, CALLERS).await],
    );
}
