//! `headcount load`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use jiff::tz::TimeZone;

use super::Target;
use super::values::{delimiter, retry_time};
use crate::cli::load::{Generate, zone};

#[derive(Debug, Args)]
#[command(
    after_help = "Repeating a load changes nothing: a pair counts once however often it comes.\n\n\
                  Read as their content says, whatever their names are: NDJSON, JSON arrays, CSV and TSV; UTF-8, or UTF-16 with a byte \
                  order mark; plain, gzip or zstd.\n\n\
                  Exit code 1 when nothing was accepted, when a limit of rejected pairs is passed, or when an input can't be read to its end."
)]
pub(in crate::cli) struct LoadArgs {
    /// Files of pairs; `-` or none is standard input
    #[arg(conflicts_with = "generate")]
    pub(in crate::cli) files: Vec<PathBuf>,
    /// What the files hold [default: what their content says]
    #[arg(long, value_enum, conflicts_with = "generate")]
    pub(in crate::cli) format: Option<Format>,
    /// CSV: the column with the user's id [default: user_id]
    #[arg(long, value_name = "NAME", conflicts_with = "generate")]
    pub(in crate::cli) user_column: Option<String>,
    /// CSV: the column with the segment [default: segment]
    #[arg(long, value_name = "NAME", conflicts_with = "generate")]
    pub(in crate::cli) segment_column: Option<String>,
    /// CSV: the column with the time [default: one that is called at, timestamp, time, date, seen_at or the like]
    #[arg(long, value_name = "NAME", conflicts_with = "generate")]
    pub(in crate::cli) at_column: Option<String>,
    /// CSV: read no column as the time, so that every pair counts as seen now
    #[arg(long, conflicts_with_all = ["at_column", "generate"])]
    pub(in crate::cli) no_at_column: bool,
    /// CSV: the character between fields [default: what the header says]
    #[arg(long, value_name = "CHAR", value_parser = delimiter, conflicts_with = "generate")]
    pub(in crate::cli) delimiter: Option<u8>,
    /// Unit of times that are numbers [default: what the number of digits says]
    #[arg(long, value_enum, value_name = "UNIT", conflicts_with = "generate")]
    pub(in crate::cli) time_unit: Option<TimeUnit>,
    /// Zone of times that name none: UTC, an offset such as +02:00, or a name such as Europe/Berlin; without it they are rejected
    #[arg(long, value_name = "ZONE", value_parser = zone, allow_hyphen_values = true, conflicts_with = "generate")]
    pub(in crate::cli) zone: Option<TimeZone>,
    /// Make up pairs: pairs=1000000,users=100000,segments=200 and, if wanted, seed=1 and spread=1h
    #[arg(long, value_name = "SPEC", value_parser = Generate::parse)]
    pub(in crate::cli) generate: Option<Generate>,
    /// Read and judge everything, and send nothing
    #[arg(long)]
    pub(in crate::cli) dry_run: bool,
    /// Pairs in one request
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(in crate::cli) batch: u32,
    /// Requests under way at once
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=1_024))]
    pub(in crate::cli) connections: u32,
    /// How long to try a batch again that the service can't take now
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = retry_time)]
    pub(in crate::cli) retry_for: Duration,
    /// Stop and fail once more than so many pairs are rejected
    #[arg(long, value_name = "N")]
    pub(in crate::cli) max_rejects: Option<u64>,
    /// Load everything, then fail if a pair was rejected
    #[arg(long)]
    pub(in crate::cli) strict: bool,
    /// Write rejected pairs and why to this file, one JSON object a line
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) rejects: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
    #[command(flatten)]
    pub(in crate::cli) target: Target,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Format {
    /// One JSON object a line
    Ndjson,
    /// An array of objects, or objects over several lines
    Json,
    /// A table with a header
    Csv,
    /// The same with tabs between fields
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
