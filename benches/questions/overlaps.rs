//! All overlaps of 200 segments, next to the peers.

use std::collections::HashMap;
use std::time::Duration;

use domain::overlap::OverlapMatrix;
use index::Between;

use super::pairs::Pairs;
use super::peers::{self, Answer, Identity};
use super::report::Report;
use super::table::{Table, grouped, nothing, ratio, time};
use super::{HEAD, WEEK, WINDOW, best, head};

const SEGMENTS: usize = 200;
/// An hour.
const STEP: u32 = 60;
const RUNS: usize = 9;
const TARGET: Duration = Duration::from_millis(700);

/// A way to ask, and its time for each of the two windows.
struct Way {
    name: String,
    identity: Option<Identity>,
    took: [Option<Duration>; 2],
}

pub(crate) fn measure(quick: bool) -> Report {
    let tenth = if quick { 10 } else { 1 };
    let pairs = Pairs::zipf(SEGMENTS, 2_000_000 / tenth, 10_000_000 / tenth as usize);
    let mut report = Report::default();
    report.paragraph(&format!(
        "All overlaps of {SEGMENTS} segments with {} pairs, on one core:",
        grouped(pairs.number() as u64)
    ));
    let index = pairs.index();
    let mut never = || false;
    let windows = [WINDOW, WEEK];
    let counted = windows.map(|window| {
        best(RUNS, || {
            let counted = index.overlaps(Between::All, window, head(), &mut never);
            counted.unwrap().matrix
        })
    });
    let (took_rings, rings) = best(3, || index.overlap_rings(STEP, head(), &mut never).unwrap());
    for (window, (_, matrix)) in windows.iter().zip(&counted) {
        assert_eq!(rings.matrix(*window).as_ref(), Some(matrix));
    }
    let own = [counted[0].0, counted[1].0];
    let counts = counted.map(|(_, matrix)| by_number(&matrix));
    let directory = tempfile::tempdir().unwrap();
    pairs.write(directory.path());
    drop(pairs);

    // The first slot of each window.
    let starts = windows.map(|window| HEAD + 1 - u64::from(window));
    let mut ways = Vec::new();
    for peer in ["clickhouse", "duckdb", "pyroaring"] {
        for answer in peers::ask(peer, directory.path(), &starts) {
            let window = usize::from(answer.start == Some(starts[1]));
            assert_eq!(answer.counts(), counts[window], "{}", answer.way);
            add(&mut ways, &answer, window);
        }
    }
    print(&mut report, own, &ways);
    report.paragraph(&format!(
        "Rings of all pairs, which have the overlaps of every window that is a multiple of an hour: {}.",
        time(took_rings)
    ));
    let slower = own.into_iter().max().unwrap_or_default();
    report.target(
        slower <= TARGET,
        &format!("All overlaps over any window: {}", time(slower)),
        &time(TARGET),
    );
    compare(&mut report, own, &ways);
    report
}

/// The pairs of segments with users in both, the lower number first.
fn by_number(matrix: &OverlapMatrix) -> HashMap<(usize, usize), u64> {
    let number = |name: &str| name.trim_start_matches("segment-").parse().unwrap();
    let pairs = matrix.pairs().map(|pair| {
        let (a, b): (usize, usize) = (number(pair.a.as_str()), number(pair.b.as_str()));
        ((a.min(b), a.max(b)), pair.both)
    });
    pairs.collect()
}

fn add(ways: &mut Vec<Way>, answer: &Answer, window: usize) {
    let known = ways.iter().position(|way| way.name == answer.way);
    let at = known.unwrap_or_else(|| {
        ways.push(Way {
            name: answer.way.clone(),
            identity: answer.start.map(|_| answer.identity),
            took: [None; 2],
        });
        ways.len() - 1
    });
    ways[at].took[window] = Some(answer.took());
}

fn print(report: &mut Report, own: [Duration; 2], ways: &[Way]) {
    let mut table = Table::new(&["", "Two weeks", "ratio", "7 days", "ratio"]);
    let one = || ratio(1.0);
    table.row([
        "headcount".to_owned(),
        time(own[0]),
        one(),
        time(own[1]),
        one(),
    ]);
    for way in ways {
        let mut cells = vec![way.name.clone()];
        for (took, own) in way.took.iter().zip(own) {
            let times = took.map(|took| took.as_secs_f64() / own.as_secs_f64());
            cells.push(took.map_or_else(nothing, time));
            cells.push(times.map_or_else(nothing, ratio));
        }
        table.row(cells);
    }
    report.table(&table);
}

/// A fifth of the fastest peer that respects the window, for users by hash, as everywhere in headcount, and by number.
fn compare(report: &mut Report, own: [Duration; 2], ways: &[Way]) {
    for (identity, whose) in [
        (Identity::Hash, "with the same 48-bit hashes of users"),
        (
            Identity::Number,
            "with users that are numbered from 0, so that they need a dictionary",
        ),
    ] {
        let ways = ways.iter().filter(|way| way.identity == Some(identity));
        let times = ways.filter_map(|way| {
            let times = way.took.iter().zip(own);
            times
                .map(|(took, own)| Some(took.as_ref()?.as_secs_f64() / own.as_secs_f64()))
                .min_by(|one, other| one.partial_cmp(other).unwrap())?
        });
        let Some(fastest) = times.min_by(f64::total_cmp) else {
            continue;
        };
        report.target(
            fastest >= 5.0,
            &format!(
                "The fastest peer {whose} takes {} times as long",
                ratio(fastest)
            ),
            "5 times",
        );
    }
}
