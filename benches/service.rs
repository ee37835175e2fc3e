//! The whole service over HTTP beside its peers, in one run: `cargo bench --bench service`.
//!
//! The client is the same for all: a few connections, each sending its next request when the answer came. The peers
//! are a bare warp service and a local Redis. Figures depend on the machine; the ratios are what to look at.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a benchmark prints its result and fails by panicking"
)]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use warp::Filter;

const PHASE: Duration = Duration::from_secs(5);
const USERS: u32 = 1_000_000;
const SEGMENTS: u32 = 200;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, mode, port] = arguments.as_slice()
        && mode == "bare-warp"
    {
        bare_warp(port.parse().unwrap());
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let bare = Peer::bare_warp();
    let headcount = Peer::headcount(directory.path());
    let redis = Peer::redis(directory.path());
    println!(
        "{:<44} {:>12} {:>9} {:>9}",
        "", "per second", "p50 us", "p99 us"
    );

    let hello = report(
        "bare warp, GET hello, 64 connections",
        1,
        run(bare.port, 64, |_| get("/hello"), http),
    );
    // Fill, so that reads and updates meet an index of a real size.
    for connections in [1, 2, 4] {
        let name = format!("headcount, NDJSON x 5,000, {connections} connection(s), pairs");
        report(
            &name,
            5_000,
            run(headcount.port, connections, |seed| post(seed, 5_000), http),
        );
    }
    let pairs = report(
        "headcount, NDJSON x 5,000, 8 connections, pairs",
        5_000,
        run(headcount.port, 8, |seed| post(seed, 5_000), http),
    );
    report(
        "headcount, NDJSON x 100, 64 connections, pairs",
        100,
        run(headcount.port, 64, |seed| post(seed, 100), http),
    );
    let single = report(
        "headcount, single POST, 64 connections",
        1,
        run(headcount.port, 64, |seed| post(seed, 1), http),
    );
    let post_hello = report(
        "bare warp, POST hello, 64 connections",
        1,
        run(bare.port, 64, |seed| post_to("/hello", seed, 1), http),
    );
    let read = report(
        "headcount, GET count, 64 connections",
        1,
        run(
            headcount.port,
            64,
            |seed| get(&format!("/v1/segments/s{}/count", seed % 50)),
            http,
        ),
    );
    if let Some(redis) = &redis {
        let zadd = report(
            "redis, ZADD GT x 100, 50 a pipeline, 4 connections, pairs",
            5_000,
            run(redis.port, 4, zadd, redis_integers),
        );
        println!(
            "\ndurable ingest / redis ZADD GT      {:.2} (reach 1.00)",
            pairs / zadd
        );
    } else {
        println!("\nredis-server is not on PATH: not compared");
    }
    println!(
        "single POST / bare warp GET         {:.2} (reach 0.50)",
        single / hello
    );
    println!(
        "single POST / bare warp POST        {:.2}",
        single / post_hello
    );
    println!(
        "GET count / bare warp GET           {:.2} (reach 0.70)",
        read / hello
    );
}

/// One phase: each connection sends requests made from a running number and waits for the answer.
fn run(
    port: u16,
    connections: u32,
    request: impl Fn(u32) -> Vec<u8>,
    finish: fn(&mut Connection),
) -> Histogram<u64> {
    let stop = Arc::new(AtomicBool::new(false));
    let workers: Vec<_> = (0..connections)
        .map(|worker| {
            // Made before the clock runs: the client must not be what is measured.
            let requests: Vec<Vec<u8>> = (0..16).map(|n| request(worker * 16 + n)).collect();
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                let mut connection = Connection::open(port);
                let mut latencies = Histogram::<u64>::new(3).unwrap();
                for request in requests.iter().cycle() {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let sent = Instant::now();
                    connection.stream.write_all(request).unwrap();
                    finish(&mut connection);
                    latencies
                        .record(u64::try_from(sent.elapsed().as_micros()).unwrap())
                        .unwrap();
                }
                latencies
            })
        })
        .collect();
    std::thread::sleep(PHASE);
    stop.store(true, Ordering::Relaxed);
    let mut all = Histogram::<u64>::new(3).unwrap();
    for worker in workers {
        all.add(worker.join().unwrap()).unwrap();
    }
    all
}

fn report(name: &str, items: u32, latencies: Histogram<u64>) -> f64 {
    #[expect(
        clippy::cast_precision_loss,
        reason = "a rate needs no more than 52 bits"
    )]
    let rate = latencies.len() as f64 * f64::from(items) / PHASE.as_secs_f64();
    let (p50, p99) = (
        latencies.value_at_quantile(0.5),
        latencies.value_at_quantile(0.99),
    );
    println!("{name:<44} {rate:>12.0} {p50:>9} {p99:>9}");
    rate
}

fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: bench\r\n\r\n").into_bytes()
}

fn post(seed: u32, pairs: u32) -> Vec<u8> {
    post_to("/v1/pairs", seed, pairs)
}

fn post_to(path: &str, seed: u32, pairs: u32) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(u64::from(seed));
    let mut body = String::new();
    for _ in 0..pairs {
        let (user, segment) = (random.u32(..USERS), random.u32(..SEGMENTS));
        body.push_str(&format!(
            "{{\"user_id\":\"u{user}\",\"segment\":\"s{segment}\"}}\n"
        ));
    }
    let kind = if pairs == 1 {
        "application/json"
    } else {
        "application/x-ndjson"
    };
    let length = body.len();
    format!("POST {path} HTTP/1.1\r\nhost: bench\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n{body}")
        .into_bytes()
}

fn zadd(seed: u32) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(u64::from(seed));
    let mut out = Vec::new();
    for _ in 0..50 {
        let mut arguments = vec![
            "ZADD".to_owned(),
            format!("s{}", random.u32(..SEGMENTS)),
            "GT".to_owned(),
        ];
        for _ in 0..100 {
            arguments.push("29000000".to_owned());
            arguments.push(format!("u{}", random.u32(..USERS)));
        }
        out.extend_from_slice(format!("*{}\r\n", arguments.len()).as_bytes());
        for argument in arguments {
            out.extend_from_slice(format!("${}\r\n{argument}\r\n", argument.len()).as_bytes());
        }
    }
    out
}

/// Reads one HTTP answer with a content length, and requires a 200.
fn http(connection: &mut Connection) {
    let head_end = loop {
        if let Some(at) = connection
            .buffer
            .windows(4)
            .position(|window| window == b"\r\n\r\n")
        {
            break at + 4;
        }
        connection.fill();
    };
    let head = std::str::from_utf8(&connection.buffer[..head_end])
        .unwrap()
        .to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 200"), "{head}");
    let length: usize = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .unwrap_or_else(|| panic!("no content-length in {head}"))
        .parse()
        .unwrap();
    while connection.buffer.len() < head_end + length {
        connection.fill();
    }
    connection.buffer.clear();
}

/// Reads the 50 integer answers of one pipeline.
fn redis_integers(connection: &mut Connection) {
    while connection
        .buffer
        .iter()
        .filter(|byte| **byte == b'\n')
        .count()
        < 50
    {
        connection.fill();
    }
    assert!(
        !connection.buffer.contains(&b'-'),
        "redis answered an error"
    );
    connection.buffer.clear();
}

struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    fn open(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            stream,
            buffer: Vec::new(),
        }
    }

    fn fill(&mut self) {
        let mut chunk = [0; 16 * 1024];
        let read = self.stream.read(&mut chunk).unwrap();
        assert!(read > 0, "the server closed the connection");
        self.buffer.extend_from_slice(&chunk[..read]);
    }
}

struct Peer {
    child: Child,
    port: u16,
}

impl Peer {
    fn bare_warp() -> Self {
        let port = free_port();
        let mut command = Command::new(std::env::current_exe().unwrap());
        Self::start(command.args(["bare-warp", &port.to_string()]), port)
    }

    fn headcount(directory: &Path) -> Self {
        let port = free_port();
        let mut command = Command::new(env!("CARGO_BIN_EXE_headcount"));
        command.arg("serve").current_dir(directory);
        command
            .env("HEADCOUNT_LISTEN", format!("127.0.0.1:{port}"))
            .env("HEADCOUNT_LOG", "warn");
        Self::start(&mut command, port)
    }

    fn redis(directory: &Path) -> Option<Self> {
        Command::new("redis-server")
            .arg("--version")
            .stdout(Stdio::null())
            .status()
            .ok()?;
        let port = free_port();
        let mut command = Command::new("redis-server");
        command.args([
            "--port",
            &port.to_string(),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
        ]);
        command
            .args(["--appendonly", "yes", "--appendfsync", "everysec", "--dir"])
            .arg(directory);
        Some(Self::start(&mut command, port))
    }

    fn start(command: &mut Command, port: u16) -> Self {
        let child = command.stdout(Stdio::null()).spawn().unwrap();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { child, port }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

fn bare_warp(port: u16) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let hello = warp::path("hello").map(|| "hello, world");
    runtime.block_on(warp::serve(hello).run(([127, 0, 0, 1], port)));
}
