//! What a section has to say: text, tables, and how its figures compare with what they should reach.

use std::fmt::Write;

use super::table::Table;

/// How an aim that was missed begins in the document; what falls short is found by it.
pub(crate) const SHORT: &str = "- **Short.** ";

/// Grows while a section runs, and is printed as it grows.
#[derive(Default)]
pub(crate) struct Report {
    text: String,
    aims: String,
}

impl Report {
    /// A paragraph.
    pub(crate) fn say(&mut self, text: &str) {
        println!("{text}\n");
        writeln!(self.text, "{text}\n").unwrap();
    }

    pub(crate) fn table(&mut self, table: &Table) {
        println!("{table}");
        writeln!(self.text, "{table}").unwrap();
    }

    /// A figure, and whether it is what it should be.
    pub(crate) fn aim(&mut self, met: bool, measured: &str, aim: &str) {
        let verdict = if met { "- Met. " } else { SHORT };
        let line = format!("{verdict}{measured}; the aim is {aim}.");
        println!("{line}");
        writeln!(self.aims, "{line}").unwrap();
    }

    /// The same as Markdown.
    pub(crate) fn finish(self) -> String {
        if self.aims.is_empty() {
            return self.text;
        }
        println!();
        format!("{}{}\n", self.text, self.aims)
    }
}
