//! An open-loop load generator over HTTP/1.1: requests are due at fixed instants, however fast the service responds.
//!
//! A closed loop sends its next request after the response, so a stall of a second appears as one slow request. In an open
//! loop it appears in all requests that were due in that second, because latency is measured from the instant at which a
//! request was due. (Gil Tene, "How NOT to Measure Latency", calls the mistake of the closed loop "coordinated omission";
//! `wrk2` measures as here.)
//!
//! Each connection is a blocking thread and stays open between requests. All connections share one schedule: an idle
//! one takes the next request, waits for its instant, sends it, and reads the response. If none is idle, requests are sent
//! late, and their latency includes the delay. A request that was due and never sent counts with the time it waited.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

/// The timeout of a read. A request that exceeds it counts as failed.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);
/// Latencies are recorded in microseconds with three significant digits, up to an hour.
const HIGHEST_MICROS: u64 = 3_600_000_000;
/// The pause before a failed connect is retried.
const RECONNECT_PAUSE: Duration = Duration::from_millis(10);

/// Creates requests and receives their responses. Requests are numbered from 0 in the order in which they are due.
pub(crate) trait Script: Send + Sync + 'static {
    /// Writes request `n`, head and body, into `out`, which is empty. Called before the request is due.
    fn write_request(&self, n: u64, out: &mut Vec<u8>);

    /// Receives the status and body of the response to request `n`; `None` if it failed and its effect is unknown. Not
    /// called for a request that was never sent.
    fn answered(&self, _n: u64, _response: Option<(u16, &[u8])>) {}
}

/// The target, the rate and the concurrency of a load.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OpenLoop {
    pub(crate) address: SocketAddr,
    /// Requests a second.
    pub(crate) rate: f64,
    /// The maximum number of concurrent requests. If it is too low, requests are sent late.
    pub(crate) connections: usize,
}

impl OpenLoop {
    /// Starts sending, until `Running::stop`.
    pub(crate) fn start(self, script: impl Script) -> Running {
        let shared = Arc::new(Shared {
            plan: self,
            start: Instant::now(),
            next: AtomicU64::new(0),
            end: OnceLock::new(),
            script,
        });
        let workers = (0..self.connections).map(|_| {
            let tally = Arc::<Mutex<Tally>>::default();
            let (shared, kept) = (Arc::clone(&shared), Arc::clone(&tally));
            let thread = std::thread::Builder::new().stack_size(256 * 1024);
            let thread = thread.spawn(move || shared.work(&kept)).unwrap();
            (thread, tally)
        });
        let workers = workers.collect();
        Running {
            control: shared,
            workers,
        }
    }

    /// Sends for `duration`, then waits for the responses to the requests that were sent.
    pub(crate) fn run(self, duration: Duration, script: impl Script) -> Tally {
        let running = self.start(script);
        std::thread::sleep(duration);
        running.stop()
    }

    /// The time at which request `n` is due, relative to the start.
    fn due(&self, n: u64) -> Duration {
        #[expect(clippy::cast_precision_loss, reason = "2^53 requests are never sent")]
        Duration::from_secs_f64(n as f64 / self.rate)
    }
}

/// A load in progress.
pub(crate) struct Running {
    control: Arc<dyn Control>,
    workers: Vec<(JoinHandle<()>, Arc<Mutex<Tally>>)>,
}

impl Running {
    /// The results since the last `take`. The load continues.
    pub(crate) fn take(&self) -> Tally {
        let mut sum = Tally::default();
        for (_, tally) in &self.workers {
            sum.add(&std::mem::take(&mut *tally.lock().unwrap()));
        }
        sum
    }

    /// Stops sending, waits for outstanding responses, and returns the results since the last `take`.
    pub(crate) fn stop(mut self) -> Tally {
        let end = self.control.stop();
        let mut sum = Tally::default();
        for (thread, tally) in self.workers.drain(..) {
            thread.thread().unpark();
            thread.join().unwrap();
            sum.add(&std::mem::take(&mut *tally.lock().unwrap()));
        }
        self.control.count_unsent(end, &mut sum);
        sum
    }
}

/// The results of requests.
#[derive(Clone)]
pub(crate) struct Tally {
    /// Latency: from the instant at which a request was due to the last byte of its response, in microseconds.
    pub(crate) latency: Histogram<u64>,
    /// Send delay: from the instant at which a request was due until it is sent, in microseconds.
    pub(crate) lateness: Histogram<u64>,
    /// The number of responses by status.
    pub(crate) statuses: BTreeMap<u16, u64>,
    /// Requests without a response: the connection failed or a read timed out.
    pub(crate) failed: u64,
    /// Requests that were due before the end and never sent.
    pub(crate) unsent: u64,
}

impl Default for Tally {
    fn default() -> Self {
        let histogram = Histogram::new_with_bounds(1, HIGHEST_MICROS, 3).unwrap();
        Self {
            latency: histogram.clone(),
            lateness: histogram,
            statuses: BTreeMap::new(),
            failed: 0,
            unsent: 0,
        }
    }
}

impl Tally {
    /// Adds other results.
    pub(crate) fn add(&mut self, other: &Self) {
        self.latency.add(&other.latency).unwrap();
        self.lateness.add(&other.lateness).unwrap();
        for (status, count) in &other.statuses {
            *self.statuses.entry(*status).or_default() += count;
        }
        self.failed += other.failed;
        self.unsent += other.unsent;
    }

    /// Counts a request that was never sent, if it was due before the end.
    fn record_unsent(&mut self, due: Instant, end: Instant) {
        let waited = end.saturating_duration_since(due);
        if !waited.is_zero() {
            self.unsent += 1;
            self.latency.saturating_record(micros(waited));
            self.lateness.saturating_record(micros(waited));
        }
    }

    /// The number of responses of any status.
    pub(crate) fn answers(&self) -> u64 {
        self.statuses.values().sum()
    }

    /// The number of responses with this status.
    pub(crate) fn of_status(&self, status: u16) -> u64 {
        self.statuses.get(&status).copied().unwrap_or(0)
    }

    /// A latency in milliseconds, by quantile: 0.99 is p99, 1.0 the maximum.
    pub(crate) fn latency_ms(&self, quantile: f64) -> f64 {
        millis(&self.latency, quantile)
    }

    /// A send delay in milliseconds, by quantile.
    pub(crate) fn lateness_ms(&self, quantile: f64) -> f64 {
        millis(&self.lateness, quantile)
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "at most an hour in microseconds"
)]
fn millis(histogram: &Histogram<u64>, quantile: f64) -> f64 {
    histogram.value_at_quantile(quantile) as f64 / 1e3
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "p50 {:.2} ms, p99 {:.2}, p99.9 {:.2}, max {:.2}; send delay p99 {:.2} ms, max {:.2};",
            self.latency_ms(0.5),
            self.latency_ms(0.99),
            self.latency_ms(0.999),
            self.latency_ms(1.0),
            self.lateness_ms(0.99),
            self.lateness_ms(1.0),
        )?;
        for (status, count) in &self.statuses {
            write!(f, " {status}: {count},")?;
        }
        write!(f, " failed {}, unsent {}", self.failed, self.unsent)
    }
}

/// The operations on a running load that are independent of the type of the script.
trait Control: Send + Sync {
    /// Stops sending, and returns the current instant, or that of the first call.
    fn stop(&self) -> Instant;
    /// Counts the requests that were never sent. Call it after all workers have ended.
    fn count_unsent(&self, end: Instant, sum: &mut Tally);
}

struct Shared<S> {
    plan: OpenLoop,
    start: Instant,
    /// The number of the next request that no connection has taken.
    next: AtomicU64,
    /// When the load ended. Requests that are due later are not sent.
    end: OnceLock<Instant>,
    script: S,
}

impl<S: Script> Control for Shared<S> {
    fn stop(&self) -> Instant {
        *self.end.get_or_init(Instant::now)
    }

    fn count_unsent(&self, end: Instant, sum: &mut Tally) {
        for n in self.next.load(Ordering::SeqCst).. {
            let due = self.start + self.plan.due(n);
            if due >= end {
                return;
            }
            sum.record_unsent(due, end);
        }
    }
}

impl<S: Script> Shared<S> {
    /// The loop of one connection.
    fn work(&self, tally: &Mutex<Tally>) {
        let mut connection = None;
        let (mut request, mut body) = (Vec::new(), Vec::new());
        loop {
            let n = self.next.fetch_add(1, Ordering::SeqCst);
            let due = self.start + self.plan.due(n);
            request.clear();
            self.script.write_request(n, &mut request);
            if let Some(end) = self.wait_for(due) {
                tally.lock().unwrap().record_unsent(due, end);
                return;
            }
            let lateness = due.elapsed();
            let status = exchange(&mut connection, self.plan.address, &request, &mut body);
            let latency = due.elapsed();
            let outcome = status.as_ref().ok().map(|status| (*status, &*body));
            self.script.answered(n, outcome);
            let mut tally = tally.lock().unwrap();
            tally.latency.saturating_record(micros(latency));
            tally.lateness.saturating_record(micros(lateness));
            match status {
                Ok(status) => *tally.statuses.entry(status).or_default() += 1,
                Err(_) => tally.failed += 1,
            }
            drop(tally);
            if connection.is_none() {
                std::thread::sleep(RECONNECT_PAUSE);
            }
        }
    }

    /// Sleeps until `due`. If the load ends first, returns when it ended.
    fn wait_for(&self, due: Instant) -> Option<Instant> {
        loop {
            let remaining = due.saturating_duration_since(Instant::now());
            match self.end.get() {
                Some(end) => return Some(*end),
                None if remaining.is_zero() => return None,
                None => std::thread::park_timeout(remaining),
            }
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros())
        .unwrap_or(u64::MAX)
        .max(1)
}

/// Sends `request` on the open connection or a new one, and reads the response's body. An error closes the connection.
fn exchange(
    connection: &mut Option<Connection>,
    address: SocketAddr,
    request: &[u8],
    body: &mut Vec<u8>,
) -> io::Result<u16> {
    let mut open = match connection.take() {
        Some(open) => open,
        None => Connection::open(address)?,
    };
    let (status, keep_alive) = open.exchange(request, body)?;
    if keep_alive {
        *connection = Some(open);
    }
    Ok(status)
}

/// A connection that stays open between requests.
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    pub(crate) fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(RESPONSE_TIMEOUT))?;
        stream.set_write_timeout(Some(RESPONSE_TIMEOUT))?;
        let buffer = Vec::with_capacity(4096);
        Ok(Self { stream, buffer })
    }

    /// Sends a request and reads its response into `body`. Returns the status, and whether the connection stays open.
    pub(crate) fn exchange(
        &mut self,
        request: &[u8],
        body: &mut Vec<u8>,
    ) -> io::Result<(u16, bool)> {
        self.stream.write_all(request)?;
        self.buffer.clear();
        let head_end = loop {
            if let Some(at) = find(&self.buffer, b"\r\n\r\n") {
                break at + 4;
            }
            self.fill()?;
        };
        let head = String::from_utf8_lossy(&self.buffer[..head_end]).to_ascii_lowercase();
        let status = head.get(9..12).and_then(|status| status.parse().ok());
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length:"))
            .and_then(|length| length.trim().parse::<usize>().ok())
            // 204 has neither a body nor a length.
            .or((status == Some(204)).then_some(0));
        let (Some(status), Some(length)) = (status, length) else {
            return Err(io::Error::other(format!(
                "a response without a status or a content length: {head}"
            )));
        };
        while self.buffer.len() < head_end + length {
            self.fill()?;
        }
        body.clear();
        body.extend_from_slice(&self.buffer[head_end..head_end + length]);
        Ok((status, !head.contains("\r\nconnection: close")))
    }

    fn fill(&mut self) -> io::Result<()> {
        let mut chunk = [0; 16 * 1024];
        match self.stream.read(&mut chunk)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            read => {
                self.buffer.extend_from_slice(&chunk[..read]);
                Ok(())
            }
        }
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}
