//! Settings from all layers, and their messages.

mod documents;
mod layers;
mod secrets;
mod stores;
mod values;
mod variables;

use super::*;

fn dir() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn sources(
    file: Option<&str>,
    variables: &[(&str, &str)],
    flags: &[(&'static str, &str)],
) -> (tempfile::TempDir, Sources) {
    let dir = dir();
    let path = file.map(|text| {
        let path = dir.path().join("headcount.toml");
        std::fs::write(&path, text).unwrap();
        path
    });
    let sources = Sources {
        file: path,
        variables: variables
            .iter()
            .map(|(k, v)| (k.into(), v.into()))
            .collect(),
        flags: flags.iter().map(|(k, v)| (*k, v.to_string())).collect(),
        stores: Vec::new(),
    };
    (dir, sources)
}

fn loaded(
    file: Option<&str>,
    variables: &[(&str, &str)],
    flags: &[(&'static str, &str)],
) -> Loaded {
    let (_dir, sources) = sources(file, variables, flags);
    load(sources).unwrap()
}

fn error(file: Option<&str>, variables: &[(&str, &str)], flags: &[(&'static str, &str)]) -> String {
    let (dir, sources) = sources(file, variables, flags);
    let text = load(sources).unwrap_err().to_string();
    text.replace(&format!("{}/", dir.path().display()), "")
}

fn shown<'a>(loaded: &'a Loaded, name: &str) -> (&'a str, &'a str) {
    let row = loaded.shown.iter().find(|row| row.name == name).unwrap();
    (&row.value, &row.origin)
}
