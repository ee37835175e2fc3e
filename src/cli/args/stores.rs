//! `headcount audit` and `headcount copy`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::Target;
use super::values::retry_time;
use crate::cli::setting_flags::SettingFlags;
use crate::config::StoreKind;

#[derive(Debug, Args)]
#[command(
    after_help = "--window DURATION here is the window of the counts to compare. It does not change the configured window."
)]
pub(in crate::cli) struct AuditArgs {
    /// The segments to recount [default: all]
    pub(in crate::cli) segments: Vec<String>,
    /// Audit N segments, chosen at random
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(in crate::cli) sample: Option<u64>,
    /// Seed of the sample, as printed by an earlier audit
    #[arg(long, requires = "sample")]
    pub(in crate::cli) seed: Option<u64>,
    /// Compare with this store as well
    #[arg(long, value_enum, value_name = "STORE")]
    pub(in crate::cli) against: Option<StoreKind>,
    /// Print JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
    #[command(flatten)]
    pub(in crate::cli) target: Target,
    #[command(flatten)]
    pub(in crate::cli) settings: SettingFlags,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct CopyArgs {
    /// The store to read; not embedded, which does not keep user ids
    #[arg(long, value_enum, value_name = "STORE")]
    pub(in crate::cli) from: StoreKind,
    /// The store to write to
    #[arg(long, value_enum, value_name = "STORE")]
    pub(in crate::cli) to: StoreKind,
    /// File that records the progress; an interrupted copy resumes from it
    #[arg(long, value_name = "FILE", default_value = "./headcount-copy.json")]
    pub(in crate::cli) checkpoint: PathBuf,
    /// Segments copied concurrently
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(in crate::cli) parallelism: u32,
    /// How long to retry while a store is unavailable
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = retry_time)]
    pub(in crate::cli) retry_for: Duration,
    /// Print JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
    #[command(flatten)]
    pub(in crate::cli) settings: SettingFlags,
}
