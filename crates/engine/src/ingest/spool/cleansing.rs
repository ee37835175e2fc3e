//! Takes users who were erased out of the spool's files, whether their pairs still wait or were delivered from a file that is
//! still there: what waits in such a file, and in those before it, is written again without them, and the file is removed.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::codec::Record;
use super::delivery::Delivery;
use super::schedule::Entry;
use crate::ingest::erasures::Erasures;
use domain::store::StoreError;
use domain::{Batch, BatchBuilder, UserId};

/// How long to wait after a failure: the disk may be full until something was delivered.
const RETRY: Duration = Duration::from_secs(30);

impl Delivery<'_> {
    /// Cleanses the files if erasures were learnt since that was done last.
    pub(super) async fn cleanse_if_due(&mut self) {
        let learnt = self.parts.erasures.learnt();
        let heeded = &self.parts.spool.heeded;
        if learnt == *heeded.borrow() || Instant::now() < self.cleanse_from {
            return;
        }
        match self.cleanse().await {
            Ok(()) => {
                self.parts.spool.heeded.send_replace(learnt);
            }
            Err(error) => {
                tracing::warn!(%error, "erased users can't be taken out of the spool's files now");
                self.cleanse_from = Instant::now() + RETRY;
            }
        }
    }

    async fn cleanse(&mut self) -> Result<(), StoreError> {
        let spool = Arc::clone(&self.parts.spool);
        let _sending = spool.sending.lock().await;
        let Some(last) = self.last_with_erased().await? else {
            return Ok(());
        };
        let files = spool.ledger.files().into_iter().map(|(file, _)| file);
        let files: Vec<u64> = files.filter(|file| *file <= last).collect();
        for file in &files {
            let is_open = self.files.contains(file);
            let entries = match is_open {
                true => self.schedule.take(*file),
                false => self.entries_of(*file).await?,
            };
            let mut entries = entries.into_iter();
            while let Some(entry) = entries.next() {
                if let Err(error) = self.mover().carry_over(&entry).await {
                    let left = std::iter::once(entry).chain(entries);
                    left.for_each(|entry| self.schedule.add(entry));
                    if !is_open {
                        // Those before it are gone.
                        self.files.push_front(*file);
                    }
                    return Err(error);
                }
                spool.ledger.settled(&entry, 0);
            }
            self.remove(*file).await?;
        }
        tracing::info!(
            files = files.len(),
            "erased users were taken out of the spool's files"
        );
        Ok(())
    }

    /// Erases users from the store again whom another instance erased while pairs of theirs from before it were on their way.
    pub(super) async fn erase_again(&self) -> Result<(), StoreError> {
        let Some((entries, known)) = &self.sent else {
            return Ok(());
        };
        let erasures = &self.parts.erasures;
        let new = erasures.learnt_since(*known);
        if new.is_empty() {
            return Ok(());
        }
        let sent = entries.iter().map(|it| Ok((it.received, it.decode()?)));
        let sent = sent.collect::<Result<Vec<_>, StoreError>>()?;
        for erasure in new {
            let before = sent.iter().filter(|(at, _)| *at <= erasure.at());
            let mut pairs = before.flat_map(|(_, batch)| batch.pairs());
            if let Some(pair) = pairs.find(|pair| erasure.is_of(&pair.user)) {
                erasures.erase_again(&pair.user).await?;
            }
        }
        Ok(())
    }

    /// The last file that has pairs of erased users.
    async fn last_with_erased(&self) -> Result<Option<u64>, StoreError> {
        let mut last = None;
        for (file, oldest) in self.parts.spool.ledger.files() {
            let erasures = &self.parts.erasures;
            if erasures.since(oldest).is_empty() {
                continue;
            }
            for entry in self.entries_of(file).await? {
                if entry.has_erased(erasures)? {
                    last = Some(file);
                    break;
                }
            }
        }
        Ok(last)
    }
}

impl Entry {
    /// Appends the pairs to `batch`, but for those of users who were erased after the pairs came.
    pub(super) fn decode_into(
        &self,
        batch: &mut BatchBuilder,
        erasures: &Erasures,
    ) -> Result<(), StoreError> {
        let erased = erasures.since(self.received);
        self.decode_without(batch, |user| erased.iter().any(|it| it.is_of(user)))
    }

    /// All pairs.
    fn decode(&self) -> Result<Batch, StoreError> {
        let mut batch = BatchBuilder::default();
        self.decode_without(&mut batch, |_| false)?;
        Ok(batch.finish())
    }

    fn decode_without(
        &self,
        batch: &mut BatchBuilder,
        is_left_out: impl Fn(&UserId<'_>) -> bool,
    ) -> Result<(), StoreError> {
        let damaged = |reason| StoreError::Damaged(format!("the spool: {reason}"));
        if let Record::Pairs(pairs) = Record::read(&self.payload).map_err(damaged)? {
            pairs.decode_into(batch, is_left_out).map_err(damaged)?;
        }
        Ok(())
    }

    /// Whether that would leave out any.
    fn has_erased(&self, erasures: &Erasures) -> Result<bool, StoreError> {
        if erasures.since(self.received).is_empty() {
            return Ok(false);
        }
        let mut left = BatchBuilder::default();
        self.decode_into(&mut left, erasures)?;
        Ok(left.len() < self.pairs as usize)
    }
}
