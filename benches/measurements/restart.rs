//! The time from the start of the program until it is ready, by number of pairs.

use std::path::Path;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::filled::{DATA, assert_counted, users};
use super::report::Report;
use super::support::peer::Peer;
use super::support::stores::size_of;
use super::table::{Table, grouped, time};
use super::{Run, progress};

const TARGET: Duration = Duration::from_secs(3);

pub(crate) fn measure(run: &Run) -> Report {
    let sizes: &[u64] = run.pick(&[1_000_000, 10_000_000, 50_000_000], &[1_000_000]);
    let mut report = Report::default();
    let mut table = Table::new(&["Pairs", "from the log", "MiB", "from a snapshot", "MiB"]);
    let mut at_10_million = None;
    for pairs in sizes {
        let runs = if *pairs > 10_000_000 { 1 } else { 3 };
        progress(&format!("restarts with {} pairs", grouped(*pairs)));
        let log = time_to_ready(&run.filled.with_log(*pairs, &run.runtime), *pairs, runs);
        let snapshot = run.filled.with_snapshot(*pairs, &run.runtime);
        let snapshot = time_to_ready(&snapshot, *pairs, runs);
        if *pairs == 10_000_000 {
            at_10_million = Some((log.0, snapshot.0));
        }
        table.row([
            grouped(*pairs),
            time(log.0),
            format!("{:.0}", log.1),
            time(snapshot.0),
            format!("{:.0}", snapshot.1),
        ]);
    }
    report.paragraph(
        "The time from the start of `headcount serve` to the first 200 of `/readyz`, with the files in the page cache. It is the median of three \
         runs, or a single run for the largest size. A killed service replays the log since its last snapshot, at most 64 MiB (8 million pairs) \
         or half the size of a snapshot. *From the log* is a service that never took a snapshot.",
    );
    report.table(&table);
    if let Some((log, snapshot)) = at_10_million {
        report.target(
            log.max(snapshot) <= TARGET,
            &format!(
                "Restart with 10 million pairs: {} from the log alone, {} from a snapshot",
                time(log),
                time(snapshot)
            ),
            "3 s",
        );
    }
    report
}

/// The median time until ready, and the size of the files in MiB.
fn time_to_ready(directory: &TempDir, pairs: u64, runs: usize) -> (Duration, f64) {
    let bytes = size_of(&directory.path().join(DATA));
    let mut took: Vec<Duration> = (0..runs).map(|_| once(directory.path(), pairs)).collect();
    took.sort_unstable();
    (took[runs / 2], bytes / f64::from(1 << 20))
}

fn once(directory: &Path, pairs: u64) -> Duration {
    let began = Instant::now();
    let service = Peer::headcount_starting(directory, &[]);
    service.wait_until_ready();
    let took = began.elapsed();
    assert_counted(users(&service), pairs);
    took
}
