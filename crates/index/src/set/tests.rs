//! Compares counts of sets with a naive model, also while others write, and times one.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use domain::Slot;
use domain::expression::{Expression, Set};
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::histories::{
    Model, SEGMENTS, come_and_go, fingerprint, let_time_pass, never_stop, play, population,
    segment, settled, story,
};
use crate::members::Members;
use crate::{Entry, Fingerprint};

fn expression(text: &str) -> Expression {
    Expression::parse(text).unwrap()
}

/// Whether a user of these segments is in the set.
fn has(set: &Set, segments: &[&str]) -> bool {
    match set {
        Set::Segment(segment) => segments.contains(&segment.as_str()),
        Set::Everybody => true,
        Set::Not(set) => !has(set, segments),
        Set::And(sets) => sets.iter().all(|set| has(set, segments)),
        Set::Or(sets) => sets.iter().any(|set| has(set, segments)),
    }
}

fn in_model(model: &Model, expression: &Expression, window: u32, as_of: u64) -> u64 {
    model.count(window, as_of, |segments| has(expression.set(), segments))
}

fn count(index: &Index, expression: &Expression, window: u32, as_of: u64) -> SetCount {
    let as_of = Slot::new(as_of);
    index
        .count_set(expression, window, as_of, &mut never_stop)
        .unwrap()
}

fn any_expression() -> impl Strategy<Value = Expression> {
    let name = prop_oneof![8 => 0..SEGMENTS.len(), 1 => Just(SEGMENTS.len())];
    let name = name.prop_map(|number| SEGMENTS.get(number).copied().unwrap_or("unknown"));
    let leaf = prop_oneof![
        6 => name.prop_map(|name| Set::Segment(segment(name))),
        1 => Just(Set::Everybody),
    ];
    let set = leaf.prop_recursive(4, 20, 3, |inner| {
        prop_oneof![
            1 => inner.clone().prop_map(|set| Set::Not(Box::new(set))),
            2 => vec(inner.clone(), 2..4).prop_map(Set::And),
            2 => vec(inner, 2..4).prop_map(Set::Or),
        ]
    });
    set.prop_map(|set| expression(&set.to_string()))
}

fn ask(index: &Index, model: &Model, asked: &Expression, full: u32, head: u64) {
    for window in [full + 5, full, full / 2, 1] {
        let window = window.max(1);
        let users = in_model(model, asked, window.min(full), head);
        let as_of = Slot::new(head);
        let counted = count(index, asked, window, head);
        assert_eq!(counted, SetCount { users, as_of }, "{asked}, {window}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn agrees_with_the_model((window, steps) in story(any_expression())) {
        let last = r#"(a OR rare) AND (b OR NOT "front page") NOT (a AND b) OR unknown"#;
        play(window, steps, expression(last), |asked, index, model, head| {
            ask(index, model, &asked, window, head);
        });
    }
}

#[test]
fn an_answer_has_the_later_of_both_slots() {
    let index = Index::new(10);
    let both = expression("a AND b");
    let nobody = |as_of| SetCount {
        users: 0,
        as_of: Slot::new(as_of),
    };
    assert_eq!(count(&index, &both, 10, 7), nobody(7));
    assert_eq!(count(&index, &both, 10, 3), nobody(7));
    assert_eq!(count(&index, &expression("a"), 10, 8), nobody(8));
    let seen = [Entry::new(fingerprint(1), Slot::new(9))];
    for name in ["a", "b"] {
        index.upsert(&segment(name), &seen, Slot::new(9));
    }
    for (window, as_of, users) in [(10, 9, 1), (1, 9, 1), (1, 10, 0), (10, 18, 1), (10, 19, 0)] {
        let as_of = Slot::new(as_of);
        assert_eq!(
            count(&index, &both, window, as_of.number()),
            SetCount { users, as_of }
        );
    }
}

#[test]
fn a_small_segment_reads_few_pages_of_a_large_one() {
    let index = Index::new(10);
    let slot = Slot::new(100);
    index.load_sorted(&segment("large"), &population(1, 20, 200_000, slot), slot);
    index.load_sorted(&segment("small"), &population(2, 20, 30, slot), slot);
    let mut asked = 0;
    let mut ask = || {
        asked += 1;
        false
    };
    let counted = index.count_set(&expression("large AND small"), 10, slot, &mut ask);
    assert_eq!(counted.unwrap().users, 20);
    // Of more than 1,500 pages at most 50 were read.
    assert!(asked <= 3, "{asked}");
}

#[test]
fn stops_when_told_to() {
    let index = Index::new(10);
    let slot = Slot::new(100);
    for (seed, name) in [(1, "a"), (2, "b")] {
        index.load_sorted(&segment(name), &population(seed, 100, 50_000, slot), slot);
    }
    for text in ["a AND b", "a OR b", "NOT a", "*", "x AND y", "NOT (a OR b)"] {
        let set = expression(text);
        let stopped = index.count_set(&set, 10, slot, &mut || true);
        assert_eq!(stopped, Err(Cancelled), "{text}");
    }
    for text in ["a AND b", "a OR b", "NOT a", "*"] {
        let mut left = 5;
        let mut stop = || {
            left -= 1;
            left == 0
        };
        let stopped = index.count_set(&expression(text), 10, slot, &mut stop);
        assert_eq!(stopped, Err(Cancelled), "{text}");
    }
}

#[test]
fn starts_again_when_a_sweep_removed_what_it_needs() {
    let index = Index::new(10);
    let slot = Slot::new(100);
    for (seed, name) in [(1, "a"), (2, "b")] {
        index.load_sorted(&segment(name), &population(seed, 60_000, 0, slot), slot);
    }
    let late = Slot::new(105);
    index.load_sorted(&segment("a"), &population(1, 10, 0, late), late);
    index.load_sorted(&segment("b"), &population(2, 10, 0, late), late);
    for (window, expected) in [(7, (60_000, 106)), (10, (10, 110))] {
        let mut asked = 0;
        // In the middle of the walk, all but a few users expire and are removed.
        let mut expire = || {
            asked += 1;
            if asked == 5 {
                let later = Slot::new(if window == 7 { 108 } else { 110 });
                while !index.sweep(later, 1_000).done {}
            }
            false
        };
        let both = expression("a AND b");
        let counted = index.count_set(&both, window, Slot::new(106), &mut expire);
        let counted = counted.unwrap();
        assert_eq!((counted.users, counted.as_of.number()), expected);
    }
}

#[test]
fn users_who_do_not_change_are_counted_exactly_while_others_do() {
    const WINDOW: u64 = 40;
    let index = Index::new(WINDOW as u32);
    let head = 70_000;
    let model = settled(&index, WINDOW, head);
    // None of them has a passing user. The second is so large that it is never the one to list.
    let texts = [
        "settled AND a AND b",
        "many AND (a OR b)",
        "many AND (a NOT b OR b NOT c)",
        "settled NOT a",
        "(NOT a OR b) AND settled",
        "many AND a AND (b OR NOT c)",
    ];
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| come_and_go(&index, &stop));
        // Nobody leaves the segments that don't change.
        scope.spawn(|| let_time_pass(&index, WINDOW - 5, &stop));
        let mut wrong = Vec::new();
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(2) {
            for text in texts {
                let asked = expression(text);
                let counted = count(&index, &asked, WINDOW as u32, 0);
                let as_of = counted.as_of.number();
                let expected = in_model(&model, &asked, WINDOW as u32, as_of);
                if counted.users != expected {
                    wrong.push((text, counted, expected));
                }
            }
        }
        stop.store(true, Ordering::Relaxed);
        assert_eq!(wrong, []);
    });
}

/// `cargo test --release -p headcount-index -- --ignored --nocapture million`
#[test]
#[ignore = "takes a second in a release build, and prints times instead of checking them"]
fn two_segments_of_a_million() {
    let index = Index::new(20_160);
    let slot = Slot::new(100_000);
    for (seed, name) in [(1, "a"), (2, "b")] {
        let users = population(seed, 500_000, 500_000, slot);
        index.load_sorted(&segment(name), &users, slot);
    }
    index.load_sorted(&segment("small"), &population(3, 1_000, 0, slot), slot);
    let best = |act: &dyn Fn() -> u64| {
        let times = (0..15).map(|_| {
            let began = Instant::now();
            std::hint::black_box(act());
            began.elapsed()
        });
        times.min().unwrap()
    };
    let read = || {
        let mut users = 0;
        for name in ["a", "b"] {
            let mut page = Vec::new();
            let mut next = Some(Fingerprint::MIN);
            while let Some(from) = next {
                page.clear();
                next = index.read_page(name, from, &mut page).unwrap().next;
                users += page.len() as u64;
            }
        }
        users
    };
    println!("read_page over both segments: {:?}", best(&read));
    let scan = || {
        let scan_one = |name: &str| {
            let shared = index.find(name).unwrap();
            let scan_page = |members: &mut Members, from| {
                let in_window = members.in_window(20_160, slot.number()).unwrap();
                let page = members.page(from);
                let entries = page.entries().iter();
                let users = entries.filter(|entry| in_window.holds(**entry)).count();
                (users as u64, page.end(from))
            };
            let (mut users, mut next) = (0, Some(Fingerprint::MIN));
            while let Some(from) = next {
                let scanned = shared.with(&index.head, |members| scan_page(members, from));
                let (here, then) = scanned.unwrap();
                users += here;
                next = then;
            }
            users
        };
        scan_one("a") + scan_one("b")
    };
    println!(
        "counting the entries of both, page by page: {:?}",
        best(&scan)
    );
    let arrays = [1, 2].map(|seed| population(seed, 500_000, 500_000, slot));
    let sum = || {
        arrays
            .iter()
            .flatten()
            .map(|entry| entry.to_bits())
            .fold(0, u64::wrapping_add)
    };
    println!(
        "summing two sorted arrays of the same entries: {:?}",
        best(&sum)
    );
    for text in ["a AND b", "a NOT b", "a OR b", "*", "a AND small"] {
        let asked = expression(text);
        for window in [20_160, 20_000] {
            let took = best(&|| count(&index, &asked, window, 0).users);
            let users = count(&index, &asked, window, 0).users;
            println!("{text}, window {window}: {users} users in {took:?}");
        }
    }
}
