//! The options of a log.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::disk::{Disk, OsDisk};

/// The options of a [`Log`](super::Log).
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// The log starts a new file when the current one reaches this many bytes.
    pub file_bytes: u64,
    /// A group that reaches this many bytes takes no more records.
    pub group_bytes: usize,
    /// The capacity of the writer's queue, in requests. When it is full, callers wait.
    pub queue: usize,
    /// The file with which replay starts.
    pub start: Start,
    /// The name of the writer thread.
    pub thread_name: String,
    /// The file system.
    pub disk: Arc<dyn Disk>,
    /// Receives the events of the writer, for metrics.
    pub observer: Arc<dyn LogObserver>,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            // Large enough that new files are rare, small enough that a covered file is soon removed.
            file_bytes: 256 << 20,
            // The fixed cost of a sync is negligible compared to writing this much.
            group_bytes: 4 << 20,
            queue: 1024,
            start: Start::Oldest,
            thread_name: "log-writer".to_owned(),
            disk: Arc::new(OsDisk),
            observer: Arc::new(NoLogObserver),
        }
    }
}

/// The file with which replay starts. Earlier files are not read; none of the later ones may be missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// The oldest existing file.
    Oldest,
    /// The file with this number. It must exist, except number 1 in a directory without any file: then it is created.
    At(u64),
}

/// Receives events of the writer, on the writer's thread: implementations must be fast.
pub trait LogObserver: Send + Sync + fmt::Debug {
    /// A group of `records` records and `bytes` bytes was written and synced within `took`.
    fn synced(&self, _records: usize, _bytes: usize, _took: Duration) {}

    /// A group was rejected. `full` is true if the disk was full.
    fn failed(&self, _full: bool) {}
}

/// An observer that ignores everything.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoLogObserver;

impl LogObserver for NoLogObserver {}
