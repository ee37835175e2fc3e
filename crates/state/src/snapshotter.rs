//! Takes a snapshot when the log has grown or an erasure has waited long enough, on a thread of its own.

use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use jiff::SignedDuration;
use parking_lot::Mutex;

use super::flows::MarkedFlows;
use super::record;
use super::snapshot::{self, Calls, Snapshot};
use super::state::State;
use domain::Timestamp;
use index::Flows;
use wal::{Disk, Log, LogError};

/// How often the thread checks whether a snapshot is due. The log grows by about 12 MB/s at full load, so once a second
/// is often enough, and costs the writers nothing.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The longest time that an erasure waits for a snapshot: only a snapshot removes the user's fingerprint from the disk.
const MAX_ERASURE_WAIT: Duration = Duration::from_secs(1_800);
/// The snapshot after an erasure is complete after this time at the latest, which includes the time to take it.
pub const AFTER_ERASURE: SignedDuration = SignedDuration::from_hours(1);

/// The backoff after a failure. Each attempt starts a new log file and writes until it fails: on a full disk, frequent
/// attempts would take space from the log.
const RETRY: Duration = Duration::from_secs(30);

/// Owns the snapshot thread.
#[derive(Debug)]
pub struct Snapshotter {
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
    /// Held while a snapshot is taken, so that there is one at a time.
    taking: Mutex<()>,
    stopped: AtomicBool,
    failures: AtomicU64,
}

impl Snapshotter {
    pub(super) fn start(
        dir: PathBuf,
        disk: Arc<dyn Disk>,
        threshold: u64,
        state: Arc<State>,
        log: Arc<Log>,
        newest: Option<Snapshot>,
    ) -> Result<Self, LogError> {
        let work = Arc::new(Work {
            dir,
            disk,
            state,
            log,
            threshold,
            newest: Mutex::new(newest),
            taking: Mutex::new(()),
            stopped: AtomicBool::new(false),
            failures: AtomicU64::new(0),
        });
        let (stop, stopping) = mpsc::channel();
        let shared = Arc::clone(&work);
        let run = move || {
            let mut wait = CHECK_INTERVAL;
            while let Err(RecvTimeoutError::Timeout) = stopping.recv_timeout(wait) {
                wait = shared.check_and_catch_panics();
            }
        };
        let thread = std::thread::Builder::new()
            .name("snapshotter".to_owned())
            .spawn(run);
        let thread =
            thread.map_err(|error| LogError::io("start a thread for", &work.dir, &error))?;
        Ok(Self {
            work,
            thread: Mutex::new(Some((stop, thread))),
        })
    }

    /// Returns a closure that takes a snapshot now; it blocks.
    pub fn take(&self) -> impl FnOnce() -> Result<(), LogError> + Send + use<> {
        let work = Arc::clone(&self.work);
        move || work.take()
    }

    /// The age of the newest snapshot.
    pub fn age(&self) -> Option<Duration> {
        let begun = (*self.work.newest.lock())?.begun;
        Some(Duration::try_from(Timestamp::now().duration_since(begun)).unwrap_or_default())
    }

    /// The number of failed snapshots.
    pub fn failures(&self) -> u64 {
        self.work.failures.load(Ordering::Relaxed)
    }

    /// Takes the snapshot that covers the log files before `next`.
    pub fn take_before(&self, next: u64) -> Result<(), LogError> {
        self.work.take_before(next)
    }

    /// Abandons a snapshot in progress, and returns a closure that ends the thread; it blocks.
    pub fn stop(&self) -> impl FnOnce() + Send + use<> {
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
            // A requested snapshot may be in progress on another thread.
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
    /// Counts a panic, which is a bug, as a failed snapshot, so that the checks continue.
    fn check_and_catch_panics(&self) -> Duration {
        std::panic::catch_unwind(AssertUnwindSafe(|| self.check())).unwrap_or_else(|_| {
            self.failures.fetch_add(1, Ordering::Relaxed);
            tracing::error!("taking a snapshot panicked; the message is on standard error");
            RETRY
        })
    }

    /// Takes a snapshot if one is due. Returns the time until the next check.
    fn check(&self) -> Duration {
        if !self.is_due() {
            return CHECK_INTERVAL;
        }
        match self.take() {
            Ok(()) => CHECK_INTERVAL,
            Err(error) => {
                tracing::error!(%error, "a snapshot failed; the log grows until one succeeds");
                RETRY
            }
        }
    }

    fn is_due(&self) -> bool {
        let newest = *self.newest.lock();
        let (covered, last) = newest.map_or((1, 0), |newest| (newest.next, newest.bytes));
        self.log.bytes_from(covered) >= self.threshold.max(last / 2)
            || self.state.has_uncovered_erasure(MAX_ERASURE_WAIT)
    }

    fn take(&self) -> Result<(), LogError> {
        // The state contains everything before this file: the log's writer applies all records before it starts a new
        // file.
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
            // Nothing was logged since the last snapshot.
            return Ok(());
        }
        let calls = Calls {
            stopped: &|| self.stopped.load(Ordering::Acquire),
            mark: &|| self.mark(),
        };
        let Some(taken) = snapshot::write(&*self.disk, &self.dir, next, &self.state, calls)? else {
            return Ok(());
        };
        *self.newest.lock() = Some(taken);
        // The covered files may be removed only after the snapshot and its name are on disk.
        self.log.remove_before(next)?;
        snapshot::remove_older(&*self.disk, &self.dir, next)?;
        self.state.covered(next);
        tracing::info!(bytes = taken.bytes, next, "snapshot taken");
        Ok(())
    }

    /// The counters of who entered and left, as of a mark in the log. A log that can't be written must not prevent a
    /// snapshot, which frees space. Then the counters begin again at the next start.
    fn mark(&self) -> Result<Option<MarkedFlows<Flows>>, LogError> {
        match self.log.append_blocking(record::mark()) {
            Ok(at) => Ok(self.state.flows.lock().take_marked(at)),
            Err(LogError::Closed) => Err(LogError::Closed),
            Err(error) => {
                tracing::warn!(%error, "the snapshot lacks the counters of users who entered and left");
                Ok(None)
            }
        }
    }
}
