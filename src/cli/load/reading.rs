//! How an input is read: its format and columns, as text and as JSON.

use serde::Serialize;

use crate::cli::output::sanitized;

/// How one input is read.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Reading {
    pub(super) source: String,
    /// `NDJSON`, `JSON`, `CSV` or `TSV`, followed by its compression and encoding.
    pub(super) format: String,
    /// The columns of a table.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) columns: Option<Used>,
}

/// The names of the columns of a table, by use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Used {
    pub(super) user_id: String,
    pub(super) segment: String,
    pub(super) at: Option<String>,
    pub(super) unused: Vec<String>,
}

impl Reading {
    /// One or two lines of the summary.
    pub(super) fn text(&self) -> String {
        let mut text = format!("read         {}: {}", sanitized(&self.source), self.format);
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
