//! Regression tests: cases that broke a promise, in their smallest form.

use super::run;
use super::steps::{Call, Case, Fate, Mode, PROCESSES, Part, Seen, Setup, Step};

const ONE: Setup = Setup {
    instances: 1,
    has_spool: false,
    has_memory: false,
    is_live: false,
    live_processes: 0,
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

/// The first response marked it as stale. For a second after that, it was repeated from memory as if it were new.
#[test]
fn an_expired_count_is_stale_in_every_response() {
    let setup = Setup {
        has_memory: true,
        ..ONE
    };
    let down = Step::Connection {
        at: 0,
        part: Part::Store,
        mode: Mode::Down,
    };
    let passes = Step::Pass(130);
    keeps(
        setup,
        vec![count(false), down, passes, count(false), count(false)],
    );
}

/// The cache was unavailable when the store was counted. Later reads returned the earlier count.
#[test]
fn a_cache_that_missed_a_count_returns_no_earlier_one() {
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

/// A clock was ahead and is right again. The count from the future looked new until that time came.
#[test]
fn a_count_from_the_future_is_not_trusted() {
    let (ahead, back) = (Step::Pass(600), Step::SetBack(590));
    let again = Step::Crash { at: 0 };
    let steps = vec![write(0, 0), ahead, count(false), back, again, count(false)];
    keeps(ONE, steps);
}

/// The connection of the first instance to the store.
fn store_is(mode: Mode) -> Step {
    Step::Connection {
        at: 0,
        part: Part::Store,
        mode,
    }
}

/// The next such call of the first instance waits until it is released.
fn holds(call: Call) -> Step {
    Step::Next {
        at: 0,
        call,
        fate: Fate::HeldBefore,
    }
}

/// The spool sent the pair while the erasure waited for the store. Replicas took it for one that came after the erasure.
#[test]
fn an_erasure_reaches_pairs_that_the_spool_just_sent() {
    let setup = Setup {
        has_spool: true,
        live_processes: 1,
        ..ONE
    };
    let steps = vec![
        store_is(Mode::Down),
        write(0, 0),
        holds(Call::Erase),
        store_is(Mode::Up),
        Step::Forget { at: 0, user: 0 },
        Step::Wait(31_000),
        Step::Release(0),
        Step::Wait(1_100),
    ];
    keeps(setup, steps);
}

/// The pair was on its way to the store while another instance erased the user, and came to the store and to the replicas later. The
/// instance that sent it erased it again, from both.
#[test]
fn a_pair_that_was_sent_while_its_user_was_erased_leaves_the_replicas_too() {
    let setup = Setup {
        instances: 2,
        has_spool: true,
        live_processes: 1,
        ..ONE
    };
    let steps = vec![
        store_is(Mode::Down),
        write(0, 0),
        holds(Call::Record),
        store_is(Mode::Up),
        Step::Wait(31_000),
        Step::Forget { at: 1, user: 0 },
        Step::Wait(1_100),
        Step::Release(0),
        Step::Wait(1_100),
    ];
    keeps(setup, steps);
}

/// A count that was published is the last known one, also for a reader that asks for a fresh one.
#[test]
fn a_published_count_is_returned_while_nothing_else_is_available() {
    let setup = Setup {
        live_processes: 1,
        ..ONE
    };
    let down = |at, part| Step::Connection {
        at,
        part,
        mode: Mode::Down,
    };
    let steps = vec![
        write(0, 0),
        Step::Wait(6_000),
        count(true),
        down(PROCESSES, Part::Feed),
        down(0, Part::Store),
        Step::Wait(6_000),
        count(true),
    ];
    keeps(setup, steps);
}

/// The cache had lost the segment, so it kept the later count beside the earlier one, which returned when the store was
/// unavailable.
#[test]
fn a_segment_that_the_cache_lost_returns_no_earlier_count() {
    let refresh = Step::Refresh {
        at: 0,
        only: Some(0),
    };
    let down = Step::Connection {
        at: 0,
        part: Part::Store,
        mode: Mode::Down,
    };
    keeps(
        ONE,
        vec![
            write(0, 0),
            refresh,
            Step::Flush,
            Step::Pass(600),
            count(false),
            down,
            count(false),
        ],
    );
}

/// The clock advanced by days while the list was computed, and the list was repeated from memory as if it were new.
#[test]
fn an_expired_list_is_stale_in_every_response() {
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

/// After a restart with its clock set back, the instance treated the pair as older than the erasure, and never
/// delivered it.
#[test]
fn a_pair_after_an_erasure_counts_when_a_restart_set_the_clock_back() {
    let setup = Setup {
        has_spool: true,
        ..ONE
    };
    let down = Step::Connection {
        at: 0,
        part: Part::Store,
        mode: Mode::Down,
    };
    let erase = Step::Forget { at: 0, user: 4 };
    let crash = Step::Crash { at: 0 };
    keeps(
        setup,
        vec![Step::SetBack(1), erase, crash, down, write(0, 4)],
    );
}

/// The instance forgot the erasure while the store still had it, read it again, and repeated it.
#[test]
fn an_erasure_from_the_future_is_applied_once() {
    let setup = Setup {
        instances: 2,
        has_spool: true,
        ..ONE
    };
    let down = Step::Connection {
        at: 1,
        part: Part::Store,
        mode: Mode::Down,
    };
    let steps = vec![
        Step::Forget { at: 0, user: 4 },
        Step::SetBack(856),
        Step::Crash { at: 1 },
        Step::Pass(300),
        Step::Pass(61),
        down,
        Step::SetBack(1),
        write(1, 4),
        write(0, 0),
        write(0, 0),
    ];
    keeps(setup, steps);
}

/// The fresh count waited for a permit, held by a count that was updating a cache that did not respond.
#[test]
fn a_fresh_count_of_a_live_store_does_not_wait_for_the_cache() {
    let setup = Setup {
        is_live: true,
        ..ONE
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
        holds(Call::Put),
        holds(Call::Put),
        other(false),
        refresh,
        other(true),
        Step::Pass(61),
    ];
    keeps(setup, steps);
}

/// The store knew a later time, and its count hid the one from the cache, which is as of now.
#[test]
fn a_count_from_the_future_does_not_hide_the_cached_one() {
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

/// A list joined the count more than `cache_ttl` after it was taken, because the cache did not accept it.
#[test]
fn a_count_that_waited_for_the_cache_has_its_true_age_in_a_list() {
    let refresh = Step::Refresh { at: 0, only: None };
    keeps(
        ONE,
        vec![
            holds(Call::Put),
            holds(Call::Put),
            write(0, 0),
            refresh,
            Step::Pass(130),
            write(0, 0),
            Step::List { at: 0 },
        ],
    );
}

/// The other user had been erased, and the pair was received before that. The spool took it for a pair of the erased user.
#[test]
fn a_pair_in_the_spool_counts_when_its_user_becomes_one_who_was_erased_before() {
    let setup = Setup {
        instances: 2,
        has_spool: true,
        ..ONE
    };
    let merge = Step::Merge {
        at: 0,
        from: 3,
        into: 0,
    };
    let steps = vec![
        store_is(Mode::Down),
        write(0, 3),
        Step::Forget { at: 1, user: 0 },
        Step::Wait(1_100),
        store_is(Mode::Up),
        merge,
    ];
    keeps(setup, steps);
}

/// The instance could not read the notes until the merged user's pairs had been moved for the second time, and recorded one more.
#[test]
fn an_instance_that_was_without_the_store_knows_merges_before_it_records_pairs() {
    let setup = Setup {
        instances: 2,
        ..ONE
    };
    let merge = Step::Merge {
        at: 1,
        from: 3,
        into: 0,
    };
    let steps = vec![
        store_is(Mode::Down),
        merge,
        Step::Pass(130),
        store_is(Mode::Up),
        write(0, 3),
        write(0, 0),
    ];
    keeps(setup, steps);
}
