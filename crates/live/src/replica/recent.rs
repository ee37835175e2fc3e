//! The pairs of the last minutes, for erasures that arrive after later pairs of their users or segments.
//!
//! An erasure reaches the feed after the store has erased the user, and after a loss it is appended again. Meanwhile another
//! instance may have received the user again. The index keeps no time of receipt, so an erasure removes these pairs too, and
//! they are added again.

use std::collections::VecDeque;
use std::time::Duration;

use domain::Timestamp;
use state::Subject;

/// Longer than writers keep what they append again after a loss.
const KEEP: Duration = Duration::from_mins(3);
/// The maximum size of the records, in bytes: seven million pairs.
const MAX_BYTES: usize = 64 << 20;
/// How far the clocks of services may be from that of the feed before an erasure is misjudged.
const CLOCKS: Duration = Duration::from_secs(10);

/// Records of received pairs, oldest first.
#[derive(Debug, Default)]
pub(super) struct Recent {
    /// When they were applied, by the clock of the feed.
    records: VecDeque<(Timestamp, Vec<u8>)>,
    bytes: usize,
    /// Everything that was applied since is here. Not an instant before the first page.
    since: Timestamp,
}

impl Recent {
    /// Notes a record that is applied at `now`.
    pub(super) fn push(&mut self, record: &[u8], now: Timestamp) {
        self.bytes += record.len();
        self.records.push_back((now, record.to_vec()));
        let oldest = now.saturating_sub(KEEP).unwrap_or(now);
        while let Some((at, first)) = self.records.front()
            && (*at < oldest || self.bytes > MAX_BYTES)
        {
            self.since = self.since.max(*at);
            self.bytes -= first.len();
            self.records.pop_front();
        }
    }

    /// Notes that pairs which came before `now` may be missing.
    pub(super) fn lacks_until(&mut self, now: Timestamp) {
        self.since = self.since.max(now);
    }

    /// Whether every pair that came after `at`, in unix milliseconds, is here.
    pub(super) fn has_all_after(&self, at: i64) -> bool {
        let clocks = i64::try_from(CLOCKS.as_millis()).unwrap_or(i64::MAX);
        self.since.as_millisecond().saturating_add(clocks) <= at
    }

    /// The records of the subject's pairs that were received after `after`, in unix milliseconds.
    pub(super) fn of(&self, subject: &Subject, after: i64) -> Result<Vec<Vec<u8>>, String> {
        let records = self.records.iter();
        records
            .filter_map(|(_, record)| state::pairs_of(record, subject, after).transpose())
            .collect()
    }
}
