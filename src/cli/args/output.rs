//! How a result is printed.

use clap::{Args, ValueEnum};

/// How a result is printed.
#[derive(Debug, Clone, Copy, Default, Args)]
pub(in crate::cli) struct OutputArgs {
    /// Format of the result
    #[arg(long, value_enum, default_value_t)]
    format: OutputFormat,
    /// Print JSON, the same as --format json
    #[arg(long, conflicts_with = "format")]
    json: bool,
    /// Print no notes to standard error, only failures
    #[arg(long, short)]
    pub(in crate::cli) quiet: bool,
}

/// The format of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(in crate::cli) enum OutputFormat {
    /// For people
    #[default]
    Table,
    /// The service's JSON
    Json,
    /// The service's CSV, with a header row
    Csv,
}

impl OutputArgs {
    /// The chosen format.
    pub(in crate::cli) fn format(self) -> OutputFormat {
        match self.json {
            true => OutputFormat::Json,
            false => self.format,
        }
    }

    #[cfg(test)]
    pub(in crate::cli) fn in_format(format: OutputFormat) -> Self {
        Self {
            format,
            ..Self::default()
        }
    }
}
