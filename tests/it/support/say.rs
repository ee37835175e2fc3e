//! A line for whoever runs the tests, past the harness, which hides what a test that passes prints.

use std::io::Write;

/// Says it.
pub fn say(line: &str) {
    let line = format!("{line}\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}

/// Says what is skipped for want of what.
pub fn skip(what: &str) {
    say(&format!("SKIPPED: tests that need {what}"));
}
