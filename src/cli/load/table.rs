//! CSV: rows of an input, each turned into a line of NDJSON.

use std::cell::Cell;
use std::io::{self, Read};

use csv::ByteRecord;
use serde::Serialize;
use serde_json::value::RawValue;

use super::columns::{self, Columns, Places, TimeColumn, looks_like_time};
use super::parcel::{MAX_LINE, Packer, Stopped};
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

/// How a table is read.
pub(super) struct Table<'a> {
    pub(super) columns: &'a Columns,
    pub(super) delimiter: u8,
    pub(super) times: &'a Times,
    /// What is known of the input so far.
    pub(super) reading: Reading,
}

/// Passes each row of `input` below the first, which names the columns.
pub(super) fn pass(
    input: &mut impl Read,
    mut table: Table<'_>,
    position: &Position,
    packer: &mut Packer,
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
        Err(error) => return Err(packer.fail(position.get(), Failure::failed(error.to_string()))),
    };
    match table_end::place(&header) {
        Place::Before => {}
        Place::End => return Err(packer.fail(position.get(), Failure::failed("it is empty"))),
        Place::Open => return Err(packer.fail(position.get(), open_quote(1))),
    }
    let places = match table.columns.find(&header) {
        Ok(places) => places,
        Err(failure) => return Err(packer.fail(position.get(), failure)),
    };
    let rows = Rows {
        names: columns::names(&header),
        places,
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
                return Err(packer.fail(position.get(), Failure::failed(error.to_string())));
            }
        };
        let line = record.position().map_or(0, csv::Position::line);
        if let Some(reading) = announced.take() {
            // Only now, since the first row shows which of the other columns hold times.
            let warnings = match place {
                Place::End => Vec::new(),
                _ => rows.warnings(table.columns, &reading.source, &record),
            };
            packer.announce(reading, warnings)?;
        }
        match place {
            Place::Before => {}
            Place::End => break,
            Place::Open => return Err(packer.fail(position.get(), open_quote(line))),
        }
        let lines = reader.position().line().saturating_sub(line);
        if lines > MOST_LINES && !is_warned {
            is_warned = true;
            packer.warn(&format!(
                "the row that begins in line {line} spans {lines} lines, which are no pairs: is a quote left open?"
            ))?;
        }
        last = line;
        json.clear();
        match rows.write(&record, &mut json) {
            Ok(is_timed) => {
                if !is_timed {
                    packer.untimed();
                }
                packer.add(line, &json, position.get())?;
            }
            Err(message) => {
                let row = as_text(&record, table.delimiter);
                packer.refuse(line, message, Some(&row), position.get())?;
            }
        }
    }
    if ending.get() == Ending::Unended {
        packer.warn(&format!(
            "the last row, line {last}, has no line end: was the file cut off?"
        ))?;
    }
    packer.flush(position.get())
}

fn open_quote(line: u64) -> Failure {
    Failure::failed(format!(
        "a quote that is opened in the row of line {line} is never closed, so that no pair is read from the rest"
    ))
}

/// Fields may have line ends in them, in few lines. A row of more than that may have pairs in it that are not read.
const MOST_LINES: u64 = 20;

/// The row as it may stand in a file.
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

/// Bytes that may be read for one row: the longest row, and what the reader reads ahead.
const ROW_READS: usize = MAX_LINE + (64 << 10);

/// Stops a row without end, which would fill the memory: a quote left open makes one row of the whole file.
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

/// What rows are read with.
struct Rows<'a> {
    names: Vec<String>,
    places: Places,
    times: &'a Times,
}

impl Rows<'_> {
    /// The columns that are read, and those that are not.
    fn used(&self) -> Used {
        let Places { user, segment, at } = self.places;
        let name = |place: usize| self.names[place].clone();
        let is_used = |place: &usize| [Some(user), Some(segment), at].contains(&Some(*place));
        Used {
            user_id: name(user),
            segment: name(segment),
            at: at.map(name),
            unused: (0..self.names.len())
                .filter(|place| !is_used(place))
                .map(name)
                .collect(),
        }
    }

    /// What is odd about a table whose first row is `first`.
    fn warnings(&self, columns: &Columns, source: &str, first: &ByteRecord) -> Vec<String> {
        let used = self.used();
        if used.at.is_some() || columns.at == TimeColumn::Off {
            return Vec::new();
        }
        let value = |name: &String| {
            let place = self.names.iter().position(|found| found == name);
            let field = place.and_then(|place| first.get(place));
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

    /// Writes the pair of a row; whether it has a time, where there is a column for it.
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
        let text = |place: usize| match record.get(place).map(str::from_utf8) {
            Some(Ok(text)) => Ok(text),
            Some(Err(_)) => Err(format!("`{}` is not UTF-8", self.names[place])),
            None => Err(format!("the row has no field `{}`", self.names[place])),
        };
        let at = match self.places.at {
            Some(place) => self.times.of_field(text(place)?)?,
            None => None,
        };
        let is_timed = at.is_some() || self.places.at.is_none();
        let line = Line {
            user_id: text(self.places.user)?,
            segment: text(self.places.segment)?,
            at,
        };
        serde_json::to_writer(&mut *json, &line).map_err(|error| error.to_string())?;
        match json.len() > MAX_LINE {
            true => Err(format!("the row has more than {MAX_LINE} bytes")),
            false => Ok(is_timed),
        }
    }
}
