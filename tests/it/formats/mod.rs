//! Formats that must not change: an earlier build wrote what `tests/formats/` holds, one format a folder or file, and this
//! build reads it.
//!
//! `HEADCOUNT_TEST_RECORD_FORMATS=1 cargo test --test it formats::` makes this build write the folder anew, which is right
//! only where a format changes on purpose.

mod content;
mod files;
mod names;
mod servers;

use std::path::{Path, PathBuf};

/// Where the recorded format `name` is.
fn recorded(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/formats")
        .join(name)
}

/// Whether to write the formats instead of reading them.
fn records() -> bool {
    std::env::var_os("HEADCOUNT_TEST_RECORD_FORMATS").is_some()
}

/// The recorded text `name`; `now` is what this build makes of it, which is kept when formats are recorded.
fn text(name: &str, now: &str) -> String {
    let path = recorded(name);
    if records() {
        std::fs::write(&path, now).unwrap();
    }
    std::fs::read_to_string(path).unwrap()
}
