//! A long run under steady load: `cargo bench --bench soak -- --minutes 60`.
//!
//! The real binary starts on an empty directory. Its capacity is measured first, with the same requests. Half of that rate
//! is then sent on a fixed schedule (`support/open_loop.rs`), while other clients listen to events, scrape metrics, and open
//! and close connections. Users change during the run, so that pairs expire and are swept, and memory is reused. At the end
//! every count is compared with the model of acknowledged pairs (`ledger.rs`), and again after a kill -9. The report shows
//! whether memory or anything else grows; the bench does not assert it.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a benchmark prints its result and fails by panicking; its figures fit in 52 bits"
)]

mod ledger;
#[path = "../support/open_loop.rs"]
mod open_loop;
mod other_clients;
mod process;
mod report;
mod traffic;
mod verify;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;

use crate::ledger::Ledger;
use crate::open_loop::OpenLoop;
use crate::other_clients::OtherClients;
use crate::process::Service;
use crate::report::{Minute, Report, Restarted};
use crate::traffic::{Kind, PAIRS_PER_POST, Traffic};

/// The duration of the capacity measurement.
const CAPACITY: Duration = Duration::from_secs(10);
/// The maximum number of concurrent writes, and of concurrent reads.
const CONNECTIONS: usize = 32;

/// The command-line arguments.
#[derive(Debug, Parser)]
pub(crate) struct Arguments {
    /// Minutes of load.
    #[arg(long, default_value_t = 60)]
    pub(crate) minutes: u64,
    /// Requests a second, half of which are posts of 500 pairs; by default half of the measured capacity.
    #[arg(long)]
    rate: Option<f64>,
    /// The window in seconds, a multiple of 60; by default a sixth of the run.
    #[arg(long)]
    window: Option<u64>,
    /// A file to which the result is written as well.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Passed by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let arguments = Arguments::parse();
    let window = arguments.window.unwrap_or(arguments.minutes * 60 / 6);
    let window = window.div_ceil(60).max(1) * 60;
    let run = Duration::from_secs(arguments.minutes * 60);
    let ledger = Arc::new(Ledger::new(window, run));
    let directory = tempfile::tempdir().unwrap();
    let service = Service::start(directory.path(), &ledger);

    let rate = arguments.rate.unwrap_or_else(|| {
        let capacity = capacity(&service, &ledger);
        println!("capacity: {capacity:.0} requests a second, half of them posts of {PAIRS_PER_POST} pairs");
        capacity / 2.0
    });
    println!("offered: {rate:.0} requests a second; a user is active for {window} s\n");
    let mut report = Report::new(rate, window);
    println!("{}", report::HEAD);

    let start_load = |kind| {
        let traffic = Traffic::new(kind, Arc::clone(&ledger));
        plan(&service, rate / 2.0, CONNECTIONS).start(traffic)
    };
    let (writes, reads) = (start_load(Kind::Writes), start_load(Kind::Reads));
    let other_clients = OtherClients::start(service.address());
    let start = Instant::now();
    for minute in 1..=arguments.minutes {
        let until = start + Duration::from_secs(minute * 60);
        std::thread::sleep(until.saturating_duration_since(Instant::now()));
        let minute = Minute {
            writes: writes.take(),
            reads: reads.take(),
            usage: service.usage(),
            other_clients: other_clients.take(),
        };
        println!("{}", report.add(minute));
    }
    let (writes, reads) = (writes.stop(), reads.stop());
    other_clients.stop();
    println!("\nsince the last minute, writes: {writes}\nsince the last minute, reads: {reads}");

    traffic::repeat_unresolved(&ledger, service.address());
    let before = verify::all(&ledger, service.address());
    let killed = Instant::now();
    let service = service.kill_and_restart(&ledger);
    let after = Restarted {
        took: killed.elapsed(),
        verdict: verify::all(&ledger, service.address()),
    };
    let markdown = report.markdown(&before, &after, &service.warnings());
    println!("\n{markdown}");
    if let Some(out) = arguments.out {
        std::fs::write(out, &markdown).unwrap();
    }
    assert!(
        before.all_correct() && after.verdict.all_correct(),
        "a count is wrong"
    );
}

/// The capacity: responses a second when more requests are sent than the service can handle.
fn capacity(service: &Service, ledger: &Arc<Ledger>) -> f64 {
    let traffic = Traffic::new(Kind::Both, Arc::clone(ledger));
    // More than two cores can serve. Unsent requests don't count.
    let tally = plan(service, 100_000.0, CONNECTIONS).run(CAPACITY, traffic);
    println!("at capacity: {tally}");
    traffic::repeat_unresolved(ledger, service.address());
    tally.of_status(200) as f64 / CAPACITY.as_secs_f64()
}

fn plan(service: &Service, rate: f64, connections: usize) -> OpenLoop {
    OpenLoop {
        address: service.address(),
        rate,
        connections,
    }
}
