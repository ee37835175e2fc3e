//! What the opener of a log decides.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::disk::{Disk, OsDisk};

/// How a log behaves.
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// A file that reaches this many bytes is followed by a new one.
    pub file_bytes: u64,
    /// A group that reaches this many bytes takes no more records.
    pub group_bytes: usize,
    /// How many appends may wait for the writer; more wait for room.
    pub queue: usize,
    /// With which file replay begins.
    pub start: Start,
    /// The name of the writer's thread.
    pub thread_name: String,
    /// Where the files are.
    pub disk: Arc<dyn Disk>,
    /// Who is told what the writer does.
    pub observer: Arc<dyn LogObserver>,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            // Large enough to be rare, small enough to go soon once a snapshot covers it.
            file_bytes: 256 << 20,
            // A sync's fixed cost is noise beside writing this much.
            group_bytes: 4 << 20,
            queue: 1024,
            start: Start::Oldest,
            thread_name: "log-writer".to_owned(),
            disk: Arc::new(OsDisk),
            observer: Arc::new(NoLogObserver),
        }
    }
}

/// With which file replay begins. Those before it are left alone; of those after it none may be missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// The oldest that is there.
    Oldest,
    /// This one. It must be there, except in a directory without any file: then it is made.
    At(u64),
}

/// Is told what the writer does, on the writer's thread: it must be quick.
pub trait LogObserver: Send + Sync + fmt::Debug {
    /// A group of `records` records and `bytes` bytes was written and synced, which took `took`.
    fn synced(&self, _records: usize, _bytes: usize, _took: Duration) {}

    /// A group was refused; `full` says whether for want of room.
    fn failed(&self, _full: bool) {}
}

/// An observer that ignores everything.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoLogObserver;

impl LogObserver for NoLogObserver {}
