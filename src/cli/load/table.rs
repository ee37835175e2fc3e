//! CSV: converts each row of an input to a line of NDJSON.

use std::cell::Cell;
use std::io::{self, Read};

use csv::ByteRecord;
use serde::Serialize;
use serde_json::value::RawValue;

use super::batch::{Batcher, MAX_LINE, Stopped};
use super::columns::{self, ColumnIndexes, Columns, TimeColumn, looks_like_time};
use super::position::Position;
use super::reading::{Reading, Used};
use super::table_end::{self, Ending, Marked, Place};
use super::times::Times;
use crate::cli::Failure;

#[derive(Serialize)]
struct Line<'a> {
    user_id: &'a str,
    segment: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<Box<RawValue>>,
}

/// How to read a table.
pub(super) struct Table<'a> {
    pub(super) columns: &'a Columns,
    pub(super) delimiter: u8,
    pub(super) times: &'a Times,
    /// The description of the input, without its columns.
    pub(super) reading: Reading,
}

/// Passes each row of `input` after the header.
pub(super) fn pass(
    input: &mut impl Read,
    mut table: Table<'_>,
    position: &Position,
    batcher: &mut Batcher,
) -> Result<(), Stopped> {
    let (left, ending) = (Cell::new(ROW_READS), Cell::new(Ending::Whole));
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(table.delimiter)
        .flexible(true)
        .from_reader(Bounded {
            input: Marked::new(input, &ending),
            left: &left,
        });
    let header = match reader.byte_headers() {
        Ok(header) => header.clone(),
        Err(error) => return Err(batcher.fail(position.get(), Failure::failed(error.to_string()))),
    };
    match table_end::place(&header) {
        Place::Before => {}
        Place::End => return Err(batcher.fail(position.get(), Failure::failed("it is empty"))),
        Place::Open => return Err(batcher.fail(position.get(), open_quote(1))),
    }
    let indexes = match table.columns.find(&header) {
        Ok(indexes) => indexes,
        Err(failure) => return Err(batcher.fail(position.get(), failure)),
    };
    let rows = Rows {
        names: columns::names(&header),
        indexes,
        times: table.times,
    };
    table.reading.columns = Some(rows.used());
    let mut announced = Some(table.reading);
    let mut record = ByteRecord::new();
    let mut json = Vec::new();
    let (mut last, mut is_warned) = (1, false);
    loop {
        left.set(ROW_READS);
        let place = match reader.read_byte_record(&mut record) {
            Ok(true) => table_end::place(&record),
            Ok(false) => Place::End,
            Err(error) => {
                return Err(batcher.fail(position.get(), Failure::failed(error.to_string())));
            }
        };
        let line = record.position().map_or(0, csv::Position::line);
        if let Some(reading) = announced.take() {
            // Not earlier, since the first row shows which unused columns contain times.
            let warnings = match place {
                Place::End => Vec::new(),
                _ => rows.warnings(table.columns, &reading.source, &record),
            };
            batcher.announce(reading, warnings)?;
        }
        match place {
            Place::Before => {}
            Place::End => break,
            Place::Open => return Err(batcher.fail(position.get(), open_quote(line))),
        }
        let lines = reader.position().line().saturating_sub(line);
        if lines > MAX_LINES && !is_warned {
            is_warned = true;
            batcher.warn(&format!(
                "the row that begins in line {line} spans {lines} lines, which are not read as pairs: is a quote left open?"
            ))?;
        }
        last = line;
        json.clear();
        match rows.write(&record, &mut json) {
            Ok(is_timed) => {
                if !is_timed {
                    batcher.untimed();
                }
                batcher.add(line, &json, position.get())?;
            }
            Err(message) => {
                let row = as_text(&record, table.delimiter);
                batcher.refuse(line, message, Some(&row), position.get())?;
            }
        }
    }
    if ending.get() == Ending::Unended {
        batcher.warn(&format!(
            "the last row, line {last}, has no line end: was the file cut off?"
        ))?;
    }
    batcher.flush(position.get())
}

fn open_quote(line: u64) -> Failure {
    Failure::failed(format!(
        "a quote in the row that begins in line {line} is never closed, so no pair is read from the rest"
    ))
}

/// A field may contain line ends, but few. In a row of more lines, an unclosed quote may hide pairs.
const MAX_LINES: u64 = 20;

/// The row as a line of CSV.
fn as_text(record: &ByteRecord, delimiter: u8) -> Vec<u8> {
    let mut row = Vec::new();
    let mut writer = csv::WriterBuilder::new()
        .delimiter(delimiter)
        .from_writer(&mut row);
    // Writing to memory does not fail.
    let _ = writer
        .write_byte_record(record)
        .and_then(|()| Ok(writer.flush()?));
    drop(writer);
    row.trim_ascii_end().to_vec()
}

/// The maximum number of bytes read for one row: the longest row, and what the CSV reader reads ahead.
const ROW_READS: usize = MAX_LINE + (64 << 10);

/// Fails on a row that is too long. An unclosed quote makes one row of the whole file, which would exhaust the memory.
struct Bounded<'a, R> {
    input: R,
    left: &'a Cell<usize>,
}

impl<R: Read> Read for Bounded<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.left.get() == 0 {
            let message = format!("a row has more than {MAX_LINE} bytes: is a quote left open?");
            return Err(io::Error::other(message));
        }
        let most = into.len().min(self.left.get());
        let count = self.input.read(&mut into[..most])?;
        self.left.set(self.left.get() - count);
        Ok(count)
    }
}

/// Converts rows to lines of NDJSON.
struct Rows<'a> {
    names: Vec<String>,
    indexes: ColumnIndexes,
    times: &'a Times,
}

impl Rows<'_> {
    /// The names of the used and the unused columns.
    fn used(&self) -> Used {
        let ColumnIndexes { user, segment, at } = self.indexes;
        let name = |index: usize| self.names[index].clone();
        let is_used = |index: &usize| [Some(user), Some(segment), at].contains(&Some(*index));
        Used {
            user_id: name(user),
            segment: name(segment),
            at: at.map(name),
            unused: (0..self.names.len())
                .filter(|index| !is_used(index))
                .map(name)
                .collect(),
        }
    }

    /// Warns about unused columns that seem to contain times, in a table without a time column. `first` is the first row.
    fn warnings(&self, columns: &Columns, source: &str, first: &ByteRecord) -> Vec<String> {
        let used = self.used();
        if used.at.is_some() || columns.at == TimeColumn::Off {
            return Vec::new();
        }
        let value = |name: &String| {
            let index = self.names.iter().position(|found| found == name);
            let field = index.and_then(|index| first.get(index));
            String::from_utf8_lossy(field.unwrap_or_default().trim_ascii()).into_owned()
        };
        let looks = |name: &&String| looks_like_time(name, &value(name));
        let times: Vec<_> = used
            .unused
            .iter()
            .filter(looks)
            .map(|name| format!("`{name}`"))
            .collect();
        match times.is_empty() {
            true => Vec::new(),
            false => vec![format!(
                "{source}: no column is read as the time, so every pair counts as seen now; {} may hold it: name the column with \
                 --at-column, or give --no-at-column",
                times.join(" or ")
            )],
        }
    }

    /// Appends the pair of a row to `json`. Returns false if there is a time column and the row's time is empty.
    fn write(&self, record: &ByteRecord, json: &mut Vec<u8>) -> Result<bool, String> {
        let fields = self.names.len();
        if record
            .iter()
            .skip(fields)
            .any(|field| !field.trim_ascii().is_empty())
        {
            return Err(format!(
                "the row has {} fields, the header {fields}: is a field with the delimiter in it not quoted?",
                record.len()
            ));
        }
        let text = |index: usize| match record.get(index).map(str::from_utf8) {
            Some(Ok(text)) => Ok(text),
            Some(Err(_)) => Err(format!("`{}` is not UTF-8", self.names[index])),
            None => Err(format!("the row has no field `{}`", self.names[index])),
        };
        let at = match self.indexes.at {
            Some(index) => self.times.of_field(text(index)?)?,
            None => None,
        };
        let is_timed = at.is_some() || self.indexes.at.is_none();
        let line = Line {
            user_id: text(self.indexes.user)?,
            segment: text(self.indexes.segment)?,
            at,
        };
        serde_json::to_writer(&mut *json, &line).map_err(|error| error.to_string())?;
        match json.len() > MAX_LINE {
            true => Err(format!("the row has more than {MAX_LINE} bytes")),
            false => Ok(is_timed),
        }
    }
}
