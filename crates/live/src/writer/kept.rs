//! The recent entries of a writer, in memory.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// An entry as it is sent.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) sequence: u64,
    pub(super) record: Vec<u8>,
    pub(super) at: Instant,
}

/// Entries with ascending numbers, without gaps except where owed entries were dropped.
#[derive(Debug, Default)]
pub(super) struct KeptEntries {
    entries: VecDeque<Kept>,
    bytes: usize,
}

impl KeptEntries {
    pub(super) fn push(&mut self, kept: Kept) {
        self.bytes += kept.record.len();
        self.entries.push_back(kept);
    }

    /// The first entry after number `sent`.
    pub(super) fn after(&self, sent: u64) -> Option<&Kept> {
        let position = self.entries.partition_point(|kept| kept.sequence <= sent);
        self.entries.get(position)
    }

    /// The number of entries after number `sent`.
    pub(super) fn count_after(&self, sent: u64) -> usize {
        let position = self.entries.partition_point(|kept| kept.sequence <= sent);
        self.entries.len() - position
    }

    /// The number before the oldest entry; `None` if there is none.
    pub(super) fn before_first(&self) -> Option<u64> {
        self.entries.front().map(|first| first.sequence - 1)
    }

    /// Removes entries that are sent and old, and the oldest while they exceed `max_bytes`. Returns the number of removed
    /// entries that were not sent.
    pub(super) fn prune(&mut self, sent: u64, keep: Duration, max_bytes: usize) -> u64 {
        let mut dropped = 0;
        while let Some(first) = self.entries.front() {
            let is_old = first.sequence <= sent && first.at.elapsed() > keep;
            // The newest entry stays: its record is not larger than any other.
            let exceeds = self.bytes > max_bytes && self.entries.len() > 1;
            if !is_old && !exceeds {
                break;
            }
            dropped += u64::from(first.sequence > sent);
            self.bytes -= first.record.len();
            self.entries.pop_front();
        }
        dropped
    }
}
