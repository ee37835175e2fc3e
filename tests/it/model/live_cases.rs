//! Cases with live processes.

use proptest::collection::vec;
use proptest::prelude::*;

use super::steps::{Call, Case, Mode, PROCESSES, Part, Setup, Step, at, fate, step};

pub fn cases_with_live_processes(longest: usize) -> impl Strategy<Value = Case> {
    let setup = (1..=2_usize, any::<bool>(), any::<bool>(), 1..=2_usize).prop_map(
        |(instances, has_spool, has_memory, live_processes)| Setup {
            instances,
            has_spool,
            has_memory,
            is_live: false,
            live_processes,
        },
    );
    let steps = vec(prop_oneof![3 => step(), 2 => live_step()], 1..longest);
    (setup, steps).prop_map(|(setup, steps)| Case { setup, steps })
}

fn call() -> impl Strategy<Value = Call> {
    prop_oneof![
        Just(Call::Record),
        Just(Call::StoreCount),
        Just(Call::StoreList),
        Just(Call::Erase),
        Just(Call::Members),
        Just(Call::Export),
        Just(Call::Append),
        Just(Call::Read),
        Just(Call::Acquire),
        Just(Call::Publish),
        Just(Call::Follow),
    ]
}

fn live_step() -> impl Strategy<Value = Step> {
    let any_at = 0..2 * PROCESSES;
    let mode = proptest::sample::select(vec![Mode::Up, Mode::Down, Mode::Stalled]);
    let part = proptest::sample::select(vec![Part::Store, Part::Feed, Part::Board]);
    let waits = proptest::sample::select(vec![60, 300, 1_100, 6_000]);
    prop_oneof![
        8 => (any_at.clone(), part, mode).prop_map(|(at, part, mode)| Step::Connection { at, part, mode }),
        8 => (any_at, call(), fate()).prop_map(|(at, call, fate)| Step::Next { at, call, fate }),
        10 => waits.prop_map(Step::Wait),
        3 => (0..4_u64).prop_map(Step::LoseEntries),
        1 => Just(Step::EmptyFeed),
        2 => (0..100_usize).prop_map(Step::Repeat),
        1 => Just(Step::EmptyBoard),
        1 => Just(Step::SaveBoard),
        1 => Just(Step::RestoreBoard),
        2 => (at(), any::<bool>()).prop_map(|(at, loses_folder)| Step::CrashProcess { at, loses_folder }),
        1 => at().prop_map(|at| Step::RestartProcess { at }),
    ]
}
