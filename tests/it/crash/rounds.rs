//! One round after the other: start, check, load, kill.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::ledger::{Ledger, Reader};
use super::moment::Moment;
use super::traces::Traces;
use super::writer::{WRITERS, Writer};
use crate::support::say::say;
use crate::support::service::Service;

/// From how many rounds on each kind of interruption must have been met.
const MANY: usize = 200;

/// What is killed, and where.
pub trait Victim {
    /// The settings of the service.
    fn settings(&self) -> Vec<(&str, &str)>;
    /// Where the service runs; it may be told to be elsewhere after each kill.
    fn home(&self) -> PathBuf;
    /// Where the log is.
    fn log_dir(&self) -> PathBuf;
    /// Whether a refused request is no failure.
    fn may_refuse(&self) -> bool;
    /// Done before the load.
    fn before_load(&mut self, _random: &mut fastrand::Rng) {}
    /// Done at the very moment of a kill, before it. Answers that come once the flag is set prove nothing.
    fn at_kill(&mut self, _proves_nothing: &AtomicBool) {}
    /// Done once the process is gone, before its traces are looked at.
    async fn after_kill(&mut self) {}
    /// Makes the service ready to be checked; `false` when this is no time for it.
    async fn ready(&mut self, _server: &Service, _last: bool) -> bool {
        true
    }
    /// Whether pairs wait in a spool, and no snapshots are taken.
    fn has_spool(&self) -> bool {
        false
    }
}

/// How many rounds, and where chance begins.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    rounds: usize,
    seed: u64,
}

impl Plan {
    /// As the variables say, else so many rounds with a seed of their own.
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

/// Says where a failure was, by being dropped in a panic.
struct Place(Plan, usize);

impl Drop for Place {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Self(Plan { rounds, seed }, round) = self;
            say(&format!(
                "crash: FAILED in round {round}: HEADCOUNT_TEST_CRASH_SEED={seed} HEADCOUNT_TEST_CRASH_ROUNDS={rounds}"
            ));
        }
    }
}

/// Kills the service again and again and holds it against the ledger after each kill.
pub async fn run(name: &str, plan: Plan, victim: &mut impl Victim) {
    let ledger = Arc::new(Mutex::new(Ledger::new(victim.has_spool())));
    let mut traces = Traces::default();
    for round in 0..=plan.rounds {
        let _place = Place(plan, round);
        let mut random = fastrand::Rng::with_seed(plan.seed.wrapping_mul(1 << 20) + round as u64);
        if random.u8(..6) == 0 {
            kill_while_it_starts(victim, &mut random, &mut traces).await;
        }
        let mut server = Service::start(&victim.home(), &victim.settings()).await;
        traces.torn += usize::from(server.log().contains("was cut off"));
        if victim.ready(&server, round == plan.rounds).await {
            let reader = Reader::new(server.url());
            // Nobody else has it now.
            let mut known = std::mem::take(&mut *ledger.lock());
            traces.settled(&known.settle(&reader).await);
            known.check(&reader, &mut random).await;
            traces.checks += 1;
            traces.pairs = known.len();
            *ledger.lock() = known;
        }
        if round == plan.rounds {
            break;
        }
        traces.rounds += 1;
        victim.before_load(&mut random);
        let (answered, mut answers) = mpsc::unbounded_channel();
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
        let moment = Moment::any(&mut random, !victim.has_spool());
        moment.wait(&victim.log_dir(), &mut answers).await;
        victim.at_kill(&proves_nothing);
        server.kill();
        for writer in writers {
            writer.await.unwrap();
        }
        victim.after_kill().await;
        traces.look(&victim.log_dir());
    }
    say(&format!("crash, {name}: seed {}: {traces}", plan.seed));
    if plan.rounds >= MANY {
        traces.must_be_rich(!victim.has_spool());
    }
}

/// A start takes some hundred milliseconds at most.
async fn kill_while_it_starts(
    victim: &mut impl Victim,
    random: &mut fastrand::Rng,
    traces: &mut Traces,
) {
    let mut begun = Service::begin(&victim.home(), &victim.settings());
    std::thread::sleep(Duration::from_micros(random.u64(..150_000)));
    victim.at_kill(&AtomicBool::default());
    begun.kill();
    victim.after_kill().await;
    traces.look(&victim.log_dir());
    traces.starting += 1;
}

/// A directory that is kept when the test fails.
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
            say(&format!("crash: {} is kept", self.path().display()));
        }
    }
}
