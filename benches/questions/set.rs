//! One AND of two segments of a million users, next to reading both.

use std::time::Duration;

use domain::Expression;
use index::{Entry, Fingerprint, Index};

use super::pairs::Pairs;
use super::report::Report;
use super::table::{Table, grouped, ratio, time};
use super::{HEAD, WEEK, WINDOW, best, head, segment};

const RUNS: usize = 50;

pub(crate) fn measure(quick: bool) -> Report {
    let size = if quick { 100_000 } else { 1_000_000 };
    let pairs = Pairs::new(&[size, size], 2 * size as u32);
    let index = pairs.index();
    let arrays = [pairs.entries(0), pairs.entries(1)];
    drop(pairs);
    let expression: Expression = "\"segment-0\" AND \"segment-1\"".parse().unwrap();
    let mut report = Report::default();
    report.paragraph(&format!(
        "One AND of two segments of {} users each, on one core:",
        grouped(size as u64)
    ));
    let mut table = Table::new(&["", "Two weeks", "7 days"]);
    let windows = [WINDOW, WEEK];
    let and = windows.map(|window| {
        best(RUNS, || {
            let counted = index.count_set(&expression, window, head(), &mut || false);
            counted.unwrap().users
        })
    });
    let merged = windows.map(|window| best(RUNS, || merge(&arrays, window)));
    let read = windows.map(|window| best(RUNS, || read_pages(&index, window)));
    let [and_of, merged_of, read_of] = [&and, &merged, &read].map(|all| all.map(|(took, _)| took));
    for (counted, expected) in and.iter().zip(&merged) {
        assert_eq!(counted.1, expected.1);
    }
    let mut row = |name: &str, times: [Duration; 2]| {
        table.row([name.to_owned(), time(times[0]), time(times[1])]);
    };
    row("AND of both", and_of);
    row("merging two sorted arrays of their entries", merged_of);
    row("counting the entries of both, page by page", read_of);
    report.table(&table);
    let times = |others: [Duration; 2]| {
        let times = and_of.iter().zip(others);
        times.map(|(took, other)| took.as_secs_f64() / other.as_secs_f64())
    };
    for (others, what) in [
        (merged_of, "reading both from sorted arrays in step"),
        (read_of, "reading both page by page"),
    ] {
        let slower = times(others).fold(0.0, f64::max);
        report.target(
            slower <= 2.0,
            &format!("AND takes {} times as long as {what}", ratio(slower)),
            "2 times",
        );
    }
    report
}

/// The users in both arrays, with a visit in the window.
fn merge([some, others]: &[Vec<Entry>; 2], window: u32) -> u64 {
    let start = HEAD + 1 - u64::from(window);
    let is_held = |entry: Entry| entry.slot(head()).number() >= start;
    let (mut at, mut at_other, mut both) = (0, 0, 0);
    while at < some.len() && at_other < others.len() {
        let (one, other) = (some[at], others[at_other]);
        let (user, other_user) = (one.fingerprint(), other.fingerprint());
        let is_in_both = (user == other_user) & is_held(one) & is_held(other);
        both += u64::from(is_in_both);
        at += usize::from(user <= other_user);
        at_other += usize::from(other_user <= user);
    }
    both
}

fn read_pages(index: &Index, window: u32) -> u64 {
    let start = HEAD + 1 - u64::from(window);
    let mut held = 0;
    let mut page = Vec::new();
    for number in 0..2 {
        let name = segment(number);
        let mut next = Some(Fingerprint::MIN);
        while let Some(from) = next {
            page.clear();
            let read = index.read_page(name.as_str(), from, &mut page).unwrap();
            let entries = page.iter();
            held += entries
                .filter(|entry| entry.slot(read.base).number() >= start)
                .count();
            next = read.next;
        }
    }
    held as u64
}
