//! Decides which records of the spool are sent next. It is pure logic without I/O.
//!
//! Records are sent in the order in which they were received. A record that fails becomes a *suspect*, and the next one is
//! sent: either the store is unavailable and everything fails, or the store can't take this one record. Once the store takes
//! another record, each suspect is retried once, alone. If it fails again it is *quarantined*: it moves to the end of the
//! spool, to be retried with exponential backoff. So no record blocks later ones.

use std::collections::VecDeque;
use std::time::Duration;

use domain::Timestamp;
use wal::Position;

/// The delay of the first retry of a quarantined record. It doubles with each further failure.
const FIRST_QUARANTINE: Duration = Duration::from_secs(1);
/// The longest delay of a retry. A record that the store can take again is retried within this time.
const LONGEST_QUARANTINE: Duration = Duration::from_secs(600);

/// A waiting record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// The position of the record in the spool.
    pub(super) position: Position,
    /// When its pairs were received.
    pub(super) received: Timestamp,
    /// The encoded record.
    pub(super) payload: Vec<u8>,
    /// The number of pairs.
    pub(super) pairs: u32,
    /// The number of failures while the store took other records; 0 outside of quarantine.
    pub(super) failures: u32,
    /// The time of the next retry.
    pub(super) due: Timestamp,
}

/// Records that are sent together.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Sending {
    /// The records, oldest first.
    pub(super) entries: Vec<Entry>,
    /// Whether a failure quarantines them, because the store has just taken another record.
    pub(super) is_last_try: bool,
}

/// The unsettled records that were read from the spool's files.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    ready: VecDeque<Entry>,
    suspects: VecDeque<Entry>,
    /// Suspects to retry, each alone.
    again: VecDeque<Entry>,
    /// Quarantined records that may not be due yet.
    later: Vec<Entry>,
    /// The maximum number of records in a group; 0 for no maximum. It shrinks after a failure, because a group may fail
    /// for a single record.
    together: usize,
}

impl Schedule {
    /// Adds a record after the known ones.
    pub(super) fn add(&mut self, entry: Entry) {
        match entry.failures {
            0 => self.ready.push_back(entry),
            _ => self.later.push(entry),
        }
    }

    /// Takes out the next records to send, with about `most` pairs together.
    pub(super) fn next(&mut self, now: Timestamp, most: usize) -> Option<Sending> {
        if let Some(entry) = self.again.pop_front() {
            return Some(Sending {
                entries: vec![entry],
                is_last_try: true,
            });
        }
        let mut entries = Vec::new();
        let mut pairs = 0;
        let together = match self.together {
            0 => usize::MAX,
            some => some,
        };
        while pairs < most
            && entries.len() < together
            && let Some(entry) = self.ready.pop_front()
        {
            pairs += entry.pairs as usize;
            entries.push(entry);
        }
        if entries.is_empty() {
            let due = self.later.iter().position(|entry| entry.due <= now)?;
            entries.push(self.later.swap_remove(due));
            return Some(Sending {
                entries,
                is_last_try: true,
            });
        }
        Some(Sending {
            entries,
            is_last_try: false,
        })
    }

    /// Notes that the store took something, so suspects are retried.
    pub(super) fn store_works(&mut self) {
        self.again.append(&mut self.suspects);
        self.together = self.together.checked_mul(2).unwrap_or(0);
    }

    /// Notes that `sending` failed. Returns the records to quarantine.
    pub(super) fn failed(&mut self, sending: Sending) -> Vec<Entry> {
        if sending.is_last_try {
            return sending.entries;
        }
        self.together = (sending.entries.len() / 2).max(1);
        self.suspects.extend(sending.entries);
        Vec::new()
    }

    /// Puts back records that were not sent.
    pub(super) fn put_back(&mut self, sending: Sending) {
        let into = match sending.is_last_try {
            true => &mut self.again,
            false => &mut self.ready,
        };
        for entry in sending.entries.into_iter().rev() {
            into.push_front(entry);
        }
    }

    /// Makes the suspects ready again, because there is no other record to test the store with.
    pub(super) fn start_over(&mut self) {
        std::mem::swap(&mut self.ready, &mut self.suspects);
    }

    /// Whether there are suspects and no other records to send now.
    pub(super) fn has_only_suspects(&self) -> bool {
        !self.suspects.is_empty() && self.ready.is_empty() && self.again.is_empty()
    }

    /// Takes out the quarantined records of `file`, which prevent its removal.
    pub(super) fn take_later(&mut self, file: u64) -> Vec<Entry> {
        let (taken, kept) = std::mem::take(&mut self.later)
            .into_iter()
            .partition(|entry| entry.position.file == file);
        self.later = kept;
        taken
    }

    /// Takes out all records of `file`, oldest first.
    pub(super) fn take(&mut self, file: u64) -> Vec<Entry> {
        let mut taken = self.take_later(file);
        for queue in [&mut self.ready, &mut self.suspects, &mut self.again] {
            let (of_file, others) = std::mem::take(queue)
                .into_iter()
                .partition::<Vec<_>, _>(|entry| entry.position.file == file);
            taken.extend(of_file);
            queue.extend(others);
        }
        taken.sort_by_key(|entry| entry.position);
        taken
    }

    /// Whether `file` has no records left except quarantined ones.
    pub(super) fn has_only_later(&self, file: u64) -> bool {
        let active = [&self.ready, &self.suspects, &self.again];
        active
            .into_iter()
            .flatten()
            .all(|entry| entry.position.file != file)
    }

    /// The time of the next retry of a quarantined record.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        self.later.iter().map(|entry| entry.due).min()
    }
}

/// The delay of the next retry after `failures` failures.
pub(super) fn quarantine(failures: u32) -> Duration {
    let doubled = FIRST_QUARANTINE.saturating_mul(1 << failures.saturating_sub(1).min(16));
    doubled.min(LONGEST_QUARANTINE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn entry(offset: u64, failures: u32, due: i64) -> Entry {
        Entry {
            position: Position { file: 1, offset },
            received: at(0),
            payload: Vec::new(),
            pairs: 10,
            failures,
            due: at(due),
        }
    }

    fn offsets(sending: Option<Sending>) -> Vec<u64> {
        let entries = sending.map(|sending| sending.entries).unwrap_or_default();
        entries.iter().map(|entry| entry.position.offset).collect()
    }

    #[test]
    fn records_go_in_order_and_together() {
        let mut schedule = Schedule::default();
        for offset in 1..=5 {
            schedule.add(entry(offset, 0, 0));
        }
        assert_eq!(offsets(schedule.next(at(0), 25)), [1, 2, 3]);
        assert_eq!(offsets(schedule.next(at(0), 25)), [4, 5]);
        assert_eq!(schedule.next(at(0), 25), None);
    }

    #[test]
    fn a_suspect_is_quarantined_only_once_another_record_was_taken() {
        let mut schedule = Schedule::default();
        schedule.add(entry(1, 0, 0));
        schedule.add(entry(2, 0, 0));
        let first = schedule.next(at(0), 1).unwrap();
        assert!(schedule.failed(first).is_empty());
        let second = schedule.next(at(0), 1).unwrap();
        assert!(schedule.failed(second).is_empty());
        assert!(schedule.has_only_suspects());
        schedule.start_over();
        let first = schedule.next(at(0), 1).unwrap();
        assert!(schedule.failed(first).is_empty(), "nothing was taken yet");
        let _taken = schedule.next(at(0), 1).unwrap();
        schedule.store_works();
        let again = schedule.next(at(0), 1).unwrap();
        assert_eq!(schedule.failed(again).len(), 1);
    }

    #[test]
    fn a_quarantined_record_waits_until_it_is_due() {
        let mut schedule = Schedule::default();
        schedule.add(entry(1, 3, 100));
        assert_eq!(schedule.next(at(99), 10), None);
        assert_eq!(schedule.next_due(), Some(at(100)));
        let due = schedule.next(at(100), 10).unwrap();
        assert_eq!(schedule.failed(due).len(), 1);
        assert_eq!(quarantine(1), FIRST_QUARANTINE);
        assert_eq!(quarantine(4), FIRST_QUARANTINE * 8);
        assert_eq!(quarantine(u32::MAX), LONGEST_QUARANTINE);
    }

    proptest! {
        /// With any pattern of outages, every record is taken or quarantined, the schedule ends soon after the store
        /// works, and no record that the store can't take counts as taken.
        #[test]
        fn no_record_is_lost_and_none_holds_up_another(
            poisonous in prop::collection::btree_set(0u64..40, 0..12),
            outages in prop::collection::vec(any::<bool>(), 0..60),
            most in 1usize..60,
        ) {
            let mut schedule = Schedule::default();
            (0..=40).for_each(|offset| schedule.add(entry(offset, 0, 0)));
            let (mut taken, mut quarantined) = (BTreeSet::new(), BTreeSet::new());
            let mut outages = outages.into_iter();
            let mut steps_while_it_works = 0;
            loop {
                if schedule.has_only_suspects() {
                    schedule.start_over();
                }
                let Some(sending) = schedule.next(at(0), most) else { break };
                steps_while_it_works += usize::from(outages.len() == 0);
                prop_assert!(steps_while_it_works < 300, "the schedule does not end");
                let is_down = outages.next().unwrap_or(false);
                let offsets = sending.entries.iter().map(|entry| entry.position.offset);
                let offsets: Vec<u64> = offsets.collect();
                if is_down || offsets.iter().any(|offset| poisonous.contains(offset)) {
                    let failed = schedule.failed(sending);
                    quarantined.extend(failed.iter().map(|entry| entry.position.offset));
                } else {
                    taken.extend(offsets);
                    schedule.store_works();
                }
            }
            let all: BTreeSet<u64> = (0..=40).collect();
            prop_assert_eq!(taken.union(&quarantined).copied().collect::<BTreeSet<_>>(), all);
            prop_assert!(taken.is_disjoint(&poisonous));
        }
    }
}
