//! The progress of a copy.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::cli::output::grouped;
use crate::cli::progress::{Progress, Unit};
use domain::store::StoreError;
use tools::transfer::{Step, TransferObserver};

/// The interval between messages about retries while a store is unavailable.
const QUIET: Duration = Duration::from_secs(5);

/// Displays the progress of a copy and counts retries.
#[derive(Debug)]
pub(super) struct Watcher {
    progress: Progress,
    step: Mutex<Option<Step>>,
    pairs: AtomicU64,
    retries: AtomicU64,
    noted: Mutex<Option<Instant>>,
}

impl Default for Watcher {
    fn default() -> Self {
        Self {
            progress: Progress::new(Some(0), &Unit::Parts),
            step: Mutex::default(),
            pairs: AtomicU64::default(),
            retries: AtomicU64::default(),
            noted: Mutex::default(),
        }
    }
}

impl Watcher {
    /// The number of retries so far.
    pub(super) fn retries(&self) -> u64 {
        self.retries.load(Ordering::Relaxed)
    }

    pub(super) fn finish(&self) {
        self.progress.finish();
    }

    fn message(&self) -> String {
        let pairs = grouped(self.pairs.load(Ordering::Relaxed));
        match *self.step.lock() {
            None => String::new(),
            Some(Step::Copying) => format!("copying, {pairs} pairs"),
            Some(Step::CatchingUp) => format!("catching up, {pairs} pairs"),
            Some(Step::Comparing) => "comparing counts".to_owned(),
        }
    }

    pub(super) fn retrying(&self, error: &StoreError, wait: Duration) {
        self.retries.fetch_add(1, Ordering::Relaxed);
        let mut noted = self.noted.lock();
        if noted.is_none_or(|at| at.elapsed() >= QUIET) {
            *noted = Some(Instant::now());
            let wait = wait.as_secs_f64();
            self.progress
                .note(&format!("{error}; retrying in {wait:.1} s"));
        }
    }
}

impl TransferObserver for Watcher {
    fn begins(&self, step: Step, parts: u64) {
        *self.step.lock() = Some(step);
        self.progress.begin(parts, &self.message());
    }

    fn moved(&self, parts: u64, pairs: u64) {
        self.pairs.fetch_add(pairs, Ordering::Relaxed);
        self.progress.advance(parts, || self.message());
    }
}
