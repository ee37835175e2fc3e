//! What a load came to: for people and for scripts.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::deliver::Verdict;
use super::parcel::Parcel;
use super::reading::Reading;
use crate::cli::output::{grouped, harmless};

/// As many examples of each code as people read.
const EXAMPLES: usize = 3;
/// Inputs that are listed one by one for people.
const MOST_INPUTS: usize = 10;

/// The code of lines that this side could not send.
pub(super) const UNREADABLE: &str = "unreadable";
/// The code of rejected pairs that the service counted without naming.
const UNNAMED: &str = "not_listed";

/// What has happened so far.
#[derive(Debug, Default, Serialize)]
pub(super) struct Report {
    /// How each input was read.
    pub(super) inputs: Vec<Reading>,
    pub(super) warnings: Vec<String>,
    /// Whether nothing was sent, only judged.
    pub(super) dry_run: bool,
    pub(super) accepted: u64,
    /// How many of the accepted ones wait on the service's disk for its store.
    pub(super) spooled: u64,
    pub(super) rejected: u64,
    pub(super) rejected_by_code: BTreeMap<String, Rejects>,
    /// Rows of tables whose field for the time is empty: seen now.
    pub(super) untimed: u64,
    /// Of a dry run: the earliest and the latest time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) times: Option<[String; 2]>,
    /// Pairs that were posted without an answer that settles them.
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
    /// Notes what this side refused.
    pub(super) fn refused(&mut self, parcel: &Parcel) {
        self.untimed += parcel.untimed;
        for refused in &parcel.refused {
            self.rejected += 1;
            self.reject(UNREADABLE, parcel, refused.line, &refused.message);
        }
    }

    /// Notes what the service said about a parcel.
    pub(super) fn judged(&mut self, parcel: &Parcel, verdict: &Verdict) {
        self.requests += 1;
        self.accepted += verdict.accepted;
        self.rejected += verdict.rejected;
        if verdict.durable.as_deref() == Some("spooled") {
            self.spooled += verdict.accepted;
        }
        for error in &verdict.errors {
            let line = parcel.lines.get(error.index).copied().unwrap_or_default();
            self.reject(&error.code, parcel, line, &error.message);
        }
        let unnamed = verdict.rejected.saturating_sub(verdict.errors.len() as u64);
        if unnamed > 0 {
            self.rejected_by_code
                .entry(UNNAMED.to_owned())
                .or_default()
                .count += unnamed;
        }
    }

    fn reject(&mut self, code: &str, parcel: &Parcel, line: u64, message: &str) {
        let rejects = self.rejected_by_code.entry(harmless(code)).or_default();
        rejects.count += 1;
        if rejects.examples.len() < EXAMPLES {
            rejects.examples.push(Example {
                source: harmless(&parcel.source),
                line,
                message: harmless(message),
            });
        }
    }

    /// Whether something was odd about this input already.
    pub(super) fn has_warning_of(&self, source: &str) -> bool {
        self.warnings
            .iter()
            .any(|warning| warning.starts_with(source))
    }

    /// Notes how long everything took.
    pub(super) fn finish(&mut self, took: Duration) {
        self.seconds = took.as_secs_f64();
        let judged = (self.accepted + self.rejected) as f64;
        // Nothing is faster than the clock can tell.
        self.pairs_per_second = judged / self.seconds.max(1e-6);
    }

    /// The report as people read it.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        for reading in self.inputs.iter().take(MOST_INPUTS) {
            text += &reading.text();
        }
        let more = self.inputs.len().saturating_sub(MOST_INPUTS);
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
            text += &format!("undelivered  {undelivered}, and what was not read yet\n");
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
