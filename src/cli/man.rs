//! `headcount man`.

use std::io;
use std::path::Path;

use clap::{Command, CommandFactory};
use clap_mangen::Man;
use telemetry::version::VERSION;

use super::Failure;
use super::args::Cli;

pub(super) fn run(dir: &Path) -> Result<(), Failure> {
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    let written = std::fs::create_dir_all(dir).and_then(|()| write(command, dir));
    written.map_err(|error| {
        Failure::failed(format!(
            "can't write man pages to {}: {error}",
            dir.display()
        ))
    })
}

/// Writes the page of `command` and those of the commands below it.
fn write(command: Command, dir: &Path) -> io::Result<()> {
    for below in command.get_subcommands().filter(|it| !it.is_hide_set()) {
        write(below.clone(), dir)?;
    }
    // The macro drops an empty date, and would take the next argument for it.
    let page = Man::new(command).date(format!("headcount {VERSION}"));
    page.source("").generate_to(dir).map(drop)
}
