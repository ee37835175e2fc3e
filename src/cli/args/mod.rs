//! The command-line interface: commands and their arguments.

mod export;
mod load;
mod output;
mod overlap;
mod segment;
mod stores;
mod token;
mod trend;
mod values;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub(super) use self::export::{ExportArgs, ExportFormat};
pub(super) use self::load::{Format, LoadArgs, TimeUnit};
pub(super) use self::output::{OutputArgs, OutputFormat};
pub(super) use self::overlap::OverlapArgs;
pub(super) use self::segment::{
    SegmentCommand, SegmentDeleteArgs, SegmentSetArgs, SegmentShowArgs,
};
pub(super) use self::stores::{AuditArgs, CopyArgs};
pub(super) use self::token::{
    TokenCommand, TokenFile, TokenListArgs, TokenNewArgs, TokenRevokeArgs,
};
pub(super) use self::trend::TrendArgs;
use self::values::{day_or_instant, retry_time};
use super::setting_flags::SettingFlags;

/// Exact distinct users per segment, now
#[derive(Debug, Parser)]
#[command(name = "headcount", version = telemetry::version::text(), about, long_about = None)]
#[command(after_help = "Exit codes: 0 done, 1 failed, 2 wrong usage or configuration.")]
pub(in crate::cli) struct Cli {
    #[command(subcommand)]
    pub(in crate::cli) command: Command,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Command {
    /// Run a service with generated visitors in a temporary directory, and print the address of its page
    Demo(DemoArgs),
    /// Run the service: receive pairs and return counts over HTTP
    Serve(ServeArgs),
    /// Keep live counts for services with `live = "redis"`, and publish them through Redis
    Live(ServeArgs),
    /// Recount all segments in a loop, beside services with `refresh_mode = "off"`
    Worker(ServeArgs),
    /// Print how many users segments have
    Count(CountArgs),
    /// List segments with their users
    Segments(SegmentsArgs),
    /// Print how many users segments have in common
    Overlap(OverlapArgs),
    /// Print since when counts are complete, or state it
    Coverage(CoverageArgs),
    /// Print past counts of segments
    Trend(TrendArgs),
    /// Print the users of a segment by name
    Export(ExportArgs),
    /// Show, change and erase one segment
    #[command(subcommand)]
    Segment(SegmentCommand),
    /// Post pairs from files, standard input or a generator
    Load(LoadArgs),
    /// Check a service or worker; exit code 1 if it is not healthy
    Health(HealthArgs),
    /// Create what the configured store needs: organisation, buckets, tables, tokens
    Setup(SetupArgs),
    /// Recount all segments, or one, into the cache
    Refresh(RefreshArgs),
    /// Remove expired pairs
    Archive(ArchiveArgs),
    /// Compare cached counts with recounts, or two stores
    Audit(AuditArgs),
    /// Copy all pairs from one store to another, while both may serve
    Copy(CopyArgs),
    /// Create, list and revoke the tokens of a service
    #[command(subcommand)]
    Token(TokenCommand),
    /// Print the OpenAPI document of the service
    #[command(name = "openapi")]
    OpenApi,
    /// Print every setting, its value and its source
    CheckConfig(CheckConfigArgs),
    /// Print completions for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write man pages, one per command
    Man {
        /// Directory for the pages; it is created if it is missing
        dir: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(in crate::cli) struct DemoArgs {
    /// Port on 127.0.0.1 [default: 8080, or a free port if that is in use]
    #[arg(long)]
    pub(in crate::cli) port: Option<u16>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ServeArgs {
    #[command(flatten)]
    pub(in crate::cli) settings: SettingFlags,
}

/// The service to call, and the token.
#[derive(Debug, Clone, Default, Args)]
pub(in crate::cli) struct Target {
    /// URL of the service [default: HEADCOUNT_URL; else, to read or load, http://127.0.0.1:8080]
    #[arg(long)]
    pub(in crate::cli) url: Option<String>,
    /// Token for the service. Every user of this machine can see it in the list of processes: prefer --token-file,
    /// HEADCOUNT_TOKEN_FILE or HEADCOUNT_TOKEN
    #[arg(long)]
    pub(in crate::cli) token: Option<String>,
    /// File to read the token from [default: HEADCOUNT_TOKEN_FILE]
    #[arg(long, value_name = "FILE", conflicts_with = "token")]
    pub(in crate::cli) token_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct CountArgs {
    /// The segments' names
    #[arg(
        required_unless_present = "expr",
        conflicts_with = "expr",
        value_name = "SEGMENT"
    )]
    pub(in crate::cli) segments: Vec<String>,
    /// Count the users of a set of segments, such as 'news AND (sports OR "front page") NOT cars'; * is everybody
    #[arg(long)]
    pub(in crate::cli) expr: Option<String>,
    /// Count over this window, such as 7d [default: the segment's own, or the service's]
    #[arg(long)]
    pub(in crate::cli) window: Option<String>,
    /// Count in the store, bypassing all caches
    #[arg(long)]
    pub(in crate::cli) fresh: bool,
    #[command(flatten)]
    pub(in crate::cli) output: OutputArgs,
    #[command(flatten)]
    pub(in crate::cli) target: Target,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct CoverageArgs {
    /// State that the store has every pair that was seen between this time and now: a day, from its start in UTC, or a time such
    /// as 2026-11-15T08:00:00Z
    #[arg(long, value_name = "TIME", value_parser = day_or_instant)]
    pub(in crate::cli) since: Option<String>,
    /// Print the service's JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
    #[command(flatten)]
    pub(in crate::cli) target: Target,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct SegmentsArgs {
    /// Only segments whose name begins with this
    #[arg(long)]
    pub(in crate::cli) prefix: Option<String>,
    /// Only segments whose name has this part; upper and lower case are the same
    #[arg(long, value_name = "PART")]
    pub(in crate::cli) search: Option<String>,
    /// Order: by name, or most users first
    #[arg(long, value_enum)]
    pub(in crate::cli) sort: Option<Sort>,
    /// Maximum number of segments
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub(in crate::cli) limit: Option<u64>,
    /// Continue until Ctrl-C: a table on a terminal (20 rows without --limit), a line for each change elsewhere
    #[arg(long)]
    pub(in crate::cli) watch: bool,
    #[command(flatten)]
    pub(in crate::cli) output: OutputArgs,
    #[command(flatten)]
    pub(in crate::cli) target: Target,
}

impl SegmentsArgs {
    /// All segments of a service, by name.
    pub(in crate::cli) fn everything() -> Self {
        Self {
            prefix: None,
            search: None,
            sort: None,
            limit: None,
            watch: false,
            output: OutputArgs::default(),
            target: Target::default(),
        }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(in crate::cli) enum Sort {
    Name,
    Users,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct HealthArgs {
    /// Check readiness: whether it can accept pairs or serve counts now
    #[arg(long)]
    pub(in crate::cli) ready: bool,
    /// Print the service's JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
    #[command(flatten)]
    pub(in crate::cli) target: Target,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct SetupArgs {
    /// Also create a token for the service and a read-only token, and print them once
    #[arg(long)]
    pub(in crate::cli) tokens: bool,
    /// Write these tokens to DIR/service.token and DIR/reader.token instead of printing them
    #[arg(long, value_name = "DIR", conflicts_with = "tokens")]
    pub(in crate::cli) tokens_dir: Option<PathBuf>,
    /// How long to retry while the service or the store can't be reached
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = retry_time)]
    pub(in crate::cli) retry_for: Duration,
    /// Print JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
    #[command(flatten)]
    pub(in crate::cli) settings: SettingFlags,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct RefreshArgs {
    /// Recount only this segment
    #[arg(long)]
    pub(in crate::cli) segment: Option<String>,
    /// How long to retry while the service or the store can't be reached
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = retry_time)]
    pub(in crate::cli) retry_for: Duration,
    /// Print JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
    #[command(flatten)]
    pub(in crate::cli) target: Target,
    #[command(flatten)]
    pub(in crate::cli) settings: SettingFlags,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ArchiveArgs {
    /// How long to retry while the service or the store can't be reached
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = retry_time)]
    pub(in crate::cli) retry_for: Duration,
    /// Print JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
    #[command(flatten)]
    pub(in crate::cli) target: Target,
    #[command(flatten)]
    pub(in crate::cli) settings: SettingFlags,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct CheckConfigArgs {
    /// Print JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
    #[command(flatten)]
    pub(in crate::cli) settings: SettingFlags,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_fits_together() {
        Cli::command().debug_assert();
    }
}
