//! `headcount segment …`.

use clap::{Args, Subcommand};

use super::Target;

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum SegmentCommand {
    /// Print the settings of a segment
    Show(SegmentShowArgs),
    /// Change the window, the description or the group of a segment
    Set(SegmentSetArgs),
    /// Erase every pair of a segment, its trend and its settings, or only one user
    Delete(SegmentDeleteArgs),
}

#[derive(Debug, Args)]
pub(in crate::cli) struct SegmentShowArgs {
    /// The segment's name
    pub(in crate::cli) segment: String,
    /// Print the service's JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
    #[command(flatten)]
    pub(in crate::cli) target: Target,
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("change").required(true).multiple(true))]
pub(in crate::cli) struct SegmentSetArgs {
    /// The segment's name
    pub(in crate::cli) segment: String,
    /// Default window of its counts, such as 7d; empty for the service's
    #[arg(long, group = "change")]
    pub(in crate::cli) window: Option<String>,
    /// Description for people; empty for none
    #[arg(long, group = "change")]
    pub(in crate::cli) description: Option<String>,
    /// Group in which lists show the segment; empty for none
    #[arg(long = "group", group = "change")]
    pub(in crate::cli) group_name: Option<String>,
    /// Print the service's JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
    #[command(flatten)]
    pub(in crate::cli) target: Target,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct SegmentDeleteArgs {
    /// The segment's name
    pub(in crate::cli) segment: String,
    /// Erase only this user from the segment
    #[arg(long, value_name = "USER_ID")]
    pub(in crate::cli) user: Option<String>,
    /// Confirm that the whole segment is to be erased, which can't be undone
    #[arg(long, required_unless_present = "user")]
    pub(in crate::cli) yes: bool,
    /// Print the service's receipt as JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
    #[command(flatten)]
    pub(in crate::cli) target: Target,
}
