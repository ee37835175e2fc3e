//! Finds the columns of the user, the segment and the time in a table.

use csv::ByteRecord;

use crate::cli::Failure;
use crate::cli::args::Format;
use crate::cli::output::sanitized;
use http::parse::hints::{self, plain_name};

/// The names of the columns, from the flags or their defaults.
#[derive(Debug, Clone)]
pub(super) struct Columns {
    pub(super) user: String,
    pub(super) segment: String,
    pub(super) at: TimeColumn,
    /// `None`: detected from the header.
    pub(super) delimiter: Option<u8>,
}

/// The column of the time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TimeColumn {
    /// The column with a common name for the time, if there is one.
    Known,
    Named(String),
    /// No column: all pairs count as seen now.
    Off,
}

/// The indexes of the columns in a row.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ColumnIndexes {
    pub(super) user: usize,
    pub(super) segment: usize,
    pub(super) at: Option<usize>,
}

/// The supported delimiters, the most common first.
const DELIMITERS: [u8; 4] = [b',', b'\t', b';', b'|'];

impl Columns {
    /// The delimiter with which `header` has these columns.
    pub(super) fn delimiter_of(&self, header: &[u8]) -> Option<u8> {
        let has_columns = |delimiter: &u8| {
            let fields = fields(header, *delimiter);
            let has = |name: &str| fields.iter().any(|field| field == name);
            has(&self.user) && has(&self.segment)
        };
        match self.delimiter {
            Some(given) => Some(given).filter(has_columns),
            None => DELIMITERS.into_iter().find(has_columns),
        }
    }

    /// Whether `line` contains a supported delimiter.
    pub(super) fn has_delimiter(&self, line: &[u8]) -> bool {
        line.iter().any(|byte| DELIMITERS.contains(byte))
    }

    /// The delimiter of a table whose header may lack a column: if in doubt, the most frequent one.
    pub(super) fn likely_delimiter(&self, header: &[u8], named: Option<Format>) -> u8 {
        let usual = match named {
            Some(Format::Tsv) => b'\t',
            _ => b',',
        };
        let times = |delimiter: u8| header.iter().filter(|byte| **byte == delimiter).count();
        let most = DELIMITERS.into_iter().rev().max_by_key(|byte| times(*byte));
        self.delimiter
            .or(self.delimiter_of(header))
            .or(most.filter(|byte| times(*byte) > 0))
            .unwrap_or(usual)
    }

    /// Finds the columns in `header`.
    pub(super) fn find(&self, header: &ByteRecord) -> Result<ColumnIndexes, Failure> {
        let names = names(header);
        Ok(ColumnIndexes {
            user: must(&names, &self.user, "user-column")?,
            segment: must(&names, &self.segment, "segment-column")?,
            at: match &self.at {
                TimeColumn::Named(name) => Some(must(&names, name, "at-column")?),
                TimeColumn::Known => self.known_time(&names)?,
                TimeColumn::Off => None,
            },
        })
    }

    fn known_time(&self, names: &[String]) -> Result<Option<usize>, Failure> {
        let exact: Vec<usize> = positions(names, |name| name == "at");
        let known: Vec<usize> = positions(names, |name| {
            is_time_name(name) && *name != self.user && *name != self.segment
        });
        match (&exact[..], &known[..]) {
            ([one], _) | ([], [one]) => Ok(Some(*one)),
            ([], []) => Ok(None),
            _ => {
                let known: Vec<_> = known
                    .iter()
                    .map(|index| format!("`{}`", names[*index]))
                    .collect();
                Err(Failure::usage(format!(
                    "several columns may be the time, {}: name one with --at-column, or give --no-at-column",
                    known.join(", ")
                )))
            }
        }
    }
}

/// The names in `header`, trimmed and without control characters.
pub(super) fn names(header: &ByteRecord) -> Vec<String> {
    let name = |field: &[u8]| sanitized(String::from_utf8_lossy(field).trim());
    header.iter().map(name).collect()
}

/// Whether `name` is a common name for the time of an event. `created_at` is not: it is the time of another event.
fn is_time_name(name: &str) -> bool {
    let name = plain_name(name);
    name != "createdat" && hints::TIMES.contains(&&*name)
}

/// Whether an unused column seems to contain times, by its name or its value in the first row.
pub(super) fn looks_like_time(name: &str, value: &str) -> bool {
    const PARTS: [&str; 6] = ["time", "date", "stamp", "seen", "zeit", "when"];
    let name = plain_name(name);
    let digits = value.len() >= 10 && value.bytes().all(|byte| byte.is_ascii_digit());
    // Unix seconds from 2001 to 2065, or a finer unit.
    let is_unix = digits
        && (value.len() == 10 && value.starts_with(['1', '2'])
            || hints::finer_unit(value).is_some());
    let is_date = value.len() >= 10
        && (value.parse::<jiff::civil::DateTime>().is_ok()
            || value.parse::<jiff::Timestamp>().is_ok());
    hints::TIMES.contains(&&*name)
        || PARTS.iter().any(|part| name.contains(part))
        || is_unix
        || is_date
}

fn positions(names: &[String], is_it: impl Fn(&String) -> bool) -> Vec<usize> {
    let found = names.iter().enumerate().filter(|(_, name)| is_it(name));
    found.map(|(index, _)| index).collect()
}

fn must(names: &[String], name: &str, flag: &str) -> Result<usize, Failure> {
    match positions(names, |found| found == name)[..] {
        [index] => Ok(index),
        [] => {
            let perhaps = match likely(names, name) {
                Some(other) => format!(" (perhaps `{other}`)"),
                None => String::new(),
            };
            Err(Failure::usage(format!(
                "no column is named `{}`: name one with --{flag}{perhaps}; the columns are: {}",
                sanitized(name),
                names.join(", ")
            )))
        }
        _ => Err(Failure::usage(format!(
            "several columns are named `{}`: rename all but one",
            sanitized(name)
        ))),
    }
}

/// The column that `name` probably refers to.
fn likely<'a>(names: &'a [String], name: &str) -> Option<&'a String> {
    const ALIKE: f64 = 0.75;
    let others: &[&str] = match name {
        "user_id" => hints::USERS,
        "segment" => hints::SEGMENTS,
        _ => &[],
    };
    let is_other = |found: &&String| others.contains(&&*plain_name(found));
    let alike =
        |found: &str| strsim::normalized_damerau_levenshtein(&plain_name(found), &plain_name(name));
    names.iter().find(is_other).or_else(|| {
        let near = names.iter().filter(|found| alike(found) >= ALIKE);
        near.max_by(|a, b| alike(a).total_cmp(&alike(b)))
    })
}

/// The fields of a line, without quotes and surrounding white space.
fn fields(line: &[u8], delimiter: u8) -> Vec<String> {
    let mut record = ByteRecord::new();
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(delimiter)
        .has_headers(false)
        .flexible(true)
        .from_reader(line);
    match reader.read_byte_record(&mut record) {
        Ok(true) => names(&record),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(at: TimeColumn) -> Columns {
        Columns {
            user: "user_id".into(),
            segment: "segment".into(),
            at,
            delimiter: None,
        }
    }

    fn find(header: &[&str], at: TimeColumn) -> Result<Option<usize>, String> {
        let header = [&["user_id", "segment"], header].concat();
        match columns(at).find(&ByteRecord::from(header)) {
            Ok(indexes) => Ok(indexes.at),
            Err(Failure::Usage(text) | Failure::Failed(text)) => Err(text),
        }
    }

    #[test]
    fn usual_names_of_the_time_are_taken() {
        for name in [
            "at",
            "At",
            "timestamp",
            "Timestamp",
            "event_time",
            "lastSeen",
            "Seen At",
            "ts",
            "date",
        ] {
            assert_eq!(find(&["x", name], TimeColumn::Known), Ok(Some(3)), "{name}");
            assert_eq!(find(&["x", name], TimeColumn::Off), Ok(None));
        }
        for name in ["attr", "created_at", "age", "Zeitpunkt"] {
            assert_eq!(find(&[name], TimeColumn::Known), Ok(None), "{name}");
        }
        assert_eq!(find(&["timestamp", "at"], TimeColumn::Known), Ok(Some(3)));
        let several = find(&["timestamp", "date"], TimeColumn::Known).unwrap_err();
        assert!(
            several.contains("`timestamp`, `date`: name one with --at-column"),
            "{several}"
        );
        let named = TimeColumn::Named("date".into());
        assert_eq!(find(&["timestamp", "date"], named), Ok(Some(3)));
        let twice = find(&["at", "at"], TimeColumn::Known).unwrap_err();
        assert!(twice.contains("several columns"), "{twice}");
    }

    #[test]
    fn a_missing_column_is_guessed() {
        let find = |header: &[&str]| {
            let found = columns(TimeColumn::Known).find(&ByteRecord::from(header.to_vec()));
            found.unwrap_err().to_string()
        };
        assert_eq!(
            find(&["userId", "segment"]),
            "no column is named `user_id`: name one with --user-column (perhaps `userId`); the columns are: userId, segment"
        );
        assert!(find(&["user_id", "audience"]).contains("--segment-column (perhaps `audience`)"));
        assert!(find(&["user_id", "segmnt"]).contains("(perhaps `segmnt`)"));
        assert!(find(&["who", "what"]).contains("--user-column; the columns are: who, what"));
        assert!(find(&["user_id", "user_id", "segment"]).contains("several columns are named"));
    }

    #[test]
    fn columns_of_times_are_noticed() {
        for (name, value) in [
            ("created_at", "x"),
            ("Zeitpunkt", "x"),
            ("visit_date", ""),
            ("x", "2020-01-01T00:00:00Z"),
            ("x", "2020-01-01 10:00:00"),
            ("x", "2020-01-01"),
            ("x", "1577880000"),
            ("x", "1577880000123"),
        ] {
            assert!(looks_like_time(name, value), "{name} {value}");
        }
        for (name, value) in [
            ("country", "DE"),
            ("age", "42"),
            ("zip", "10115"),
            ("n", "9999999999"),
        ] {
            assert!(!looks_like_time(name, value), "{name} {value}");
        }
    }
}
