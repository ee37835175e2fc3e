//! Durable ingest of pairs over HTTP, compared with the same pairs in Redis and the same bodies sent to bare warp.

use std::fmt::Write;

use super::bare;
use super::client::{Measured, Peer, Request, compare, once};
use super::report::Report;
use super::support::peer::{self, get, post};
use super::support::redis::Redis;
use super::support::resp::{EVERY_SECOND, Pipeline};
use super::support::traffic::{BATCH, SEGMENTS, Seen, Traffic, zipf};
use super::table::{Table, nothing, rate, ratio, time};
use super::{Run, progress, seconds};

const USERS: u64 = 1_000_000;
/// Members per call at which Redis reaches its highest rate.
const CALL: usize = 100;
/// The number of connections of the published figures.
const CONNECTIONS: u64 = 8;

/// The peers that receive pairs.
struct Peers {
    headcount: peer::Peer,
    bare: peer::Peer,
    every_second: Option<Redis>,
    always: Option<Redis>,
}

/// The rates of one batch size on a number of connections, in pairs a second; NaN if the peer is not available.
struct Cell {
    ours: f64,
    headcount: Measured,
    same: f64,
    calls: f64,
    always: f64,
    bare: f64,
}

pub(crate) fn measure(run: &Run) -> Report {
    let directory = tempfile::tempdir().unwrap();
    let always = EVERY_SECOND.map(|word| word.replace("everysec", "always"));
    let always: Vec<&str> = always.iter().map(String::as_str).collect();
    let peers = Peers {
        headcount: peer::Peer::headcount(directory.path(), &[]),
        bare: peer::Peer::this_program(bare::ROLE),
        every_second: run.runtime.block_on(Redis::start_with(&EVERY_SECOND)),
        always: run.runtime.block_on(Redis::start_with(&always)),
    };
    let mut report = Report::default();
    new_pairs(run, &peers, &mut report);
    stored_pairs(run, &peers, &mut report);
    report
}

/// Pairs that are not stored yet, each sent once.
fn new_pairs(run: &Run, peers: &Peers, report: &mut Report) {
    let batches = run.pick(100, 15);
    let pairs = (CONNECTIONS * batches * BATCH as u64) as f64;
    let own = |n: u64| n * BATCH as u64..(n + 1) * BATCH as u64;
    let mixed = |n| {
        let mut random = fastrand::Rng::with_seed(n);
        let seen = own(n).map(|user| seen(user, zipf(&mut random)));
        seen.collect::<Vec<_>>()
    };
    let calls = |n| own(n).map(|user| seen(user, user / CALL as u64 % SEGMENTS));
    let took = |port, request: &dyn Fn(u64) -> Request| {
        once(Peer::new(port, CONNECTIONS, batches, request)) * BATCH as f64
    };
    progress("new pairs");
    let ours = took(peers.headcount.port(), &|n| http(&mixed(n)));
    let mut table = Table::new(&["New pairs", "pairs/s", "headcount / row"]);
    let mut row = |name: &str, rate_: f64| {
        table.row([name.to_owned(), rate(rate_), ratio(ours / rate_)]);
    };
    row("headcount, NDJSON", ours);
    if let Some(redis) = &peers.every_second {
        let redis_took = took(redis.port(), &|n| zadd(mixed(n)));
        row("Redis, the same batches, fsync every second", redis_took);
        redis.cli(&["FLUSHALL"]);
        let redis_took = took(redis.port(), &|n| zadd(calls(n)));
        row("Redis, 100 members a call, fsync every second", redis_took);
        redis.cli(&["FLUSHALL"]);
    }
    report.paragraph(&format!(
        "{} pairs into empty servers, 5,000 a batch, {CONNECTIONS} connections. Redis receives a batch as one pipeline of `ZADD GT`, \
         with a call for each segment, or with 50 calls of {CALL} members each, which is its fastest form.",
        rate(pairs)
    ));
    report.table(&table);
}

/// Pairs of users that are mostly stored already.
fn stored_pairs(run: &Run, peers: &Peers, report: &mut Report) {
    report.paragraph(
        "Pairs of users that are mostly stored already, in pairs/s, and the latency of headcount. Each client sends its next batch after the \
         response. A 200 of headcount means that the pairs are synced to disk; Redis with fsync every second replies before the fsync. \
         *Always* is Redis with an fsync before each reply. Redis receives a later slot each time, since it neither changes nor logs a score \
         that is already stored; headcount logs every pair. Bare warp receives the same bodies and discards them.",
    );
    let mut table = Table::new(&[
        "Batch",
        "Connections",
        "headcount",
        "p50",
        "p99",
        "Redis, same batches",
        "ratio",
        "Redis, 100 a call",
        "ratio",
        "Redis, always",
        "ratio",
        "bare warp",
        "ratio",
    ]);
    let (mut durable, mut single) = (None, None);
    let mut number = 0;
    for batch in [1, 100, BATCH] {
        for connections in [1, CONNECTIONS, 64] {
            number += 1;
            progress(&format!("batches of {batch} on {connections}"));
            let cell = cell(run, peers, number, batch, connections);
            let compared = |other: f64| match other.is_nan() {
                true => [nothing(), nothing()],
                false => [rate(other), ratio(cell.ours / other)],
            };
            let ours = [0.5, 0.99].map(|quantile| time(cell.headcount.quantile(quantile)));
            let head = [batch.to_string(), connections.to_string(), rate(cell.ours)];
            let others = [cell.same, cell.calls, cell.always, cell.bare].map(compared);
            table.row(
                head.into_iter()
                    .chain(ours)
                    .chain(others.into_iter().flatten()),
            );
            match (batch, connections) {
                (BATCH, CONNECTIONS) => durable = Some(cell),
                (1, 64) => single = Some(cell),
                _ => {}
            }
        }
    }
    report.table(&table);

    let hello = Peer::new(peers.bare.port(), 64, 1, |_| Request::Http(get("/hello")));
    let hello = compare(vec![hello], run.pick(3, 1), seconds(1.0))[0].rate;
    let (durable, single) = (durable.unwrap(), single.unwrap());
    let ours = durable.ours;
    report.target(
        ours >= 1e6,
        &format!(
            "Durable ingest, batches of 5,000, {CONNECTIONS} connections: {} pairs/s",
            rate(ours)
        ),
        "1,000,000 pairs/s",
    );
    if !durable.calls.is_nan() {
        let to = ours / durable.calls;
        report.target(
            to >= 1.0,
            &format!(
                "Durable ingest relative to Redis with 100 members a call: {}",
                ratio(to)
            ),
            "at least 1",
        );
    }
    let to = single.ours / hello;
    report.target(
        to >= 0.5,
        &format!(
            "Single-pair POSTs, durable, 64 connections: {}/s, {} of a bare warp hello-world (GET, {}/s)",
            rate(single.ours), ratio(to), rate(hello)
        ),
        "0.50",
    );
}

fn cell(run: &Run, peers: &Peers, number: u64, batch: usize, connections: u64) -> Cell {
    // Enough users that the pages of an index don't all fit in a processor cache, and few enough to keep in memory.
    let each = run.pick(256, 64).min(80_000 / batch as u64);
    // Redis does not write a slot that is already stored, so each cell begins later than the previous one ended.
    let slot = 20_000_000 + 1_000_000 * number;
    let traffic = |n: u64| {
        let pairs = Traffic::new(USERS, 1).seeded(n).take(batch);
        pairs.map(move |pair| Seen { slot, ..pair })
    };
    let body = |n| http(&traffic(n).collect::<Vec<_>>());
    let same = |n| zadd(traffic(n));
    let calls = |n: u64| {
        zadd(traffic(n).enumerate().map(move |(index, pair)| Seen {
            segment: (n + (index / CALL) as u64) % SEGMENTS,
            ..pair
        }))
    };
    let peer = |port, request: &dyn Fn(u64) -> Request| Peer::new(port, connections, each, request);
    let mut all = vec![
        peer(peers.headcount.port(), &body),
        peer(peers.bare.port(), &body),
    ];
    if let (Some(every_second), Some(always)) = (&peers.every_second, &peers.always) {
        all.push(peer(every_second.port(), &same));
        all.push(peer(always.port(), &same));
        if batch > 1 {
            all.push(peer(every_second.port(), &calls));
        }
    }
    let (rounds, each) = run.pick((3, seconds(1.0)), (1, seconds(0.6)));
    let mut measured = compare(all, rounds, each).into_iter();
    let headcount = measured.next().unwrap();
    let pairs = |measured: Measured| measured.rate * batch as f64;
    let mut next = || measured.next().map_or(f64::NAN, pairs);
    Cell {
        ours: headcount.rate * batch as f64,
        headcount,
        bare: next(),
        same: next(),
        always: next(),
        calls: next(),
    }
}

fn seen(user: u64, segment: u64) -> Seen {
    // About the current slot. It is not compared with a clock.
    let slot = 29_700_000;
    Seen {
        user,
        segment,
        slot,
    }
}

/// A POST of these pairs, seen now.
fn http(seen: &[Seen]) -> Request {
    let mut body = String::new();
    for Seen { user, segment, .. } in seen {
        let line = r#"{"user_id":"u"#;
        writeln!(body, "{line}{user}\",\"segment\":\"segment-{segment}\"}}").unwrap();
    }
    let kind = match seen.len() {
        1 => "application/json",
        _ => "application/x-ndjson",
    };
    Request::Http(post("/v1/pairs", &body, kind))
}

fn zadd(seen: impl IntoIterator<Item = Seen>) -> Request {
    Request::Redis(Pipeline::zadds(seen, CALL))
}
