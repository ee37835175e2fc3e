//! Inputs: files and standard input, compressed or not, in any supported format.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use flate2::read::MultiGzDecoder;

use super::batch::{Batcher, Stopped};
use super::columns::Columns;
use super::content::{self, ByteOrder, Compression, Shape};
use super::position::{Counted, Position};
use super::reading::Reading;
use super::table::Table;
use super::times::Times;
use super::utf16::Utf16;
use super::{json_values, lines, table};
use crate::cli::Failure;
use crate::cli::args::Format;
use crate::cli::output::note;

const BUFFER: usize = 256 << 10;
/// The byte order mark of UTF-8.
const MARK: &[u8] = "\u{feff}".as_bytes();
/// The bytes of an input that are read to detect its format.
const HEAD: u64 = 64 << 10;
/// The maximum number of nested compressions.
const MAX_LAYERS: usize = 3;
/// The largest window of the `zstd` program (`--long=31`).
const ZSTD_WINDOW_LOG: u32 = 31;

/// How to read inputs.
pub(super) struct Reader {
    /// `None`: detected from the content of each input.
    pub(super) format: Option<Format>,
    pub(super) columns: Columns,
    /// Given flags that apply to tables only.
    pub(super) for_tables: Vec<&'static str>,
    pub(super) times: Times,
}

/// The open inputs.
pub(super) struct Inputs {
    inputs: Vec<Input>,
    /// The total size in bytes, if all are files.
    pub(super) bytes: Option<u64>,
    reader: Reader,
}

struct Input {
    name: String,
    /// The format that the name suggests.
    named: Option<Format>,
    reader: Box<dyn Read + Send>,
}

impl Inputs {
    /// Opens all inputs, so that a mistyped name is an error before anything is sent.
    pub(super) fn open(files: &[PathBuf], reader: Reader) -> Result<Self, Failure> {
        let paths = paths(files);
        if paths.iter().filter(|path| is_stdin(path)).count() > 1 {
            return Err(Failure::usage("standard input can be read only once"));
        }
        let mut bytes = Some(0);
        let mut inputs = Vec::new();
        for path in paths {
            let (input, length) = open(path)?;
            inputs.push(input);
            bytes = bytes.zip(length).map(|(all, one)| all + one);
        }
        Ok(Self {
            inputs,
            bytes,
            reader,
        })
    }

    /// Reads one input after the other into batches.
    pub(super) fn pass(self, position: &Position, batcher: &mut Batcher) -> Result<(), Stopped> {
        for input in self.inputs {
            batcher.enter(&input.name);
            self.reader.pass(input, position, batcher)?;
        }
        Ok(())
    }
}

impl Reader {
    fn pass(
        &self,
        input: Input,
        position: &Position,
        batcher: &mut Batcher,
    ) -> Result<(), Stopped> {
        let counted: Box<dyn Read> = Box::new(Counted::new(input.reader, position));
        let text = match unpack(counted) {
            Ok(text) => text,
            Err(problem) => return Err(batcher.fail(position.get(), Failure::failed(problem))),
        };
        let shape = match self.format {
            None => content::shape(&text.head, input.named, &self.columns),
            Some(Format::Ndjson) => Shape::Lines,
            Some(Format::Json) => Shape::JsonValues,
            Some(named @ (Format::Csv | Format::Tsv)) => Shape::Table(
                self.columns
                    .likely_delimiter(first_line(&text.head), Some(named)),
            ),
        };
        let reading = Reading {
            source: input.name,
            format: format!("{}{}", name_of(shape), text.around),
            columns: None,
        };
        let mut plain = BufReader::with_capacity(BUFFER, text.reader);
        if !matches!(shape, Shape::Table(_)) {
            let unused = self.for_tables.join(", ");
            let warning = format!(
                "{}: it holds JSON, so {unused} has no effect",
                reading.source
            );
            let warnings = if unused.is_empty() {
                vec![]
            } else {
                vec![warning]
            };
            batcher.announce(reading.clone(), warnings)?;
        }
        match shape {
            Shape::Lines => lines::pass(&mut plain, &self.times, position, batcher),
            Shape::JsonValues => json_values::pass(&mut plain, &self.times, position, batcher),
            Shape::Table(delimiter) => {
                // The CSV reader takes a byte order mark without further input for the end.
                if plain.fill_buf().is_ok_and(|head| head.starts_with(MARK)) {
                    plain.consume(MARK.len());
                }
                let table = Table {
                    columns: &self.columns,
                    delimiter,
                    times: &self.times,
                    reading,
                };
                table::pass(&mut plain, table, position, batcher)
            }
        }
    }
}

fn name_of(shape: Shape) -> &'static str {
    match shape {
        Shape::Lines => "NDJSON",
        Shape::JsonValues => "JSON",
        Shape::Table(b'\t') => "TSV",
        Shape::Table(_) => "CSV",
    }
}

fn first_line(head: &[u8]) -> &[u8] {
    head.split(|byte| *byte == b'\n').next().unwrap_or_default()
}

/// An input, decompressed and decoded to UTF-8.
struct Text {
    /// Its first bytes, which the reader returns again.
    head: Vec<u8>,
    reader: Box<dyn Read>,
    /// The compressions and the encoding that were removed, such as `, gzip`.
    around: String,
}

/// Decompresses and decodes an input. The error describes an unsupported format.
fn unpack(mut reader: Box<dyn Read>) -> Result<Text, String> {
    let mut around = String::new();
    for _ in 0..=MAX_LAYERS {
        let (head, again) = peek(reader);
        reader = again;
        if let Some(compression) = content::compression(&head) {
            let (name, unpacked) =
                decompress(compression, reader).map_err(|error| error.to_string())?;
            around = format!(", {name}{around}");
            reader = unpacked;
            continue;
        }
        if let Some(order) = content::utf16(&head) {
            around = format!(", {}{around}", name_of_order(order));
            let (head, reader) = peek(Box::new(Utf16::new(reader, order)));
            return Ok(Text {
                head,
                reader,
                around,
            });
        }
        return match content::foreign(&head) {
            Some(what) => Err(format!("it is {what}")),
            None => Ok(Text {
                head,
                reader,
                around,
            }),
        };
    }
    Err(format!("it is compressed more than {MAX_LAYERS} times"))
}

fn name_of_order(order: ByteOrder) -> &'static str {
    match order {
        ByteOrder::Big => "UTF-16BE",
        ByteOrder::Little => "UTF-16LE",
    }
}

fn decompress(
    compression: Compression,
    reader: Box<dyn Read>,
) -> io::Result<(&'static str, Box<dyn Read>)> {
    let buffered = BufReader::with_capacity(BUFFER, reader);
    Ok(match compression {
        Compression::Gzip => ("gzip", Box::new(MultiGzDecoder::new(buffered))),
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(buffered)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG)?;
            ("zstd", Box::new(decoder))
        }
    })
}

/// The first bytes of `reader`, and a reader that returns them again. If reading failed, that reader returns the error
/// after them.
fn peek(mut reader: Box<dyn Read>) -> (Vec<u8>, Box<dyn Read>) {
    let mut head = Vec::new();
    let read = (&mut reader).take(HEAD).read_to_end(&mut head);
    let first = Cursor::new(head.clone());
    match read {
        Ok(_) => (head, Box::new(first.chain(reader))),
        Err(error) => (head, Box::new(first.chain(Broken(error)))),
    }
}

/// A reader that always returns this error.
struct Broken(io::Error);

impl Read for Broken {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::Error::new(self.0.kind(), self.0.to_string()))
    }
}

/// The inputs to read: `files`, or standard input if there are none.
pub(super) fn paths(files: &[PathBuf]) -> &[PathBuf] {
    static STDIN: LazyLock<[PathBuf; 1]> = LazyLock::new(|| [PathBuf::from("-")]);
    match files {
        [] => &*STDIN,
        files => files,
    }
}

pub(super) fn is_stdin(path: &Path) -> bool {
    path == Path::new("-")
}

/// Opens one input; also returns its size in bytes, if it is known.
fn open(path: &Path) -> Result<(Input, Option<u64>), Failure> {
    if is_stdin(path) {
        if io::stdin().is_terminal() {
            note("reading pairs from standard input, one JSON object per line; end it with Ctrl-D");
        }
        let input = Input {
            name: "standard input".into(),
            named: None,
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
            "{name} is a directory: give its files"
        )));
    }
    let input = Input {
        name: name.clone(),
        named: named(path),
        reader: Box::new(file),
    };
    // The length of a pipe or a device is meaningless.
    Ok((input, metadata.is_file().then_some(metadata.len())))
}

/// The format that a file's name suggests. It is used only if the content is ambiguous.
fn named(path: &Path) -> Option<Format> {
    const NAMES: [(&str, Format); 6] = [
        ("csv", Format::Csv),
        ("tsv", Format::Tsv),
        ("tab", Format::Tsv),
        ("ndjson", Format::Ndjson),
        ("jsonl", Format::Ndjson),
        ("json", Format::Json),
    ];
    let is_compressed = ["gz", "zst", "zstd"]
        .iter()
        .any(|ending| has_ending(path, ending));
    let inner = match is_compressed {
        true => path.with_extension(""),
        false => path.to_owned(),
    };
    let known = NAMES.iter().find(|(ending, _)| has_ending(&inner, ending));
    known.map(|(_, format)| *format)
}

fn has_ending(path: &Path, ending: &str) -> bool {
    path.extension()
        .is_some_and(|found| found.eq_ignore_ascii_case(ending))
}
