//! The judges: programs of `target/tools` or of the system, and files of the repository.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde::Deserialize;
use serde_json::Value;

use crate::support::servers::find;

/// The repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A file of the repository as text.
pub fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The documents of a YAML text; tags and comments aside it is JSON.
pub fn yaml(text: &str) -> Vec<Value> {
    serde_yaml_ng::Deserializer::from_str(text)
        .map(|document| Value::deserialize(document).unwrap())
        .filter(|document| !document.is_null())
        .collect()
}

/// What the installed tools' folder holds, whatever the name.
pub fn tools_folder() -> PathBuf {
    root().join("target/tools")
}

/// A program: of `target/tools`, else of the system. `None` means that the test is to be skipped, which a visible
/// line says; a program that `HEADCOUNT_TEST_REQUIRE` lists must be there.
pub fn tool(program: &str) -> Option<PathBuf> {
    let installed = tools_folder().join("bin").join(program);
    if installed.exists() {
        return Some(installed);
    }
    if program == "kubectl" {
        // Where there is none, its part that renders stands in.
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

/// Runs a command in the repository; its output as text, standard error included.
pub fn run(command: &mut Command) -> (bool, String) {
    let output = command.current_dir(root()).output().unwrap();
    (output.status.success(), text(&output))
}

/// Runs a command that must succeed; its standard output.
pub fn done(command: &mut Command) -> String {
    let output = command.current_dir(root()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", text(&output));
    String::from_utf8(output.stdout).unwrap()
}

fn text(output: &Output) -> String {
    let [out, err] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    format!("{out}{err}")
}

/// The values of an array; none where there is nothing.
pub fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// The entries of an object; none where there is nothing.
pub fn entries(value: &Value) -> impl Iterator<Item = (&str, &Value)> {
    let object = value.as_object().into_iter().flatten();
    object.map(|(key, value)| (key.as_str(), value))
}

/// A text, which must be one.
pub fn string(value: &Value) -> &str {
    value
        .as_str()
        .unwrap_or_else(|| panic!("no text: {value:?}"))
}
