//! What the feed loses, and which live counts are undefined because of that: a service that ends does not append again what was
//! lost, and one that can't reach the feed does so too late. Audits find these pairs.

use std::collections::VecDeque;
use std::time::Duration;

use domain::feed::ChangeFeed;
use tokio::time::Instant;

use super::instance::Instance;
use super::steps::PROCESSES;
use super::truth::Lacks;
use super::world::World;

/// Services have three seconds to append again what the feed lost, and a live process notices a loss a little later.
const REPAIR: Duration = Duration::from_secs(5);
/// A live process reads the feed much more often.
const READING: Duration = Duration::from_secs(1);
/// A writer whose calls failed pauses for less than this.
const RECOVERY: Duration = Duration::from_secs(10);
/// Writers append again what is younger than two minutes. The feed loses no older entry, and none while a live process lags
/// by more.
const LAG: Duration = Duration::from_secs(60);
/// The course of losses.
#[derive(Debug, Default)]
pub struct Losses {
    /// When the feed last lost entries.
    lost: Option<Instant>,
    pub has_lost_folder: bool,
    /// Whether an audit may find users whom the store does not have. Then a segment has no live count until it is read again.
    pub may_exceed: bool,
    /// When each service last ended.
    ended: [Option<Instant>; PROCESSES],
    /// The number of the newest entry, over time.
    ends: VecDeque<(Instant, u64)>,
    /// When each live process could last read the feed.
    caught_up: Vec<Instant>,
}

impl Losses {
    pub fn add_process(&mut self) {
        self.caught_up.push(Instant::now());
    }

    /// The number of the newest entry that is too old to be lost.
    pub fn oldest_to_lose(&self) -> u64 {
        self.ends.front().map_or(0, |(_, end)| *end)
    }

    /// The feed is a new one.
    pub fn forget_entries(&mut self) {
        self.ends.clear();
    }

    /// Whether only live processes may know of an erasure.
    pub fn has_lost_erasures(&self) -> bool {
        self.lost.is_some() && self.ended.iter().any(Option::is_some)
    }
}

impl World {
    /// Whether services can append again what the feed loses now.
    pub fn may_lose(&self) -> bool {
        let caught_up = self.losses.caught_up.iter();
        caught_up.into_iter().all(|at| at.elapsed() < LAG)
    }

    pub fn lost(&mut self) {
        self.losses.lost = Some(Instant::now());
        self.losses.may_exceed = true;
        self.doubt_losses();
        for at in 0..self.instances.len() {
            let ended = self.losses.ended[at].filter(|at| at.elapsed() < LAG);
            if ended.is_some_and(|ended| !self.have_read_since(ended)) {
                // Its entries may be lost before anyone has read them.
                self.truth.doubt_live(at, Lacks::Always);
            }
        }
    }

    /// Whether each live process surely has read the feed to the end since `ended`.
    fn have_read_since(&self, ended: Instant) -> bool {
        let since = ended.checked_sub(RECOVERY).unwrap_or(ended);
        let has_read = |process: &Instance| {
            let feed = process.feed.as_ref();
            process.started < since && feed.is_some_and(|feed| !feed.was_faulty(since))
        };
        ended.elapsed() > READING && self.processes.iter().all(has_read)
    }

    /// An instance that can't reach the feed does not append again in time what it lost.
    fn doubt_losses(&mut self) {
        let Some(lost) = self.losses.lost.filter(|at| at.elapsed() < REPAIR) else {
            return;
        };
        for at in 0..self.instances.len() {
            if self.feed_was_faulty(at, lost) {
                self.truth.doubt_live(at, Lacks::ForNow);
            }
        }
    }

    /// A service ends. Nobody appends again what the feed lost until now, and what was only in memory.
    pub fn ends(&mut self, at: usize) {
        self.truth.identities.ends(at);
        if self.live_site().is_none() {
            return;
        }
        self.losses.ended[at] = Some(Instant::now());
        let has_repaired = self
            .losses
            .lost
            .is_none_or(|lost| lost.elapsed() >= REPAIR && !self.feed_was_faulty(at, lost));
        if !has_repaired {
            self.truth.doubt_live(at, Lacks::Always);
        }
        if self.shared.time.is_set_back() {
            self.truth.doubt_spooled(at);
        }
        if !self.shared.setup.has_spool {
            self.truth.lose_owed(at);
        }
    }

    /// Whether the calls of an instance to the feed may have failed since `since`.
    pub fn feed_was_faulty(&self, at: usize, since: Instant) -> bool {
        let since = since.checked_sub(RECOVERY).unwrap_or(since);
        let instance = &self.instances[at];
        let feed = instance.feed.as_ref();
        instance.started >= since || feed.is_some_and(|feed| feed.was_faulty(since))
    }

    /// Notes what later steps need, at the beginning of each.
    pub async fn note_course(&mut self) {
        let Some(site) = self.live_site() else { return };
        let (now, end) = (Instant::now(), site.feed.end().await.unwrap().number);
        self.losses.ends.push_back((now, end));
        while let Some((second, _)) = self.losses.ends.get(1)
            && second.elapsed() > LAG
        {
            self.losses.ends.pop_front();
        }
        for (process, caught_up) in self.processes.iter().zip(&mut self.losses.caught_up) {
            let feed = process.feed.as_ref();
            if feed.is_some_and(|feed| !feed.was_faulty(now)) {
                *caught_up = now;
            }
        }
        self.doubt_losses();
    }

    /// Lets services append again what the feed lost. A jump of the timers leaves them no time.
    pub async fn wait_for_repair(&self) {
        if self.losses.lost.is_some_and(|at| at.elapsed() < REPAIR) {
            self.wait_in_parts(REPAIR).await;
        }
    }

    /// Whether what a live process publishes may have reached the board late.
    pub fn may_tick_be_late(&self, since: Instant) -> bool {
        let since = since.checked_sub(RECOVERY).unwrap_or(since);
        let board_was_faulty = |process: &Instance| {
            let board = process.board.as_ref();
            process.started >= since || board.is_some_and(|board| board.was_faulty(since))
        };
        self.processes.iter().any(board_was_faulty)
    }
}
