//! Turns entries of a feed into one record of the replica's log.

use std::collections::HashSet;

use super::recent::Recent;
use domain::feed::Entry;
use domain::{Segment, Slot, Timestamp};
use state::{Following, Subject};

/// What is unusual in entries.
#[derive(Debug, Default)]
pub(super) struct Unusual {
    /// Records with pairs in the future.
    pub(super) clamped: u64,
    /// The latest slot of these pairs.
    pub(super) furthest: Option<Slot>,
    /// Why an entry can't be applied: another program wrote it.
    pub(super) foreign: Option<String>,
    /// Segments that another replica found to differ from the store.
    pub(super) differing: Vec<Segment>,
    /// Whether a segment is erased, whose later pairs are added again.
    pub(super) drops: bool,
    /// The earliest erasure, in unix milliseconds, that may remove pairs which came after it and can't be added again.
    pub(super) late_erasure: Option<i64>,
}

/// Collects the records of entries.
pub(super) struct Collector<'a> {
    out: Vec<u8>,
    /// The time by the clock of the feed.
    now: Timestamp,
    /// No slot may be later.
    latest: Slot,
    following: &'a Following,
    recent: &'a mut Recent,
    /// Erasures among the records.
    erasures: HashSet<(Subject, i64)>,
    unusual: Unusual,
}

impl<'a> Collector<'a> {
    pub(super) fn new(
        (now, latest): (Timestamp, Slot),
        following: &'a Following,
        recent: &'a mut Recent,
    ) -> Self {
        Self {
            out: state::batch(),
            now,
            latest,
            following,
            recent,
            erasures: HashSet::new(),
            unusual: Unusual::default(),
        }
    }

    /// The record that applies `entries`, and what is unusual in them.
    pub(super) fn record(mut self, entries: &[Entry]) -> (Vec<u8>, Unusual) {
        for entry in entries {
            let before = self.out.len();
            if let Err(reason) = state::split(&entry.record, |record| self.add(record)) {
                self.out.truncate(before);
                self.unusual.foreign = Some(reason);
            }
        }
        (self.out, self.unusual)
    }

    fn add(&mut self, record: &[u8]) -> Result<(), String> {
        if let Some((subject, at)) = state::erasure(record)? {
            return self.erase(record, &subject, at);
        }
        if let Some(segment) = state::differing_segment(record)? {
            self.unusual.differing.push(segment);
            return Ok(());
        }
        state::check_received(record)?;
        match state::no_later_than(record, self.latest)? {
            Some((changed, furthest)) => {
                self.unusual.clamped += 1;
                self.unusual.furthest = self.unusual.furthest.max(Some(furthest));
                self.recent.push(&changed, self.now);
                state::join(&mut self.out, &changed);
            }
            None => {
                self.recent.push(record, self.now);
                state::join(&mut self.out, record);
            }
        }
        Ok(())
    }

    fn erase(&mut self, record: &[u8], subject: &Subject, at: i64) -> Result<(), String> {
        if !self.recent.has_all_after(at) {
            let earliest = self.unusual.late_erasure.unwrap_or(at);
            self.unusual.late_erasure = Some(earliest.min(at));
        }
        // An erasure that is appended again must not remove what came since.
        if self.following.knows_erasure(subject, at) || !self.erasures.insert((subject.clone(), at))
        {
            return Ok(());
        }
        self.unusual.drops |= matches!(subject, Subject::Segment(_));
        state::join(&mut self.out, record);
        for later in self.recent.of(subject, at)? {
            state::join(&mut self.out, &later);
        }
        Ok(())
    }
}
