//! The pairs of the last minutes, for erasures that arrive after later pairs of their users.
//!
//! An erasure reaches the feed after the store has erased the user, and after a loss it is appended again. Meanwhile another
//! instance may have received the user again. The index keeps no time of receipt, so an erasure removes these pairs too, and
//! they are added again.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use index::Fingerprint;

/// Longer than writers keep what they append again after a loss.
#[cfg(not(test))]
const KEEP: Duration = Duration::from_mins(3);
/// In tests the clock of the runtime runs ahead of all others.
#[cfg(test)]
const KEEP: Duration = Duration::from_hours(24);
/// The maximum size of the records, in bytes: seven million pairs.
const MAX_BYTES: usize = 64 << 20;

/// Records of received pairs, oldest first.
#[derive(Debug, Default)]
pub(super) struct Recent {
    records: VecDeque<(Instant, Vec<u8>)>,
    bytes: usize,
}

impl Recent {
    /// Notes a record that is applied.
    pub(super) fn push(&mut self, record: &[u8]) {
        self.bytes += record.len();
        self.records.push_back((Instant::now(), record.to_vec()));
        while let Some((at, first)) = self.records.front()
            && (at.elapsed() > KEEP || self.bytes > MAX_BYTES)
        {
            self.bytes -= first.len();
            self.records.pop_front();
        }
    }

    /// The records of the user's pairs that were received after `after`, in unix milliseconds.
    pub(super) fn of_user(&self, user: Fingerprint, after: i64) -> Result<Vec<Vec<u8>>, String> {
        let records = self.records.iter();
        records
            .filter_map(|(_, record)| state::of_user(record, user, after).transpose())
            .collect()
    }
}
