//! Live counts through Redis, next to the same services without them: `cargo bench --bench live`.
//!
//! Needs influxd and redis-server. HEADCOUNT_BENCH_PAIRS (2,000,000) is the number of pairs that InfluxDB has before anything is
//! measured, of HEADCOUNT_BENCH_USERS (300,000) users in 200 segments. Two services and two live processes share an InfluxDB and a
//! Redis; two more services with a bucket of their own have no live counts. What is compared alternates, so that a busy machine
//! slows both. Everything runs on one machine, the client included.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a bench fails by panicking and reports by printing"
)]

mod client;
mod raw;
mod site;
#[path = "../support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use domain::Timestamp;
use domain::feed::{Append, ChangeFeed, WriterId};
use domain::store::PairStore;
use stores::influx::InfluxStore;
use support::setting;
use support::stores::record_all;
use support::traffic::{DAY, SEGMENTS, Traffic, frame};

use client::{ingest, latencies, reads};
use site::{Site, cpu};

/// Pairs of a request.
const REQUEST: usize = 100;
const ROUNDS: usize = 3;

fn report(what: &str, measured: String) {
    println!("{what:72} {measured}");
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn millis(time: Duration) -> String {
    format!("{:.0} ms", time.as_secs_f64() * 1e3)
}

#[tokio::main]
async fn main() {
    let pairs = setting("HEADCOUNT_BENCH_PAIRS", 2_000_000);
    let users = setting("HEADCOUNT_BENCH_USERS", 300_000);
    let Some(mut site) = Site::start().await else {
        return;
    };
    println!("{pairs} pairs in InfluxDB, {SEGMENTS} segments, {users} users");
    let store = InfluxStore::open(site.influx.options("live", frame())).unwrap();
    fill(&store, pairs, users).await;

    hydration(&mut site, &store).await;
    site.start_services().await;
    ingest_with_and_without(&site).await;
    post_to_count(&site).await;
    cost_of_counts(&site, pairs).await;
    reads_with_and_without(&site).await;
    takeover(&mut site).await;
    restart(&mut site).await;
    apply(&mut site, &store).await;
    let hidden = site.compare(&store).await;
    println!("every live count is the store's own; InfluxDB hides {hidden} users");
}

async fn fill(store: &InfluxStore, pairs: u64, users: u64) {
    let mut traffic = Traffic::new(users, DAY);
    let mut left = pairs;
    while left > 0 {
        let some = left.min(500_000);
        record_all(store, &traffic.batches(some), 8).await;
        left -= some;
    }
}

/// A live process without data reads the store, next to the same rows as raw Flux returns them.
async fn hydration(site: &mut Site, store: &InfluxStore) {
    let segments = store.segments(Timestamp::now()).await.unwrap();
    let began = Instant::now();
    let rows = raw::rows(&site.influx, "live", &segments).await;
    let raw = rows as f64 / began.elapsed().as_secs_f64();
    let began = Instant::now();
    site.start_live(0);
    site.wait_until_complete(0).await;
    let pairs = site.metric(0, "headcount_live_hydrated_pairs_total").await;
    let hydrated = pairs / began.elapsed().as_secs_f64();
    report(
        "hydration, next to raw Flux that returns the same rows",
        format!("{hydrated:.0} of {raw:.0} rows/s = {:.2}", hydrated / raw),
    );
    site.start_live(1);
    site.wait_until_complete(1).await;
    let held = site.metric(0, "headcount_live_pairs").await;
    let index = site.metric(0, "headcount_live_bytes").await;
    report(
        "memory of a live process",
        format!(
            "{:.1} bytes a pair of index, {:.1} resident",
            index / held,
            site.resident(0) as f64 / held
        ),
    );
}

async fn ingest_with_and_without(site: &Site) {
    let (mut with, mut without, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    let redis = (site.redis_cpu(), site.redis_records());
    let mut sent = 0;
    for _ in 0..ROUNDS {
        let live = ingest(&site.live_urls(), REQUEST, Duration::from_secs(8)).await;
        let plain = ingest(&site.plain_urls(), REQUEST, Duration::from_secs(8)).await;
        sent += live.pairs;
        ratios.push(live.rate() / plain.rate());
        with.push(live.rate());
        without.push(plain.rate());
    }
    report(
        "ingest, requests of 100 pairs, live next to not live",
        format!(
            "{:.0} of {:.0} pairs/s = {:.2} ({ratios:.2?})",
            median(with),
            median(without),
            median(ratios.clone())
        ),
    );
    // The services without live counts use Redis for a request's segments at most once a minute.
    let cpu = site.redis_cpu() - redis.0;
    let bytes = site.redis_records() - redis.1;
    report(
        "Redis for one pair",
        format!(
            "{:.2} us of CPU, {:.1} bytes of feed",
            cpu.as_secs_f64() * 1e6 / sent as f64,
            bytes as f64 / sent as f64
        ),
    );
}

/// From the response to a POST on one service to the count on the other, at half of the rate that was reached.
async fn post_to_count(site: &Site) {
    let urls = site.live_urls();
    let top = ingest(&urls, REQUEST, Duration::from_secs(4)).await.rate();
    let idle = latencies(&urls[0], &urls[1], None).await;
    let loaded = latencies(&urls[0], &urls[1], Some((top / 2.0, REQUEST))).await;
    for (what, mut all) in [("idle", idle), ("half load", loaded)] {
        all.sort_unstable();
        let at = |share: f64| millis(all[((all.len() - 1) as f64 * share) as usize]);
        report(
            &format!("POST on one service to its count on the other, {what}"),
            format!("p50 {}, p99 {}, {} samples", at(0.5), at(0.99), all.len()),
        );
    }
}

async fn cost_of_counts(site: &Site, pairs: u64) {
    let urls = site.live_urls();
    let before = cpu(site.influx_id());
    let live_before = cpu(site.live_id(0)) + cpu(site.live_id(1));
    let counted = reads(&urls, Duration::from_secs(10)).await;
    report(
        &format!("InfluxDB's CPU for {counted} live counts over {pairs} pairs in 10 s"),
        millis(cpu(site.influx_id()).saturating_sub(before)),
    );
    let live = cpu(site.live_id(0)) + cpu(site.live_id(1));
    report(
        "CPU of both live processes meanwhile",
        millis(live.saturating_sub(live_before)),
    );
}

async fn reads_with_and_without(site: &Site) {
    let (live, plain) = (site.live_urls(), site.plain_urls());
    // The first read of a count is the store's.
    client::warm(&plain).await;
    let mut ratios = Vec::new();
    for _ in 0..ROUNDS {
        let live = reads(&live, Duration::from_secs(4)).await;
        let plain = reads(&plain, Duration::from_secs(4)).await;
        ratios.push(live as f64 / plain as f64);
    }
    report(
        "reads of a live count, next to a count from memory",
        format!("{:.2} ({ratios:.2?})", median(ratios.clone())),
    );
}

async fn takeover(site: &mut Site) {
    let publisher = site.publisher().await;
    let url = &site.live_urls()[0];
    let as_of = client::as_of(url).await;
    site.kill_live(publisher);
    let killed = Instant::now();
    let mut before = as_of;
    let moved = loop {
        let now = client::as_of(url).await;
        // The last ticks of the killed process may still arrive.
        if now > before && killed.elapsed() > Duration::from_millis(600) {
            break killed.elapsed();
        }
        before = now;
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    report("publisher killed, until counts move again", millis(moved));
    site.start_live(publisher);
    site.wait_until_complete(publisher).await;
}

async fn restart(site: &mut Site) {
    let pairs = site.metric(1, "headcount_live_pairs").await;
    site.stop_live(1).await;
    let began = Instant::now();
    site.start_live(1);
    site.wait_until_complete(1).await;
    report(
        &format!("restart of a live process with {pairs} pairs"),
        millis(began.elapsed()),
    );
}

/// A live process reads a feed that was filled while it was stopped.
async fn apply(site: &mut Site, store: &InfluxStore) {
    let key = store.fingerprint_key().await.unwrap();
    for number in 0..2 {
        site.stop_live(number).await;
    }
    let feed = site.feed();
    let mut traffic = Traffic::new(3_000_000, DAY).seeded(7);
    let (writer, mut known, mut pairs) = (WriterId::random(), None, 0);
    let mut batches = Vec::new();
    for sequence in 1..=600 {
        let batch = traffic.batch(5_000);
        let mut joined = Vec::new();
        for record in state::received(&batch, key, Timestamp::now()) {
            state::join(&mut joined, &record);
        }
        let append = Append {
            writer,
            sequence,
            skips: false,
            record: joined,
        };
        known = Some(feed.append(known, &append).await.unwrap().feed);
        pairs += batch.len();
        batches.push(batch);
    }
    let began = Instant::now();
    site.start_live(0);
    site.wait_until_applied(0, 600.0).await;
    let took = began.elapsed();
    let used = cpu(site.live_id(0));
    report(
        "a live process applies a feed, its start included",
        format!(
            "{:.2} M pairs/s, {:.2} us of CPU a pair",
            pairs as f64 / took.as_secs_f64() / 1e6,
            used.as_secs_f64() * 1e6 / pairs as f64
        ),
    );
    // The store gets them too, so that the counts can be compared at the end.
    record_all(store, &batches, 8).await;
    site.start_live(1);
    site.wait_until_complete(1).await;
}
