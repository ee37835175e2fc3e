//! Other clients: permanent and short-lived listeners to events, and a metrics scraper.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::open_loop::Connection;
use crate::traffic::get;

/// The number of clients that listen to events during the whole run.
const LISTENERS: usize = 20;
/// Time between two scrapes.
const SCRAPE_INTERVAL: Duration = Duration::from_secs(15);
/// Time between two short-lived listeners, and until a permanent one reconnects.
const SUBSCRIBE_INTERVAL: Duration = Duration::from_secs(1);
/// The service ends a stream after 15 minutes, so that the client authenticates again. A stream that ends before this
/// time is broken.
const MIN_STREAM_LIFETIME: Duration = Duration::from_secs(14 * 60);
/// The timeout of a read, after which a thread checks whether the run is over.
const READ_TIMEOUT: Duration = Duration::from_millis(500);

/// The totals of the other clients since the last `take`.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Totals {
    /// Bytes of events that the listeners read.
    pub(crate) event_bytes: u64,
    /// Streams that ended early, and failed scrapes and short-lived listeners.
    pub(crate) broken: u64,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    event_bytes: AtomicU64,
    broken: AtomicU64,
}

/// Threads that run until `stop`.
pub(crate) struct OtherClients {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl OtherClients {
    pub(crate) fn start(address: SocketAddr) -> Self {
        let shared = Arc::<Shared>::default();
        let spawn = |client: fn(&Shared, SocketAddr) -> io::Result<()>, pause: Duration| {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || {
                while !shared.stop.load(Ordering::Relaxed) {
                    if client(&shared, address).is_err() {
                        shared.broken.fetch_add(1, Ordering::Relaxed);
                    }
                    std::thread::sleep(pause);
                }
            })
        };
        let mut threads: Vec<_> = (0..LISTENERS)
            .map(|_| spawn(listen, SUBSCRIBE_INTERVAL))
            .collect();
        threads.push(spawn(listen_briefly, SUBSCRIBE_INTERVAL));
        threads.push(spawn(scrape, SCRAPE_INTERVAL));
        Self { shared, threads }
    }

    pub(crate) fn take(&self) -> Totals {
        Totals {
            event_bytes: self.shared.event_bytes.swap(0, Ordering::Relaxed),
            broken: self.shared.broken.swap(0, Ordering::Relaxed),
        }
    }

    pub(crate) fn stop(self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().unwrap();
        }
    }
}

/// Reads events until the end of the run.
fn listen(shared: &Shared, address: SocketAddr) -> io::Result<()> {
    let started = Instant::now();
    let mut stream = subscribe(address)?;
    let mut buffer = vec![0; 64 * 1024];
    while !shared.stop.load(Ordering::Relaxed) {
        match stream.read(&mut buffer) {
            Ok(0) if started.elapsed() >= MIN_STREAM_LIFETIME => return Ok(()),
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => {
                shared.event_bytes.fetch_add(read as u64, Ordering::Relaxed);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Subscribes, reads the status, and closes the connection.
fn listen_briefly(_: &Shared, address: SocketAddr) -> io::Result<()> {
    let mut stream = subscribe(address)?;
    let mut status_line = [0; 12];
    stream.set_read_timeout(Some(SCRAPE_INTERVAL))?;
    stream.read_exact(&mut status_line)?;
    match &status_line {
        b"HTTP/1.1 200" => Ok(()),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn scrape(_: &Shared, address: SocketAddr) -> io::Result<()> {
    let mut body = Vec::new();
    let (status, _) = Connection::open(address)?.exchange(get("/metrics").as_bytes(), &mut body)?;
    let metrics = String::from_utf8_lossy(&body);
    let panicked = metrics
        .lines()
        .any(|line| line.starts_with("headcount_http_panics_total") && !line.ends_with(" 0"));
    if status != 200 || panicked || !metrics.ends_with("# EOF\n") {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(())
}

fn subscribe(address: SocketAddr) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(READ_TIMEOUT))?;
    stream.write_all(get("/v1/events").as_bytes())?;
    Ok(stream)
}
