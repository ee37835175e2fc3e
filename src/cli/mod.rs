//! The command line: parses arguments, runs a command, and returns an exit code.

mod admin;
mod args;
mod audit;
mod check_config;
mod client;
mod completions;
mod copy;
mod count;
mod coverage;
mod demo;
mod export;
mod failure;
mod health;
mod live;
mod load;
mod man;
mod openapi;
mod output;
mod overlap;
mod process;
mod progress;
mod retry;
mod segment;
mod segments;
mod serve;
mod setting_flags;
mod setup;
mod start_line;
#[cfg(test)]
mod test_server;
mod token;
mod token_files;
mod trend;
mod variables;
mod worker;

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use humantime_serde::re::humantime;

use args::{Cli, Command};
use failure::Failure;
use variables::Variables;

/// Runs the command in `arguments`, of which the first is the program's name. Returns its exit code.
pub fn run(
    arguments: impl IntoIterator<Item = OsString>,
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> ExitCode {
    let command = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli.command,
        Err(error) => {
            // Help goes to standard output, errors to standard error. If that is closed, nothing can be reported.
            let _ = error.print();
            return match error.use_stderr() {
                true => ExitCode::from(2),
                false => ExitCode::SUCCESS,
            };
        }
    };
    match dispatch(command, Variables::new(variables)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn dispatch(command: Command, variables: Variables) -> Result<(), Failure> {
    match command {
        Command::Demo(args) => demo::run(args),
        Command::Serve(args) => serve::run(args, variables),
        Command::Live(args) => live::run(args, variables),
        Command::Worker(args) => worker::run(args, variables),
        Command::Count(args) => client_side(count::run(args, &variables)),
        Command::Segments(args) => client_side(segments::run(args, &variables)),
        Command::Overlap(args) => client_side(overlap::run(args, &variables)),
        Command::Coverage(args) => client_side(coverage::run(args, &variables)),
        Command::Trend(args) => client_side(trend::run(args, &variables)),
        Command::Export(args) => client_side(export::run(args, &variables)),
        Command::Segment(command) => client_side(segment::run(command, &variables)),
        Command::Load(args) => client_side(load::run(args, &variables)),
        Command::Health(args) => client_side(health::run(args, &variables)),
        Command::Setup(args) => client_side(setup::run(args, variables)),
        Command::Refresh(args) => client_side(admin::refresh(args, variables)),
        Command::Archive(args) => client_side(admin::archive(args, variables)),
        Command::Audit(args) => client_side(audit::run(args, variables)),
        Command::Copy(args) => client_side(copy::run(args, variables)),
        Command::Token(command) => token::run(command, variables),
        Command::OpenApi => openapi::run(),
        Command::CheckConfig(args) => check_config::run(args, variables),
        Command::Completions { shell } => completions::run(shell),
        Command::Man { dir } => man::run(&dir),
    }
}

/// Runs a client command. It uses one thread, which is enough and leaves the other cores to the service.
fn client_side(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("can't start the runtime: {error}")))?;
    let result = runtime.block_on(command);
    // A thread may still block on reading standard input. It is not waited for.
    runtime.shutdown_background();
    result
}

/// Parses a duration such as `90s`, `1h 30m` or `14d`.
fn duration(text: &str) -> Option<Duration> {
    humantime::parse_duration(text).ok()
}
