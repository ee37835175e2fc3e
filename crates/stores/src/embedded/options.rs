//! The options of the embedded store.

use std::path::PathBuf;
use std::sync::Arc;

use domain::TimeFrame;
use wal::{Disk, LogObserver, LogOptions, NoLogObserver, OsDisk};

/// The options of an [`EmbeddedStore`](super::EmbeddedStore).
#[derive(Debug, Clone)]
pub struct EmbeddedOptions {
    /// The directory; it is created if it does not exist.
    pub dir: PathBuf,
    /// The widest window, and the resolution of the slots. The resolution must be that with which the directory was
    /// created.
    pub frame: TimeFrame,
    /// A digest of `user_key`, if one is set. A directory recorded with another key is rejected.
    pub user_key: Option<String>,
    /// A snapshot is taken when the log has grown by this many bytes since the last one, and by half the size of that
    /// snapshot. The first condition limits the replay at a start. The second limits write amplification: snapshots write
    /// at most two bytes for each byte of the log.
    pub snapshot_bytes: u64,
    /// The log starts a new file when the current one reaches this many bytes.
    pub file_bytes: u64,
    /// The file system; a test uses one in memory.
    pub disk: Arc<dyn Disk>,
    /// Receives the events of the log's writer, for metrics.
    pub observer: Arc<dyn LogObserver>,
}

impl EmbeddedOptions {
    /// The default options for a directory.
    pub fn new(dir: impl Into<PathBuf>, frame: TimeFrame) -> Self {
        Self {
            dir: dir.into(),
            frame,
            user_key: None,
            // 8 million pairs, replayed in about two seconds.
            snapshot_bytes: 64 << 20,
            file_bytes: LogOptions::default().file_bytes,
            disk: Arc::new(OsDisk),
            observer: Arc::new(NoLogObserver),
        }
    }
}
