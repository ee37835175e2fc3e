//! The rounds of a test: start, check, load, kill.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::coverage::Coverage;
use super::kill_point::KillPoint;
use super::ledger::{Ledger, Reader};
use super::writer::{WRITERS, Writer};
use crate::support::service::Service;
use crate::support::stderr::print_line;

/// From this number of rounds on, each kind of interruption must have occurred.
const MANY: usize = 200;

/// A service that is killed, and its directories.
pub trait Victim {
    /// The settings of the service.
    fn settings(&self) -> Vec<(&str, &str)>;
    /// The working directory of the service. It may change after each kill.
    fn home(&self) -> PathBuf;
    /// The directory of the log.
    fn log_dir(&self) -> PathBuf;
    /// Whether a request may be refused without failing the test.
    fn may_refuse(&self) -> bool;
    /// Called before the load.
    fn before_load(&mut self, _random: &mut fastrand::Rng) {}
    /// Called immediately before a kill. Responses that arrive after the flag is set are ignored as evidence.
    fn at_kill(&mut self, _proves_nothing: &AtomicBool) {}
    /// Called after the process has ended, before its files are inspected.
    async fn after_kill(&mut self) {}
    /// Prepares the service for a check. Returns `false` if this round has no check.
    async fn ready(&mut self, _server: &Service, _last: bool) -> bool {
        true
    }
    /// Whether the service uses a spool, which takes no snapshots.
    fn has_spool(&self) -> bool {
        false
    }
}

/// The number of rounds and the random seed.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    rounds: usize,
    seed: u64,
}

impl Plan {
    /// Reads the plan from the environment. Defaults to `rounds` with a random seed.
    pub fn of(rounds: usize) -> Self {
        let number = |name: &str| {
            let text = std::env::var(format!("HEADCOUNT_TEST_CRASH_{name}")).ok()?;
            Some(text.parse::<u64>().expect("a whole number"))
        };
        Self {
            rounds: number("ROUNDS").map_or(rounds, |rounds| rounds as usize),
            seed: number("SEED").unwrap_or_else(|| fastrand::u64(..1_000_000)),
        }
    }
}

/// Prints the round and seed of a failure when it is dropped during a panic.
struct FailureReport(Plan, usize);

impl Drop for FailureReport {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Self(Plan { rounds, seed }, round) = self;
            print_line(&format!(
                "crash: FAILED in round {round}: HEADCOUNT_TEST_CRASH_SEED={seed} HEADCOUNT_TEST_CRASH_ROUNDS={rounds}"
            ));
        }
    }
}

/// Kills the service repeatedly and compares it with the ledger after each kill.
pub async fn run(name: &str, plan: Plan, victim: &mut impl Victim) {
    let ledger = Arc::new(Mutex::new(Ledger::new(victim.has_spool())));
    let mut coverage = Coverage::default();
    for round in 0..=plan.rounds {
        let _report = FailureReport(plan, round);
        let mut random = fastrand::Rng::with_seed(plan.seed.wrapping_mul(1 << 20) + round as u64);
        if random.u8(..6) == 0 {
            kill_while_it_starts(victim, &mut random, &mut coverage).await;
        }
        let mut server = Service::start(&victim.home(), &victim.settings()).await;
        coverage.torn += usize::from(server.log().contains("was cut off"));
        if victim.ready(&server, round == plan.rounds).await {
            let reader = Reader::new(server.url());
            // No writer runs now, so that the ledger can be taken.
            let mut known = std::mem::take(&mut *ledger.lock());
            coverage.settled(&known.settle(&reader).await);
            known.check(&reader, &mut random).await;
            coverage.checks += 1;
            coverage.pairs = known.len();
            *ledger.lock() = known;
        }
        if round == plan.rounds {
            break;
        }
        coverage.rounds += 1;
        victim.before_load(&mut random);
        let (answered, mut responses) = mpsc::unbounded_channel();
        let proves_nothing = Arc::<AtomicBool>::default();
        let writers = (0..WRITERS).map(|number| Writer {
            number,
            url: server.url(),
            ledger: Arc::clone(&ledger),
            random: fastrand::Rng::with_seed(random.u64(..)),
            may_be_refused: victim.may_refuse(),
            proves_nothing: Arc::clone(&proves_nothing),
            answered: answered.clone(),
        });
        let writers: Vec<_> = writers.map(|writer| tokio::spawn(writer.run())).collect();
        drop(answered);
        let kill_point = KillPoint::any(&mut random, !victim.has_spool());
        kill_point.wait(&victim.log_dir(), &mut responses).await;
        victim.at_kill(&proves_nothing);
        server.kill();
        for writer in writers {
            writer.await.unwrap();
        }
        victim.after_kill().await;
        coverage.inspect(&victim.log_dir());
    }
    print_line(&format!("crash, {name}: seed {}: {coverage}", plan.seed));
    if plan.rounds >= MANY {
        coverage.assert_coverage(!victim.has_spool());
    }
}

/// Kills the service during a start, which takes a few hundred milliseconds at most.
async fn kill_while_it_starts(
    victim: &mut impl Victim,
    random: &mut fastrand::Rng,
    coverage: &mut Coverage,
) {
    let mut begun = Service::spawn(&victim.home(), &victim.settings());
    std::thread::sleep(Duration::from_micros(random.u64(..150_000)));
    victim.at_kill(&AtomicBool::default());
    begun.kill();
    victim.after_kill().await;
    coverage.inspect(&victim.log_dir());
    coverage.starting += 1;
}

/// A temporary directory that is kept if the test fails.
pub struct Kept(tempfile::TempDir);

impl Kept {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.disable_cleanup(true);
            print_line(&format!("crash: {} is kept", self.path().display()));
        }
    }
}
