//! A closed-loop client for headcount and its peers: each connection sends its next request after the response to the previous one.
//!
//! Its rates are the capacity of a peer. Latencies under a given load come from the open loop.

use std::net::TcpStream;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::support::open_loop::Connection;
use super::support::resp::{self, Pipeline};
use super::table::median;

/// A request, encoded before the clock starts, so that the cost of the client is not measured. Pairs for Redis move to the
/// next slot each time, since Redis does not write a score that is already stored.
pub(crate) enum Request {
    Http(Vec<u8>),
    Redis(Pipeline),
}

/// The address of a peer, and for each connection the requests that it repeats.
pub(crate) struct Peer {
    pub(crate) port: u16,
    pub(crate) requests: Vec<Vec<Request>>,
}

impl Peer {
    /// `connections` connections with `each` requests. `request` creates a request by its number.
    pub(crate) fn new(
        port: u16,
        connections: u64,
        each: u64,
        request: impl Fn(u64) -> Request,
    ) -> Self {
        let requests_of = |n| (0..each).map(|m| request(n * each + m)).collect();
        Self {
            port,
            requests: (0..connections).map(requests_of).collect(),
        }
    }
}

/// The results of a peer.
pub(crate) struct Measured {
    /// Responses a second, the median of the rounds.
    pub(crate) rate: f64,
    latencies: Histogram<u64>,
}

impl Measured {
    /// The latencies of all rounds.
    pub(crate) fn quantile(&self, quantile: f64) -> Duration {
        Duration::from_nanos(self.latencies.value_at_quantile(quantile))
    }
}

/// Measures peers in turn for several rounds, so that other load on the machine affects all of them.
pub(crate) fn compare(mut peers: Vec<Peer>, rounds: usize, time: Duration) -> Vec<Measured> {
    let mut rates = vec![Vec::new(); peers.len()];
    let mut latencies = vec![histogram(); peers.len()];
    for _ in 0..rounds {
        for (n, peer) in peers.iter_mut().enumerate() {
            let (rate, round) = closed_loop(peer, Some(time));
            rates[n].push(rate);
            latencies[n].add(round).unwrap();
        }
    }
    rates
        .into_iter()
        .zip(latencies)
        .map(|(rates, latencies)| Measured {
            rate: median(rates),
            latencies,
        })
        .collect()
}

/// Sends every request once. Returns responses a second.
pub(crate) fn once(mut peer: Peer) -> f64 {
    closed_loop(&mut peer, None).0
}

fn closed_loop(peer: &mut Peer, time: Option<Duration>) -> (f64, Histogram<u64>) {
    let stop = AtomicBool::new(false);
    let barrier = Barrier::new(peer.requests.len() + 1);
    std::thread::scope(|scope| {
        let port = peer.port;
        let workers = peer.requests.iter_mut().map(|requests| {
            let (stop, barrier) = (&stop, &barrier);
            scope.spawn(move || {
                let mut client = Client::open(port, &requests[0]);
                let mut latencies = histogram();
                barrier.wait();
                let mut next = 0;
                while (time.is_some() || next < requests.len()) && !stop.load(Ordering::Relaxed) {
                    let index = next % requests.len();
                    let request = &mut requests[index];
                    if let Request::Redis(pipeline) = request {
                        pipeline.advance();
                    }
                    let sent = Instant::now();
                    client.exchange(request);
                    let took = u64::try_from(sent.elapsed().as_nanos()).unwrap();
                    latencies.saturating_record(took);
                    next += 1;
                }
                latencies
            })
        });
        let workers: Vec<_> = workers.collect();
        barrier.wait();
        let started = Instant::now();
        if let Some(time) = time {
            std::thread::sleep(time);
            stop.store(true, Ordering::Relaxed);
        }
        let mut all = histogram();
        for worker in workers {
            all.add(worker.join().unwrap()).unwrap();
        }
        (all.len() as f64 / started.elapsed().as_secs_f64(), all)
    })
}

/// Nanoseconds with three significant digits, up to a minute.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).unwrap()
}

/// One connection.
pub(crate) enum Client {
    Http(Connection, Vec<u8>),
    Redis(TcpStream, Vec<u8>),
}

impl Client {
    pub(crate) fn http(port: u16) -> Self {
        let connection = Connection::open(([127, 0, 0, 1], port).into());
        Self::Http(connection.unwrap(), Vec::new())
    }

    pub(crate) fn redis(port: u16) -> Self {
        Self::Redis(resp::connect(port), vec![0; 64 * 1024])
    }

    /// Opens a connection for requests of this kind.
    fn open(port: u16, request: &Request) -> Self {
        match request {
            Request::Http(_) => Self::http(port),
            Request::Redis(_) => Self::redis(port),
        }
    }

    /// Sends a request and waits for its response, which must be a success.
    pub(crate) fn exchange(&mut self, request: &Request) {
        match (self, request) {
            (Self::Http(connection, body), Request::Http(bytes)) => {
                let (status, _) = connection.exchange(bytes, body).unwrap();
                assert!(
                    matches!(status, 200 | 204),
                    "{}",
                    String::from_utf8_lossy(body)
                );
            }
            (Self::Redis(connection, buffer), Request::Redis(pipeline)) => {
                pipeline.exchange(connection, buffer);
            }
            _ => panic!("the request is for another protocol than the connection"),
        }
    }
}
