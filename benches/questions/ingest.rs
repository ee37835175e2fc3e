//! Ingest into the embedded store while questions are asked in a loop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use domain::overlap::{OverlapOrder, TopQuestion};
use domain::store::PairStore;
use domain::{Batch, Expression, Floor, Reach, Timestamp};
use stores::embedded::{EmbeddedOptions, EmbeddedStore};
use tokio::runtime::Runtime;

use super::report::Report;
use super::support::stores::record_all;
use super::support::traffic::{DAY, Traffic, frame};
use super::table::{Table, grouped, median, rate, ratio};

const CALLERS: usize = 8;
const ROUNDS: u64 = 5;
const SETS: [&str; 3] = [
    "\"segment-0\" AND \"segment-1\"",
    "\"segment-2\" AND (\"segment-3\" OR \"segment-4\") NOT \"segment-5\"",
    "NOT \"segment-0\"",
];

pub(crate) fn measure(quick: bool) -> Report {
    let tenth = if quick { 10 } else { 1 };
    let runtime = Runtime::new().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let mut options = EmbeddedOptions::new(directory.path(), frame());
    // A snapshot in some rounds and not in others would affect the comparison.
    options.snapshot_bytes = u64::MAX;
    let store = {
        // The store starts tasks.
        let _entered = runtime.enter();
        Arc::new(EmbeddedStore::open(options).unwrap())
    };
    let traffic = || Traffic::new(2_000_000 / tenth, 14 * DAY - 60);
    let first = traffic().batches(10_000_000 / tenth);
    runtime.block_on(record_all(&*store, &first, CALLERS));
    drop(first);

    let mut report = Report::default();
    report.paragraph(&format!(
        "Ingest into the embedded store with {} pairs, in batches, from {CALLERS} callers:",
        grouped(store.stats().pairs)
    ));
    let mut table = Table::new(&["Alone, pairs/s", "Beside questions", "ratio", "questions"]);
    let mut ratios = Vec::new();
    for round in 0..ROUNDS {
        let batches = traffic().seeded(round + 2).batches(4_000_000 / tenth);
        let (some, others) = batches.split_at(batches.len() / 2);
        let alone = ingest(&runtime, &store, some);
        let stop = Arc::new(AtomicBool::new(false));
        let asking = runtime.spawn(ask(Arc::clone(&store), Arc::clone(&stop)));
        let beside = ingest(&runtime, &store, others);
        stop.store(true, Ordering::Relaxed);
        let asked = runtime.block_on(asking).unwrap();
        ratios.push(beside / alone);
        table.row([
            rate(alone),
            rate(beside),
            ratio(beside / alone),
            grouped(asked),
        ]);
    }
    report.table(&table);
    let middle = median(ratios);
    report.target(
        middle >= 0.8,
        &format!(
            "Ingest beside questions: {} of its rate alone",
            ratio(middle)
        ),
        "0.8",
    );
    report
}

/// Pairs per second.
fn ingest(runtime: &Runtime, store: &EmbeddedStore, batches: &[Batch]) -> f64 {
    let took = runtime.block_on(record_all(store, batches, CALLERS));
    let pairs: usize = batches.iter().map(Batch::len).sum();
    pairs as f64 / took.as_secs_f64()
}

/// Asks one question after the other. The overlaps are counted anew each time.
async fn ask(store: Arc<EmbeddedStore>, stop: Arc<AtomicBool>) -> u64 {
    let window = frame().full_window();
    let sets = SETS.map(|text| text.parse::<Expression>().unwrap());
    let top = TopQuestion {
        order: OverlapOrder::Lift,
        limit: 20,
        at_least: 100,
        floor: Floor::default(),
        reach: Reach::default(),
    };
    let mut asked = 0;
    while !stop.load(Ordering::Relaxed) {
        for set in &sets {
            let now = Timestamp::now();
            store
                .count_set(set, window, Floor::default(), now)
                .await
                .unwrap();
            asked += 1;
        }
        let now = Timestamp::now();
        store
            .top_overlaps(top.clone(), window, true, now)
            .await
            .unwrap();
        asked += 1;
    }
    asked
}
