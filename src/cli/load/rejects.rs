//! `--rejects FILE`: rejected items with the reason, one JSON object per line, for inspection and reloading.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::batch::Batch;
use super::deliver::PairsResponse;
use super::report::UNREADABLE;
use super::source::is_stdin;
use crate::cli::Failure;

/// The file of rejected items.
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
    /// The item as it was sent, or as in the input if it could not be sent.
    item: Option<&'a str>,
}

impl RejectsFile {
    /// Creates the file, or truncates an existing one. Fails if it is one of the `inputs`. Its mode is 0600, since it
    /// contains user ids.
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

    /// Writes the lines of a batch that could not be sent.
    pub(super) fn refused(&mut self, batch: &Batch) -> Result<(), Failure> {
        for refused in &batch.refused {
            self.write(&Reject {
                source: &batch.source,
                line: refused.line,
                code: UNREADABLE,
                message: &refused.message,
                item: refused.item.as_deref(),
            })?;
        }
        Ok(())
    }

    /// Writes the pairs of a batch that the service rejected.
    pub(super) fn write_rejected(
        &mut self,
        batch: &Batch,
        response: &PairsResponse,
    ) -> Result<(), Failure> {
        if response.errors.is_empty() {
            return Ok(());
        }
        let items: Vec<&[u8]> = batch.items().collect();
        for error in &response.errors {
            let item = items
                .get(error.index)
                .map(|item| String::from_utf8_lossy(item));
            self.write(&Reject {
                source: &batch.source,
                line: batch.lines.get(error.index).copied().unwrap_or_default(),
                code: &error.code,
                message: &error.message,
                item: item.as_deref(),
            })?;
        }
        Ok(())
    }

    /// Flushes the buffer to the file.
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

/// Whether both paths lead to the same file, also through links.
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
