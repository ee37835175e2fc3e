//! `--rejects FILE`: what was rejected, one JSON object a line, to be looked at and loaded again.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::deliver::Verdict;
use super::parcel::Parcel;
use super::report::UNREADABLE;
use super::source::is_stdin;
use crate::cli::Failure;

/// The file of what was rejected.
pub(super) struct RejectsFile {
    path: PathBuf,
    out: BufWriter<File>,
}

#[derive(Serialize)]
struct Reject<'a> {
    source: &'a str,
    line: u64,
    code: &'a str,
    message: &'a str,
    /// The item as it was sent, or as it stands in the input where it could not be.
    item: Option<&'a str>,
}

impl RejectsFile {
    /// Creates the file, or empties an existing one, so it must not be one of the `inputs`. Only its owner may read it,
    /// since it holds user ids.
    pub(super) fn create(path: &Path, inputs: &[PathBuf]) -> Result<Self, Failure> {
        if inputs.iter().any(|input| is_same_file(path, input)) {
            return Err(Failure::usage(format!(
                "{} is an input, and --rejects would overwrite it: give another file",
                path.display()
            )));
        }
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options
            .open(path)
            .map_err(|error| Failure::usage(format!("can't write {}: {error}", path.display())))?;
        Ok(Self {
            path: path.to_owned(),
            out: BufWriter::new(file),
        })
    }

    /// Writes what could not be sent of a parcel.
    pub(super) fn refused(&mut self, parcel: &Parcel) -> Result<(), Failure> {
        for refused in &parcel.refused {
            self.write(&Reject {
                source: &parcel.source,
                line: refused.line,
                code: UNREADABLE,
                message: &refused.message,
                item: refused.item.as_deref(),
            })?;
        }
        Ok(())
    }

    /// Writes what the service rejected of a parcel.
    pub(super) fn judged(&mut self, parcel: &Parcel, verdict: &Verdict) -> Result<(), Failure> {
        if verdict.errors.is_empty() {
            return Ok(());
        }
        let items: Vec<&[u8]> = parcel.items().collect();
        for error in &verdict.errors {
            let item = items
                .get(error.index)
                .map(|item| String::from_utf8_lossy(item));
            self.write(&Reject {
                source: &parcel.source,
                line: parcel.lines.get(error.index).copied().unwrap_or_default(),
                code: &error.code,
                message: &error.message,
                item: item.as_deref(),
            })?;
        }
        Ok(())
    }

    /// Brings everything into the file.
    pub(super) fn finish(&mut self) -> Result<(), Failure> {
        self.out.flush().map_err(|error| self.failed(&error))
    }

    fn write(&mut self, reject: &Reject<'_>) -> Result<(), Failure> {
        let written = serde_json::to_writer(&mut self.out, reject).map_err(io::Error::from);
        written
            .and_then(|()| self.out.write_all(b"\n"))
            .map_err(|error| self.failed(&error))
    }

    fn failed(&self, error: &io::Error) -> Failure {
        Failure::failed(format!("can't write {}: {error}", self.path.display()))
    }
}

/// Whether both name one file, by whatever links.
fn is_same_file(path: &Path, input: &Path) -> bool {
    let input = match is_stdin(input) {
        true => Path::new("/dev/stdin"),
        false => input,
    };
    let id = |path| {
        let metadata = std::fs::metadata(path).ok()?;
        metadata.is_file().then(|| file_id(path, &metadata))?
    };
    id(path).is_some_and(|file| Some(file) == id(input))
}

#[cfg(unix)]
fn file_id(_: &Path, metadata: &std::fs::Metadata) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    Some((metadata.dev(), metadata.ino()))
}

#[cfg(not(unix))]
fn file_id(path: &Path, _: &std::fs::Metadata) -> Option<PathBuf> {
    path.canonicalize().ok()
}
