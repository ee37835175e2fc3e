//! The log and the embedded store on a real disk: the cost of a sync, appends, replay, snapshots, restarts.
//!
//! `cargo bench --bench log` writes about half a gigabyte below the target directory. `HEADCOUNT_BENCH_DIR`
//! sets another directory, and `HEADCOUNT_BENCH_PAIRS=1000000` makes it shorter. Every append is synced.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a bench fails by panicking and reports by printing"
)]

mod support;

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use domain::store::PairStore;
use domain::{Batch, Segment, Slot, Timestamp};
use stores::embedded::{EmbeddedOptions, EmbeddedStore};
use support::setting;
use support::stores::record_all;
use support::traffic::{BATCH, SEGMENTS, Seen, batch, frame};
use tokio::runtime::Runtime;
use wal::{LockedDir, Log, LogObserver, LogOptions};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const SLOT: u64 = 30_000_000;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn main() -> Result<()> {
    let pairs = setting("HEADCOUNT_BENCH_PAIRS", 10_000_000);
    let below = std::env::var("HEADCOUNT_BENCH_DIR")
        .unwrap_or_else(|_| env!("CARGO_TARGET_TMPDIR").to_owned());
    let scratch = tempfile::tempdir_in(&below)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    one_sync(scratch.path())?;
    appends(
        &runtime,
        scratch.path(),
        "one pair",
        12,
        30_000,
        &[1, 64, 512],
    )?;
    let batch = BATCH * 8 + 2_000;
    appends(
        &runtime,
        scratch.path(),
        "5,000 pairs",
        batch,
        2_000,
        &[1, 4, 16],
    )?;
    store(&runtime, &scratch.path().join("store"), pairs)
}

/// The time of a durable append of 4 KiB to the disk, a lower bound of every append below from one caller.
fn one_sync(dir: &Path) -> Result<()> {
    let mut file = File::create(dir.join("sync"))?;
    let mut took: Vec<Duration> = Vec::new();
    for _ in 0..500 {
        let begun = Instant::now();
        file.write_all(&[7; 4096])?;
        file.sync_data()?;
        took.push(begun.elapsed());
    }
    took.sort_unstable();
    println!(
        "write 4 KiB and fdatasync: median {:?}, p99 {:?}\n",
        took[250], took[495]
    );
    Ok(())
}

#[derive(Debug, Default)]
struct Syncs(AtomicU64);

impl LogObserver for Syncs {
    fn synced(&self, _records: usize, _bytes: usize, _took: Duration) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Appends `records` of `bytes` each from concurrent tasks, and replays them.
fn appends(
    runtime: &Runtime,
    dir: &Path,
    what: &str,
    bytes: usize,
    records: usize,
    tasks: &[usize],
) -> Result<()> {
    println!("log, records of {what} ({bytes} bytes)");
    for &tasks in tasks {
        // A single task waits for each of its syncs, so fewer records are enough.
        let each = if tasks == 1 {
            records / 20
        } else {
            records / tasks
        };
        let dir = dir.join(format!("{bytes}-{tasks}"));
        let syncs = Arc::new(Syncs::default());
        let options = LogOptions {
            observer: Arc::<Syncs>::clone(&syncs),
            ..LogOptions::default()
        };
        let log = Arc::new(open_log(&dir, options)?);
        let begun = Instant::now();
        runtime.block_on(async {
            let appending = (0..tasks).map(|_| {
                let log = Arc::clone(&log);
                async move {
                    for _ in 0..each {
                        log.append(vec![7; bytes]).await?;
                    }
                    Ok::<_, wal::LogError>(())
                }
            });
            futures::future::try_join_all(appending).await
        })?;
        let took = begun.elapsed();
        drop(log);
        let done = (each * tasks) as f64;
        let per_sync = done / syncs.0.load(Ordering::Relaxed) as f64;
        let begun = Instant::now();
        drop(open_log(&dir, LogOptions::default())?);
        let replay = begun.elapsed();
        println!(
            "  {tasks:>3} tasks: {:>9.0} records/s, {per_sync:>5.1} a sync; replay {:>10.0} records/s, {:.0} MB/s",
            done / took.as_secs_f64(),
            done / replay.as_secs_f64(),
            done * bytes as f64 / replay.as_secs_f64() / 1e6,
        );
    }
    println!();
    Ok(())
}

fn open_log(dir: &Path, options: LogOptions) -> Result<Log> {
    let dir = Arc::new(LockedDir::acquire(dir)?);
    Ok(Log::open(dir, options, Box::new(|_, _| Ok(())))?)
}

/// Fills a store, restarts it from its log, takes a snapshot under writes, and restarts it from that.
fn store(runtime: &Runtime, dir: &Path, pairs: u64) -> Result<()> {
    println!("embedded store, {pairs} pairs in {SEGMENTS} segments, batches of {BATCH}, 4 tasks");
    let store = Arc::new(open(dir)?);
    let mut next = 0;
    let mut recording = Duration::ZERO;
    while next < pairs {
        // Created beforehand, so that only recording is timed.
        let batches: Vec<Batch> = (0..100).map(|n| fresh(next + n * BATCH as u64)).collect();
        next += 100 * BATCH as u64;
        recording += runtime.block_on(record_all(&*store, &batches, 4));
    }
    println!(
        "  record:               {:>9.0} pairs/s",
        next as f64 / recording.as_secs_f64()
    );
    check(&store, next)?;
    drop(store);

    let begun = Instant::now();
    let store = Arc::new(open(dir)?);
    let took = begun.elapsed();
    check(&store, next)?;
    println!(
        "  restart from the log: {:>9.2} s, {:.0} pairs/s, {:.0} MB",
        took.as_secs_f64(),
        next as f64 / took.as_secs_f64(),
        size(dir, "log")?
    );

    let quiet = latencies(runtime, &store, || false, 2_000)?;
    let begun = Instant::now();
    runtime.block_on(store.snapshot())?;
    let alone = begun.elapsed();
    println!(
        "  snapshot alone:       {:>9.2} s, {:.0} MB",
        alone.as_secs_f64(),
        size(dir, "snapshot")?
    );
    // Another snapshot is only taken after a change.
    runtime.block_on(store.record(&fresh(0)))?;
    let done = Arc::new(AtomicBool::new(false));
    let (taker, ended) = (Arc::clone(&store), Arc::clone(&done));
    let handle = runtime.handle().clone();
    let taking = std::thread::spawn(move || {
        let begun = Instant::now();
        let taken = handle.block_on(taker.snapshot());
        ended.store(true, Ordering::Release);
        taken.map(|()| begun.elapsed())
    });
    let during = latencies(runtime, &store, || done.load(Ordering::Acquire), usize::MAX)?;
    let under = taking.join().map_err(|_| "the snapshot panicked")??;
    println!("  snapshot under writes:{:>9.2} s", under.as_secs_f64());
    println!(
        "  record of one pair:   {} without, {} during a snapshot",
        shown(&quiet),
        shown(&during)
    );
    drop(store);

    let begun = Instant::now();
    let store = open(dir)?;
    let took = begun.elapsed();
    check(&store, next)?;
    println!("  restart from it:      {:>9.2} s", took.as_secs_f64());
    Ok(())
}

/// Options with which a snapshot is only taken on request.
fn open(dir: &Path) -> Result<EmbeddedStore> {
    let options = EmbeddedOptions {
        snapshot_bytes: u64::MAX,
        ..EmbeddedOptions::new(dir, frame())
    };
    Ok(EmbeddedStore::open(options)?)
}

/// Pairs of new users from number `first` on, over all segments.
fn fresh(first: u64) -> Batch {
    batch((first..first + BATCH as u64).map(|user| Seen {
        user,
        segment: user % SEGMENTS,
        slot: SLOT - user % 20_000,
    }))
}

/// The latencies of single pairs, recorded one after the other until `done` or `most`.
fn latencies(
    runtime: &Runtime,
    store: &EmbeddedStore,
    done: impl Fn() -> bool,
    most: usize,
) -> Result<Vec<Duration>> {
    let one = batch([Seen {
        user: 0,
        segment: 0,
        slot: SLOT,
    }]);
    let mut took = Vec::new();
    while took.len() < most && !done() {
        let begun = Instant::now();
        runtime.block_on(store.record(&one))?;
        took.push(begun.elapsed());
    }
    took.sort_unstable();
    Ok(took)
}

fn shown(sorted: &[Duration]) -> String {
    let at = |share: f64| {
        let place = (sorted.len() as f64 * share) as usize;
        sorted.get(place).copied().unwrap_or_default()
    };
    format!("p50 {:.1?} p99 {:.1?}", at(0.5), at(0.99))
}

/// Checks that a restart returns the same count. Otherwise its time is meaningless.
fn check(store: &EmbeddedStore, pairs: u64) -> Result<()> {
    let as_of = frame().resolution().start_of(Slot::new(SLOT));
    let mut users = 0;
    for n in 0..SEGMENTS {
        let segment = Segment::new(&format!("segment-{n}"))?;
        users += count(store, &segment, as_of)?;
    }
    if users != pairs {
        return Err(format!("the count is {users} of {pairs} pairs").into());
    }
    Ok(())
}

fn count(store: &EmbeddedStore, segment: &Segment, as_of: Timestamp) -> Result<u64> {
    let count = store.count_now(segment, frame().full_window(), as_of);
    Ok(count.ok_or("the store is closed")?.users)
}

/// The size in megabytes of the files that end in `suffix`.
fn size(dir: &Path, suffix: &str) -> Result<f64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|found| found == suffix) {
            bytes += path.metadata()?.len();
        }
    }
    Ok(bytes as f64 / 1e6)
}
