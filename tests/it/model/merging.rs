//! Merges of users: what an instance knows of them, and what a client repeats.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::calls::{self, Call};
use super::checks::{promise, slot};
use super::clock::Moment;
use super::identities::{Done, Merge};
use super::steps::WINDOWS;
use super::truth::Merging;
use super::world::World;
use domain::Clock;

/// An instance reads the notes once a minute.
const READING: Duration = Duration::from_secs(62);
/// Pairs that were on their way are moved after 90 s, one user after another.
const MOVING: Duration = Duration::from_millis(500);

impl World {
    /// Several instances do not share a store that is in their process.
    pub fn has_many_over_one_store(&self) -> bool {
        self.shared.setup.is_live && self.shared.setup.instances > 1
    }

    pub fn begin_to_merge(
        &mut self,
        at: usize,
        from: usize,
        into: usize,
        moment: Moment,
    ) -> Merging {
        let has_read = self.has_read_merges_of(at, from) && self.has_read_merges_of(at, into);
        let latest = self.shared.time.latest();
        let now = self.instances[at].clock.now();
        let merge = Merge { from, into, by: at };
        let begun = (now.min(latest), moment);
        self.truth
            .begin_to_merge(merge, has_read, now <= latest, begun)
    }

    /// Whether an instance surely has read the notes of all merges of those who are connected with a user.
    pub fn has_read_merges_of(&self, at: usize, user: usize) -> bool {
        let mut done = self.truth.identities.done_with(user);
        done.all(|done| self.has_read(at, done))
    }

    fn has_read(&self, at: usize, done: &Done) -> bool {
        let instance = &self.instances[at];
        let is_own = done.merge.by == at && instance.started <= done.at;
        let has_followed = done.at.elapsed() >= READING && !instance.store.was_faulty(done.at);
        is_own || instance.started > done.at || has_followed
    }

    pub fn check_merged(
        &mut self,
        call: &Call,
        merged: Option<u64>,
        now: Moment,
    ) -> Result<(), String> {
        let Some((merging, there)) = &call.merging else {
            return Ok(());
        };
        let until = self.shared.time.latest();
        let feed_was_faulty =
            self.live_site().is_some() && self.feed_was_faulty(call.at, call.began);
        let has_moved_all =
            self.truth
                .end_merging(merging, merged.is_some(), (now, until), feed_was_faulty);
        let first = slot(until) + 1 - WINDOWS[0];
        let least = there.iter().filter(|slot| **slot >= first).count() as u64;
        promise!(
            !has_moved_all || merged.is_none_or(|merged| merged >= least),
            "{merged:?} were merged, although the user was in {least} segments"
        );
        Ok(())
    }

    /// Repeats the merges that failed, and those whose instance ended too early, and lets every instance read the notes.
    pub async fn merge_again(&mut self) -> Result<(), String> {
        if !self.truth.identities.has_merges() {
            return Ok(());
        }
        self.wait_for_moves().await;
        let begun = self.shared.time.latest();
        let merges = self.truth.identities.to_repeat();
        for (number, (from, into)) in merges.iter().enumerate() {
            // The instances need not know of each other's merges: each is into the same user.
            let at = number % self.instances.len();
            let merged = calls::merge(&self.instances[at].headcount, *from, *into).await;
            self.trace
                .push(format!("      {from} into {into} at {at}: {merged:?}"));
            promise!(merged.is_ok(), "a merge failed without a fault: {merged:?}");
        }
        let was_alone = self.truth.overlapped.is_none_or(|overlapped| {
            let mut instances = self.instances.iter();
            instances.all(|it| it.started <= overlapped) && !self.shared.time.are_apart()
        });
        if !merges.is_empty() {
            self.pass_long().await;
            self.wait_for_moves().await;
        }
        self.catch_up().await?;
        let now = (self.shared.time.note(), self.shared.time.latest());
        self.truth.all_merged(begun, now, was_alone);
        Ok(())
    }

    async fn wait_for_moves(&self) {
        let began = Instant::now();
        while began.elapsed() < MOVING {
            self.wait_in_parts(Duration::from_millis(50)).await;
            sleep(Duration::from_millis(1)).await;
        }
    }
}
