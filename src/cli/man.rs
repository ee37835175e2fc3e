//! `headcount man`.

use std::path::Path;

use clap::CommandFactory;

use super::Failure;
use super::args::Cli;

pub(super) fn run(dir: &Path) -> Result<(), Failure> {
    let written =
        std::fs::create_dir_all(dir).and_then(|()| clap_mangen::generate_to(Cli::command(), dir));
    written.map_err(|error| {
        Failure::failed(format!(
            "can't write man pages to {}: {error}",
            dir.display()
        ))
    })
}
