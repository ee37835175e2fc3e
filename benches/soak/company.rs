//! Other clients: permanent and short-lived listeners to events, and a metrics scraper.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::open_loop::Connection;
use crate::traffic::get;

/// The number of permanent listeners.
const LISTENERS: usize = 20;
/// Time between two scrapes.
const SCRAPE: Duration = Duration::from_secs(15);
/// Time between two short-lived listeners.
const VISIT: Duration = Duration::from_secs(1);
/// The service ends a stream after a quarter of an hour, so that the client authenticates again.
const LONGEST: Duration = Duration::from_secs(14 * 60);
/// The longest wait before a thread checks whether the run is over.
const PATIENCE: Duration = Duration::from_millis(500);

/// The totals of the other clients since the last `take`.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Noticed {
    /// Bytes of events that the listeners read.
    pub(crate) event_bytes: u64,
    /// Streams that ended, and failed scrapes and short-lived listeners.
    pub(crate) broken: u64,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    event_bytes: AtomicU64,
    broken: AtomicU64,
}

/// Threads that run until `stop`.
pub(crate) struct Company {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Company {
    pub(crate) fn start(address: SocketAddr) -> Self {
        let shared = Arc::<Shared>::default();
        let spawn = |work: fn(&Shared, SocketAddr) -> io::Result<()>, pause: Duration| {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || {
                while !shared.stop.load(Ordering::Relaxed) {
                    if work(&shared, address).is_err() {
                        shared.broken.fetch_add(1, Ordering::Relaxed);
                    }
                    std::thread::sleep(pause);
                }
            })
        };
        let mut threads: Vec<_> = (0..LISTENERS).map(|_| spawn(listen, VISIT)).collect();
        threads.push(spawn(visit, VISIT));
        threads.push(spawn(scrape, SCRAPE));
        Self { shared, threads }
    }

    pub(crate) fn take(&self) -> Noticed {
        Noticed {
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
    let begun = Instant::now();
    let mut stream = subscribe(address)?;
    let mut buffer = vec![0; 64 * 1024];
    while !shared.stop.load(Ordering::Relaxed) {
        match stream.read(&mut buffer) {
            Ok(0) if begun.elapsed() >= LONGEST => return Ok(()),
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

/// Listens briefly, then drops the connection.
fn visit(_: &Shared, address: SocketAddr) -> io::Result<()> {
    let mut stream = subscribe(address)?;
    let mut head = [0; 12];
    stream.set_read_timeout(Some(SCRAPE))?;
    stream.read_exact(&mut head)?;
    match &head {
        b"HTTP/1.1 200" => Ok(()),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn scrape(_: &Shared, address: SocketAddr) -> io::Result<()> {
    let mut body = Vec::new();
    let (status, _) = Connection::open(address)?.ask(get("/metrics").as_bytes(), &mut body)?;
    let text = String::from_utf8_lossy(&body);
    let panicked = text
        .lines()
        .any(|line| line.starts_with("headcount_http_panics_total") && !line.ends_with(" 0"));
    if status != 200 || panicked || !text.ends_with("# EOF\n") {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(())
}

fn subscribe(address: SocketAddr) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(get("/v1/events").as_bytes())?;
    Ok(stream)
}
