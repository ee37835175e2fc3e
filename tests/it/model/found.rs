//! Cases that broke a promise, each as small as it came out.

use super::run;
use super::steps::{Call, Case, Fate, Mode, Part, Seen, Setup, Step};

const ONE: Setup = Setup {
    instances: 1,
    has_spool: false,
    has_memory: false,
    is_live: false,
};

fn keeps(setup: Setup, steps: Vec<Step>) {
    run(&Case { setup, steps }).unwrap();
}

fn count(fresh: bool) -> Step {
    Step::Count {
        at: 0,
        segment: 0,
        window: 0,
        fresh,
    }
}

fn write(at: usize, user: usize) -> Step {
    Step::Write {
        at,
        pairs: vec![(user, 0, Seen::Now)],
    }
}

/// It was so called once, and for a second after that repeated from memory as if it were new.
#[test]
fn a_number_past_its_time_is_stale_however_often_it_is_asked_for() {
    let setup = Setup {
        has_memory: true,
        ..ONE
    };
    let away = Step::Connection {
        at: 0,
        part: Part::Store,
        mode: Mode::Away,
    };
    let passes = Step::Pass(130);
    keeps(
        setup,
        vec![count(false), away, passes, count(false), count(false)],
    );
}

/// A caller was handed the answer of a load that had begun before, `pending` and all.
#[test]
fn who_joins_a_load_is_not_told_the_pending_of_its_beginning() {
    let setup = Setup {
        instances: 2,
        ..ONE
    };
    let answers_late = Step::Next {
        at: 0,
        call: Call::Get,
        fate: Fate::HeldAfter,
    };
    let (first, joins) = (count(false), count(false));
    let answers = Step::Release(0);
    let steps = vec![
        count(false),
        answers_late,
        first,
        write(1, 0),
        joins,
        answers,
    ];
    keeps(setup, steps);
}

/// The cache was away when the store was counted, and took readers back to the number before.
#[test]
fn a_cache_that_missed_a_count_takes_no_reader_back() {
    let missed = Step::Next {
        at: 0,
        call: Call::Put,
        fate: Fate::Refused,
    };
    let steps = vec![
        write(0, 0),
        count(false),
        write(0, 1),
        missed,
        count(true),
        count(false),
    ];
    keeps(ONE, steps);
}

/// A clock was ahead and is right again: the count from the future looked new until that time came.
#[test]
fn a_count_from_far_ahead_is_not_trusted() {
    let (ahead, back) = (Step::Pass(600), Step::SetBack(590));
    let again = Step::Crash { at: 0 };
    let steps = vec![write(0, 0), ahead, count(false), back, again, count(false)];
    keeps(ONE, steps);
}

/// The cache had lost the segment, so that its later count was kept beside the earlier one, which came back when the store
/// was unavailable.
#[test]
fn a_segment_that_the_cache_lost_takes_no_reader_back() {
    let refresh = Step::Refresh {
        at: 0,
        only: Some(0),
    };
    let away = Step::Connection {
        at: 0,
        part: Part::Store,
        mode: Mode::Away,
    };
    keeps(
        ONE,
        vec![
            write(0, 0),
            refresh,
            Step::Flush,
            Step::Pass(600),
            count(false),
            away,
            count(false),
        ],
    );
}

/// The list was made while the clock went on by days, and repeated from memory as if it were new.
#[test]
fn a_list_past_its_time_is_stale_however_often_it_is_asked_for() {
    let setup = Setup {
        has_memory: true,
        ..ONE
    };
    let holds = Step::Next {
        at: 0,
        call: Call::StoreCount,
        fate: Fate::HeldBefore,
    };
    let writes = Step::Write {
        at: 0,
        pairs: vec![(0, 2, Seen::Now), (0, 0, Seen::Now)],
    };
    let list = || Step::List { at: 0 };
    keeps(
        setup,
        vec![holds, writes, list(), Step::Pass(3 * 86_400), list()],
    );
}

/// It was taken for one from before, since the clock of the new life was behind, and never delivered.
#[test]
fn what_comes_after_an_erasure_counts_though_the_clock_went_back_over_a_restart() {
    let setup = Setup {
        has_spool: true,
        ..ONE
    };
    let away = Step::Connection {
        at: 0,
        part: Part::Store,
        mode: Mode::Away,
    };
    let erase = Step::Forget { at: 0, user: 4 };
    let crash = Step::Crash { at: 0 };
    keeps(
        setup,
        vec![Step::SetBack(1), erase, crash, away, write(0, 4)],
    );
}

/// The erasure was forgotten while it still stood in the store, learnt again, and repeated.
#[test]
fn an_erasure_from_ahead_is_learnt_once() {
    let setup = Setup {
        instances: 2,
        has_spool: true,
        ..ONE
    };
    let away = Step::Connection {
        at: 1,
        part: Part::Store,
        mode: Mode::Away,
    };
    let steps = vec![
        Step::Forget { at: 0, user: 4 },
        Step::SetBack(856),
        Step::Crash { at: 1 },
        Step::Pass(300),
        Step::Pass(61),
        away,
        Step::SetBack(1),
        write(1, 4),
        write(0, 0),
        write(0, 0),
    ];
    keeps(setup, steps);
}

/// It waited for a place that a count held which told a silent cache of itself.
#[test]
fn a_fresh_number_of_a_live_store_waits_for_no_cache() {
    let setup = Setup {
        is_live: true,
        ..ONE
    };
    let holds = || Step::Next {
        at: 0,
        call: Call::Mark,
        fate: Fate::HeldBefore,
    };
    let refresh = Step::Refresh { at: 0, only: None };
    let writes = Step::Write {
        at: 0,
        pairs: vec![(0, 0, Seen::Now), (0, 1, Seen::Now)],
    };
    let other = |fresh| Step::Count {
        at: 0,
        segment: 1,
        window: 1,
        fresh,
    };
    let steps = vec![
        writes,
        holds(),
        holds(),
        other(false),
        refresh,
        other(true),
        Step::Pass(61),
    ];
    keeps(setup, steps);
}

/// The store knew of a later time, and its number hid the one from the cache, which is as of now.
#[test]
fn a_number_from_far_ahead_does_not_hide_that_of_the_cache() {
    let refresh = Step::Refresh { at: 0, only: None };
    keeps(
        ONE,
        vec![
            count(false),
            Step::SetBack(541),
            Step::Restart { at: 0 },
            write(0, 0),
            refresh,
            Step::KillStore,
            write(0, 0),
            Step::List { at: 0 },
            count(false),
        ],
    );
}

/// It was joined by a list more than `cache_ttl` after it had been made, since the cache did not take it.
#[test]
fn a_count_that_waited_for_the_cache_is_as_old_as_that_in_a_list() {
    let holds = || Step::Next {
        at: 0,
        call: Call::Put,
        fate: Fate::HeldBefore,
    };
    let refresh = Step::Refresh { at: 0, only: None };
    keeps(
        ONE,
        vec![
            holds(),
            holds(),
            write(0, 0),
            refresh,
            Step::Pass(130),
            write(0, 0),
            Step::List { at: 0 },
        ],
    );
}
