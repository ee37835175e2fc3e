//! The checkers, from `target/tools` or the system, and the files of the repository.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde::Deserialize;
use serde_json::Value;

use crate::support::servers::find;

/// The root of the repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Reads a file of the repository.
pub fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Parses the documents of a YAML string into JSON values, without tags and comments.
pub fn yaml(text: &str) -> Vec<Value> {
    serde_yaml_ng::Deserializer::from_str(text)
        .map(|document| Value::deserialize(document).unwrap())
        .filter(|document| !document.is_null())
        .collect()
}

/// The folder of the installed tools.
pub fn tools_folder() -> PathBuf {
    root().join("target/tools")
}

/// Finds a program in `target/tools` or else in the system. `None` means that the test is skipped, and a line is
/// printed. A missing program that `HEADCOUNT_TEST_REQUIRE` lists is a failure.
pub fn tool(program: &str) -> Option<PathBuf> {
    let installed = tools_folder().join("bin").join(program);
    if installed.exists() {
        return Some(installed);
    }
    if program == "kubectl" {
        // Without kubectl, kustomize renders the overlays.
        let kustomize = tools_folder().join("bin/kustomize");
        if kustomize.exists() {
            return Some(kustomize);
        }
    }
    let system = Path::new("/usr/sbin").join(program);
    if system.exists() {
        return Some(system);
    }
    let variable = format!(
        "HEADCOUNT_TEST_{}",
        program.to_uppercase().replace('-', "_")
    );
    find(program, &variable)
}

/// Runs a command in the repository. Returns whether it succeeded, and its standard output and standard error.
pub fn run(command: &mut Command) -> (bool, String) {
    let output = command.current_dir(root()).output().unwrap();
    (output.status.success(), text(&output))
}

/// Runs a command that must succeed. Returns its standard output.
pub fn stdout_of(command: &mut Command) -> String {
    let output = command.current_dir(root()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", text(&output));
    String::from_utf8(output.stdout).unwrap()
}

pub fn text(output: &Output) -> String {
    let [out, err] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    format!("{out}{err}")
}

/// The values of an array, or none if the value is not an array.
pub fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// The entries of an object, or none if the value is not an object.
pub fn entries(value: &Value) -> impl Iterator<Item = (&str, &Value)> {
    let object = value.as_object().into_iter().flatten();
    object.map(|(key, value)| (key.as_str(), value))
}

/// The string of a value, which must be a string.
pub fn string(value: &Value) -> &str {
    value
        .as_str()
        .unwrap_or_else(|| panic!("not a string: {value:?}"))
}
