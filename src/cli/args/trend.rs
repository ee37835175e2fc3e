//! The arguments of `headcount trend`.

use clap::Args;

use super::{OutputArgs, Target};

#[derive(Debug, Args)]
pub(in crate::cli) struct TrendArgs {
    /// The segments' names, up to 1,000
    #[arg(required = true, value_name = "SEGMENT")]
    pub(in crate::cli) segments: Vec<String>,
    /// Window of the counts, such as 7d [default: the service's]
    #[arg(long)]
    pub(in crate::cli) window: Option<String>,
    /// First instant, such as 2026-11-20T08:00:00Z [default: a day before --to]
    #[arg(long)]
    pub(in crate::cli) from: Option<String>,
    /// Last instant [default: now]
    #[arg(long)]
    pub(in crate::cli) to: Option<String>,
    /// Print only the last count of each step, such as 1h
    #[arg(long)]
    pub(in crate::cli) step: Option<String>,
    #[command(flatten)]
    pub(in crate::cli) output: OutputArgs,
    #[command(flatten)]
    pub(in crate::cli) target: Target,
}
