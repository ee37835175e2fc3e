//! Live processes: what happens to them, to the feed and to the published counts, and what counts must have then.

use std::time::Duration;

use domain::feed::{Append, ChangeFeed, WriterId};
use domain::store::PairStore;
use domain::{BatchBuilder, Slot, UserId};
use engine::counts::Source;
use tokio::time::sleep;

use super::checks::{self, Basis, promise};
use super::instance::{Instance, Site};
use super::live_site::LiveSite;
use super::steps::{SEGMENTS, Step, USERS, WINDOWS};
use super::world::{World, segment};

/// The time until live counts are current after a quiet minute.
const CATCHING_UP: u32 = 300;

impl World {
    pub fn live_site(&self) -> Option<&LiveSite> {
        match &self.shared.site {
            Site::Local { live, .. } => live.as_ref(),
            Site::Remote(_) => None,
        }
    }

    /// Whether a count from this source may be that of a live process. An instance remembers those that were published.
    pub fn may_be_live(&self, source: Source) -> bool {
        self.live_site().is_some() && matches!(source, Source::Live | Source::Memory)
    }

    pub async fn start_processes(&mut self) {
        for at in 0..self.shared.setup.live_processes {
            let folder = self.fresh_folder();
            self.losses.add_process();
            let process = self.start_process(at, folder).await;
            self.processes.push(process);
        }
    }

    async fn start_process(&self, at: usize, folder: std::path::PathBuf) -> Instance {
        let address = address(at);
        let process = Instance::start_as(&self.shared, folder, Some(&address)).await;
        if let Some(site) = self.live_site() {
            site.processes.add(&address, &process.headcount);
        }
        process
    }

    pub async fn live_step(&mut self, step: &Step) {
        let Some(site) = self.live_site().cloned() else {
            return;
        };
        match *step {
            Step::LoseEntries(number) if self.may_lose() => {
                let end = site.feed.end().await.unwrap().number;
                let old = self.losses.oldest_to_lose();
                site.feed
                    .lose_after(end.saturating_sub(number).max(old.min(end)));
                self.lost();
            }
            Step::EmptyFeed if self.may_lose() => {
                site.feed.empty();
                self.losses.forget_entries();
                self.lost();
            }
            Step::LoseEntries(_) | Step::EmptyFeed => {}
            Step::Repeat(number) => self.repeat(&site, number).await,
            Step::EmptyBoard => site.board.empty(),
            Step::SaveBoard => site.board.save(),
            Step::RestoreBoard => site.board.restore(),
            Step::CrashProcess { at, loses_folder } => {
                let at = at % self.processes.len();
                let mut left = self.fresh_folder();
                site.processes.remove(&address(at));
                self.processes[at].kill(&left);
                self.release_of_process(at);
                if loses_folder {
                    left = self.fresh_folder();
                    self.losses.has_lost_folder = true;
                    self.losses.may_exceed = true;
                    if self.losses.has_lost_erasures() {
                        // Only live processes may know of erasures that the feed lost.
                        self.truth.doubt_erasures();
                    }
                }
                self.processes[at] = self.start_process(at, left).await;
            }
            Step::RestartProcess { at } => {
                let at = at % self.processes.len();
                site.processes.remove(&address(at));
                self.processes[at].restore();
                self.release_of_process(at);
                let process = self.processes.remove(at);
                process.end().await;
                let folder = process.spool.clone();
                drop(process);
                let process = self.start_process(at, folder).await;
                self.processes.insert(at, process);
            }
            ref other => unreachable!("{other:?} is no step of live processes"),
        }
    }

    fn release_of_process(&self, at: usize) {
        let process = &self.processes[at];
        self.release_all(|call| process.connections().any(|it| it.holds(call)));
    }

    /// Appends the pair of an earlier request again, as a writer does that got no response and restarted.
    async fn repeat(&mut self, site: &LiveSite, number: usize) {
        let stored = self.truth.stored();
        let Some(pair) = stored.get(number % stored.len().max(1)) else {
            return;
        };
        let Some(user) = pair.recorded_as else { return };
        let Site::Local { store_backend, .. } = &self.shared.site else {
            return;
        };
        let store = std::sync::Arc::clone(&store_backend.store.lock());
        let key = store.fingerprint_key().await.unwrap();
        let mut batch = BatchBuilder::default();
        let user = UserId::new(USERS[user]).unwrap();
        let slot = Slot::new(pair.slot);
        batch
            .push_pair(&user, SEGMENTS[pair.segment], slot)
            .unwrap();
        let mut record = Vec::new();
        for received in state::received(&batch.finish(), key, pair.received) {
            state::join(&mut record, &received);
        }
        let append = Append {
            writer: WriterId::random(),
            sequence: 1,
            skips: false,
            record,
        };
        site.feed.append(None, &append).await.unwrap();
        self.losses.may_exceed = true;
        if self.losses.has_lost_folder {
            // A new live process does not know erasures that left the feed.
            self.truth.doubt_erasures();
        }
    }

    /// Waits while all clocks run. The threads of logs need real time.
    pub async fn wait_in_parts(&self, time: Duration) {
        let part = Duration::from_millis(50);
        let mut left = time;
        while !left.is_zero() {
            let now = left.min(part);
            self.shared.time.pass(now);
            sleep(now).await;
            std::thread::sleep(Duration::from_micros(20));
            left -= now;
        }
    }

    /// Waits until all counts are live.
    pub async fn catch_up(&self) -> Result<(), String> {
        if self.live_site().is_none() {
            return Ok(());
        }
        for instance in self.instances.iter().chain(&self.processes) {
            let mut last = None;
            for _ in 0..CATCHING_UP {
                let counts = instance.headcount.counts();
                last = Some(counts.get(&segment(0), self.window(0), true).await);
                if last.as_ref().is_some_and(is_live) {
                    break;
                }
                self.wait_in_parts(Duration::from_millis(200)).await;
            }
            let is_current = last.as_ref().is_some_and(is_live);
            promise!(
                is_current,
                "counts are not live again: {last:?} {:?}",
                instance.headcount.readiness()
            );
        }
        Ok(())
    }

    /// Checks what each instance and each live process would return now.
    pub fn check_live(&self) -> Result<(), String> {
        if self.live_site().is_none() {
            return Ok(());
        }
        for instance in self.instances.iter().chain(&self.processes) {
            for index in 0..SEGMENTS.len() {
                for window in 0..WINDOWS.len() {
                    self.check_now(instance, index, window)?;
                }
            }
        }
        Ok(())
    }

    fn check_now(&self, instance: &Instance, index: usize, window: usize) -> Result<(), String> {
        let window = self.window(window);
        let counts = instance.headcount.counts();
        let Some(answer) = counts.get_now(&segment(index), window) else {
            return Ok(());
        };
        if answer.source != Source::Live {
            return Ok(());
        }
        let basis = Basis {
            by: None,
            is_live: true,
        };
        let (time, now) = (&self.shared.time, self.shared.time.note());
        checks::count(&self.truth, time, index, window, answer.count, basis, now)
            .map_err(|broken| format!("{broken}\nat any time, in {}", instance.spool.display()))
    }
}

fn is_live<E>(answer: &Result<engine::counts::CountResult, E>) -> bool {
    answer.as_ref().is_ok_and(|it| it.source == Source::Live)
}

fn address(at: usize) -> String {
    format!("http://process{at}")
}
