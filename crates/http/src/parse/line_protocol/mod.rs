//! InfluxDB's line protocol: `measurement,tag=value field=value timestamp`, one point a line.
//!
//! A line is read as InfluxDB 2.9.1 reads it: a backslash escapes the delimiters of a name or tag and the quotes of a string,
//! and is itself a character elsewhere. Unlike InfluxDB, a carriage return at the end of a line is ignored, and nothing may
//! follow the closing quote of a string. The crate `influxdb_line_protocol` is not used, because it was last published in
//! 2023; it is the oracle of a fuzz test.

mod reader;

use self::reader::{LineError, RawPair, Reader, Value};
use super::{Push, Report};
use domain::Timestamp;

/// What pairs are called in lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineNames {
    /// The measurement of pairs. Points of others are ignored.
    pub measurement: String,
    /// The tag with the segment.
    pub segment: String,
    /// The field with the user id: a string or an integer.
    pub user: String,
}

/// The unit of timestamps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precision {
    /// Nanoseconds.
    #[default]
    Nanoseconds,
    /// Microseconds.
    Microseconds,
    /// Milliseconds.
    Milliseconds,
    /// Seconds.
    Seconds,
    /// Minutes.
    Minutes,
    /// Hours.
    Hours,
}

impl Precision {
    /// The precision that a client names; `None` if InfluxDB knows no such name.
    pub fn of(name: &str) -> Option<Self> {
        Some(match name {
            "" | "n" | "ns" => Self::Nanoseconds,
            "u" | "us" | "µ" => Self::Microseconds,
            "ms" => Self::Milliseconds,
            "s" => Self::Seconds,
            "m" => Self::Minutes,
            "h" => Self::Hours,
            _ => return None,
        })
    }

    fn instant(self, time: i64) -> Result<Timestamp, LineError> {
        let nanoseconds: i128 = match self {
            Self::Nanoseconds => 1,
            Self::Microseconds => 1_000,
            Self::Milliseconds => 1_000_000,
            Self::Seconds => 1_000_000_000,
            Self::Minutes => 60_000_000_000,
            Self::Hours => 3_600_000_000_000,
        };
        let at = i128::from(time) * nanoseconds;
        // InfluxDB keeps nanoseconds in 64 bits.
        let at = i64::try_from(at).map_err(|_| LineError::Range)?;
        Timestamp::from_nanosecond(i128::from(at)).map_err(|_| LineError::Range)
    }
}

/// Parses a body, and pushes its pairs. Blank lines and comments are skipped, and points of other measurements ignored.
pub fn lines(body: &[u8], names: &LineNames, precision: Precision, push: &mut impl Push) -> Report {
    let mut reader = Reader::new(body);
    let mut report = Report::default();
    while let Some(point) = reader.next(names) {
        let point = match point {
            Ok(point) => point,
            Err(error) => {
                report.reject("malformed", || error.to_string());
                continue;
            }
        };
        match point.pair {
            None => report.ignored += 1,
            Some(pair) => take(&pair, point.time, names, precision, push, &mut report),
        }
    }
    report
}

fn take(
    pair: &RawPair<'_>,
    time: Option<i64>,
    names: &LineNames,
    precision: Precision,
    push: &mut impl Push,
    report: &mut Report,
) {
    let Some(segment) = &pair.segment else {
        let tag = &names.segment;
        return report.reject("invalid_segment", || format!("the tag `{tag}` is missing"));
    };
    let user: &[u8] = match &pair.user {
        Some(Value::Text(text)) => text,
        Some(Value::Integer(digits)) => digits,
        found => {
            let (field, is_missing) = (&names.user, found.is_none());
            return report.reject("invalid_user_id", || match is_missing {
                true => format!("the field `{field}` is missing"),
                false => format!("the field `{field}` must be a string or an integer"),
            });
        }
    };
    let (Ok(segment), Ok(user)) = (std::str::from_utf8(segment), std::str::from_utf8(user)) else {
        return report.reject("malformed", || "the line is not UTF-8".to_owned());
    };
    let at = time.map(|time| precision.instant(time)).transpose();
    let at = match at {
        Ok(at) => at,
        Err(error) => return report.reject("invalid_at", || error.to_string()),
    };
    match push(user, segment, at) {
        Ok(()) => report.accept(),
        Err(error) => report.reject(error.code(), || error.to_string()),
    }
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
