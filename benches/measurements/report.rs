//! The content of a section: paragraphs, tables, and comparisons of figures with their targets.

use std::fmt::Write;

use super::table::Table;

/// The prefix of a missed target. The document's list of missed targets contains the lines with this prefix.
pub(crate) const MISSED: &str = "- **Missed.** ";

/// Collects the content of a section, and prints it as it is added.
#[derive(Default)]
pub(crate) struct Report {
    text: String,
    targets: String,
}

impl Report {
    /// Adds a paragraph.
    pub(crate) fn paragraph(&mut self, text: &str) {
        println!("{text}\n");
        writeln!(self.text, "{text}\n").unwrap();
    }

    pub(crate) fn table(&mut self, table: &Table) {
        println!("{table}");
        writeln!(self.text, "{table}").unwrap();
    }

    /// Adds a figure, and whether it meets its target.
    pub(crate) fn target(&mut self, met: bool, measured: &str, target: &str) {
        let verdict = if met { "- Met. " } else { MISSED };
        let line = format!("{verdict}{measured}; the target is {target}.");
        println!("{line}");
        writeln!(self.targets, "{line}").unwrap();
    }

    /// The content as Markdown.
    pub(crate) fn finish(self) -> String {
        if self.targets.is_empty() {
            return self.text;
        }
        println!();
        format!("{}{}\n", self.text, self.targets)
    }
}
