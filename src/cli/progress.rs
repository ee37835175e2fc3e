//! The progress bar, on a terminal only, and messages printed above it.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::output::{is_watched, note};

/// A progress bar on standard error, hidden unless that is a terminal.
#[derive(Debug, Clone)]
pub(super) struct Progress(ProgressBar);

/// What a position counts.
pub(super) enum Unit {
    Bytes,
    Pairs,
    /// Parts of which only the percentage is displayed.
    Parts,
}

impl Progress {
    /// A bar up to `total`, or a spinner if the total is unknown.
    pub(super) fn new(total: Option<u64>, unit: &Unit) -> Self {
        if !is_watched() {
            return Self(ProgressBar::hidden());
        }
        let (bar, template) = match (total, unit) {
            (Some(total), Unit::Bytes) => (
                ProgressBar::new(total),
                "{bar:30} {binary_bytes}/{binary_total_bytes}  {msg}  {eta} left",
            ),
            (Some(total), Unit::Pairs) => (
                ProgressBar::new(total),
                "{bar:30} {human_pos}/{human_len}  {msg}  {eta} left",
            ),
            (Some(total), Unit::Parts) => (
                ProgressBar::new(total),
                "{bar:30} {percent}%  {msg}  {eta} left",
            ),
            (None, _) => (ProgressBar::new_spinner(), "{spinner} {elapsed}  {msg}"),
        };
        let style = ProgressStyle::with_template(template);
        let bar = bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.enable_steady_tick(Duration::from_millis(200));
        Self(bar)
    }

    /// Sets the position, unless it is behind the current one: batches may complete out of order.
    pub(super) fn at(&self, position: u64, message: impl FnOnce() -> String) {
        if !self.0.is_hidden() {
            self.0.set_position(position.max(self.0.position()));
            self.0.set_message(message());
        }
    }

    /// Resets the bar, with another total.
    pub(super) fn begin(&self, total: u64, message: &str) {
        if !self.0.is_hidden() {
            self.0.reset();
            self.0.set_length(total);
            self.0.set_message(message.to_owned());
        }
    }

    /// Advances the position.
    pub(super) fn advance(&self, by: u64, message: impl FnOnce() -> String) {
        if !self.0.is_hidden() {
            self.0.inc(by);
            self.0.set_message(message());
        }
    }

    /// Prints a message above the bar.
    pub(super) fn note(&self, text: &str) {
        self.0.suspend(|| note(text));
    }

    /// Removes the bar.
    pub(super) fn finish(&self) {
        self.0.finish_and_clear();
    }
}
