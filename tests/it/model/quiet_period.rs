//! A quiet period: the spool is delivered, counts are renewed, and all counts are exact.

use std::collections::BTreeSet;
use std::time::Duration;

use domain::Window;
use domain::store::PairStore;
use engine::counts::CountResult;
use engine::refresher::Outcome;
use tokio::time::sleep;

use super::checks::{self, Basis, promise, slot};
use super::clock::Moment;
use super::instance::Site;
use super::steps::{RECOUNTED, SEGMENTS, WINDOWS};
use super::world::{World, segment};

/// Longer than the longest pause of a delivery.
const PAUSE: Duration = Duration::from_secs(13);

/// Longer than a delivery takes, also on a busy machine.
const DELIVERY: Duration = Duration::from_secs(180);

/// Longer than any call to a server takes.
const PATIENCE: Duration = Duration::from_secs(90);

impl World {
    pub async fn quiet(&mut self) -> Result<(), String> {
        for instance in self.instances.iter().chain(&self.processes) {
            instance.restore();
        }
        // Clocks that stand still can't be compared.
        self.shared.time.set_back(Duration::ZERO);
        self.release_all(|_| true);
        let began = std::time::Instant::now();
        self.settle().await?;
        while self.is_remote() && !self.running.is_empty() && began.elapsed() < PATIENCE {
            self.settle().await?;
        }
        promise!(self.running.is_empty(), "calls hang: {:?}", self.running);
        self.deliver().await?;
        let delivered = self.shared.time.note();
        self.truth.all_delivered(delivered);
        // Writers forget what they sent before such a time, so the feed must not lose it afterwards.
        self.note_course().await;
        self.pass_long().await;
        self.settle().await?;
        self.catch_up().await?;
        if !self.is_remote() {
            // Over real servers this much time does not pass.
            self.truth.all_erasures_read();
            self.merge_again().await?;
        }

        let began = self.shared.time.note();
        self.refresh_all().await?;
        if self.shared.setup.has_memory {
            // Longer than memory keeps a count.
            sleep(Duration::from_millis(1100)).await;
        }
        for at in 0..self.instances.len() {
            self.check_exact(at, began).await?;
        }
        self.check_live()
    }

    /// Recounts all segments. A busy machine can exceed the timeout of the cache, and then the next refresh succeeds.
    async fn refresh_all(&self) -> Result<(), String> {
        let asked = std::time::Instant::now();
        // A slot may end during a comparison, or an earlier one may still be in progress.
        let mut tries = if self.live_site().is_some() { 60 } else { 1 };
        loop {
            tries -= 1;
            let refreshed = self.instances[0].headcount.refresh(None).await;
            let is_whole = matches!(&refreshed, Ok(Outcome::Done(report)) if report.failed == 0);
            if is_whole {
                return Ok(());
            }
            promise!(
                tries > 0 || self.is_remote() && asked.elapsed() < PATIENCE,
                "a refresh failed without a fault: {refreshed:?}"
            );
            self.wait_in_parts(Duration::from_millis(100)).await;
        }
    }

    async fn deliver(&mut self) -> Result<(), String> {
        let began = std::time::Instant::now();
        while began.elapsed() < DELIVERY {
            let mut is_delivered = true;
            for instance in self.instances.iter().chain(&self.processes) {
                for component in instance.headcount.readiness().components {
                    let waits = component.name == "spool" && component.detail.is_some();
                    // Servers and connections are as the last probe found them, which may be before the quiet period.
                    let is_current = !self.is_remote() || component.age <= began.elapsed();
                    is_delivered &= component.ok && is_current && !waits;
                }
            }
            if is_delivered {
                if self.is_remote() {
                    // Segments are noted within a tenth of a second.
                    sleep(Duration::from_millis(300)).await;
                }
                return Ok(());
            }
            let pause = match self.is_remote() {
                true => Duration::from_millis(50),
                false => PAUSE,
            };
            self.shared.time.pass(pause);
            sleep(pause).await;
            std::thread::sleep(Duration::from_micros(50));
        }
        Err("the spool is not delivered".to_owned())
    }

    /// Reads a count without a disturbance, if possible: a busy machine can exceed the timeout of the cache.
    async fn quietly(
        &self,
        at: usize,
        index: usize,
        window: Window,
        fresh: bool,
    ) -> Result<CountResult, String> {
        let counts = self.instances[at].headcount.counts();
        let mut tries = if self.is_remote() { 50 } else { 1 };
        loop {
            let answer = counts.get(&segment(index), window, fresh).await;
            let answer = answer.map_err(|error| error.to_string())?;
            tries -= 1;
            if !answer.stale || tries == 0 {
                return Ok(answer);
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// The counts to be read were made at `began`.
    async fn check_exact(&self, at: usize, began: Moment) -> Result<(), String> {
        let headcount = &self.instances[at].headcount;
        let mut there = BTreeSet::new();
        for (index, name) in SEGMENTS.into_iter().enumerate() {
            let now = self.shared.time.latest();
            let within = slot(now) + 1 - WINDOWS[0]..=slot(now);
            let is_there = !self.truth.sure(index, within, began, false).is_empty();
            for number in 0..WINDOWS.len() {
                let window = self.window(number);
                for fresh in [false, true] {
                    // A segment without users may be unknown to the instance that recounts.
                    let is_new = fresh || (number < RECOUNTED && is_there);
                    let answer = self.quietly(at, index, window, fresh).await?;
                    let told = format!("instance {at}: {answer:?} of {name:?}");
                    let now = self.shared.time.note();
                    let time = &self.shared.time;
                    let counted = answer.count;
                    let basis = Basis {
                        by: is_new.then_some(began),
                        is_live: self.may_be_live(answer.source),
                    };
                    checks::count(&self.truth, time, index, window, counted, basis, now)
                        .map_err(|broken| format!("{broken}\nin the quiet period: {told}"))?;
                    promise!(!answer.stale, "not quiet: {told}");
                    // An earlier count may still be recent where no user is left.
                    if number == 0 && counted.users > 0 && is_new {
                        there.insert(name.to_owned());
                    }
                }
            }
        }
        let listed = headcount
            .counts()
            .list(self.window(0))
            .await
            .map_err(|error| error.to_string())?;
        promise!(
            listed.iter().all(|listed| !listed.stale),
            "instance {at} lists stale counts: {listed:?}"
        );
        let listed: BTreeSet<_> = listed
            .iter()
            .map(|listed| listed.segment.to_string())
            .collect();
        promise!(
            listed == there,
            "instance {at} lists {listed:?} of {there:?}"
        );
        Ok(())
    }

    /// Ends all instances, so that nothing of a case outlives it.
    pub async fn end(self) {
        for instance in self.instances.iter().chain(&self.processes) {
            instance.end().await;
        }
        if let Site::Local { store_backend, .. } = &self.shared.site {
            let store = std::sync::Arc::clone(&store_backend.store.lock());
            store.close().await.unwrap();
        }
    }
}
