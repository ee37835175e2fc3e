//! Compares coverage with a naive model: a flag for each second.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;
use crate::TimeFrame;

/// The length of the timeline in seconds.
const END: i64 = 60;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn window(seconds: i64) -> Window {
    let second = Duration::from_secs(1);
    let frame = TimeFrame::new(second * 100, second, second).unwrap();
    frame
        .window(second * u32::try_from(seconds).unwrap())
        .unwrap()
}

fn statements() -> impl Strategy<Value = Vec<Statement>> {
    let statement = (0..END, 0..END).prop_map(|(made, back)| Statement {
        at: at(made),
        since: at((made - back).max(0)),
    });
    vec(statement, 0..4).prop_map(|mut statements| {
        statements.sort_by_key(|statement| statement.at);
        statements.dedup_by_key(|statement| statement.at);
        statements
    })
}

fn losses(most: usize) -> impl Strategy<Value = Vec<Loss>> {
    let loss = (0..END, 1..8_i64, 0..8_i64, option::of(0..9_u64), 0..3_usize);
    vec(loss, 0..most).prop_map(|losses| {
        let numbered = (1..).zip(losses);
        let lost = numbered.map(|(id, (from, length, later, pairs, reason))| Loss {
            id,
            from: at(from),
            until: at(from + length),
            noted: at(from + later),
            pairs,
            reason: LossReason::ALL[reason],
        });
        lost.collect()
    })
}

fn histories(most_losses: usize) -> impl Strategy<Value = Coverage> {
    let began = option::weighted(0.9, (0..END).prop_map(at));
    (began, statements(), losses(most_losses)).prop_map(|(began, statements, losses)| Coverage {
        began,
        statements,
        losses,
        running: None,
    })
}

/// Which seconds are covered, as it was at `now`; `None` if nothing is known.
fn covered(history: &Coverage, now: i64) -> Option<Vec<bool>> {
    let mut stated = None;
    for statement in &history.statements {
        if statement.at <= at(now) {
            stated = Some(statement);
        }
    }
    let since = match stated {
        Some(stated) => stated.since,
        None => history.began?,
    };
    let mut flags: Vec<bool> = (0..END * 2).map(|second| at(second) >= since).collect();
    for loss in &history.losses {
        let is_included = stated.is_some_and(|stated| loss.noted <= stated.at);
        if loss.from > at(now) || is_included {
            continue;
        }
        for second in loss.from.as_second()..loss.until.as_second() {
            flags[usize::try_from(second).unwrap()] = false;
        }
    }
    Some(flags)
}

fn properties(history: &Coverage) -> BTreeMap<String, String> {
    let mut properties = BTreeMap::new();
    properties.extend(history.began.map(began));
    properties.extend(history.running.map(is_running));
    properties.extend(history.statements.iter().map(Statement::property));
    properties.extend(history.losses.iter().map(Loss::property));
    properties
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 8 } else { 512 }))]

    #[test]
    fn a_count_is_complete_if_every_second_of_its_window_is_covered(
        history in histories(5), now in 0..END, length in 1..40_i64,
    ) {
        let answer = history.of(window(length), at(now));
        let flags = covered(&history, now);
        let start = (now - length + 1).max(0);
        let in_window = |flags: &Vec<bool>| {
            (start..=now).all(|second| flags[usize::try_from(second).unwrap()])
        };
        let is_complete = flags.as_ref().is_some_and(in_window);
        // A loss in the future of the count moves its instant, too, so that it is not reported as complete.
        prop_assert!(is_complete || !answer.complete, "{answer:?} claims too much");
        let ends_later = |loss: &Loss| loss.until > at(now);
        if !history.losses.iter().any(ends_later) {
            prop_assert_eq!(answer.complete, is_complete, "{:?}", answer);
        }
        let since = flags.map(|flags| {
            let last = flags.iter().rposition(|is_covered| !is_covered);
            at(last.map_or(0, |last| i64::try_from(last).unwrap() + 1))
        });
        prop_assert_eq!(answer.since, since);
    }

    #[test]
    fn a_history_is_read_as_it_was_written(history in histories(5), running in option::of(0..END)) {
        let history = Coverage { running: running.map(at), ..history };
        prop_assert_eq!(Coverage::from_properties(&properties(&history)), Ok(history));
    }

    #[test]
    fn a_shorter_history_never_claims_more(
        history in histories(MAX_LOSSES * 2), oldest in 0..END, now in 0..END,
    ) {
        let mut kept = properties(&history);
        let (set, removed) = history.shortened(at(oldest));
        kept.extend(set);
        for name in removed {
            prop_assert!(kept.remove(&name).is_some(), "{} is removed twice", name);
        }
        let shorter = Coverage::from_properties(&kept).unwrap();
        prop_assert!(shorter.losses.len() <= MAX_LOSSES);
        let now = now.max(oldest);
        let (before, after) = (history.since(at(now)), shorter.since(at(now)));
        prop_assert!(after >= before, "{after:?} is before {before:?}");
        let has_old = history.losses.iter().any(|loss| loss.noted < at(oldest));
        if history.losses.len() <= MAX_LOSSES && !has_old {
            prop_assert_eq!(before, after, "a statement or a loss that is still needed was removed");
        }
    }

    #[test]
    fn a_window_is_complete_from_the_announced_instant_on(since in END..END * 2, length in 1..40_i64) {
        let history = Coverage { began: Some(at(since)), ..Coverage::default() };
        let window = window(length);
        let from = history.of(window, at(since)).complete_from(window).unwrap();
        prop_assert!(history.of(window, from).complete);
        prop_assert!(from == at(since) || !history.of(window, at(from.as_second() - 1)).complete);
    }
}

#[test]
fn a_new_store_is_complete_after_one_window() {
    let mut coverage = Coverage::default();
    let answer = coverage.of(window(10), at(20));
    assert_eq!(answer, Covered::default(), "nothing is known");
    assert!(answer.notice(window(10)).unwrap().contains("not known"));
    coverage.began = Some(at(20));
    assert!(!coverage.of(window(10), at(28)).complete);
    assert!(coverage.of(window(10), at(29)).complete);
    assert_eq!(coverage.of(window(10), at(29)).notice(window(10)), None);
}

#[test]
fn a_statement_does_not_change_what_held_before() {
    let coverage = Coverage {
        began: Some(at(20)),
        statements: vec![Statement {
            at: at(30),
            since: at(5),
        }],
        ..Coverage::default()
    };
    assert_eq!(coverage.since(at(29)), Some(at(20)));
    assert_eq!(coverage.since(at(30)), Some(at(5)));
}

#[test]
fn the_notice_names_both_instants() {
    let minute = Duration::from_secs(60);
    let frame = TimeFrame::new(minute * 60 * 24 * 14, minute, minute).unwrap();
    let since: Timestamp = "2026-11-21T12:00:30Z".parse().unwrap();
    let covered = Covered {
        since: Some(since),
        complete: false,
    };
    assert_eq!(
        covered.notice(frame.full_window()).unwrap(),
        "Not complete yet: users who were last seen before 2026-11-21 12:01 UTC may be missing. Numbers over 14d are complete \
         from 2026-12-05 12:00 UTC on."
    );
}

#[test]
fn an_unknown_property_is_an_error() {
    for (name, value) in [
        ("coverage/began", "yesterday"),
        ("coverage/lost/xyz", "-"),
        ("coverage/lost/1", "1970-01-01T00:00:00Z"),
        (
            "coverage/lost/1",
            "1970-01-01T00:00:00Z 1970-01-01T00:00:00Z 1970-01-01T00:00:00Z - burnt",
        ),
        ("coverage/stated/now", "1970-01-01T00:00:00Z"),
        ("coverage/later", "1"),
    ] {
        let properties = BTreeMap::from([(name.to_owned(), value.to_owned())]);
        assert!(
            Coverage::from_properties(&properties).is_err(),
            "{name} {value}"
        );
    }
}
