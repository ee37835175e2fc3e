//! The image, run by a container engine where there is one: `tests/deploy/containers` in its short form.

use std::io::Write;
use std::process::Command;

use super::tools::{root, text};

/// The exit code of the script if there is no engine, or no base image.
const SKIPPED: i32 = 77;

#[test]
fn the_image_runs_drains_and_loses_nothing() {
    let script = root().join("tests/deploy/containers");
    let output = Command::new(script)
        .env("HEADCOUNT", env!("CARGO_BIN_EXE_headcount"))
        .output()
        .unwrap();
    let printed = text(&output);
    if output.status.code() == Some(SKIPPED) {
        let last = printed.lines().last().unwrap_or_default();
        // Not with a print macro: the test harness hides their output in tests that pass.
        let line = format!("SKIPPED: tests that need containers: {last}\n");
        return std::io::stderr().write_all(line.as_bytes()).unwrap();
    }
    assert!(output.status.success(), "{printed}");
    assert!(printed.contains("containers passed"), "{printed}");
}
