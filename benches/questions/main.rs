//! Questions about sets of segments, next to peers on the same pairs: `cargo bench --bench questions`.
//!
//! 10 million pairs: 200 segments by Zipf's law, 2 million users, last visits in every minute of two weeks. The peers are the Python
//! packages `chdb` (ClickHouse), `duckdb` and `pyroaring`, in `python3` or the Python that HEADCOUNT_BENCH_PYTHON names. Without a
//! package its peer is skipped with a message. Every count of every peer must be the same as here, else the bench fails.
//!
//! Arguments select sections (`-- overlaps set ingest`), `--quick` takes a tenth of the pairs. Questions are timed on one core: each
//! runs on one thread here, and ClickHouse and DuckDB are set to one (`max_threads`, `threads`). Times are those of that thread on
//! the CPU, so that other programs on the machine affect them little; the best of several runs counts.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a bench fails by panicking and reports by printing"
)]

mod ingest;
#[allow(dead_code, reason = "only some of its items are used here")]
#[path = "../measurements/machine.rs"]
mod machine;
mod overlaps;
mod pairs;
mod peers;
#[allow(dead_code, reason = "only some of its items are used here")]
#[path = "../measurements/report.rs"]
mod report;
mod set;
#[path = "../support/mod.rs"]
mod support;
#[allow(dead_code, reason = "only some of its items are used here")]
#[path = "../measurements/table.rs"]
mod table;

use std::hint::black_box;
use std::time::Duration;

use domain::{Segment, Slot};
use index::Index;
use report::Report;
use rustix::time::{ClockId, clock_gettime};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Two weeks of minutes.
const WINDOW: u32 = 20_160;
const WEEK: u32 = WINDOW / 2;
/// The number of the latest slot of all pairs.
const HEAD: u64 = 30_000_000;

/// Measures a section, with a tenth of the pairs or all.
type Measure = fn(bool) -> Report;

const SECTIONS: [(&str, Measure); 3] = [
    ("overlaps", overlaps::measure),
    ("set", set::measure),
    ("ingest", ingest::measure),
];

fn main() {
    // Cargo passes `--bench`.
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| argument != "--bench")
        .collect();
    let (flags, names): (Vec<&String>, Vec<&String>) = arguments
        .iter()
        .partition(|argument| argument.starts_with("--"));
    if flags.iter().any(|flag| *flag != "--quick")
        || names
            .iter()
            .any(|name| SECTIONS.iter().all(|(known, _)| known != name))
    {
        panic!("usage: [--quick] [overlaps|set|ingest]...");
    }
    println!("headcount {}, {}", machine::commit(), machine::idle());
    for (name, measure) in SECTIONS {
        if names.is_empty() || names.iter().any(|named| *named == name) {
            measure(!flags.is_empty()).finish();
        }
    }
}

fn head() -> Slot {
    Slot::new(HEAD)
}

fn segment(number: usize) -> Segment {
    Segment::new(&format!("segment-{number}")).unwrap()
}

/// The shortest time of a thread on the CPU in several runs, and the last result.
fn best<T>(runs: usize, mut act: impl FnMut() -> T) -> (Duration, T) {
    let mut timed = || {
        let began = cpu();
        let result = black_box(act());
        (cpu() - began, result)
    };
    let (mut shortest, mut result) = timed();
    for _ in 1..runs {
        let (took, again) = timed();
        shortest = shortest.min(took);
        result = again;
    }
    (shortest, result)
}

/// The time that this thread was on the CPU.
fn cpu() -> Duration {
    clock_gettime(ClockId::ThreadCPUTime).try_into().unwrap()
}

fn new_index() -> Index {
    let index = Index::new(WINDOW);
    index.advance(head());
    index
}
