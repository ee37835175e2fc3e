//! The same cases over real servers: Redis as the cache, and InfluxDB or Postgres as the store, both behind proxies of
//! each instance.
//!
//! Single calls can't be held there, and timers use real time. The clock of the instances is still the test's.

use std::sync::Arc;

use proptest::strategy::Strategy;

use super::servers::{Servers, StoreServer};
use super::steps::{Case, Mode, Part, Seen, Setup, Step, cases};
use super::{check, number, world};

/// About 20 s.
const CASES: u32 = 8;
const LONGEST: u32 = 25;

fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().unwrap()
}

fn check_over<F: Future<Output = Option<StoreServer>>>(start: impl FnOnce() -> F) {
    let servers = runtime().block_on(async { Servers::start(start().await).await });
    let Some(servers) = servers.map(Arc::new) else {
        return;
    };
    let count = number("HEADCOUNT_TEST_MODEL_REAL_CASES", CASES);
    let longest = number("HEADCOUNT_TEST_MODEL_STEPS", LONGEST) as usize;
    let counted = cases(longest).prop_map(|case| Case {
        setup: Setup {
            is_live: false,
            ..case.setup
        },
        ..case
    });
    check(count, counted, |case| {
        // This removes what killed instances left behind.
        runtime().block_on(world::run(case, Some(&servers)))
    });
}

#[test]
fn any_order_of_steps_over_influx_and_redis_keeps_the_promises() {
    check_over(StoreServer::influx);
}

#[test]
fn any_order_of_steps_over_postgres_and_redis_keeps_the_promises() {
    check_over(StoreServer::postgres);
}

/// A count that waits for Postgres is as of the slot in which it began to wait. A user that is seen again in the next
/// slot has only that slot in Postgres, and was missing.
#[test]
fn a_user_seen_again_while_a_count_waits_is_counted() {
    let servers = runtime().block_on(async { Servers::start(StoreServer::postgres().await).await });
    let Some(servers) = servers.map(Arc::new) else {
        return;
    };
    let write = |at| Step::Write {
        at,
        pairs: vec![(0, 0, Seen::Now)],
    };
    let count = || Step::Count {
        at: 0,
        segment: 0,
        window: 0,
        fresh: true,
    };
    let store = |mode| Step::Connection {
        at: 0,
        part: Part::Store,
        mode,
    };
    let steps = vec![
        write(1),
        count(),
        store(Mode::Stalled),
        count(),
        Step::Pass(61),
        write(1),
        store(Mode::Up),
    ];
    let setup = Setup {
        instances: 2,
        has_spool: false,
        has_memory: false,
        is_live: false,
        live_processes: 0,
    };
    let case = Case { setup, steps };
    let outcome = runtime().block_on(world::run(&case, Some(&servers)));
    outcome.unwrap();
}
