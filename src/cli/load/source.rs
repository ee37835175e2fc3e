//! Where pairs are read from: files, plain or gzip, and standard input.

use std::fs::File;
use std::io::{self, BufReader, IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::read::MultiGzDecoder;

use super::parcel::{Packer, Stopped};
use super::table::Columns;
use super::{lines, table};
use crate::cli::Failure;
use crate::cli::args::Format;
use crate::cli::output::note;

const BUFFER: usize = 256 << 10;

/// How many bytes have been read, of all inputs together.
#[derive(Debug, Clone, Default)]
pub(super) struct Position(Arc<AtomicU64>);

impl Position {
    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The inputs, all of which could be opened.
pub(super) struct Inputs {
    inputs: Vec<Input>,
    /// Bytes in all, when all are files.
    pub(super) bytes: Option<u64>,
    columns: Columns,
}

struct Input {
    name: String,
    format: Format,
    gzip: bool,
    reader: Box<dyn Read + Send>,
}

impl Inputs {
    /// Opens all, so that a mistyped name is known before anything is sent.
    pub(super) fn open(
        paths: &[PathBuf],
        format: Option<Format>,
        columns: Columns,
    ) -> Result<Self, Failure> {
        let stdin = [PathBuf::from("-")];
        let paths = if paths.is_empty() { &stdin } else { paths };
        if paths.iter().filter(|path| is_stdin(path)).count() > 1 {
            return Err(Failure::usage("standard input can be read only once"));
        }
        let mut bytes = Some(0);
        let mut inputs = Vec::new();
        for path in paths {
            let (input, length) = open(path, format)?;
            inputs.push(input);
            bytes = bytes.zip(length).map(|(all, one)| all + one);
        }
        Ok(Self {
            inputs,
            bytes,
            columns,
        })
    }

    /// Passes everything on, input by input.
    pub(super) fn pass(self, position: &Position, packer: &mut Packer) -> Result<(), Stopped> {
        for input in self.inputs {
            packer.enter(&input.name);
            let counted = Counted {
                reader: input.reader,
                position: position.clone(),
            };
            let plain: Box<dyn Read> = match input.gzip {
                true => Box::new(MultiGzDecoder::new(BufReader::with_capacity(
                    BUFFER, counted,
                ))),
                false => Box::new(counted),
            };
            let mut plain = BufReader::with_capacity(BUFFER, plain);
            match input.format {
                Format::Ndjson => lines::pass(&mut plain, position, packer)?,
                Format::Csv => table::pass(&mut plain, &self.columns, position, packer)?,
            }
        }
        Ok(())
    }
}

fn is_stdin(path: &Path) -> bool {
    path == Path::new("-")
}

/// Opens one input, and says how long it is if that is known.
fn open(path: &Path, format: Option<Format>) -> Result<(Input, Option<u64>), Failure> {
    if is_stdin(path) {
        if io::stdin().is_terminal() {
            note("reading pairs from standard input, one JSON object a line; end it with Ctrl-D");
        }
        let input = Input {
            name: "standard input".into(),
            format: format.unwrap_or(Format::Ndjson),
            gzip: false,
            reader: Box::new(io::stdin()),
        };
        return Ok((input, None));
    }
    let name = path.display().to_string();
    let cannot = |error: io::Error| Failure::usage(format!("can't read {name}: {error}"));
    let file = File::open(path).map_err(cannot)?;
    let metadata = file.metadata().map_err(cannot)?;
    if metadata.is_dir() {
        return Err(Failure::usage(format!(
            "{name} is a directory: name its files"
        )));
    }
    let (gzip, inner) = match has_ending(path, "gz") {
        true => (true, path.with_extension("")),
        false => (false, path.to_owned()),
    };
    let by_ending = match has_ending(&inner, "csv") {
        true => Format::Csv,
        false => Format::Ndjson,
    };
    let input = Input {
        name: name.clone(),
        format: format.unwrap_or(by_ending),
        gzip,
        reader: Box::new(file),
    };
    // A pipe or a device has no length to speak of.
    Ok((input, metadata.is_file().then_some(metadata.len())))
}

fn has_ending(path: &Path, ending: &str) -> bool {
    path.extension()
        .is_some_and(|found| found.eq_ignore_ascii_case(ending))
}

/// Counts what is read.
struct Counted {
    reader: Box<dyn Read + Send>,
    position: Position,
}

impl Read for Counted {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(into)?;
        self.position.0.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}
