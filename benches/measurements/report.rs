//! The content of a section: paragraphs, tables, and comparisons of figures with their targets.

use std::fmt::Write;

use super::table::Table;

/// The prefix of a missed target in the document, by which the list of missed targets finds it.
pub(crate) const SHORT: &str = "- **Missed.** ";

/// Collects the content of a running section, and prints it immediately.
#[derive(Default)]
pub(crate) struct Report {
    text: String,
    aims: String,
}

impl Report {
    /// Adds a paragraph.
    pub(crate) fn say(&mut self, text: &str) {
        println!("{text}\n");
        writeln!(self.text, "{text}\n").unwrap();
    }

    pub(crate) fn table(&mut self, table: &Table) {
        println!("{table}");
        writeln!(self.text, "{table}").unwrap();
    }

    /// Adds a figure, and whether it meets its target.
    pub(crate) fn aim(&mut self, met: bool, measured: &str, aim: &str) {
        let verdict = if met { "- Met. " } else { SHORT };
        let line = format!("{verdict}{measured}; the target is {aim}.");
        println!("{line}");
        writeln!(self.aims, "{line}").unwrap();
    }

    /// The content as Markdown.
    pub(crate) fn finish(self) -> String {
        if self.aims.is_empty() {
            return self.text;
        }
        println!();
        format!("{}{}\n", self.text, self.aims)
    }
}
