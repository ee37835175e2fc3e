//! What the command line looks like.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::load::Generate;
use super::setting_flags::SettingFlags;
use crate::auth::{MAX_RATE, Scope};
use crate::config::StoreKind;

/// Exact distinct users per segment, now
#[derive(Debug, Parser)]
#[command(name = "headcount", version, about, long_about = None)]
#[command(after_help = "Exit codes: 0 done, 1 failed, 2 wrong usage or configuration.")]
pub(super) struct Cli {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
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
pub(super) struct DemoArgs {
    /// Port of 127.0.0.1 [default: 8080, or another where that is taken]
    #[arg(long)]
    pub(super) port: Option<u16>,
}

#[derive(Debug, Args)]
pub(super) struct ServeArgs {
    #[command(flatten)]
    pub(super) settings: SettingFlags,
}

/// Which service, and as whom.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct Target {
    /// URL of the service [default: HEADCOUNT_URL; else, to read or load, http://127.0.0.1:8080]
    #[arg(long)]
    pub(super) url: Option<String>,
    /// Token for the service [default: HEADCOUNT_TOKEN, which other users of the machine can't see]
    #[arg(long)]
    pub(super) token: Option<String>,
    /// File to read the token from [default: HEADCOUNT_TOKEN_FILE]
    #[arg(long, value_name = "FILE", conflicts_with = "token")]
    pub(super) token_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(super) enum TokenCommand {
    /// Make a token, print it once, and keep its digest
    New(TokenNewArgs),
    /// List the tokens; they themselves are not kept
    List(TokenListArgs),
    /// Take a token back
    Revoke(TokenRevokeArgs),
}

/// Which tokens file.
#[derive(Debug, Args)]
pub(super) struct TokenFile {
    /// The tokens file [default: the setting `tokens_file`]
    #[arg(long, value_name = "FILE")]
    pub(super) tokens_file: Option<PathBuf>,
    /// Settings file [default: headcount.toml where present]
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct TokenNewArgs {
    /// What to call it: a word that says who will use it
    #[arg(long)]
    pub(super) name: String,
    /// What it allows, with commas between; none includes another
    #[arg(long, value_enum, value_delimiter = ',', required = true)]
    pub(super) scope: Vec<Scope>,
    /// How long it is valid, such as 90d [default: until it is revoked]
    #[arg(long, value_name = "DURATION", value_parser = lifetime)]
    pub(super) expires_in: Option<Duration>,
    /// Requests a second that it may send [default: the service's `limit_requests`]
    #[arg(long, value_name = "N", value_parser = rate)]
    pub(super) limit_requests: Option<NonZeroU32>,
    /// Pairs a second that it may send [default: the service's `limit_pairs`]
    #[arg(long, value_name = "N", value_parser = rate)]
    pub(super) limit_pairs: Option<NonZeroU32>,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) file: TokenFile,
}

#[derive(Debug, Args)]
pub(super) struct TokenListArgs {
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) file: TokenFile,
}

#[derive(Debug, Args)]
pub(super) struct TokenRevokeArgs {
    /// The token's name
    #[arg(long)]
    pub(super) name: String,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) file: TokenFile,
}

#[derive(Debug, Args)]
pub(super) struct CountArgs {
    /// The segment's name
    pub(super) segment: String,
    /// Count over this window, such as 7d [default: the service's]
    #[arg(long)]
    pub(super) window: Option<String>,
    /// Count in the store, past all caches
    #[arg(long)]
    pub(super) fresh: bool,
    /// Print the service's JSON
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) target: Target,
}

#[derive(Debug, Args)]
pub(super) struct SegmentsArgs {
    /// Only segments whose name begins with this
    #[arg(long)]
    pub(super) prefix: Option<String>,
    /// Order: by name, or most users first
    #[arg(long, value_enum)]
    pub(super) sort: Option<Sort>,
    /// At most so many segments
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) limit: Option<u64>,
    /// Go on until Ctrl-C: a table drawn anew on a terminal (20 rows without --limit), a line for each change elsewhere
    #[arg(long)]
    pub(super) watch: bool,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) target: Target,
}

impl SegmentsArgs {
    /// All segments of a service, by name.
    pub(super) fn everything() -> Self {
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
pub(super) enum Sort {
    Name,
    Users,
}

#[derive(Debug, Args)]
pub(super) struct HealthArgs {
    /// Ask whether it can serve pairs or counts now, not only whether it lives
    #[arg(long)]
    pub(super) ready: bool,
    /// Print the service's JSON
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) target: Target,
}

#[derive(Debug, Args)]
pub(super) struct SetupArgs {
    /// Also make a token for the service and one that may only read, and print them once
    #[arg(long)]
    pub(super) tokens: bool,
    /// Keep these tokens as DIR/service.token and DIR/reader.token instead of printing them
    #[arg(long, value_name = "DIR", conflicts_with = "tokens")]
    pub(super) tokens_dir: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) settings: SettingFlags,
}

#[derive(Debug, Args)]
pub(super) struct RefreshArgs {
    /// Recount only this segment
    #[arg(long)]
    pub(super) segment: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) target: Target,
    #[command(flatten)]
    pub(super) settings: SettingFlags,
}

#[derive(Debug, Args)]
pub(super) struct ArchiveArgs {
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) target: Target,
    #[command(flatten)]
    pub(super) settings: SettingFlags,
}

#[derive(Debug, Args)]
#[command(
    after_help = "--window DURATION, here, is the window of the counts; the configured one stays what it is."
)]
pub(super) struct AuditArgs {
    /// The segments to recount [default: all]
    pub(super) segments: Vec<String>,
    /// Recount so many segments, chosen at random
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) sample: Option<u64>,
    /// Choose the same sample as an audit that printed this seed
    #[arg(long, requires = "sample")]
    pub(super) seed: Option<u64>,
    /// Compare with this store as well
    #[arg(long, value_enum, value_name = "STORE")]
    pub(super) against: Option<StoreKind>,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) target: Target,
    #[command(flatten)]
    pub(super) settings: SettingFlags,
}

#[derive(Debug, Args)]
pub(super) struct CopyArgs {
    /// The store to read; one that keeps names of users
    #[arg(long, value_enum, value_name = "STORE")]
    pub(super) from: StoreKind,
    /// The store to write to
    #[arg(long, value_enum, value_name = "STORE")]
    pub(super) to: StoreKind,
    /// Where to note how far it came: a copy that was stopped goes on from there
    #[arg(long, value_name = "FILE", default_value = "./headcount-copy.json")]
    pub(super) checkpoint: PathBuf,
    /// Segments copied at once
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(super) parallelism: u32,
    /// How long to try a store again that can't answer now
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = retry_time)]
    pub(super) retry_for: Duration,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) settings: SettingFlags,
}

#[derive(Debug, Args)]
pub(super) struct CheckConfigArgs {
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) settings: SettingFlags,
}

#[derive(Debug, Args)]
pub(super) struct LoadArgs {
    /// Files of pairs, gzip where named .gz; `-` or none is standard input
    #[arg(conflicts_with = "generate")]
    pub(super) files: Vec<PathBuf>,
    /// What the files hold [default: by the name's ending, else ndjson]
    #[arg(long, value_enum, conflicts_with = "generate")]
    pub(super) format: Option<Format>,
    /// CSV: the column with the user's id
    #[arg(long, value_name = "NAME", default_value = "user_id")]
    pub(super) user_column: String,
    /// CSV: the column with the segment
    #[arg(long, value_name = "NAME", default_value = "segment")]
    pub(super) segment_column: String,
    /// CSV: the column with the time, RFC 3339 or unix seconds [default: at where there is one]
    #[arg(long, value_name = "NAME")]
    pub(super) at_column: Option<String>,
    /// CSV: the character between fields
    #[arg(long, value_name = "CHAR", default_value = ",", value_parser = delimiter)]
    pub(super) delimiter: u8,
    /// Make up pairs: pairs=1000000,users=100000,segments=200 and, if wanted, seed=1 and spread=1h
    #[arg(long, value_name = "SPEC", value_parser = Generate::parse)]
    pub(super) generate: Option<Generate>,
    /// Pairs in one request
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(super) batch: u32,
    /// Requests under way at once
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=1_024))]
    pub(super) connections: u32,
    /// How long to try a batch again that the service can't take now
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = retry_time)]
    pub(super) retry_for: Duration,
    /// Fail when a pair is rejected
    #[arg(long)]
    pub(super) strict: bool,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) target: Target,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    Ndjson,
    Csv,
}

fn delimiter(text: &str) -> Result<u8, String> {
    match text.as_bytes() {
        b"\\t" => Ok(b'\t'),
        [byte] if byte.is_ascii() && !matches!(byte, b'"' | b'\r' | b'\n') => Ok(*byte),
        _ => Err(r#"give one ASCII character, or \t for a tab"#.into()),
    }
}

fn lifetime(text: &str) -> Result<Duration, String> {
    // Longer than any token should live, and within what a timestamp can say.
    const LONGEST: Duration = Duration::from_hours(24 * 365 * 100);
    match super::duration(text) {
        Some(time) if !time.is_zero() && time <= LONGEST => Ok(time),
        _ => Err("give a duration such as 90d or 1y".into()),
    }
}

fn rate(text: &str) -> Result<NonZeroU32, String> {
    let rate = text.parse().ok();
    rate.filter(|rate: &NonZeroU32| rate.get() <= MAX_RATE)
        .ok_or_else(|| format!("give a whole number from 1 to {MAX_RATE}"))
}

fn retry_time(text: &str) -> Result<Duration, String> {
    // Far beyond any patience, and far from overflow of an instant.
    const LONGEST: Duration = Duration::from_hours(24 * 365);
    match super::duration(text) {
        Some(time) if time <= LONGEST => Ok(time),
        _ => Err("give a duration such as 30s or 5m".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_fits_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn odd_values_are_refused_in_words() {
        for bad in ["", "ab", "\"", "é"] {
            assert!(delimiter(bad).is_err());
        }
        assert_eq!(delimiter("\\t"), Ok(b'\t'));
        assert_eq!(delimiter(";"), Ok(b';'));
        for bad in ["", "5", "0s", "101y"] {
            assert!(lifetime(bad).is_err(), "{bad}");
        }
        for bad in ["0", "-1", "10000001", "x"] {
            assert!(rate(bad).is_err(), "{bad}");
        }
        assert!(retry_time("5").is_err());
        assert!(retry_time("999999y").is_err());
        assert_eq!(retry_time("0s"), Ok(Duration::ZERO));
    }
}
