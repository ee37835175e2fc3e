//! What the command line looks like.

mod load;
mod stores;
mod token;
mod values;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub(super) use self::load::{Format, LoadArgs, TimeUnit};
pub(super) use self::stores::{AuditArgs, CopyArgs};
pub(super) use self::token::{
    TokenCommand, TokenFile, TokenListArgs, TokenNewArgs, TokenRevokeArgs,
};
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
    /// Serve made-up pairs that keep coming, and print the address of the page
    Demo(DemoArgs),
    /// Take pairs in and answer counts over HTTP
    Serve(ServeArgs),
    /// Recount all segments again and again, beside services that don't
    Worker(ServeArgs),
    /// Print how many users a segment has
    Count(CountArgs),
    /// List segments with their users
    Segments(SegmentsArgs),
    /// Post pairs from files, standard input or a generator
    Load(LoadArgs),
    /// Ask a service or worker whether it is well; exit code 1 when it is not
    Health(HealthArgs),
    /// Make what the configured store needs: organisation, buckets, tokens
    Setup(SetupArgs),
    /// Recount all segments, or one, into the cache
    Refresh(RefreshArgs),
    /// Remove pairs that no window can reach any more
    Archive(ArchiveArgs),
    /// Recount segments and judge cached counts by it, or compare two stores
    Audit(AuditArgs),
    /// Copy all pairs from one store to another, while both may serve
    Copy(CopyArgs),
    /// Make, list and revoke the tokens that a service asks for
    #[command(subcommand)]
    Token(TokenCommand),
    /// Print the OpenAPI document of the service
    #[command(name = "openapi")]
    OpenApi,
    /// Print every setting, its value and where it comes from
    CheckConfig(CheckConfigArgs),
}

#[derive(Debug, Args)]
pub(in crate::cli) struct DemoArgs {
    /// Port of 127.0.0.1 [default: 8080, or another where that is taken]
    #[arg(long)]
    pub(in crate::cli) port: Option<u16>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ServeArgs {
    #[command(flatten)]
    pub(in crate::cli) settings: SettingFlags,
}

/// Which service, and as whom.
#[derive(Debug, Clone, Default, Args)]
pub(in crate::cli) struct Target {
    /// URL of the service [default: HEADCOUNT_URL; else, to read or load, http://127.0.0.1:8080]
    #[arg(long)]
    pub(in crate::cli) url: Option<String>,
    /// Token for the service, which every user of this machine can then see in the list of processes: rather give
    /// --token-file, HEADCOUNT_TOKEN_FILE or HEADCOUNT_TOKEN
    #[arg(long)]
    pub(in crate::cli) token: Option<String>,
    /// File to read the token from [default: HEADCOUNT_TOKEN_FILE]
    #[arg(long, value_name = "FILE", conflicts_with = "token")]
    pub(in crate::cli) token_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct CountArgs {
    /// The segment's name
    pub(in crate::cli) segment: String,
    /// Count over this window, such as 7d [default: the service's]
    #[arg(long)]
    pub(in crate::cli) window: Option<String>,
    /// Count in the store, past all caches
    #[arg(long)]
    pub(in crate::cli) fresh: bool,
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
    /// Order: by name, or most users first
    #[arg(long, value_enum)]
    pub(in crate::cli) sort: Option<Sort>,
    /// At most so many segments
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub(in crate::cli) limit: Option<u64>,
    /// Go on until Ctrl-C: a table drawn anew on a terminal (20 rows without --limit), a line for each change elsewhere
    #[arg(long)]
    pub(in crate::cli) watch: bool,
    /// Print JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
    #[command(flatten)]
    pub(in crate::cli) target: Target,
}

impl SegmentsArgs {
    /// All segments of a service, by name.
    pub(in crate::cli) fn everything() -> Self {
        Self {
            prefix: None,
            sort: None,
            limit: None,
            watch: false,
            json: true,
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
    /// Ask whether it can serve pairs or counts now, not only whether it lives
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
    /// Also make a token for the service and one that may only read, and print them once
    #[arg(long)]
    pub(in crate::cli) tokens: bool,
    /// Keep these tokens as DIR/service.token and DIR/reader.token instead of printing them
    #[arg(long, value_name = "DIR", conflicts_with = "tokens")]
    pub(in crate::cli) tokens_dir: Option<PathBuf>,
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
