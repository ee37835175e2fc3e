//! The arguments of `headcount export`.

use clap::{Args, ValueEnum};

use super::Target;

#[derive(Debug, Args)]
pub(in crate::cli) struct ExportArgs {
    /// The segment's name
    #[arg(value_name = "SEGMENT")]
    pub(in crate::cli) segment: String,
    /// Format of the users
    #[arg(long, value_enum, default_value_t)]
    pub(in crate::cli) format: ExportFormat,
    /// Window, such as 7d [default: the segment's own, or the service's]
    #[arg(long)]
    pub(in crate::cli) window: Option<String>,
    /// Print only the users after this one: the last that an earlier run printed
    #[arg(long, value_name = "USER_ID")]
    pub(in crate::cli) resume: Option<String>,
    #[command(flatten)]
    pub(in crate::cli) target: Target,
}

/// The format of the users of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(in crate::cli) enum ExportFormat {
    /// One JSON object a line
    #[default]
    Ndjson,
    /// CSV with a header row
    Csv,
}
