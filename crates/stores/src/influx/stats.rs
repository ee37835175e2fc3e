//! Counters of the write path.

use std::sync::atomic::{AtomicU64, Ordering};

/// Live counters of the write path since the store was opened.
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

/// The counters of the write path since the store was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct InfluxStats {
    /// Lines that the server accepted.
    pub written: u64,
    /// Write requests that the server accepted, each with many lines.
    pub bodies: u64,
    /// Retries of writes.
    pub retries: u64,
    /// Lines that the server dropped because they were older than its retention.
    pub expired: u64,
    /// Lines within the window that the server dropped because of their age.
    pub dropped_in_window: u64,
    /// Lines that the server refused permanently.
    pub refused: u64,
    /// Refused lines that were not written to a dead-letter file.
    pub dead_letter_lost: u64,
}

impl Counters {
    /// Adds `lines` to a counter.
    pub(super) fn add(counter: &AtomicU64, lines: usize) {
        counter.fetch_add(lines as u64, Ordering::Relaxed);
    }

    /// The current values.
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
