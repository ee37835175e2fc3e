//! The report of a load, as text and as JSON.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::batch::Batch;
use super::deliver::PairsResponse;
use super::reading::Reading;
use crate::cli::output::{grouped, sanitized};

/// The maximum number of examples per error code.
const EXAMPLES: usize = 3;
/// The maximum number of inputs that the text lists.
const MAX_INPUTS: usize = 10;

/// The error code of lines that could not be sent.
pub(super) const UNREADABLE: &str = "unreadable";
/// The error code of rejected pairs that a service of version 0.1.0 counted but did not list.
const UNNAMED: &str = "not_listed";

/// The totals so far.
#[derive(Debug, Default, Serialize)]
pub(super) struct Report {
    /// How each input was read.
    pub(super) inputs: Vec<Reading>,
    pub(super) warnings: Vec<String>,
    /// Whether pairs were only checked and not sent.
    pub(super) dry_run: bool,
    pub(super) accepted: u64,
    /// How many accepted pairs wait in the service's spool until its store is available.
    pub(super) spooled: u64,
    pub(super) rejected: u64,
    pub(super) rejected_by_code: BTreeMap<String, Rejects>,
    /// Rows of tables whose time is empty, which count as seen now.
    pub(super) untimed: u64,
    /// The earliest and the latest time, in a dry run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) times: Option<[String; 2]>,
    /// Pairs that were posted and whose result is unknown.
    pub(super) undelivered: u64,
    pub(super) requests: u64,
    pub(super) retries: u64,
    pub(super) seconds: f64,
    pub(super) pairs_per_second: f64,
}

/// The rejected pairs of one code.
#[derive(Debug, Default, Serialize)]
pub(super) struct Rejects {
    count: u64,
    examples: Vec<Example>,
}

#[derive(Debug, Serialize)]
struct Example {
    source: String,
    line: u64,
    message: String,
}

impl Report {
    /// Adds the lines of a batch that could not be sent.
    pub(super) fn refused(&mut self, batch: &Batch) {
        self.untimed += batch.untimed;
        for refused in &batch.refused {
            self.rejected += 1;
            self.reject(UNREADABLE, batch, refused.line, &refused.message);
        }
    }

    /// Adds the service's response to a batch.
    pub(super) fn add_response(&mut self, batch: &Batch, response: &PairsResponse) {
        self.requests += 1;
        self.accepted += response.accepted;
        self.rejected += response.rejected;
        if response.durable.as_deref() == Some("spooled") {
            self.spooled += response.accepted;
        }
        for error in &response.errors {
            let line = batch.lines.get(error.index).copied().unwrap_or_default();
            self.reject(&error.code, batch, line, &error.message);
        }
        let mut unlisted = response
            .rejected
            .saturating_sub(response.errors.len() as u64);
        for (code, pairs) in &response.codes {
            let listed = response.errors.iter().filter(|error| error.code == *code);
            let more = pairs.saturating_sub(listed.count() as u64);
            unlisted = unlisted.saturating_sub(more);
            self.count(code, more);
        }
        self.count(UNNAMED, unlisted);
    }

    fn count(&mut self, code: &str, more: u64) {
        if more > 0 {
            let rejects = self.rejected_by_code.entry(sanitized(code)).or_default();
            rejects.count += more;
        }
    }

    fn reject(&mut self, code: &str, batch: &Batch, line: u64, message: &str) {
        let rejects = self.rejected_by_code.entry(sanitized(code)).or_default();
        rejects.count += 1;
        if rejects.examples.len() < EXAMPLES {
            rejects.examples.push(Example {
                source: sanitized(&batch.source),
                line,
                message: sanitized(message),
            });
        }
    }

    /// Whether there is a warning about this input already.
    pub(super) fn has_warning_of(&self, source: &str) -> bool {
        self.warnings
            .iter()
            .any(|warning| warning.starts_with(source))
    }

    /// The number of rejected pairs without those of `code`.
    pub(super) fn rejected_but(&self, code: &str) -> u64 {
        let of_code = self.rejected_by_code.get(code);
        self.rejected - of_code.map_or(0, |rejects| rejects.count)
    }

    /// Sets the duration and the rate.
    pub(super) fn finish(&mut self, took: Duration) {
        self.seconds = took.as_secs_f64();
        let total = (self.accepted + self.rejected) as f64;
        // The clock's resolution bounds the rate; this also avoids a division by zero.
        self.pairs_per_second = total / self.seconds.max(1e-6);
    }

    /// The report as text.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        for reading in self.inputs.iter().take(MAX_INPUTS) {
            text += &reading.text();
        }
        let more = self.inputs.len().saturating_sub(MAX_INPUTS);
        if more > 0 {
            text += &format!("  and        {more} more inputs\n");
        }
        if self.dry_run {
            text += "dry run      nothing was sent\n";
        }
        text += &format!("accepted     {}\n", grouped(self.accepted));
        if self.spooled > 0 {
            text += &format!(
                "  of which   {} wait in the service's spool\n",
                grouped(self.spooled)
            );
        }
        if self.untimed > 0 {
            let untimed = grouped(self.untimed);
            text += &format!("  no time    {untimed}, which count as seen now\n");
        }
        if let Some([first, last]) = &self.times {
            text += &format!("  times      {first} to {last}\n");
        }
        text += &format!("rejected     {}\n", grouped(self.rejected));
        for (code, rejects) in &self.rejected_by_code {
            text += &format!("  {code}: {}\n", grouped(rejects.count));
            for example in &rejects.examples {
                let Example {
                    source,
                    line,
                    message,
                } = example;
                text += &format!("    {source}:{line}: {message}\n");
            }
        }
        if self.undelivered > 0 {
            let undelivered = grouped(self.undelivered);
            text += &format!("undelivered  {undelivered}, and the input that was not read\n");
        }
        let rate = grouped(self.pairs_per_second.round() as u64);
        text += &format!("took         {:.1} s, {rate} pairs/s", self.seconds);
        if self.retries > 0 {
            text += &format!(", {} retries", grouped(self.retries));
        }
        text.push('\n');
        text
    }
}
