//! Turns entries of a feed into one record of the replica's log.

use std::collections::HashSet;

use super::recent::Recent;
use domain::Slot;
use domain::feed::Entry;
use index::Fingerprint;
use state::{Following, Reached};

/// What is unusual in entries.
#[derive(Debug, Default)]
pub(super) struct Unusual {
    /// Records with pairs in the future.
    pub(super) clamped: u64,
    /// The latest slot of these pairs.
    pub(super) furthest: Option<Slot>,
    /// Why an entry can't be applied: another program wrote it.
    pub(super) foreign: Option<String>,
}

/// Collects the records of entries.
pub(super) struct Collector<'a> {
    out: Vec<u8>,
    /// No slot may be later.
    latest: Slot,
    following: &'a Following,
    recent: &'a mut Recent,
    /// Erasures among the records.
    erasures: HashSet<(Fingerprint, i64)>,
    unusual: Unusual,
}

impl<'a> Collector<'a> {
    pub(super) fn new(latest: Slot, following: &'a Following, recent: &'a mut Recent) -> Self {
        Self {
            out: state::batch(),
            latest,
            following,
            recent,
            erasures: HashSet::new(),
            unusual: Unusual::default(),
        }
    }

    /// The record that applies `entries` and notes the position after them, and what is unusual in them.
    pub(super) fn record(mut self, entries: &[Entry], next: &Reached) -> (Vec<u8>, Unusual) {
        for entry in entries {
            let before = self.out.len();
            if let Err(reason) = state::split(&entry.record, |record| self.add(record)) {
                self.out.truncate(before);
                self.unusual.foreign = Some(reason);
            }
        }
        state::join(&mut self.out, &state::position(next));
        (self.out, self.unusual)
    }

    fn add(&mut self, record: &[u8]) -> Result<(), String> {
        if let Some((user, at)) = state::erasure(record)? {
            return self.erase(record, user, at);
        }
        match state::no_later_than(record, self.latest)? {
            Some((changed, furthest)) => {
                self.unusual.clamped += 1;
                self.unusual.furthest = self.unusual.furthest.max(Some(furthest));
                self.recent.push(&changed);
                state::join(&mut self.out, &changed);
            }
            None => {
                self.recent.push(record);
                state::join(&mut self.out, record);
            }
        }
        Ok(())
    }

    fn erase(&mut self, record: &[u8], user: Fingerprint, at: i64) -> Result<(), String> {
        // An erasure that is appended again must not remove what came since.
        if self.following.knows_erasure(user, at) || !self.erasures.insert((user, at)) {
            return Ok(());
        }
        state::join(&mut self.out, record);
        for later in self.recent.of_user(user, at)? {
            state::join(&mut self.out, &later);
        }
        Ok(())
    }
}
