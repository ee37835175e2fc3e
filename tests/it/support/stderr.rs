//! Prints past the test harness, which hides the output of tests that pass.

use std::io::Write;

/// Prints a line.
pub fn print_line(line: &str) {
    let line = format!("{line}\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}

/// Prints which tests are skipped, and what they need.
pub fn skip(what: &str) {
    print_line(&format!("SKIPPED: tests that need {what}"));
}
