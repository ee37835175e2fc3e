//! Takes a snapshot when the log has grown, on a thread of its own.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;

use super::snapshot::{self, Newest};
use super::state::State;
use crate::domain::Timestamp;
use crate::log::{Disk, Log, LogError, Start};

/// How often the log's growth is looked at. A log grows by some 12 MB/s at full load, so a look a second is soon
/// enough, and costs the writers nothing.
const LOOK: Duration = Duration::from_secs(1);

/// Owns the thread.
#[derive(Debug)]
pub(super) struct Snapshotter {
    work: Arc<Work>,
    /// Dropping it ends the thread.
    thread: Mutex<Option<(Sender<()>, JoinHandle<()>)>>,
}

#[derive(Debug)]
struct Work {
    dir: PathBuf,
    disk: Arc<dyn Disk>,
    state: Arc<State>,
    log: Arc<Log>,
    threshold: u64,
    newest: Mutex<Newest>,
    /// Held while a snapshot is taken: one at a time.
    taking: Mutex<()>,
    stopped: AtomicBool,
}

impl Snapshotter {
    pub(super) fn start(
        dir: PathBuf,
        disk: Arc<dyn Disk>,
        state: Arc<State>,
        log: Arc<Log>,
        newest: Newest,
        threshold: u64,
    ) -> Result<Self, LogError> {
        let work = Arc::new(Work {
            disk,
            state,
            log,
            threshold,
            newest: Mutex::new(newest),
            taking: Mutex::new(()),
            stopped: AtomicBool::new(false),
            dir,
        });
        let (stop, stopping) = mpsc::channel();
        let looked = Arc::clone(&work);
        let look = move || {
            while let Err(RecvTimeoutError::Timeout) = stopping.recv_timeout(LOOK) {
                if looked.is_due()
                    && let Err(error) = looked.take()
                {
                    tracing::error!(%error, "no snapshot can be taken; the log grows until one can");
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name("snapshotter".to_owned())
            .spawn(look);
        let thread =
            thread.map_err(|error| LogError::io("start a thread for", &work.dir, &error))?;
        Ok(Self {
            work,
            thread: Mutex::new(Some((stop, thread))),
        })
    }

    /// What takes a snapshot now, on a thread that may block.
    pub(super) fn take(&self) -> impl FnOnce() -> Result<(), LogError> + Send + use<> {
        let work = Arc::clone(&self.work);
        move || work.take()
    }

    /// How old the newest snapshot is.
    pub(super) fn age(&self) -> Option<Duration> {
        let made = self.work.newest.lock().made?;
        Some(Duration::try_from(Timestamp::now().duration_since(made)).unwrap_or_default())
    }

    /// Gives up a snapshot under way and ends the thread.
    pub(super) fn stop(&self) {
        self.work.stopped.store(true, Ordering::Release);
        let thread = self.thread.lock().take();
        if let Some((stop, thread)) = thread {
            drop(stop);
            // A thread that panicked has ended as well.
            let _ = thread.join();
        }
    }
}

impl Drop for Snapshotter {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Work {
    fn is_due(&self) -> bool {
        let newest = *self.newest.lock();
        let Start::At(covered) = newest.start else {
            return false;
        };
        self.log.bytes_from(covered) >= self.threshold.max(newest.bytes)
    }

    fn take(&self) -> Result<(), LogError> {
        let _taking = self.taking.lock();
        let made = Timestamp::now();
        // Everything before this file is in the state: the log's writer applies before it begins a new one.
        let next = self.log.rotate_blocking()?;
        let stopped = || self.stopped.load(Ordering::Acquire);
        let Some(bytes) = snapshot::write(&*self.disk, &self.dir, next, &self.state, &stopped)?
        else {
            return Ok(());
        };
        *self.newest.lock() = Newest {
            start: Start::At(next),
            bytes,
            made: Some(made),
        };
        // Only now, with the snapshot and its name on the disk, may what it covers go.
        self.log.remove_before(next)?;
        snapshot::remove_older(&*self.disk, &self.dir, next)?;
        tracing::info!(bytes, next, "snapshot taken");
        Ok(())
    }
}
