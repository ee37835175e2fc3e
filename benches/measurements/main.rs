//! All published measurements of speed and size, next to those of peers, in one run: `cargo bench --bench measurements`.
//!
//! It starts the servers on free ports and in temporary directories, prints tables, and writes `docs/measurements.md`.
//! Arguments select sections (`-- ingest reads`), and `--quick` uses smaller sizes. A peer that is not installed is skipped with
//! a message: redis-server, influxd, postgres (Debian's, or named by HEADCOUNT_TEST_POSTGRES), DuckDB (PyPI's `duckdb`, for
//! `python3` or the Python that HEADCOUNT_BENCH_PYTHON names).

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a bench fails by panicking and reports by printing"
)]

mod bare;
mod bounded;
mod client;
mod counting;
mod counting_peers;
mod document;
mod duckdb;
mod filled;
mod formats;
mod ingest;
mod machine;
mod memory;
mod reads;
mod report;
mod restart;
mod snapshot;
#[path = "../support/mod.rs"]
mod support;
mod table;

use std::time::{Duration, Instant};

use filled::Filled;
use report::Report;
use tokio::runtime::Runtime;

/// The allocator of the service, since code of the service also runs in this process.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// The context of every section.
struct Run {
    quick: bool,
    runtime: Runtime,
    filled: Filled,
}

impl Run {
    fn pick<T>(&self, usual: T, quick: T) -> T {
        if self.quick { quick } else { usual }
    }
}

/// A section, which can be measured alone.
struct Section {
    name: &'static str,
    title: &'static str,
    measure: fn(&Run) -> Report,
}

const SECTIONS: [Section; 8] = [
    Section {
        name: "ingest",
        title: "Durable ingest over HTTP",
        measure: ingest::measure,
    },
    Section {
        name: "formats",
        title: "Ingest in formats of other programs",
        measure: formats::measure,
    },
    Section {
        name: "reads",
        title: "Reads over HTTP",
        measure: reads::measure,
    },
    Section {
        name: "bounded",
        title: "Cached counts while others are missing",
        measure: bounded::measure,
    },
    Section {
        name: "memory",
        title: "Memory",
        measure: memory::measure,
    },
    Section {
        name: "counting",
        title: "Counts by size of the segment",
        measure: counting::measure,
    },
    Section {
        name: "restart",
        title: "Restart",
        measure: restart::measure,
    },
    Section {
        name: "snapshot",
        title: "Write latency during a snapshot",
        measure: snapshot::measure,
    },
];

fn main() {
    // Cargo passes `--bench`.
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| argument != "--bench")
        .collect();
    if let [role, port] = &arguments[..]
        && role == bare::ROLE
    {
        bare::serve(port.parse().unwrap());
        return;
    }
    let (flags, names): (Vec<&String>, Vec<&String>) = arguments
        .iter()
        .partition(|argument| argument.starts_with("--"));
    let known: Vec<&str> = SECTIONS.iter().map(|section| section.name).collect();
    if flags.iter().any(|flag| *flag != "--quick")
        || names.iter().any(|name| !known.contains(&name.as_str()))
    {
        panic!("usage: [--quick] [{}]...", known.join("|"));
    }
    let run = Run {
        quick: !flags.is_empty(),
        runtime: Runtime::new().unwrap(),
        filled: Filled::default(),
    };
    for section in &SECTIONS {
        if names.is_empty() || names.iter().any(|name| *name == section.name) {
            measure(section, &run);
        }
    }
    println!("wrote {}", document::path().display());
}

fn measure(section: &Section, run: &Run) {
    let quick = run.pick("", " with `--quick`");
    let conditions = format!(
        "Measured {}{quick}, headcount {}; {} before the section began.",
        machine::date(),
        machine::commit(),
        machine::idle()
    );
    println!("\n## {}\n\n{conditions}\n", section.title);
    let began = Instant::now();
    let body = (section.measure)(run).finish();
    println!("({:.0} s)", began.elapsed().as_secs_f64());
    let text = format!("## {}\n\n{conditions}\n\n{body}", section.title);
    document::replace(section.name, &text);
}

/// Prints the progress.
fn progress(what: &str) {
    println!("... {what}");
}

/// A duration in seconds.
fn seconds(number: f64) -> Duration {
    Duration::from_secs_f64(number)
}
