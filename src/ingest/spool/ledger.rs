//! What waits in the files of a spool, known without reading them.

use std::collections::{BTreeMap, HashMap};

use parking_lot::Mutex;

use super::codec::Record;
use super::schedule::Entry;
use crate::domain::{Timestamp, UserId};
use crate::log::Position;

/// The account of a spool.
#[derive(Debug, Default)]
pub(super) struct Ledger(Mutex<Account>);

#[derive(Debug, Default)]
struct Account {
    files: BTreeMap<u64, InFile>,
    /// Where a user was erased for the last time. Nothing of theirs before that is delivered.
    erased: HashMap<String, Position>,
    delivered: u64,
    rejected: u64,
}

#[derive(Debug)]
struct InFile {
    /// Pairs that were not delivered yet.
    pairs: u64,
    /// How many of them are in quarantine.
    quarantined: u64,
    /// When its oldest pairs were received.
    oldest: Timestamp,
}

/// Everything that waits.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) pairs: u64,
    pub(super) quarantined: u64,
    pub(super) oldest: Option<Timestamp>,
    pub(super) delivered: u64,
    pub(super) rejected: u64,
}

impl Ledger {
    /// Notes a record that is in the log.
    pub(super) fn note(&self, position: Position, payload: &[u8]) -> Result<(), String> {
        match Record::read(payload)? {
            Record::Pairs(pairs) => {
                let mut account = self.0.lock();
                let file = account.files.entry(position.file).or_insert(InFile {
                    pairs: 0,
                    quarantined: 0,
                    oldest: pairs.received,
                });
                file.pairs += u64::from(pairs.count);
                file.oldest = file.oldest.min(pairs.received);
                if pairs.failures > 0 {
                    file.quarantined += u64::from(pairs.count);
                }
            }
            Record::Erased(user) => {
                let mut account = self.0.lock();
                account.erased.insert(user.as_str().to_owned(), position);
            }
        }
        Ok(())
    }

    /// The oldest file with something in it.
    pub(super) fn oldest_file(&self) -> Option<u64> {
        self.0.lock().files.keys().next().copied()
    }

    /// Whether `user` was erased after the record at `position` came.
    pub(super) fn is_erased(&self, user: &UserId<'_>, position: Position) -> bool {
        let account = self.0.lock();
        // Hardly ever is anybody erased: look no further then.
        !account.erased.is_empty()
            && account
                .erased
                .get(user.as_str())
                .is_some_and(|erased| position < *erased)
    }

    /// Whether something waits in a file after this one.
    pub(super) fn waits_after(&self, file: u64) -> Option<u64> {
        let account = self.0.lock();
        account
            .files
            .range(file + 1..)
            .next()
            .map(|(file, _)| *file)
    }

    /// Notes that a record no longer waits where it was, and how many of its pairs were delivered.
    pub(super) fn settled(&self, entry: &Entry, delivered: u64) {
        let mut account = self.0.lock();
        account.delivered += delivered;
        if let Some(file) = account.files.get_mut(&entry.position.file) {
            let pairs = u64::from(entry.pairs);
            file.pairs = file.pairs.saturating_sub(pairs);
            if entry.failures > 0 {
                file.quarantined = file.quarantined.saturating_sub(pairs);
            }
        }
    }

    /// Notes a delivery of which a part was refused for good.
    pub(super) fn rejected(&self) {
        self.0.lock().rejected += 1;
    }

    /// Notes that `file` is gone.
    pub(super) fn removed(&self, file: u64) {
        let mut account = self.0.lock();
        account.files.remove(&file);
        account.erased.retain(|_, position| position.file > file);
    }

    /// Everything that waits.
    pub(super) fn waiting(&self) -> Waiting {
        let account = self.0.lock();
        Waiting {
            pairs: account.files.values().map(|file| file.pairs).sum(),
            quarantined: account.files.values().map(|file| file.quarantined).sum(),
            oldest: account.files.values().map(|file| file.oldest).min(),
            delivered: account.delivered,
            rejected: account.rejected,
        }
    }
}
