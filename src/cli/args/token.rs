//! `headcount token …`.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::values::{lifetime, pattern, rate};
use http::auth::Scope;

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum TokenCommand {
    /// Create a token, print it once, and store its digest
    New(TokenNewArgs),
    /// List the tokens, without their secrets
    List(TokenListArgs),
    /// Revoke a token
    Revoke(TokenRevokeArgs),
}

/// The tokens file.
#[derive(Debug, Args)]
pub(in crate::cli) struct TokenFile {
    /// The tokens file [default: the setting `tokens_file`]
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) tokens_file: Option<PathBuf>,
    /// Settings file [default: headcount.toml where present]
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) config: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct TokenNewArgs {
    /// Name of the token, such as the name of its user
    #[arg(long)]
    pub(in crate::cli) name: String,
    /// Comma-separated scopes; no scope includes another
    #[arg(long, value_enum, value_delimiter = ',', required = true)]
    pub(in crate::cli) scope: Vec<Scope>,
    /// Segments that the token is restricted to: a name, or a prefix followed by *; may be repeated [default: all]
    #[arg(long, value_name = "PATTERN", value_parser = pattern)]
    pub(in crate::cli) segments: Vec<String>,
    /// Write the token to a new file that only its owner can read, instead of printing it
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    pub(in crate::cli) out: Option<PathBuf>,
    /// Lifetime, such as 90d [default: until it is revoked]
    #[arg(long, value_name = "DURATION", value_parser = lifetime)]
    pub(in crate::cli) expires_in: Option<Duration>,
    /// Rate limit in requests per second [default: the service's `limit_requests`]
    #[arg(long, value_name = "N", value_parser = rate)]
    pub(in crate::cli) limit_requests: Option<NonZeroU32>,
    /// Rate limit in pairs per second [default: the service's `limit_pairs`]
    #[arg(long, value_name = "N", value_parser = rate)]
    pub(in crate::cli) limit_pairs: Option<NonZeroU32>,
    /// Print JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
    #[command(flatten)]
    pub(in crate::cli) file: TokenFile,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct TokenListArgs {
    /// Print JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
    #[command(flatten)]
    pub(in crate::cli) file: TokenFile,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct TokenRevokeArgs {
    /// The token's name
    #[arg(long)]
    pub(in crate::cli) name: String,
    /// Print JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
    #[command(flatten)]
    pub(in crate::cli) file: TokenFile,
}
