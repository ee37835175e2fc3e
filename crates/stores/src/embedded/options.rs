//! What the opener of an embedded store decides.

use std::path::PathBuf;
use std::sync::Arc;

use domain::TimeFrame;
use wal::{Disk, LogObserver, LogOptions, NoLogObserver, OsDisk};

/// How an embedded store behaves.
#[derive(Debug, Clone)]
pub struct EmbeddedOptions {
    /// The directory, made unless it is there.
    pub dir: PathBuf,
    /// Window and resolution. The resolution must be that with which the directory was made.
    pub frame: TimeFrame,
    /// A digest of `user_key`, where there is one: a directory that was recorded with another one is refused.
    pub user_key: Option<String>,
    /// A snapshot is taken when the log has grown by this many bytes since the last one, and by half as much as
    /// that one had. The first bounds what a start has to replay, the second what snapshots write: at most two
    /// bytes for each of the log.
    pub snapshot_bytes: u64,
    /// A file of the log that reaches this many bytes is followed by a new one.
    pub file_bytes: u64,
    /// Where the files are.
    pub disk: Arc<dyn Disk>,
    /// Who is told what the log's writer does.
    pub observer: Arc<dyn LogObserver>,
}

impl EmbeddedOptions {
    /// The usual options for a directory.
    pub fn new(dir: impl Into<PathBuf>, frame: TimeFrame) -> Self {
        Self {
            dir: dir.into(),
            frame,
            user_key: None,
            // Eight million pairs, replayed in about two seconds.
            snapshot_bytes: 64 << 20,
            file_bytes: LogOptions::default().file_bytes,
            disk: Arc::new(OsDisk),
            observer: Arc::new(NoLogObserver),
        }
    }
}
