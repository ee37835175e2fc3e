//! The memory per pair: of the service, and of Redis with the same pairs in sorted sets.

use std::fmt::Write;
use std::sync::Mutex;
use std::time::Duration;

use super::client::{Client, Request};
use super::filled::{arriving, assert_counted, users};
use super::machine::available_mebibytes;
use super::report::Report;
use super::support::peer::{Peer, post};
use super::support::redis::Redis;
use super::support::resp::{Pipeline, info, used_memory};
use super::support::traffic::{BATCH, Seen};
use super::table::{Table, grouped, nothing, ratio};
use super::{Run, progress};

const CONNECTIONS: usize = 4;
/// The largest observed size in bytes of one pair in a sorted set of Redis.
const REDIS_BYTES: u64 = 125;
/// The allocator returns freed pages to the system after ten seconds, its default.
const DECAY: Duration = Duration::from_secs(12);

pub(crate) fn measure(run: &Run) -> Report {
    let sizes: &[u64] = run.pick(&[1_000_000, 10_000_000, 50_000_000], &[1_000_000]);
    let largest = *sizes.last().unwrap();
    let ours = headcount(sizes, largest);
    let mut report = Report::default();
    // Half of the available memory is left to other processes.
    let feasible = |pairs: u64| (pairs * REDIS_BYTES) >> 20 < available_mebibytes() / 2;
    let feasible: Vec<u64> = sizes
        .iter()
        .copied()
        .filter(|pairs| feasible(*pairs))
        .collect();
    let in_redis = redis(run, &feasible, largest).unwrap_or_default();

    let mut table = Table::new(&[
        "Pairs",
        "headcount, bytes a pair",
        "process, MiB",
        "Redis, bytes a pair",
        "process, MiB",
        "Redis / headcount",
    ]);
    for (index, pairs) in sizes.iter().enumerate() {
        let mebibytes = |bytes: f64| grouped(bytes as u64 >> 20);
        let (each, process) = ours[index];
        let head = [grouped(*pairs), format!("{each:.1}"), mebibytes(process)];
        let other = in_redis.get(index).map(|(other, process)| {
            [
                format!("{other:.1}"),
                mebibytes(*process),
                ratio(other / each),
            ]
        });
        table.row(
            head.into_iter()
                .chain(other.unwrap_or_else(|| [(); 3].map(|()| nothing()))),
        );
    }
    report.paragraph(
        "*headcount* is the resident memory of `headcount serve` in excess of an empty service, a few seconds after this many distinct pairs \
         arrived over HTTP. *Redis* is its `used_memory` in excess of an empty server, with the same users, segments and slots in sorted sets. \
         There are 200 segments, the largest with an eighth of the pairs. User ids are similar to `u12345678`, and users are seen over two weeks. \
         A process retains about 20 MiB after any load, which is significant at a million pairs.",
    );
    if feasible.len() < sizes.len() {
        let left_out = &sizes[feasible.len()..];
        report.paragraph(&format!(
            "Redis was skipped at {left_out:?} pairs: at up to {REDIS_BYTES} bytes each they would take more than half of the {} MiB of available memory.",
            grouped(available_mebibytes())
        ));
    } else if in_redis.is_empty() {
        report.paragraph("redis-server is not installed: skipped.");
    }
    report.table(&table);
    let at = sizes.iter().position(|pairs| *pairs == 10_000_000);
    if let Some(at) = at {
        let each = ours[at].0;
        report.target(
            each <= 12.0,
            &format!("Memory per pair at 10 million: {each:.1} bytes"),
            "12 bytes",
        );
    }
    report
}

/// Batches of pairs that connections take in turn.
struct Batches<I>(Mutex<I>);

impl<I: Iterator<Item = Seen>> Batches<I> {
    fn next(&self) -> Option<Vec<Seen>> {
        let batch: Vec<Seen> = self.0.lock().unwrap().by_ref().take(BATCH).collect();
        (!batch.is_empty()).then_some(batch)
    }
}

/// Sends all of these pairs over several connections. Each connection encodes its own batches.
pub(crate) fn send(
    pairs: impl Iterator<Item = Seen> + Send,
    connect: impl Fn() -> Client + Sync,
    encode: impl Fn(&[Seen]) -> Request + Sync,
) {
    let batches = Batches(Mutex::new(pairs));
    std::thread::scope(|scope| {
        for _ in 0..CONNECTIONS {
            scope.spawn(|| {
                let mut client = connect();
                while let Some(batch) = batches.next() {
                    client.exchange(&encode(&batch));
                }
            });
        }
    });
}

/// The bytes per pair and the bytes of the process, at each size.
fn headcount(sizes: &[u64], largest: u64) -> Vec<(f64, f64)> {
    let directory = tempfile::tempdir().unwrap();
    let service = Peer::headcount(directory.path(), &[]);
    let empty = service.resident();
    let mut pairs = arriving(largest);
    let mut sent = 0;
    let at = |size: &u64| {
        progress(&format!("{} pairs into headcount", grouped(*size)));
        let more = pairs.by_ref().take((size - sent) as usize);
        send(more, || Client::http(service.port()), lines);
        sent = *size;
        std::thread::sleep(DECAY);
        assert_counted(users(&service), *size);
        let process = service.resident();
        ((process - empty) as f64 / *size as f64, process as f64)
    };
    sizes.iter().map(at).collect()
}

/// The same in Redis.
fn redis(run: &Run, sizes: &[u64], largest: u64) -> Option<Vec<(f64, f64)>> {
    let server = run.runtime.block_on(Redis::start())?;
    let empty = used_memory(&server);
    let mut pairs = arriving(largest);
    let mut sent = 0;
    let at = |size: &u64| {
        progress(&format!("{} pairs into Redis", grouped(*size)));
        let more = pairs.by_ref().take((size - sent) as usize);
        let encode = |batch: &[Seen]| Request::Redis(Pipeline::zadds(batch.iter().copied(), 100));
        send(more, || Client::redis(server.port()), encode);
        sent = *size;
        let used = used_memory(&server) - empty;
        (
            used / *size as f64,
            info(&server, "memory", "used_memory_rss"),
        )
    };
    Some(sizes.iter().map(at).collect())
}

/// A POST of pairs with the times at which they were seen.
fn lines(seen: &[Seen]) -> Request {
    let mut body = String::with_capacity(seen.len() * 64);
    for Seen {
        user,
        segment,
        slot,
    } in seen
    {
        let at = slot * 60;
        let line = r#"{"user_id":"u"#;
        writeln!(
            body,
            "{line}{user}\",\"segment\":\"segment-{segment}\",\"at\":{at}}}"
        )
        .unwrap();
    }
    Request::Http(post("/v1/pairs", &body, "application/x-ndjson"))
}
