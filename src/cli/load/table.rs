//! CSV: rows of an input, each turned into a line of NDJSON.

use std::cell::Cell;
use std::io::{self, Read};

use csv::ByteRecord;
use serde::Serialize;
use serde_json::Number;
use serde_json::value::{RawValue, to_raw_value};

use super::parcel::{MAX_LINE, Packer, Stopped};
use super::source::Position;
use crate::cli::Failure;
use crate::cli::output::harmless;

/// Which columns hold what.
#[derive(Debug, Clone)]
pub(super) struct Columns {
    pub(super) user: String,
    pub(super) segment: String,
    /// `None`: the column `at`, where there is one.
    pub(super) at: Option<String>,
    pub(super) delimiter: u8,
}

/// The same as positions in a row.
struct Places {
    user: usize,
    segment: usize,
    at: Option<usize>,
}

#[derive(Serialize)]
struct Line<'a> {
    user_id: &'a str,
    segment: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<Box<RawValue>>,
}

/// Passes each row of `input` below the first, which names the columns.
pub(super) fn pass(
    input: &mut impl Read,
    columns: &Columns,
    position: &Position,
    packer: &mut Packer,
) -> Result<(), Stopped> {
    let left = Cell::new(ROW_READS);
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(columns.delimiter)
        .flexible(true)
        .from_reader(Bounded { input, left: &left });
    let places = match reader.byte_headers() {
        Ok(header) => Places::find(header, columns),
        Err(error) => Err(Failure::failed(error.to_string())),
    };
    let places = match places {
        Ok(places) => places,
        Err(failure) => return Err(packer.fail(position.get(), failure)),
    };
    let mut record = ByteRecord::new();
    let mut json = Vec::new();
    loop {
        left.set(ROW_READS);
        match reader.read_byte_record(&mut record) {
            Ok(false) => break,
            Ok(true) => {}
            Err(error) => {
                return Err(packer.fail(position.get(), Failure::failed(error.to_string())));
            }
        }
        let line = record.position().map_or(0, csv::Position::line);
        json.clear();
        match places.write(&record, columns, &mut json) {
            Ok(()) => packer.add(line, &json, position.get())?,
            Err(message) => packer.refuse(line, message, position.get())?,
        }
    }
    packer.flush(position.get())
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

impl Places {
    fn find(header: &ByteRecord, columns: &Columns) -> Result<Self, Failure> {
        let place = |name: &str| {
            header
                .iter()
                .position(|column| column.trim_ascii() == name.as_bytes())
        };
        let must = |name: &str, flag: &str| {
            place(name).ok_or_else(|| {
                let there: Vec<_> = header
                    .iter()
                    .map(|name| harmless(&String::from_utf8_lossy(name)))
                    .collect();
                Failure::usage(format!(
                    "no column is named `{name}`: name one with --{flag}; there are: {}",
                    there.join(", ")
                ))
            })
        };
        Ok(Self {
            user: must(&columns.user, "user-column")?,
            segment: must(&columns.segment, "segment-column")?,
            at: match &columns.at {
                Some(name) => Some(must(name, "at-column")?),
                None => place("at"),
            },
        })
    }

    fn write(
        &self,
        record: &ByteRecord,
        columns: &Columns,
        json: &mut Vec<u8>,
    ) -> Result<(), String> {
        let text = |place: usize, name: &str| match record.get(place).map(str::from_utf8) {
            Some(Ok(text)) => Ok(text),
            Some(Err(_)) => Err(format!("`{name}` is not UTF-8")),
            None => Err(format!("the row has no field `{name}`")),
        };
        let line = Line {
            user_id: text(self.user, &columns.user)?,
            segment: text(self.segment, &columns.segment)?,
            at: match self.at {
                Some(place) => instant(text(place, columns.at.as_deref().unwrap_or("at"))?),
                None => None,
            },
        };
        serde_json::to_writer(&mut *json, &line).map_err(|error| error.to_string())?;
        match json.len() > MAX_LINE {
            true => Err(format!("the row has more than {MAX_LINE} bytes")),
            false => Ok(()),
        }
    }
}

/// Unix seconds as a number, digit for digit, anything else as the text that it is; nothing for an empty field.
fn instant(text: &str) -> Option<Box<RawValue>> {
    let text = text.trim();
    if text.is_empty() {
        return None;
    }
    let json = match text.parse::<i64>() {
        Ok(seconds) => to_raw_value(&seconds),
        Err(_) if text.starts_with(|c: char| c == '-' || c.is_ascii_digit()) => {
            serde_json::from_str(text).or_else(|_| loosely(text))
        }
        Err(_) => loosely(text),
    };
    json.ok()
}

/// Numbers that JSON writes otherwise, `.5` or `+1e9`, and texts.
fn loosely(text: &str) -> serde_json::Result<Box<RawValue>> {
    match text.parse().ok().and_then(Number::from_f64) {
        Some(number) => to_raw_value(&number),
        None => to_raw_value(text),
    }
}
