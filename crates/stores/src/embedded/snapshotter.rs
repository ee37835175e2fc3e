//! Takes a snapshot when the log has grown, on a thread of its own.

use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use jiff::SignedDuration;
use parking_lot::Mutex;

use super::EmbeddedOptions;
use super::snapshot::{self, Snapshot};
use super::state::State;
use domain::Timestamp;
use wal::{Disk, Log, LogError};

/// How often the log's growth is looked at. A log grows by some 12 MB/s at full load, so a look a second is soon
/// enough, and costs the writers nothing.
const LOOK: Duration = Duration::from_secs(1);

/// How long an erasure waits for a snapshot at most: only that takes the user's fingerprint off the disk.
const ERASURE_WAITS: Duration = Duration::from_secs(1_800);
/// When the snapshot after an erasure is there at the latest, with time to take it.
pub(super) const AFTER_ERASURE: SignedDuration = SignedDuration::from_hours(1);

/// How long to wait after a failure. Each try begins a new log file and writes until it fails: on a full disk that
/// takes room away from the log again and again.
const RETRY: Duration = Duration::from_secs(30);

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
    newest: Mutex<Option<Snapshot>>,
    /// Held while a snapshot is taken: one at a time.
    taking: Mutex<()>,
    stopped: AtomicBool,
    failures: AtomicU64,
}

impl Snapshotter {
    pub(super) fn start(
        options: EmbeddedOptions,
        state: Arc<State>,
        log: Arc<Log>,
        newest: Option<Snapshot>,
    ) -> Result<Self, LogError> {
        let work = Arc::new(Work {
            dir: options.dir,
            disk: options.disk,
            state,
            log,
            threshold: options.snapshot_bytes,
            newest: Mutex::new(newest),
            taking: Mutex::new(()),
            stopped: AtomicBool::new(false),
            failures: AtomicU64::new(0),
        });
        let (stop, stopping) = mpsc::channel();
        let looked = Arc::clone(&work);
        let look = move || {
            let mut wait = LOOK;
            while let Err(RecvTimeoutError::Timeout) = stopping.recv_timeout(wait) {
                wait = looked.look_unless_it_panics();
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
        let begun = (*self.work.newest.lock())?.begun;
        Some(Duration::try_from(Timestamp::now().duration_since(begun)).unwrap_or_default())
    }

    /// How many snapshots have failed.
    pub(super) fn failures(&self) -> u64 {
        self.work.failures.load(Ordering::Relaxed)
    }

    /// Takes the snapshot that covers the log files before `next`.
    #[cfg(test)]
    pub(super) fn take_before(&self, next: u64) -> Result<(), LogError> {
        self.work.take_before(next)
    }

    /// What gives up a snapshot under way and ends the thread, on a thread that may block.
    pub(super) fn stop(&self) -> impl FnOnce() + Send + use<> {
        self.work.stopped.store(true, Ordering::Release);
        let thread = self.thread.lock().take();
        let work = Arc::clone(&self.work);
        move || {
            if let Some((stop, thread)) = thread {
                drop(stop);
                if thread.join().is_err() {
                    tracing::error!("the thread that takes snapshots has crashed");
                }
            }
            // One that was asked for may be under way on another thread.
            drop(work.taking.lock());
        }
    }
}

impl Drop for Snapshotter {
    fn drop(&mut self) {
        self.stop()();
    }
}

impl Work {
    /// A panic is a defect, and a failed snapshot like another: the next look comes all the same.
    fn look_unless_it_panics(&self) -> Duration {
        std::panic::catch_unwind(AssertUnwindSafe(|| self.look())).unwrap_or_else(|_| {
            self.failures.fetch_add(1, Ordering::Relaxed);
            tracing::error!("taking a snapshot panicked; standard error has its message");
            RETRY
        })
    }

    /// Takes a snapshot if one is due. Returns when to look again.
    fn look(&self) -> Duration {
        if !self.is_due() {
            return LOOK;
        }
        match self.take() {
            Ok(()) => LOOK,
            Err(error) => {
                tracing::error!(%error, "no snapshot can be taken; the log grows until one can");
                RETRY
            }
        }
    }

    fn is_due(&self) -> bool {
        let newest = *self.newest.lock();
        let (covered, last) = newest.map_or((1, 0), |newest| (newest.next, newest.bytes));
        self.log.bytes_from(covered) >= self.threshold.max(last / 2)
            || self.state.has_uncovered_erasure(ERASURE_WAITS)
    }

    fn take(&self) -> Result<(), LogError> {
        // Everything before this file is in the state: the log's writer applies before it begins a new one.
        let rotated = self.log.rotate_blocking();
        let taken = rotated.and_then(|next| self.take_before(next));
        taken.inspect_err(|_| {
            self.failures.fetch_add(1, Ordering::Relaxed);
        })
    }

    fn take_before(&self, next: u64) -> Result<(), LogError> {
        let _taking = self.taking.lock();
        let covered = self.newest.lock().map_or(1, |newest| newest.next);
        if next <= covered {
            // Nothing was logged since.
            return Ok(());
        }
        let stopped = || self.stopped.load(Ordering::Acquire);
        let Some(taken) = snapshot::write(&*self.disk, &self.dir, next, &self.state, &stopped)?
        else {
            return Ok(());
        };
        *self.newest.lock() = Some(taken);
        // Only now, with the snapshot and its name on the disk, may what it covers go.
        self.log.remove_before(next)?;
        snapshot::remove_older(&*self.disk, &self.dir, next)?;
        self.state.covered(next);
        tracing::info!(bytes = taken.bytes, next, "snapshot taken");
        Ok(())
    }
}
