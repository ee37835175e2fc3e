//! Runs the program until it exits or is killed, in a directory and with settings of the test.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

/// The result of a run.
#[derive(Debug)]
pub struct Run {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Run {
    /// The JSON document that it printed.
    pub fn json(&self) -> Value {
        let document = serde_json::from_str(&self.out);
        document.unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// `headcount` with `arguments`, in `folder`, without the settings in the environment of the tests.
pub fn headcount(folder: &Path, settings: &[(&str, &str)], arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_headcount"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("HEADCOUNT_") {
            command.env_remove(name);
        }
    }
    for (name, value) in settings {
        command.env(format!("HEADCOUNT_{}", name.to_uppercase()), value);
    }
    command.current_dir(folder).args(arguments);
    command
}

/// The same command with default signal handlers. The tests may inherit ignored signals, as from `nohup` or a
/// background shell, and every program that they start would inherit them.
pub fn with_default_signals(command: &Command) -> Command {
    let mut with = Command::new("env");
    with.arg("--default-signal");
    with.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => with.env(name, value),
            None => with.env_remove(name),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        with.current_dir(folder);
    }
    with
}

/// Runs the program until it exits.
pub fn run(folder: &Path, settings: &[(&str, &str)], arguments: &[&str]) -> Run {
    finish(&mut headcount(folder, settings, arguments))
}

/// Runs a command until it exits.
pub fn finish(command: &mut Command) -> Run {
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Run {
        code: output.status.code(),
        out: text(output.stdout),
        err: text(output.stderr),
    }
}

/// The exit code, standard output and standard error.
pub fn output_of(command: &mut Command) -> (i32, String, String) {
    let Run { code, out, err } = finish(command);
    (code.unwrap(), out, err)
}

/// Starts the program without waiting for it.
pub fn start(folder: &Path, settings: &[(&str, &str)], arguments: &[&str]) -> Child {
    let mut command = headcount(folder, settings, arguments);
    let command = command.stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap()
}
