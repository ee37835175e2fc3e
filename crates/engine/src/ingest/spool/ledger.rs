//! Accounts for the pairs in each file of a spool, so that statistics need no file reads.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use super::codec::Record;
use super::schedule::Entry;
use domain::{Erasure, Timestamp};
use wal::Position;

/// The accounts of a spool's files, and its totals.
#[derive(Debug, Default)]
pub(super) struct Ledger(Mutex<Account>);

#[derive(Debug, Default)]
struct Account {
    files: BTreeMap<u64, InFile>,
    /// The latest time at which any pairs were received.
    newest: Timestamp,
    /// The erasures that an earlier version recorded in the spool.
    erased: Vec<Erasure>,
    delivered: u64,
    rejected: u64,
}

#[derive(Debug)]
struct InFile {
    /// The number of pairs that are not delivered yet.
    pairs: u64,
    /// The number of these pairs that are in quarantine.
    quarantined: u64,
    /// When the file's oldest pairs were received.
    oldest: Timestamp,
}

/// The totals over all files.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) pairs: u64,
    pub(super) quarantined: u64,
    pub(super) oldest: Option<Timestamp>,
    pub(super) delivered: u64,
    pub(super) rejected: u64,
}

impl Ledger {
    /// Accounts for a record in the log.
    pub(super) fn note(&self, position: Position, payload: &[u8]) -> Result<(), String> {
        match Record::read(payload)? {
            Record::Pairs(pairs) => {
                let mut account = self.0.lock();
                account.newest = account.newest.max(pairs.received);
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
                let erasure = Erasure::of(&user, account.newest);
                account.erased.push(erasure);
            }
        }
        Ok(())
    }

    /// The oldest file that has records.
    pub(super) fn oldest_file(&self) -> Option<u64> {
        self.0.lock().files.keys().next().copied()
    }

    /// The files that have records, oldest first, with the time at which their oldest pairs were received.
    pub(super) fn files(&self) -> Vec<(u64, Timestamp)> {
        let account = self.0.lock();
        let files = account.files.iter();
        files.map(|(number, file)| (*number, file.oldest)).collect()
    }

    /// The latest time at which any pairs were received.
    pub(super) fn newest(&self) -> Timestamp {
        self.0.lock().newest
    }

    /// The erasures that an earlier version recorded in the spool.
    pub(super) fn erased(&self) -> Vec<Erasure> {
        self.0.lock().erased.clone()
    }

    /// The next file after `file` that has records.
    pub(super) fn waits_after(&self, file: u64) -> Option<u64> {
        let account = self.0.lock();
        account
            .files
            .range(file + 1..)
            .next()
            .map(|(file, _)| *file)
    }

    /// Accounts for a record that is settled at its position, with the number of delivered pairs.
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

    /// Counts a delivery that the store refused in whole or in part.
    pub(super) fn rejected(&self) {
        self.0.lock().rejected += 1;
    }

    /// Removes the account of `file`, which was deleted.
    pub(super) fn removed(&self, file: u64) {
        let mut account = self.0.lock();
        account.files.remove(&file);
    }

    /// The totals over all files.
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
