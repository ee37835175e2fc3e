//! Removes erased users from the spool's files.
//!
//! This affects pairs that still wait, and delivered pairs in a file that still exists. The waiting pairs of such a
//! file, and of all older files, are appended to the log again without the erased users. Then the files are removed.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::codec::Record;
use super::delivery::Delivery;
use super::schedule::Entry;
use crate::ingest::erasures::Erasures;
use domain::store::StoreError;
use domain::{Batch, BatchBuilder, Pair, Segment, UserId};

/// The delay of a retry after a failure. The disk may be full until something is delivered.
const RETRY_DELAY: Duration = Duration::from_secs(30);

impl Delivery<'_> {
    /// Cleanses the files if erasures were learnt since the last time.
    pub(super) async fn cleanse_if_due(&mut self) {
        let learnt = self.parts.erasures.learnt();
        let searched = &self.parts.spool.searched;
        if learnt == *searched.borrow() || Instant::now() < self.cleanse_from {
            return;
        }
        match self.cleanse().await {
            Ok(()) => {
                self.parts.spool.searched.send_replace(learnt);
            }
            Err(error) => {
                tracing::warn!(%error, "can't remove erased users from the spool's files now");
                self.cleanse_from = Instant::now() + RETRY_DELAY;
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
                        // All older files are removed.
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
            "removed erased users from the spool's files"
        );
        Ok(())
    }

    /// Erases pairs from the store again if another instance erased their user or their segment while a batch with them was
    /// being sent.
    pub(super) async fn erase_again(&self) -> Result<(), StoreError> {
        let Some((entries, known)) = &self.sent else {
            return Ok(());
        };
        let erasures = &self.parts.erasures;
        let new = erasures.learnt_since(*known);
        if new.is_empty() {
            return Ok(());
        }
        let merges = erasures.merges();
        let sent = entries.iter().map(|it| Ok((it.received, it.decode()?)));
        let sent = sent.collect::<Result<Vec<_>, StoreError>>()?;
        for erasure in new {
            let before = sent.iter().filter(|(at, _)| *at <= erasure.at());
            let mut pairs = Vec::new();
            for pair in before.flat_map(|(_, batch)| batch.pairs()) {
                // As the users as whom the pair counted when it was received and since, until it was sent.
                let ids = merges.ids_at(&pair.user, erasure.at()).into_iter();
                let ids = ids.filter(|user| erasure.removes(pair.segment, user));
                pairs.extend(ids.map(|user| Pair {
                    user,
                    segment: pair.segment,
                    slot: pair.slot,
                }));
            }
            erasures.erase_again(&erasure, &pairs).await?;
        }
        Ok(())
    }

    /// The newest file with pairs of erased users.
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
    /// Appends the pairs to `batch`, each with the user as whom it counts; without those of users who were erased after the
    /// pairs were received, under any id that they had by then.
    pub(super) fn decode_into(
        &self,
        batch: &mut BatchBuilder,
        erasures: &Erasures,
    ) -> Result<(), StoreError> {
        let erased = erasures.since(self.received);
        let merges = erasures.merges();
        self.decode_with(batch, |segment, user| {
            let Some(path) = merges.path(&user) else {
                let is_erased = erased.iter().any(|it| it.removes(segment, &user));
                return (!is_erased).then_some(user);
            };
            let is_erased = erased.iter().any(|it| {
                let mut ids = path.ids_at(it.at());
                ids.any(|user| it.removes(segment, user))
            });
            (!is_erased).then_some(path.end)
        })
    }

    /// Decodes all pairs, including those of erased users.
    fn decode(&self) -> Result<Batch, StoreError> {
        let mut batch = BatchBuilder::default();
        self.decode_with(&mut batch, |_, user| Some(user))?;
        Ok(batch.finish())
    }

    fn decode_with<'a>(
        &'a self,
        batch: &mut BatchBuilder,
        user_of: impl Fn(&Segment, UserId<'a>) -> Option<UserId<'a>>,
    ) -> Result<(), StoreError> {
        let damaged = |reason| StoreError::Damaged(format!("the spool: {reason}"));
        if let Record::Pairs(pairs) = Record::read(&self.payload).map_err(damaged)? {
            pairs.decode_into(batch, user_of).map_err(damaged)?;
        }
        Ok(())
    }

    /// Whether the entry has pairs of erased users.
    fn has_erased(&self, erasures: &Erasures) -> Result<bool, StoreError> {
        if erasures.since(self.received).is_empty() {
            return Ok(false);
        }
        let mut left = BatchBuilder::default();
        self.decode_into(&mut left, erasures)?;
        Ok(left.len() < self.pairs as usize)
    }
}
