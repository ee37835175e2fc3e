//! A case as it runs: steps are taken, calls under way are followed, answers are checked.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::executor::block_on;
use headcount::config::Settings;
use headcount::domain::{Segment, TimeFrame, Timestamp, Window};
use headcount::store::PairStore;
use headcount::store::embedded::{EmbeddedOptions, EmbeddedStore};
use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::time::sleep;

use super::calls::Running;
use super::checks::promise;
use super::clock::{Moment, Time};
use super::instance::{self, Instance, Shared};
use super::steps::{Case, MINUTE, Mode, Part, SEGMENTS, Setup, Step, WINDOWS};
use super::truth::Truth;
use super::wire::Said;
use super::wired_cache::Shelf;

/// Where the clock begins: 2026-11-21T12:00:00Z.
const NOON: i64 = 1_795_262_400;

#[derive(Debug)]
pub struct World {
    pub shared: Shared,
    pub settings: Settings,
    pub instances: Vec<Instance>,
    pub truth: Truth,
    pub running: Vec<Running>,
    pub requests: usize,
    /// The latest instant that an instance told of a segment over a window, and when it did so last.
    pub known: HashMap<(usize, usize, usize), (Timestamp, Moment)>,
    /// What happened, for whoever reads of a failure.
    pub trace: Vec<String>,
    folder: TempDir,
    folders: usize,
}

/// Runs a case; an error tells what was broken after which course of things.
pub async fn run(case: &Case) -> Result<(), String> {
    let mut world = World::new(case.setup).await;
    let outcome = world.all(&case.steps).await;
    if let Err(broken) = outcome {
        let trace = world.trace.join("\n");
        return Err(format!("{broken}\n{:?}\n{trace}", case.setup));
    }
    world.end().await;
    Ok(())
}

pub fn segment(index: usize) -> Segment {
    Segment::new(SEGMENTS[index]).unwrap()
}

/// The fastest place for files that need not last.
fn folder() -> TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap())
}

impl World {
    async fn new(setup: Setup) -> Self {
        let folder = folder();
        let settings = instance::settings(&setup, folder.path());
        let store = EmbeddedOptions::new(folder.path().join("store"), settings.frame);
        let shared = Shared {
            setup,
            time: Time::new(Timestamp::from_second(NOON).unwrap()),
            stock: Arc::new(Mutex::new(Arc::new(EmbeddedStore::open(store).unwrap()))),
            shelf: Arc::<Shelf>::default(),
            held: Arc::new(Mutex::new(VecDeque::new())),
        };
        let mut world = Self {
            shared,
            settings,
            instances: Vec::new(),
            truth: Truth::default(),
            running: Vec::new(),
            requests: 0,
            known: HashMap::new(),
            trace: Vec::new(),
            folder,
            folders: 0,
        };
        for _ in 0..setup.instances {
            let spool = world.fresh_folder();
            let instance = Instance::start(&world.shared, spool).await;
            world.instances.push(instance);
        }
        world
    }

    async fn all(&mut self, steps: &[Step]) -> Result<(), String> {
        for (number, step) in steps.iter().enumerate() {
            self.trace.push(format!("{number:3} {step:?}"));
            self.take(step).await?;
            self.settle().await?;
        }
        self.trace.push("the end".to_owned());
        self.quiet().await
    }

    async fn take(&mut self, step: &Step) -> Result<(), String> {
        match *step {
            Step::Pass(seconds) => {
                let by = Duration::from_secs(u64::from(seconds));
                self.shared.time.pass(by);
                tokio::time::advance(by).await;
            }
            Step::Wait(millis) => {
                let by = Duration::from_millis(u64::from(millis));
                self.shared.time.pass(by);
                sleep(by).await;
            }
            Step::SetBack(seconds) => {
                let by = Duration::from_secs(u64::from(seconds));
                self.shared.time.set_back(by);
            }
            Step::SetRight => self.shared.time.set_back(Duration::ZERO),
            Step::Connection { at, part, mode } => self.connect(at, part, mode),
            Step::Next { at, call, fate } => {
                let instance = &self.instances[at % self.instances.len()];
                instance.store.plan(call, fate);
                instance.cache.plan(call, fate);
            }
            Step::Release(number) => self.release(number),
            Step::Flush => self.shared.shelf.flush(&self.settings.frame).await,
            Step::KillStore => self.kill_store().await,
            Step::Crash { at } => self.crash(at % self.instances.len()).await,
            Step::Restart { at } => self.restart(at % self.instances.len()).await?,
            Step::Quiet => self.quiet().await?,
            ref call => self.call(call),
        }
        Ok(())
    }

    fn connect(&mut self, at: usize, part: Part, mode: Mode) {
        let instance = &self.instances[at % self.instances.len()];
        let wire = match part {
            Part::Store => &instance.store,
            Part::Cache => &instance.cache,
        };
        wire.set(mode);
        if mode == Mode::Up {
            let wire = Arc::clone(wire);
            self.release_all(|call| call.is_of(&wire));
        }
    }

    fn release(&self, number: usize) {
        let mut held = self.shared.held.lock();
        if !held.is_empty() {
            let number = number % held.len();
            held.remove(number).unwrap().release();
        }
    }

    pub fn release_all(&self, which: impl Fn(&super::wire::HeldCall) -> bool) {
        let all: Vec<_> = self.shared.held.lock().drain(..).collect();
        for call in all {
            match which(&call) {
                true => call.release(),
                false => self.shared.held.lock().push_back(call),
            }
        }
    }

    pub fn fresh_folder(&mut self) -> std::path::PathBuf {
        self.folders += 1;
        self.folder.path().join(self.folders.to_string())
    }

    async fn kill_store(&mut self) {
        let left = self.fresh_folder();
        instance::copy(&self.folder.path().join("store"), &left);
        let store = self.folder.path().join("store");
        let former = Arc::clone(&self.shared.stock.lock());
        // At once, so that no call meets a store that is closed.
        block_on(PairStore::close(&*former)).unwrap();
        drop(former);
        std::fs::remove_dir_all(&store).unwrap();
        std::fs::rename(&left, &store).unwrap();
        let options = EmbeddedOptions::new(&store, self.settings.frame);
        *self.shared.stock.lock() = Arc::new(EmbeddedStore::open(options).unwrap());
    }

    async fn crash(&mut self, at: usize) {
        let left = self.fresh_folder();
        let instance = &self.instances[at];
        instance.kill(&left);
        self.release_of(at);
        self.abandon(at);
        self.instances[at] = Instance::start(&self.shared, left).await;
    }

    async fn restart(&mut self, at: usize) -> Result<(), String> {
        self.instances[at].store.mend();
        self.instances[at].cache.mend();
        self.release_of(at);
        // Requests are drained before the service is shut down.
        for _ in 0..100 {
            self.settle().await?;
            if self.running.iter().all(|running| running.call.at != at) {
                break;
            }
        }
        let instance = self.instances.remove(at);
        instance.end().await;
        let spool = instance.spool.clone();
        // With it its directory's lock goes.
        drop(instance);
        let left = self.running.iter().filter(|running| running.call.at == at);
        promise!(
            left.count() == 0,
            "calls outlive a shutdown: {:?}",
            self.running
        );
        self.known.retain(|(of, _, _), _| *of != at);
        let instance = Instance::start(&self.shared, spool).await;
        self.instances.insert(at, instance);
        Ok(())
    }

    fn release_of(&self, at: usize) {
        let (store, cache) = (&self.instances[at].store, &self.instances[at].cache);
        self.release_all(|call| call.is_of(store) || call.is_of(cache));
    }

    /// Lets everything run that can, and looks at what was answered.
    pub async fn settle(&mut self) -> Result<(), String> {
        let began = std::time::Instant::now();
        loop {
            self.shared.time.pass(Duration::from_millis(1));
            sleep(Duration::from_millis(1)).await;
            self.collect().await?;
            self.shared.held.lock().retain(|call| !call.is_given_up());
            let may_be_held = !self.shared.held.lock().is_empty();
            // Threads that write files are not seen by the clock of the timers.
            let patience = match may_be_held || self.running.is_empty() {
                true => Duration::from_micros(if self.shared.setup.has_spool { 300 } else { 0 }),
                false => Duration::from_secs(20),
            };
            if began.elapsed() >= patience {
                break;
            }
            std::thread::sleep(Duration::from_micros(50));
        }
        promise!(
            self.running.is_empty() || !self.shared.held.lock().is_empty(),
            "calls hang, and nothing holds them up: {:?}",
            self.running
        );
        Ok(())
    }

    async fn collect(&mut self) -> Result<(), String> {
        for at in 0..self.instances.len() {
            for said in self.instances[at].cache.take_said() {
                let (Said::NotNoted(names) | Said::Gap(names)) = &said;
                let numbers: Vec<_> = (0..SEGMENTS.len())
                    .filter(|index| names.contains(&segment(*index)))
                    .collect();
                let is_untold = matches!(said, Said::NotNoted(_));
                self.truth.note_untold(at, &numbers, is_untold);
            }
        }
        let (finished, running): (Vec<_>, Vec<_>) = self
            .running
            .drain(..)
            .partition(|running| running.task.is_finished());
        self.running = running;
        for Running { call, task } in finished {
            let answered = task.await.unwrap();
            let now = self.shared.time.note();
            self.trace
                .push(format!("      {}: {answered:?}", call.number));
            self.check(&call, answered, now)?;
        }
        Ok(())
    }

    pub fn frame(&self) -> &TimeFrame {
        &self.settings.frame
    }

    pub fn window(&self, index: usize) -> Window {
        let length = Duration::from_secs(WINDOWS[index] * MINUTE);
        self.frame().window(length).unwrap()
    }
}
