//! `docs/measurements.md`: missed targets, the machine, and the latest measurement of each section.

use std::fmt::Write;
use std::path::PathBuf;

use super::report::MISSED;
use super::{SECTIONS, machine};

const HEAD: &str = "\
# Measurements

Measurements of headcount and its peers on one machine, which also runs the client. `cargo bench --bench measurements` starts
all servers, runs the measurements, and writes this page. `-- ingest reads` runs only these sections; the others keep their
content and date. `-- --quick` uses smaller sizes and takes three minutes instead of fifteen. Compare ratios within a row. If
the cores were not idle before a section began, other programs shared the machine. Ratios are then more reliable than absolute
figures, and latencies are unreliable, since an fsync and the client also wait for a core. No test asserts these figures.
";

/// A path in the repository, whatever the working directory.
pub(crate) fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/measurements.md")
}

fn begin(name: &str) -> String {
    format!("<!-- section {name} -->\n")
}

fn end(name: &str) -> String {
    format!("<!-- end of {name} -->\n")
}

/// The current content of a section on the page.
fn current<'a>(page: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = page.split_once(&begin(name))?;
    let (section, _) = rest.split_once(&end(name))?;
    Some(section)
}

/// Replaces a section of the page.
pub(crate) fn replace(name: &str, section: &str) {
    let page = std::fs::read_to_string(path()).unwrap_or_default();
    let sections: Vec<(&str, &str)> = SECTIONS
        .iter()
        .filter_map(|known| match known.name == name {
            true => Some((name, section)),
            false => Some((known.name, current(&page, known.name)?)),
        })
        .collect();
    let missed = sections.iter().flat_map(|(_, text)| text.lines());
    let missed: Vec<&str> = missed
        .filter_map(|line| line.strip_prefix(MISSED))
        .collect();

    let mut page = format!("{HEAD}\n## Missed targets\n\n");
    if missed.is_empty() {
        page.push_str("None.\n");
    }
    for line in missed {
        writeln!(page, "- {line}").unwrap();
    }
    write!(page, "\n## Machine and versions\n\n{}", machine::list()).unwrap();
    for (name, text) in sections {
        write!(page, "\n{}{text}{}", begin(name), end(name)).unwrap();
    }
    std::fs::write(path(), page).unwrap();
}
