//! What the writing side has done so far.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters of the writing side, all of them since the store was opened.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) written: AtomicU64,
    pub(super) bodies: AtomicU64,
    pub(super) retries: AtomicU64,
    pub(super) expired: AtomicU64,
    pub(super) dropped_in_window: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) dead_letter_lost: AtomicU64,
}

/// What the writing side has done since the store was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct InfluxStats {
    /// Lines that the server took.
    pub written: u64,
    /// Writes that the server took, each of many lines.
    pub bodies: u64,
    /// Tries after the first.
    pub retries: u64,
    /// Lines that the server dropped because they were older than its retention.
    pub expired: u64,
    /// Lines that the server dropped for their age although they lie within the window.
    pub dropped_in_window: u64,
    /// Lines that the server refuses.
    pub refused: u64,
    /// Refused lines that no dead-letter file took.
    pub dead_letter_lost: u64,
}

impl Counters {
    /// Adds `lines` to a counter.
    pub(super) fn add(counter: &AtomicU64, lines: usize) {
        counter.fetch_add(lines as u64, Ordering::Relaxed);
    }

    /// The counters now.
    pub(super) fn read(&self) -> InfluxStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        InfluxStats {
            written: read(&self.written),
            bodies: read(&self.bodies),
            retries: read(&self.retries),
            expired: read(&self.expired),
            dropped_in_window: read(&self.dropped_in_window),
            refused: read(&self.refused),
            dead_letter_lost: read(&self.dead_letter_lost),
        }
    }
}
