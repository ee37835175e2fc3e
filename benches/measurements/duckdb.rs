//! DuckDB from its Python package: in the Python that HEADCOUNT_BENCH_PYTHON names, in `python3`, or installed for this run.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use tempfile::TempDir;

use super::counting_peers::Dataset;
use super::progress;

/// A Python with the package. Its virtual environment, if any, is removed on drop.
struct Python {
    program: PathBuf,
    version: String,
    _environment: Option<TempDir>,
}

fn python() -> Option<&'static Python> {
    static PYTHON: OnceLock<Option<Python>> = OnceLock::new();
    let found = PYTHON.get_or_init(|| configured().or_else(installed));
    found.as_ref()
}

fn configured() -> Option<Python> {
    let named = std::env::var_os("HEADCOUNT_BENCH_PYTHON");
    let program = named.map_or_else(|| PathBuf::from("python3"), PathBuf::from);
    Some(Python {
        version: version_in(&program)?,
        program,
        _environment: None,
    })
}

/// Installs the package in a temporary virtual environment, if a registry is available.
fn installed() -> Option<Python> {
    progress("the duckdb package is missing: installing it for this run");
    let directory = tempfile::tempdir().ok()?;
    let program = directory.path().join("bin/python");
    let mut venv = Command::new("python3");
    venv.args(["-m", "venv"]).arg(directory.path());
    let mut pip = Command::new(&program);
    pip.args(["-m", "pip", "install", "--quiet", "duckdb"]);
    for command in [&mut venv, &mut pip] {
        if !command.output().ok()?.status.success() {
            return None;
        }
    }
    Some(Python {
        version: version_in(&program)?,
        program,
        _environment: Some(directory),
    })
}

fn version_in(program: &PathBuf) -> Option<String> {
    let script = "import duckdb; print(duckdb.__version__)";
    let output = Command::new(program).args(["-c", script]).output().ok()?;
    let version = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| version.trim().to_owned())
}

pub(crate) fn version() -> String {
    python().map_or_else(
        || "not installed".to_owned(),
        |python| python.version.clone(),
    )
}

/// `count(distinct user_id)` and `count(*)` by segment, the fastest of several runs.
pub(crate) fn count(dataset: &Dataset) -> Option<Vec<[Duration; 2]>> {
    let script = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/benches/measurements/count_in_duckdb.py"
    );
    let numbers = dataset.sizes.iter();
    let numbers = numbers.chain([&dataset.latest, &dataset.spread]);
    let output = Command::new(&python()?.program)
        .arg(script)
        .args(numbers.map(u64::to_string))
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let stdout = String::from_utf8(output.stdout).unwrap();
    let seconds = |number: &str| Duration::from_secs_f64(number.parse().unwrap());
    let lines = stdout.lines().map(|line| {
        let (distinct, all) = line.split_once(' ').unwrap();
        [seconds(distinct), seconds(all)]
    });
    Some(lines.collect())
}
