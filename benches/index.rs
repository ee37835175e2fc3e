//! The last-seen index: a table of rates and resident bytes per pair while it grows, then criterion on counts.
//!
//! `cargo bench --bench index` grows it to 50 million pairs, which takes about 0.8 GiB and a minute;
//! `HEADCOUNT_BENCH_PAIRS=10000000` stops earlier.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a bench fails by panicking and reports by printing"
)]

mod support;

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::Criterion;
use domain::{Segment, Slot};
use index::{Entry, Fingerprint, Index};
use support::{resident, setting};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Two weeks of minutes.
const WINDOW: u32 = 20_160;
const SEGMENTS: usize = 200;
const BATCH: usize = 5_000;
const FIRST_SLOT: u64 = 30_000_000;
const SIZES: [u64; 5] = [1_000_000, 5_000_000, 10_000_000, 20_000_000, 50_000_000];

/// Pairs in arrival order: segments by Zipf's law, every user new, the clock moving through most of a window.
struct Traffic {
    random: fastrand::Rng,
    /// The cumulative share of the segments.
    shares: Vec<f64>,
    made: u64,
    slots_per_pair: f64,
}

impl Traffic {
    fn new(pairs: u64) -> Self {
        let mut shares: Vec<f64> = (1..=SEGMENTS).map(|rank| 1.0 / rank as f64).collect();
        let total: f64 = shares.iter().sum();
        let mut sum = 0.0;
        for share in &mut shares {
            sum += *share / total;
            *share = sum;
        }
        Self {
            random: fastrand::Rng::with_seed(7),
            shares,
            made: 0,
            slots_per_pair: f64::from(WINDOW) * 0.9 / pairs as f64,
        }
    }

    fn slot(&self) -> Slot {
        Slot::new(FIRST_SLOT + (self.made as f64 * self.slots_per_pair) as u64)
    }

    /// A batch, grouped by segment.
    fn batch(&mut self) -> Vec<Vec<Entry>> {
        let mut groups = vec![Vec::new(); SEGMENTS];
        let slot = self.slot();
        for _ in 0..BATCH {
            let at = self.random.f64();
            let segment = self.shares.partition_point(|share| *share < at);
            let fingerprint = Fingerprint::new(self.random.u64(..));
            groups[segment.min(SEGMENTS - 1)].push(Entry::new(fingerprint, slot));
        }
        self.made += BATCH as u64;
        groups
    }
}

fn names() -> Vec<Segment> {
    let names = (0..SEGMENTS).map(|rank| Segment::new(&format!("segment-{rank}")));
    names.flatten().collect()
}

fn millions_per_second(pairs: u64, took: Duration) -> f64 {
    pairs as f64 / took.as_secs_f64() / 1e6
}

/// Upserts `batches`. Returns how long that took.
fn upsert(index: &Index, names: &[Segment], batches: &[Vec<Vec<Entry>>], base: Slot) -> Duration {
    let began = Instant::now();
    for batch in batches {
        for (name, entries) in names.iter().zip(batch) {
            index.upsert(name, entries, base);
        }
    }
    began.elapsed()
}

/// Grows an index to `pairs` and prints a line at each size.
fn grow(pairs: u64, names: &[Segment]) -> Index {
    let mut traffic = Traffic::new(pairs);
    let index = Index::new(WINDOW);
    let before = resident("self");
    println!(
        "pairs     upsert M/s  at that size  seen again  resident B/pair  own estimate  longest batch"
    );
    let (mut held, mut took, mut longest) = (0, Duration::ZERO, Duration::ZERO);
    for size in SIZES.into_iter().filter(|size| *size <= pairs) {
        while held < size {
            let batch = [traffic.batch()];
            let one = upsert(&index, names, &batch, traffic.slot());
            took += one;
            longest = longest.max(one);
            held += BATCH as u64;
        }
        let stats = index.stats();
        // The allocator returns freed pages after ten seconds, its default.
        let bytes = (resident("self") - before) as f64 / stats.pairs as f64;
        let estimate = stats.bytes as f64 / stats.pairs as f64;
        let few: Vec<_> = (0..20).map(|_| traffic.batch()).collect();
        let few_pairs = (few.len() * BATCH) as u64;
        let fresh = upsert(&index, names, &few, traffic.slot());
        traffic.made += 1_000_000;
        let again = upsert(&index, names, &few, traffic.slot());
        traffic.made -= 1_000_000;
        held += few_pairs;
        println!(
            "{size:>9} {:>10.2} {:>13.2} {:>11.2} {bytes:>16.2} {estimate:>13.2} {longest:>14.1?}",
            millions_per_second(held, took + fresh),
            millions_per_second(few_pairs, fresh),
            millions_per_second(few_pairs, again),
        );
        took += fresh;
    }
    index
}

/// Copies the index as a snapshot and a restart would.
fn restart(index: &Index, names: &[Segment]) {
    let began = Instant::now();
    let mut snapshot = Vec::new();
    let mut walked = 0;
    for name in names {
        let mut entries = Vec::new();
        let mut next = Some(Fingerprint::MIN);
        while let Some(from) = next {
            let read = index.read_page(name.as_str(), from, &mut entries);
            next = read.and_then(|read| read.next);
        }
        walked += entries.len() as u64;
        snapshot.push(entries);
    }
    println!(
        "walk over pages: {:.1} M/s",
        millions_per_second(walked, began.elapsed())
    );
    let before = resident("self");
    let copy = Index::new(WINDOW);
    let began = Instant::now();
    for (name, entries) in names.iter().zip(&snapshot) {
        copy.load_sorted(name, entries, index.head());
    }
    println!(
        "load_sorted, a segment at once: {:.1} M/s, {:.2} resident B/pair",
        millions_per_second(walked, began.elapsed()),
        (resident("self") - before) as f64 / walked as f64
    );
    assert_eq!(copy.segments(index.head()), index.segments(index.head()));
    drop(copy);
    let copy = Index::new(WINDOW);
    let began = Instant::now();
    for (name, entries) in names.iter().zip(&snapshot) {
        for block in entries.chunks(8192) {
            copy.load_sorted(name, block, index.head());
        }
    }
    println!(
        "load_sorted, 8,192 at once: {:.1} M/s",
        millions_per_second(walked, began.elapsed())
    );
}

/// Expires half of the window, then the rest.
fn sweep(index: &Index) {
    for (what, later) in [
        ("half", u64::from(WINDOW) * 6 / 10),
        ("the rest", u64::from(WINDOW)),
    ] {
        let as_of = Slot::new(index.head().number() + later);
        let began = Instant::now();
        let (mut removed, mut steps, mut longest) = (0, 0, Duration::ZERO);
        loop {
            let step_began = Instant::now();
            let swept = index.sweep(as_of, 100_000);
            longest = longest.max(step_began.elapsed());
            removed += swept.removed;
            steps += 1;
            if swept.done {
                break;
            }
        }
        println!(
            "sweep of {what}: {removed} removed, {:.1} M/s, {steps} steps, the longest {longest:.1?}, {:?}",
            millions_per_second(removed, began.elapsed()),
            index.stats()
        );
    }
}

fn count(criterion: &mut Criterion, index: &Index, names: &[Segment]) {
    let as_of = index.head();
    let big = names[0].as_str();
    let mut group = criterion.benchmark_group("count");
    group.bench_function("full window", |b| {
        b.iter(|| index.count(black_box(big), WINDOW, as_of))
    });
    for (name, window) in [("7 days", WINDOW / 2), ("1 day", 1440), ("10 minutes", 10)] {
        group.bench_function(name, |b| {
            b.iter(|| index.count(black_box(big), window, as_of))
        });
    }
    group.bench_function("200 segments, full window", |b| {
        b.iter(|| index.segments(as_of))
    });
    group.finish();
}

fn main() {
    let pairs = setting("HEADCOUNT_BENCH_PAIRS", 50_000_000);
    let names = names();
    let index = grow(pairs, &names);
    let mut criterion = Criterion::default().configure_from_args();
    count(&mut criterion, &index, &names);
    restart(&index, &names);
    sweep(&index);
    criterion.final_summary();
}
