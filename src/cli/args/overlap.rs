//! The arguments of `headcount overlap`.

use clap::{Args, ValueEnum};

use super::Target;

#[derive(Debug, Args)]
pub(in crate::cli) struct OverlapArgs {
    /// The segments' names, two or more, to compare each with each [default: the pairs of all segments that have most in common]
    #[arg(value_name = "SEGMENT")]
    pub(in crate::cli) segments: Vec<String>,
    /// Order of the pairs of all segments
    #[arg(long, value_enum, conflicts_with = "segments")]
    pub(in crate::cli) by: Option<By>,
    /// Maximum number of pairs of all segments
    #[arg(long, conflicts_with = "segments", value_parser = clap::value_parser!(u64).range(1..))]
    pub(in crate::cli) limit: Option<u64>,
    /// Only pairs with this many users in both
    #[arg(long, value_name = "USERS", conflicts_with = "segments")]
    pub(in crate::cli) at_least: Option<u64>,
    /// Count over this window, such as 7d [default: the service's]
    #[arg(long)]
    pub(in crate::cli) window: Option<String>,
    /// Count now, instead of up to a few seconds ago
    #[arg(long)]
    pub(in crate::cli) fresh: bool,
    /// Print the service's JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
    #[command(flatten)]
    pub(in crate::cli) target: Target,
}

/// The order of pairs.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(in crate::cli) enum By {
    /// Most users in both
    Both,
    /// The greatest share of the users of either who are in both
    Jaccard,
    /// Most users in both, compared with segments that have nothing to do with each other
    Lift,
}

impl By {
    pub(in crate::cli) fn as_str(self) -> &'static str {
        match self {
            Self::Both => "both",
            Self::Jaccard => "jaccard",
            Self::Lift => "lift",
        }
    }
}
