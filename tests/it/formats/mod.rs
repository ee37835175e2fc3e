//! Formats that must not change. An earlier build wrote `tests/formats/`, one folder or file per format, and this
//! build reads it.
//!
//! `HEADCOUNT_TEST_RECORD_FORMATS=1 cargo test --test it formats::` rewrites the folder with this build. Do so only
//! when a format changes on purpose.

mod content;
mod files;
mod names;
mod servers;

use std::path::{Path, PathBuf};

/// The path of the recorded format `name`.
fn recorded(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/formats")
        .join(name)
}

/// Whether to record the formats before they are read.
fn records() -> bool {
    std::env::var_os("HEADCOUNT_TEST_RECORD_FORMATS").is_some()
}

/// The recorded string `name`. When formats are recorded, the output `now` of this build replaces it first.
fn text(name: &str, now: &str) -> String {
    let path = recorded(name);
    if records() {
        std::fs::write(&path, now).unwrap();
    }
    std::fs::read_to_string(path).unwrap()
}
