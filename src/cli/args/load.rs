//! `headcount load`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::Target;
use super::values::{delimiter, retry_time};
use crate::cli::load::Generate;

#[derive(Debug, Args)]
pub(in crate::cli) struct LoadArgs {
    /// Files of pairs, gzip where named .gz; `-` or none is standard input
    #[arg(conflicts_with = "generate")]
    pub(in crate::cli) files: Vec<PathBuf>,
    /// What the files hold [default: by the name's ending, else ndjson]
    #[arg(long, value_enum, conflicts_with = "generate")]
    pub(in crate::cli) format: Option<Format>,
    /// CSV: the column with the user's id
    #[arg(long, value_name = "NAME", default_value = "user_id")]
    pub(in crate::cli) user_column: String,
    /// CSV: the column with the segment
    #[arg(long, value_name = "NAME", default_value = "segment")]
    pub(in crate::cli) segment_column: String,
    /// CSV: the column with the time, RFC 3339 or unix seconds [default: at where there is one]
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) at_column: Option<String>,
    /// CSV: the character between fields
    #[arg(long, value_name = "CHAR", default_value = ",", value_parser = delimiter)]
    pub(in crate::cli) delimiter: u8,
    /// Make up pairs: pairs=1000000,users=100000,segments=200 and, if wanted, seed=1 and spread=1h
    #[arg(long, value_name = "SPEC", value_parser = Generate::parse)]
    pub(in crate::cli) generate: Option<Generate>,
    /// Pairs in one request
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(in crate::cli) batch: u32,
    /// Requests under way at once
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=1_024))]
    pub(in crate::cli) connections: u32,
    /// How long to try a batch again that the service can't take now
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = retry_time)]
    pub(in crate::cli) retry_for: Duration,
    /// Fail when a pair is rejected
    #[arg(long)]
    pub(in crate::cli) strict: bool,
    /// Print JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
    #[command(flatten)]
    pub(in crate::cli) target: Target,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Format {
    Ndjson,
    Csv,
}
