//! The whole pipeline against a model that is only a list of pairs and of merges: any order of writes, reads, merges, refreshes, losses and
//! restarts, with a clock that the test controls. Some cases have live processes, which count what a change feed brings them.
//!
//! `HEADCOUNT_TEST_MODEL_CASES` sets the number of cases (`HEADCOUNT_TEST_MODEL_REAL_CASES` over real servers),
//! `HEADCOUNT_TEST_MODEL_STEPS` their maximum length, `HEADCOUNT_TEST_MODEL_SEED` the seed, and
//! `HEADCOUNT_TEST_MODEL_SHRINK` the number of attempts to shrink a failing case. A failing case is printed with its
//! seed. Its steps are Rust, for [`regressions`].

mod call_results;
mod calls;
mod checks;
mod clock;
mod connection;
mod faults;
mod identities;
mod instance;
mod live_cases;
mod live_site;
mod live_steps;
mod losses;
mod merging;
mod quiet_period;
mod real_servers;
mod regressions;
mod restarts;
mod servers;
mod steps;
mod truth;
mod users;
mod wire;
mod wired_cache;
mod wired_feed;
mod wired_store;
mod world;

use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use self::live_cases::cases_with_live_processes;
use self::steps::{Case, cases};

/// About 20 s without optimisation. Fewer and longer cases find more than many short ones.
const CASES: u32 = 500;
/// About 15 s.
const LIVE_CASES: u32 = 60;
const LONGEST: u32 = 100;

fn number(variable: &str, default: u32) -> u32 {
    std::env::var(variable).map_or(default, |text| text.parse().unwrap())
}

fn run(case: &Case) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(world::run(case, None))
}

#[test]
fn any_order_of_writes_reads_losses_and_restarts_keeps_the_promises() {
    let count = number("HEADCOUNT_TEST_MODEL_CASES", CASES);
    let longest = number("HEADCOUNT_TEST_MODEL_STEPS", LONGEST) as usize;
    check(count, cases(longest), run);
}

#[test]
fn any_order_of_steps_beside_live_processes_keeps_the_promises() {
    let count = number("HEADCOUNT_TEST_MODEL_CASES", LIVE_CASES);
    let longest = number("HEADCOUNT_TEST_MODEL_STEPS", LONGEST) as usize;
    check(count, cases_with_live_processes(longest), run);
}

/// Runs this many cases, and prints the smallest that fails.
fn check(
    count: u32,
    cases: impl Strategy<Value = Case>,
    run: impl Fn(&Case) -> Result<(), String>,
) {
    let seed = number("HEADCOUNT_TEST_MODEL_SEED", 8);
    let config = Config {
        cases: count,
        failure_persistence: None,
        max_shrink_iters: number("HEADCOUNT_TEST_MODEL_SHRINK", 20_000),
        ..Config::default()
    };
    let mut bytes = [0; 32];
    bytes[..4].copy_from_slice(&seed.to_le_bytes());
    let random = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(config, random);
    let outcome = runner.run(&cases, |case| run(&case).map_err(TestCaseError::fail));
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(broken, case)) => {
            panic!("seed {seed}: {}\nsmallest: {case:?}", broken.message())
        }
        Err(TestError::Abort(reason)) => panic!("seed {seed}: {reason}"),
    }
}
