//! The log of entries that the feed does not have yet, so that a restart sends them.

use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

use domain::feed::WriterId;
use wal::{Disk, Fields, LockedDir, Log, LogError, LogOptions};

/// Entries on disk: `writer u64 | number u64 | record`, little endian.
#[derive(Debug)]
pub struct OwedLog {
    log: Log,
    /// What a former process left, until it is taken.
    left: Vec<Left>,
}

/// An entry that a former process left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Left {
    pub(super) writer: WriterId,
    pub(super) sequence: u64,
    pub(super) record: Vec<u8>,
}

impl OwedLog {
    /// Opens the log in a directory, which it locks and creates if it does not exist. Blocks while it reads the log.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path) -> Result<Self, LogError> {
        let locked = Arc::new(LockedDir::acquire(dir)?);
        let left = Arc::new(Mutex::new(Vec::new()));
        let replaying = Arc::downgrade(&left);
        let apply = move |_, payload: &[u8]| {
            let mut fields = Fields::of(payload);
            let entry = Left {
                writer: WriterId::from_number(fields.u64()?),
                sequence: fields.u64()?,
                record: fields.rest().to_vec(),
            };
            // Only replay needs the entries: the writer has its own in memory.
            if let Some(left) = replaying.upgrade() {
                left.lock().push(entry);
            }
            Ok(())
        };
        let options = LogOptions {
            disk,
            thread_name: "owed-writer".to_owned(),
            ..LogOptions::default()
        };
        let log = Log::open(locked, options, Box::new(apply))?;
        let left = std::mem::take(&mut *left.lock());
        Ok(Self { log, left })
    }

    pub(super) fn take_left(&mut self) -> Vec<Left> {
        std::mem::take(&mut self.left)
    }

    /// Writes an entry durably.
    pub(super) async fn write(
        &self,
        writer: WriterId,
        sequence: u64,
        record: &[u8],
    ) -> Result<(), LogError> {
        let mut payload = Vec::with_capacity(16 + record.len());
        payload.extend_from_slice(&writer.number().to_le_bytes());
        payload.extend_from_slice(&sequence.to_le_bytes());
        payload.extend_from_slice(record);
        self.log.append(payload).await.map(drop)
    }

    /// Removes all entries, which the feed has now.
    pub(super) async fn clear(&self) -> Result<(), LogError> {
        let next = self.log.rotate().await?;
        // Unlinking a few files takes well below a millisecond.
        self.log.remove_before(next).map(drop)
    }

    pub(super) async fn close(&self) -> Result<(), LogError> {
        self.log.close().await
    }
}
