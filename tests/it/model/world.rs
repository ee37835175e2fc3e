//! A running case: executes steps, tracks calls in flight, and checks results.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use domain::{Segment, TimeFrame, Timestamp, Window};
use headcount::config::Settings;
use headcount::wiring::set_up;
use parking_lot::Mutex;
use stores::embedded::{EmbeddedOptions, EmbeddedStore};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use super::calls::Running;
use super::checks::promise;
use super::clock::{Moment, Time};
use super::instance::{self, Instance, Shared, Site};
use super::live_site::LiveSite;
use super::losses::Losses;
use super::servers::Servers;
use super::steps::{Case, MINUTE, Mode, PROCESSES, Part, SEGMENTS, Setup, Step, WINDOWS};
use super::truth::Truth;
use super::wired_store::StoreBackend;

/// The initial time of the clock: 2026-11-21T12:00:00Z.
const NOON: i64 = 1_795_262_400;

#[derive(Debug)]
pub struct World {
    pub shared: Shared,
    pub settings: Settings,
    pub instances: Vec<Instance>,
    pub processes: Vec<Instance>,
    pub losses: Losses,
    pub truth: Truth,
    pub running: Vec<Running>,
    pub requests: usize,
    /// When the timers last jumped.
    pub jumped: Option<Instant>,
    /// For each instance, segment and window: the latest `as_of` in a response, and the moment of the last response.
    pub known: HashMap<(usize, usize, usize), (Timestamp, Moment)>,
    /// The course of the case, for reading a failure.
    pub trace: Vec<String>,
    folder: TempDir,
    folders: usize,
}

/// Runs a case. An error describes the broken promise and the course of the case. Without servers everything is in this
/// process, with paused timers.
pub async fn run(case: &Case, servers: Option<&Arc<Servers>>) -> Result<(), String> {
    let mut world = World::new(case.setup, servers).await;
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

/// The fastest directory for temporary files.
fn folder() -> TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap())
}

impl World {
    async fn new(setup: Setup, servers: Option<&Arc<Servers>>) -> Self {
        let folder = folder();
        let mut settings = instance::settings(&setup, folder.path(), &[]);
        let start = match servers {
            None => Timestamp::from_second(NOON).unwrap(),
            // InfluxDB drops points older than the retention of the bucket.
            Some(_) => Timestamp::now(),
        };
        let time = Time::new(start);
        let site = match servers {
            None => {
                let store = EmbeddedOptions::new(folder.path().join("store"), settings.frame);
                let store = EmbeddedStore::open(store).unwrap();
                Site::Local {
                    store_backend: Arc::new(StoreBackend::new(store)),
                    cache_backend: Arc::default(),
                    live: (setup.live_processes > 0).then(|| LiveSite::new(&time)),
                }
            }
            Some(servers) => {
                servers.move_on();
                let ports = (servers.store_port().await, servers.cache_port().await);
                let of_site = servers.settings(ports.0, ports.1).await;
                settings = instance::settings(&setup, folder.path(), &of_site);
                set_up(&settings, false).await.unwrap();
                Site::Remote(Arc::clone(servers))
            }
        };
        let shared = Shared {
            setup,
            time,
            held: Arc::new(Mutex::new(VecDeque::new())),
            site,
        };
        let mut world = Self {
            shared,
            settings,
            instances: Vec::new(),
            processes: Vec::new(),
            losses: Losses::default(),
            truth: Truth::default(),
            running: Vec::new(),
            requests: 0,
            jumped: None,
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
        world.start_processes().await;
        world
    }

    async fn all(&mut self, steps: &[Step]) -> Result<(), String> {
        for (number, step) in steps.iter().enumerate() {
            self.trace.push(format!("{number:3} {step:?}"));
            self.note_course().await;
            self.take(step).await?;
            self.settle().await?;
            self.check_live()?;
        }
        self.trace.push("the end".to_owned());
        self.quiet().await
    }

    async fn take(&mut self, step: &Step) -> Result<(), String> {
        match *step {
            Step::Pass(seconds) => {
                let by = Duration::from_secs(u64::from(seconds));
                self.pass(by).await;
            }
            Step::Wait(millis) => {
                let by = Duration::from_millis(u64::from(millis));
                match self.live_site() {
                    Some(_) => self.wait_in_parts(by).await,
                    None => {
                        self.shared.time.pass(by);
                        sleep(by.min(self.longest_wait())).await;
                    }
                }
            }
            Step::SetBack(seconds) => {
                let by = Duration::from_secs(u64::from(seconds));
                self.shared.time.set_back(by);
                if self.is_remote() {
                    self.shared.time.part();
                }
            }
            Step::SetRight => self.shared.time.set_back(Duration::ZERO),
            Step::Connection { at, part, mode } => self.connect(at, part, mode),
            Step::Next { at, call, fate } => {
                let instance = self.instance(at);
                instance.connections().for_each(|it| it.plan(call, fate));
            }
            Step::Release(number) => self.release(number),
            Step::Flush => self.flush().await,
            Step::KillCache => self.kill_cache().await,
            Step::KillStore => self.kill_store().await,
            Step::Crash { at } => self.crash(at % self.instances.len()).await,
            Step::Restart { at } => self.restart(at % self.instances.len()).await?,
            Step::Quiet => self.quiet().await?,
            Step::LoseEntries(_)
            | Step::EmptyFeed
            | Step::Repeat(_)
            | Step::EmptyBoard
            | Step::SaveBoard
            | Step::RestoreBoard
            | Step::CrashProcess { .. }
            | Step::RestartProcess { .. } => self.live_step(step).await,
            // A store in the process has one instance, which knows every merge.
            Step::Merge { from, into, .. } if from == into || self.has_many_over_one_store() => {}
            ref call => self.call(call),
        }
        Ok(())
    }

    fn connect(&mut self, at: usize, part: Part, mode: Mode) {
        let instance = self.instance(at);
        let line = match part {
            Part::Store => Some(&instance.store),
            Part::Cache => Some(&instance.cache),
            Part::Feed => instance.feed.as_ref(),
            Part::Board => instance.board.as_ref(),
        };
        let Some(line) = line else { return };
        line.set(mode);
        if mode == Mode::Up {
            self.release_all(|call| line.holds(call));
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

    /// The directory of the store in this process.
    pub fn store_folder(&self) -> std::path::PathBuf {
        self.folder.path().join("store")
    }

    pub fn fresh_folder(&mut self) -> std::path::PathBuf {
        self.folders += 1;
        self.folder.path().join(self.folders.to_string())
    }

    /// Runs everything that is ready, and checks the results.
    pub async fn settle(&mut self) -> Result<(), String> {
        let began = std::time::Instant::now();
        // Live processes do something every few milliseconds.
        let step = Duration::from_millis(if self.live_site().is_some() { 10 } else { 1 });
        loop {
            self.shared.time.pass(step);
            sleep(step).await;
            self.collect().await?;
            self.shared.held.lock().retain(|call| !call.is_given_up());
            if began.elapsed() >= self.patience() {
                break;
            }
            std::thread::sleep(Duration::from_micros(50));
        }
        let may_hang = !self.shared.held.lock().is_empty() || self.is_remote();
        promise!(
            self.running.is_empty() || may_hang,
            "calls hang, although none is held: {:?}",
            self.running
        );
        Ok(())
    }

    /// How long to wait for calls. The clock of the timers does not wait for threads that write files.
    fn patience(&self) -> Duration {
        let may_be_held = !self.shared.held.lock().is_empty();
        match (self.running.is_empty(), self.is_remote()) {
            (true, true) => Duration::ZERO,
            (false, true) => Duration::from_millis(100),
            (false, false) if !may_be_held => Duration::from_secs(120),
            _ if self.shared.setup.has_spool || self.live_site().is_some() => {
                Duration::from_micros(300)
            }
            _ => Duration::ZERO,
        }
    }

    pub fn is_remote(&self) -> bool {
        matches!(self.shared.site, Site::Remote(_))
    }

    async fn collect(&mut self) -> Result<(), String> {
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

    /// The instance or the live process that a step means.
    fn instance(&self, at: usize) -> &Instance {
        match at.checked_sub(PROCESSES) {
            Some(at) if !self.processes.is_empty() => &self.processes[at % self.processes.len()],
            _ => &self.instances[at % self.instances.len()],
        }
    }

    pub fn frame(&self) -> &TimeFrame {
        &self.settings.frame
    }

    pub fn window(&self, index: usize) -> Window {
        let length = Duration::from_secs(WINDOWS[index] * MINUTE);
        self.frame().window(length).unwrap()
    }
}
