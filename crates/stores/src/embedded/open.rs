//! Opens a directory: its identity, and the state in it.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::{EmbeddedOptions, EmbeddedStore, StoreError, user_key};
use state::{DurableOptions, DurableState};
use wal::LockedDir;

impl EmbeddedStore {
    /// Opens the store in a directory, which it locks. Blocks while it loads the snapshot and replays the log: about a
    /// second for 10 million pairs.
    ///
    /// [`StoreError::Damaged`] names the file and, if known, the offset.
    pub fn open(options: EmbeddedOptions) -> Result<Self, StoreError> {
        let dir = options.dir.as_path();
        let locked = Arc::new(LockedDir::acquire(dir)?);
        user_key::check(&*options.disk, dir, options.user_key.as_deref())?;
        let durable = DurableOptions {
            frame: options.frame,
            key: None,
            snapshot_bytes: options.snapshot_bytes,
            file_bytes: options.file_bytes,
            disk: options.disk,
            observer: options.observer,
        };
        Ok(Self {
            frame: options.frame,
            durable: DurableState::open(locked, durable)?,
            closed: AtomicBool::new(false),
        })
    }
}
