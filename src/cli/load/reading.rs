//! How an input is read, for people and for scripts.

use serde::Serialize;

use crate::cli::output::harmless;

/// How an input is read.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Reading {
    pub(super) source: String,
    /// `NDJSON`, `JSON` or `CSV`, and what is around it.
    pub(super) format: String,
    /// Of a table: its columns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) columns: Option<Used>,
}

/// What the columns of a table are used for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Used {
    pub(super) user_id: String,
    pub(super) segment: String,
    pub(super) at: Option<String>,
    pub(super) unused: Vec<String>,
}

impl Reading {
    /// A line or two of the summary.
    pub(super) fn text(&self) -> String {
        let mut text = format!("read         {}: {}", harmless(&self.source), self.format);
        let Some(used) = &self.columns else {
            text.push('\n');
            return text;
        };
        let at = match &used.at {
            Some(name) => format!("at from `{name}`"),
            None => "no time: seen now".to_owned(),
        };
        text += &format!(
            "; user_id from `{}`, segment from `{}`, {at}\n",
            used.user_id, used.segment
        );
        if !used.unused.is_empty() {
            let unused: Vec<_> = used.unused.iter().map(|name| format!("`{name}`")).collect();
            text += &format!("  not used   {}\n", unused.join(", "));
        }
        text
    }
}
