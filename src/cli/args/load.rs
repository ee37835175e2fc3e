//! `headcount load`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use jiff::tz::TimeZone;

use super::Target;
use super::values::{day_or_instant, delimiter, retry_time};
use crate::cli::load::{Generate, zone};

#[derive(Debug, Args)]
#[command(
    after_help = "Repeating a load has no effect: a repeated pair counts once.\n\n\
                  Formats are detected from the content, whatever the names: NDJSON, JSON arrays, CSV and TSV; UTF-8, or UTF-16 with a \
                  byte order mark; plain, gzip or zstd.\n\n\
                  Exit code 1 if nothing was accepted, if too many pairs were rejected, or if an input can't be read to its end."
)]
pub(in crate::cli) struct LoadArgs {
    /// Files of pairs [default: `-`, standard input]
    #[arg(conflicts_with = "generate")]
    pub(in crate::cli) files: Vec<PathBuf>,
    /// Format of the files [default: detected from the content]
    #[arg(long, value_enum, conflicts_with = "generate")]
    pub(in crate::cli) format: Option<Format>,
    /// CSV: the column with the user id [default: user_id]
    #[arg(long, value_name = "NAME", conflicts_with = "generate")]
    pub(in crate::cli) user_column: Option<String>,
    /// CSV: the column with the segment [default: segment]
    #[arg(long, value_name = "NAME", conflicts_with = "generate")]
    pub(in crate::cli) segment_column: Option<String>,
    /// CSV: the column with the time [default: a column named at, timestamp, time, date, seen_at or similar]
    #[arg(long, value_name = "NAME", conflicts_with = "generate")]
    pub(in crate::cli) at_column: Option<String>,
    /// CSV: no column is the time, and every pair counts as seen now
    #[arg(long, conflicts_with_all = ["at_column", "generate"])]
    pub(in crate::cli) no_at_column: bool,
    /// CSV: the character between fields [default: detected from the header]
    #[arg(long, value_name = "CHAR", value_parser = delimiter, conflicts_with = "generate")]
    pub(in crate::cli) delimiter: Option<u8>,
    /// Unit of times that are numbers [default: derived from the number of digits]
    #[arg(long, value_enum, value_name = "UNIT", conflicts_with = "generate")]
    pub(in crate::cli) time_unit: Option<TimeUnit>,
    /// Zone of times without one: UTC, an offset such as +02:00, or a name such as Europe/Berlin [default: reject them]
    #[arg(long, value_name = "ZONE", value_parser = zone, allow_hyphen_values = true, conflicts_with = "generate")]
    pub(in crate::cli) zone: Option<TimeZone>,
    /// Generate pairs: pairs=1000000,users=100000,segments=200, optionally with seed=1 and spread=1h
    #[arg(long, value_name = "SPEC", value_parser = Generate::parse)]
    pub(in crate::cli) generate: Option<Generate>,
    /// Read and check everything, but send nothing
    #[arg(long)]
    pub(in crate::cli) dry_run: bool,
    /// Pairs in one request
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(in crate::cli) batch: u32,
    /// Concurrent requests
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=1_024))]
    pub(in crate::cli) connections: u32,
    /// How long to retry a batch while the service is unavailable or overloaded
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = retry_time)]
    pub(in crate::cli) retry_for: Duration,
    /// Stop and fail once more than N pairs are rejected
    #[arg(long, value_name = "N")]
    pub(in crate::cli) max_rejects: Option<u64>,
    /// Load everything, then fail if a pair was rejected
    #[arg(long)]
    pub(in crate::cli) strict: bool,
    /// Write rejected pairs with the reason to this file, one JSON object per line
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) rejects: Option<PathBuf>,
    /// After the load, state that the store has every pair that was seen between TIME and now, unless a pair was rejected
    /// for another reason than its age. TIME is a day, from its start in UTC, or a time such as 2026-11-15T08:00:00Z
    #[arg(long, value_name = "TIME", value_parser = day_or_instant, conflicts_with_all = ["dry_run", "generate"])]
    pub(in crate::cli) covers_since: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
    #[command(flatten)]
    pub(in crate::cli) target: Target,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Format {
    /// One JSON object per line
    Ndjson,
    /// An array of objects, or objects over several lines
    Json,
    /// A table with a header
    Csv,
    /// A table with a header, with tabs between fields
    Tsv,
}

/// The unit of a unix time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum TimeUnit {
    /// Seconds
    S,
    /// Milliseconds
    Ms,
    /// Microseconds
    Us,
    /// Nanoseconds
    Ns,
}
