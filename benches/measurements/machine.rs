//! The measured commit, and the machine.

use std::fmt::Write;
use std::process::Command;
use std::time::Duration;

use domain::Timestamp;

use super::table::grouped;

/// The first line of a command's output, or "not installed".
fn first_line(program: &str, args: &[&str]) -> String {
    let output = Command::new(program)
        .args(args)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let line = text
        .ok()
        .and_then(|text| Some(text.lines().next()?.trim().to_owned()));
    line.unwrap_or_else(|| "not installed".to_owned())
}

/// The value of the first line of a file that begins with `name`.
fn field(path: &str, name: &str) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with(name));
    let value = line.and_then(|line| line.split_once([':', '=']));
    value.map_or_else(String::new, |(_, value)| value.trim().to_owned())
}

/// The measured commit, and whether the sources differ from it.
pub(crate) fn commit() -> String {
    let commit = first_line("git", &["rev-parse", "--short", "HEAD"]);
    let sources = ["src", "benches", "Cargo.toml", "Cargo.lock"];
    let changes = first_line(
        "git",
        &[&["status", "--porcelain", "--"][..], &sources].concat(),
    );
    match changes.as_str() {
        "not installed" => commit,
        _ => format!("{commit} with changes"),
    }
}

pub(crate) fn date() -> String {
    Timestamp::now().strftime("%Y-%m-%d %H:%M UTC").to_string()
}

/// The idle share of the processors over a second, before anything is measured: the capacity that other processes leave.
pub(crate) fn idle() -> String {
    // user, nice, system, idle, iowait, irq, softirq, steal. The first two already include the fields after these.
    let ticks = || -> Vec<u64> {
        let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
        let words = text.lines().next().unwrap_or_default().split_whitespace();
        words
            .skip(1)
            .take(8)
            .map(|n| n.parse().unwrap_or(0))
            .collect()
    };
    let before = ticks();
    std::thread::sleep(Duration::from_secs(1));
    let passed: Vec<u64> = ticks().iter().zip(&before).map(|(n, b)| n - b).collect();
    let all: u64 = passed.iter().sum();
    let idle: u64 = passed.iter().skip(3).take(2).sum();
    format!("{} cores, {} % idle", cores(), 100 * idle / all.max(1))
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(0, usize::from)
}

fn mebibytes(name: &str) -> u64 {
    let kibibytes = field("/proc/meminfo", name);
    let kibibytes = kibibytes.trim_end_matches(" kB");
    kibibytes.parse::<u64>().unwrap_or(0) / 1024
}

/// The available memory in MiB.
pub(crate) fn available_mebibytes() -> u64 {
    mebibytes("MemAvailable")
}

/// The machine and the versions as a Markdown list.
pub(crate) fn list() -> String {
    let postgres = "$(ls -d /usr/lib/postgresql/*/bin/postgres | tail -1) --version";
    let mut list = String::new();
    let mut row = |name: &str, value: String| writeln!(list, "- {name}: {value}").unwrap();
    row("written", date());
    row(
        "processor",
        format!(
            "{} cores of {}",
            cores(),
            field("/proc/cpuinfo", "model name")
        ),
    );
    row("memory", format!("{} MiB", grouped(mebibytes("MemTotal"))));
    row("kernel", first_line("uname", &["-sr"]));
    row(
        "system",
        field("/etc/os-release", "PRETTY_NAME").replace('"', ""),
    );
    row("headcount", commit());
    row("rustc", first_line("rustc", &["--version"]));
    row("redis", first_line("redis-server", &["--version"]));
    row("postgres", first_line("sh", &["-c", postgres]));
    row("duckdb", "see counts".to_owned());
    list
}
