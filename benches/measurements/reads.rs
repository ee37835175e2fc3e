//! Reads of counts over HTTP: from memory, from Redis, and from the store, compared with bare warp and Redis itself.

use std::process::Command;
use std::time::Duration;

use super::bare;
use super::client::{self, Request, compare};
use super::report::Report;
use super::support::open_loop::{OpenLoop, Script};
use super::support::peer::{Peer, get, post};
use super::support::redis::Redis;
use super::support::stores::{record_all, redis_store};
use super::support::traffic::{DAY, Traffic};
use super::table::{Table, nothing, rate, ratio, time};
use super::{Run, progress, seconds};

const CONNECTIONS: u64 = 64;
const PATH: &str = "/v1/segments/segment-0/count";
const FRESH: &str = "/v1/segments/segment-0/count?fresh=true";

/// A kind of read.
struct Kind<'a> {
    name: &'static str,
    service: &'a Peer,
    path: &'static str,
    /// The source in the response.
    source: Option<&'static str>,
}

pub(crate) fn measure(run: &Run) -> Report {
    let directories = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let [own, memory, cache] = &directories;
    let bare = Peer::this_program(bare::ROLE);
    let embedded = Peer::headcount(own.path(), &[]);
    let pairs = run.pick(1_000_000, 200_000);
    let batches = Traffic::new(300_000, DAY).batches(pairs);
    for batch in &batches {
        let lines = batch.pairs().map(|pair| {
            format!(
                "{{\"user_id\":\"{}\",\"segment\":\"{}\"}}\n",
                pair.user.as_str(),
                pair.segment.as_str()
            )
        });
        send_once(
            &embedded,
            post(
                "/v1/pairs",
                &lines.collect::<String>(),
                "application/x-ndjson",
            ),
        );
    }
    let mut kinds = vec![
        Kind {
            name: "bare warp, GET hello",
            service: &bare,
            path: "/hello",
            source: None,
        },
        Kind {
            name: "embedded store: always live",
            service: &embedded,
            path: PATH,
            source: Some("store"),
        },
    ];
    let redis = run.runtime.block_on(Redis::start());
    let url = redis.as_ref().map(Redis::url).unwrap_or_default();
    let remote = |directory: &tempfile::TempDir, memory_ttl| {
        let settings = [
            ("store", "redis"),
            ("cache", "redis"),
            ("redis_url", url.as_str()),
            ("memory_ttl", memory_ttl),
            ("refresh_mode", "off"),
        ];
        Peer::headcount(directory.path(), &settings)
    };
    let services = redis.as_ref().map(|_| {
        run.runtime
            .block_on(async { record_all(&redis_store_of_service(&url), &batches, 4).await });
        let services = (remote(memory, "1m"), remote(cache, "0s"));
        send_once(
            &services.0,
            post("/v1/admin/refresh", "", "application/json"),
        );
        services
    });
    if let Some((memory, cache)) = &services {
        kinds.extend([
            Kind {
                name: "Redis store: hit in memory",
                service: memory,
                path: PATH,
                source: Some("memory"),
            },
            Kind {
                name: "Redis store: hit in Redis",
                service: cache,
                path: PATH,
                source: Some("cache"),
            },
            Kind {
                name: "Redis store: miss, `fresh=true`",
                service: cache,
                path: FRESH,
                source: Some("store"),
            },
        ]);
    }
    for kind in &kinds {
        if let Some(source) = kind.source {
            // The first request may fill the cache, and the second one hits it.
            kind.service.get(kind.path);
            assert_eq!(
                kind.service.get(kind.path)["source"],
                source,
                "{}",
                kind.name
            );
        }
    }
    let mut report = Report::default();
    rates(run, &kinds, redis.as_ref(), &mut report);
    report
}

/// A store with the same keys as a service with default settings.
fn redis_store_of_service(url: &str) -> stores::redis::store::RedisStore {
    redis_store(url, "headcount")
}

fn send_once(service: &Peer, request: Vec<u8>) {
    let once = client::Peer::new(service.port(), 1, 1, |_| Request::Http(request.clone()));
    client::once(once);
}

fn rates(run: &Run, kinds: &[Kind], redis: Option<&Redis>, report: &mut Report) {
    progress("all kinds of reads in turn");
    let peers = kinds.iter().map(|kind| {
        let request = |_| Request::Http(get(kind.path));
        client::Peer::new(kind.service.port(), CONNECTIONS, 1, request)
    });
    let (rounds, each) = run.pick((3, seconds(2.0)), (1, seconds(1.0)));
    let measured = compare(peers.collect(), rounds, each);
    let hello = measured[0].rate;
    let mut table = Table::new(&[
        "GET",
        "responses/s",
        "ratio to bare warp",
        "p50",
        "p99",
        "p50 at half load",
        "p99",
        "p99.9",
        "max",
    ]);
    let mut half_p99 = Duration::ZERO;
    for (kind, measured) in kinds.iter().zip(&measured) {
        progress(&format!("{} at half load", kind.name));
        let load = OpenLoop {
            address: kind.service.address(),
            rate: measured.rate / 2.0,
            connections: CONNECTIONS as usize,
        };
        let tally = load.run(run.pick(seconds(4.0), seconds(1.0)), Get(kind.path));
        assert_eq!(tally.of_status(200), tally.answers(), "{}", kind.name);
        let at = |quantile| seconds(tally.latency_ms(quantile) / 1e3);
        if kind.name.starts_with("embedded") {
            half_p99 = at(0.99);
        }
        let closed = [0.5, 0.99].map(|quantile| time(measured.quantile(quantile)));
        let open = [0.5, 0.99, 0.999, 1.0].map(|quantile| time(at(quantile)));
        let head = [
            kind.name.to_owned(),
            rate(measured.rate),
            ratio(measured.rate / hello),
        ];
        table.row(head.into_iter().chain(closed).chain(open));
    }
    if let Some((rate_, p50, p99)) = redis.and_then(redis_benchmark) {
        let head = [
            "redis-benchmark, GET".to_owned(),
            rate(rate_),
            ratio(rate_ / hello),
        ];
        let closed = [time(seconds(p50 / 1e3)), time(seconds(p99 / 1e3))];
        let open = [(); 4].map(|()| nothing());
        table.row(head.into_iter().chain(closed).chain(open));
    }
    report.paragraph(&format!(
        "{CONNECTIONS} connections. First a closed loop: each connection sends its next request after the response. Then an open loop at half \
         of that rate: requests are due at fixed instants, and latency is measured from these, so that no stall is hidden."
    ));
    if redis.is_none() {
        report.paragraph("redis-server is not installed: the rows that need it were skipped.");
    }
    report.table(&table);
    let from_memory = measured[1].rate / hello;
    report.target(
        from_memory >= 0.7,
        &format!(
            "Reads from memory: {} of a bare warp hello-world",
            ratio(from_memory)
        ),
        "0.70",
    );
    report.target(
        half_p99 <= Duration::from_millis(2),
        &format!("Reads from memory at half load: p99 {}", time(half_p99)),
        "2 ms",
    );
}

struct Get(&'static str);

impl Script for Get {
    fn write_request(&self, _n: u64, out: &mut Vec<u8>) {
        out.extend_from_slice(&get(self.0));
    }
}

/// redis-benchmark against Redis: responses a second, p50 and p99 in milliseconds.
fn redis_benchmark(redis: &Redis) -> Option<(f64, f64, f64)> {
    let (port, clients) = (redis.port().to_string(), CONNECTIONS.to_string());
    let output = Command::new("redis-benchmark")
        .args([
            "-p", &port, "-c", &clients, "-n", "300000", "-t", "get", "--csv",
        ])
        .output()
        .ok()?;
    // "test","rps","avg_latency_ms","min_latency_ms","p50_latency_ms","p95_latency_ms","p99_latency_ms","max_latency_ms"
    let text = String::from_utf8(output.stdout).ok()?;
    let line = text.lines().find(|line| line.starts_with("\"GET\""))?;
    let fields: Vec<f64> = line
        .split(',')
        .skip(1)
        .filter_map(|field| field.trim_matches('"').parse().ok())
        .collect();
    Some((*fields.first()?, *fields.get(3)?, *fields.get(5)?))
}
