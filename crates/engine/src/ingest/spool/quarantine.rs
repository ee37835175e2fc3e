//! Quarantine: records that the store could not take while it took others. They are written again at the end of the
//! spool, to be retried later.

use super::codec::encode_quarantined;
use super::schedule::{Entry, quarantine};
use super::{RECORD_PAIRS, Spool};
use crate::ingest::erasures::Erasures;
use domain::store::StoreError;
use domain::{Batch, BatchBuilder, TimeFrame, Timestamp};

/// Moves records to the end of the spool.
pub(super) struct Move<'a> {
    pub(super) spool: &'a Spool,
    pub(super) erasures: &'a Erasures,
    pub(super) frame: &'a TimeFrame,
    pub(super) now: Timestamp,
}

impl Move<'_> {
    /// Quarantines an entry, without pairs of erased users and pairs that left the window. From its first failure in
    /// quarantine on, an entry is split in half each time, until the pair that the store can't take is alone.
    pub(super) async fn fail(&self, entry: &Entry) -> Result<(), StoreError> {
        let (batch, received) = self.pairs_of(entry)?;
        let failures = entry.failures.saturating_add(1);
        let most = match entry.failures {
            0 => RECORD_PAIRS,
            _ => batch.len().div_ceil(2).max(1),
        };
        self.write(&batch, received, failures, most).await
    }

    /// Quarantines the open pairs of an entry after the store settled the others. Because the store made progress, the next
    /// retry is soon.
    pub(super) async fn keep_open(&self, entry: &Entry, open: &Batch) -> Result<(), StoreError> {
        let (_, received) = self.pairs_of(entry)?;
        let most = open.len().div_ceil(2).max(1);
        self.write(open, received, 1, most).await
    }

    /// Moves an entry unchanged, without pairs of erased users and pairs that left the window.
    pub(super) async fn carry_over(&self, entry: &Entry) -> Result<(), StoreError> {
        let (batch, received) = self.pairs_of(entry)?;
        let records = encode_quarantined(&batch, received, RECORD_PAIRS, entry.failures, entry.due);
        self.append(records).await
    }

    async fn write(
        &self,
        batch: &Batch,
        received: Timestamp,
        failures: u32,
        most: usize,
    ) -> Result<(), StoreError> {
        let due = self.now.saturating_add(quarantine(failures));
        let records = encode_quarantined(batch, received, most, failures, due.unwrap_or(self.now));
        self.append(records).await
    }

    /// Appends records even beyond the spool's size limit, because the file that they come from is removed afterwards.
    async fn append(&self, records: Vec<Vec<u8>>) -> Result<(), StoreError> {
        for record in records {
            self.spool.log.append(record).await?;
        }
        Ok(())
    }

    fn pairs_of(&self, entry: &Entry) -> Result<(Batch, Timestamp), StoreError> {
        let mut all = BatchBuilder::default();
        entry.decode_into(&mut all, self.erasures)?;
        let all = all.finish();
        let current = all.subset(|_, pair| self.frame.leaves_at(pair.slot) > self.now);
        Ok((current, entry.received))
    }
}
