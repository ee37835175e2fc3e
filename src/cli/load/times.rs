//! Converts times in other formats to those that the service accepts: RFC 3339 or unix seconds.

use std::borrow::Cow;

use jiff::civil::DateTime;
use jiff::tz::{Offset, TimeZone};
use serde::Deserialize;
use serde_json::Number;
use serde_json::value::{RawValue, to_raw_value};

use crate::cli::args::TimeUnit;
use domain::Timestamp;
use http::parse::{hints, parse_rfc3339};

/// How to interpret times.
#[derive(Debug, Clone, Default)]
pub(super) struct Times {
    /// The unit of numbers; `None`: derived from the number of digits.
    pub(super) unit: Option<TimeUnit>,
    /// The zone of times without one.
    pub(super) zone: Option<TimeZone>,
}

/// The message about a time without a zone.
const NO_ZONE: &str = "the time has no time zone: give the one that it is in with --zone, such as UTC, +02:00 or Europe/Berlin";

impl Times {
    /// The JSON of the time in a field of a table; `None` for an empty field. A field that is not a time is sent as a
    /// string, for the service to reject.
    pub(super) fn of_field(&self, text: &str) -> Result<Option<Box<RawValue>>, &'static str> {
        let text = text.trim();
        if text.is_empty() {
            return Ok(None);
        }
        let json = match number(text) {
            Some(number) => match self.seconds(number.get()) {
                Some(seconds) => serde_json::from_str(&seconds),
                None => Ok(number),
            },
            None => match self.rfc3339(text)? {
                Some(at) => to_raw_value(&at.to_string()),
                None => to_raw_value(text),
            },
        };
        Ok(json.ok())
    }

    /// The JSON item with its time converted to a format that the service accepts, if that is necessary and possible.
    pub(super) fn of_item<'a>(&self, json: &'a [u8]) -> Result<Cow<'a, [u8]>, &'static str> {
        #[derive(Deserialize)]
        struct Item<'a> {
            #[serde(borrow)]
            at: Option<&'a RawValue>,
        }
        const KEY: &[u8] = b"\"at\"";
        let has_time = json.windows(KEY.len()).any(|part| part == KEY);
        if !has_time {
            return Ok(Cow::Borrowed(json));
        }
        let Ok(Item { at: Some(raw) }) = serde_json::from_slice(json) else {
            return Ok(Cow::Borrowed(json));
        };
        let raw = raw.get();
        let better = match serde_json::from_str::<Cow<'_, str>>(raw) {
            Ok(text) => self.better_text(&text)?,
            Err(_) => self.seconds(raw),
        };
        let Some(better) = better else {
            return Ok(Cow::Borrowed(json));
        };
        // The offset of the value: `raw` borrows from `json`.
        let start = (raw.as_ptr() as usize).saturating_sub(json.as_ptr() as usize);
        let (before, rest) = json.split_at(start.min(json.len()));
        let after = rest.get(raw.len()..).unwrap_or_default();
        Ok(Cow::Owned([before, better.as_bytes(), after].concat()))
    }

    /// The JSON that replaces a JSON string with a time; `None` if the string stays as it is.
    fn better_text(&self, text: &str) -> Result<Option<String>, &'static str> {
        if let Some(number) = number(text.trim()) {
            let seconds = self.seconds(number.get());
            return Ok(Some(seconds.unwrap_or_else(|| number.get().to_owned())));
        }
        let at = self.rfc3339(text.trim())?;
        Ok(at.map(|at| format!("\"{at}\"")))
    }

    /// A JSON number of seconds, if `raw` is a number of another unit. The notation `1795262400123e-3` keeps all digits.
    fn seconds(&self, raw: &str) -> Option<String> {
        let unit = match self.unit {
            Some(unit) => unit,
            None => match hints::finer_unit(raw)? {
                "milliseconds" => TimeUnit::Ms,
                "microseconds" => TimeUnit::Us,
                _ => TimeUnit::Ns,
            },
        };
        let digits = match unit {
            TimeUnit::S => return None,
            TimeUnit::Ms => 3,
            TimeUnit::Us => 6,
            TimeUnit::Ns => 9,
        };
        if !raw.starts_with(|c: char| c == '-' || c.is_ascii_digit()) {
            return None;
        }
        let (mantissa, exponent) = raw.split_once(['e', 'E']).unwrap_or((raw, "0"));
        let exponent = exponent.parse::<i64>().ok()?.checked_sub(digits)?;
        Some(format!("{mantissa}e{exponent}"))
    }

    /// The instant of a string that is a time in a format that the service does not accept; `None` for any other string.
    fn rfc3339(&self, text: &str) -> Result<Option<Timestamp>, &'static str> {
        if parse_rfc3339(text).is_some() {
            return Ok(None);
        }
        let (text, zone) = split_zone(text);
        let text = match text.as_bytes() {
            [_, _, _, _, b'/', _, _, b'/', ..] => Cow::Owned(text.replacen('/', "-", 2)),
            _ => Cow::Borrowed(text),
        };
        if let Zone::Offset(offset) = zone {
            return Ok(parse_rfc3339(&format!("{text}{offset}")));
        }
        let Ok(civil) = text.parse::<DateTime>() else {
            return Ok(None);
        };
        let zone = match (zone, &self.zone) {
            (Zone::Utc, _) => &TimeZone::UTC,
            (_, Some(zone)) => zone,
            (_, None) => return Err(NO_ZONE),
        };
        // A time that occurs twice, when clocks are set back, is the first of the two.
        let zoned = civil.to_zoned(zone.clone());
        Ok(zoned.ok().map(|zoned| zoned.timestamp()))
    }
}

/// The zone at the end of a string.
enum Zone<'a> {
    None,
    Utc,
    Offset(&'a str),
}

/// Splits off a zone after a space, as in `2026-11-28 10:00:00 UTC` or `2026-11-28 10:00:00 +0200`.
fn split_zone(text: &str) -> (&str, Zone<'_>) {
    let Some((time, zone)) = text.rsplit_once(' ') else {
        return (text, Zone::None);
    };
    match zone {
        _ if zone.contains(':') && !zone.starts_with(['+', '-']) => (text, Zone::None),
        "UTC" | "utc" | "GMT" | "Z" | "z" => (time, Zone::Utc),
        _ if zone.starts_with(['+', '-']) => (time, Zone::Offset(zone)),
        _ => (text, Zone::None),
    }
}

/// The JSON of a number with its digits unchanged. `.5` and `+1e9`, which are not JSON, are converted by value.
fn number(text: &str) -> Option<Box<RawValue>> {
    if let Ok(whole) = text.parse::<i64>() {
        return to_raw_value(&whole).ok();
    }
    let is_json = text.starts_with(|c: char| c == '-' || c.is_ascii_digit());
    if is_json && let Ok(number) = serde_json::from_str(text) {
        return Some(number);
    }
    let number = text.parse().ok().and_then(Number::from_f64)?;
    to_raw_value(&number).ok()
}

/// Parses the value of `--zone`: UTC, an offset or an IANA name.
pub(in crate::cli) fn zone(text: &str) -> Result<TimeZone, String> {
    if matches!(text, "UTC" | "utc" | "GMT" | "Z" | "z") {
        return Ok(TimeZone::UTC);
    }
    if text.starts_with(['+', '-']) {
        let begin = parse_rfc3339(&format!("2000-01-01T00:00:00{text}"));
        let utc = 946_684_800;
        let seconds = begin.and_then(|at| i32::try_from(utc - at.as_second()).ok());
        let offset = seconds.and_then(|seconds| Offset::from_seconds(seconds).ok());
        return offset
            .map(TimeZone::fixed)
            .ok_or_else(|| "give an offset such as +02:00".to_owned());
    }
    TimeZone::get(text).map_err(|_| {
        "unknown time zone: give UTC, an offset such as +02:00, or a name such as Europe/Berlin"
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(unit: Option<TimeUnit>, name: Option<&str>) -> Times {
        let zone = name.map(|name| zone(name).unwrap());
        Times { unit, zone }
    }

    fn field(times: &Times, text: &str) -> Result<Option<String>, &'static str> {
        let json = times.of_field(text)?;
        Ok(json.map(|json| json.get().to_owned()))
    }

    #[test]
    fn fields_become_what_the_service_takes() {
        for (text, json) in [
            ("1795262400", "1795262400"),
            ("1795262400.25", "1795262400.25"),
            ("1795262400123", "1795262400123e-3"),
            ("1795262400123456", "1795262400123456e-6"),
            ("1795262400123456789", "1795262400123456789e-9"),
            ("2026-11-28T10:00:00Z", "\"2026-11-28T10:00:00Z\""),
            ("2026-11-28 10:00:00+02:00", "\"2026-11-28 10:00:00+02:00\""),
            ("2026-11-28 10:00:00 UTC", "\"2026-11-28T10:00:00Z\""),
            ("2026-11-28 10:00:00.5 UTC", "\"2026-11-28T10:00:00.5Z\""),
            ("2026-11-28T10:00:00 GMT", "\"2026-11-28T10:00:00Z\""),
            ("2026-11-28 10:00:00 +0200", "\"2026-11-28T08:00:00Z\""),
            ("2026-11-28 10:00:00 -05:30", "\"2026-11-28T15:30:00Z\""),
            ("2026/11/28 10:00:00 UTC", "\"2026-11-28T10:00:00Z\""),
            ("noon", "\"noon\""),
            ("28.11.2026 10:00", "\"28.11.2026 10:00\""),
        ] {
            assert_eq!(
                field(&Times::default(), text),
                Ok(Some(json.to_owned())),
                "{text}"
            );
        }
        assert_eq!(field(&Times::default(), " "), Ok(None));
    }

    #[test]
    fn a_time_without_a_zone_needs_one() {
        for text in ["2026-11-28 10:00:00", "2026-11-28T10:00:00.5", "2026-11-28"] {
            assert_eq!(field(&Times::default(), text), Err(NO_ZONE), "{text}");
        }
        for (zone, json) in [
            ("UTC", "\"2026-07-01T10:00:00Z\""),
            ("+02:00", "\"2026-07-01T08:00:00Z\""),
            ("-0330", "\"2026-07-01T13:30:00Z\""),
        ] {
            let times = times(None, Some(zone));
            assert_eq!(
                field(&times, "2026-07-01 10:00:00"),
                Ok(Some(json.to_owned())),
                "{zone}"
            );
        }
        let times = times(None, Some("UTC"));
        assert_eq!(
            field(&times, "2026-07-01"),
            Ok(Some("\"2026-07-01T00:00:00Z\"".to_owned()))
        );
        for bad in ["", "+", "+99:00", "Mars/Olympus", "+2"] {
            assert!(zone(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_given_unit_is_taken_whatever_the_digits() {
        let ms = times(Some(TimeUnit::Ms), None);
        assert_eq!(field(&ms, "1795262400").unwrap().unwrap(), "1795262400e-3");
        assert_eq!(field(&ms, "-1.5E3").unwrap().unwrap(), "-1.5e0");
        let s = times(Some(TimeUnit::S), None);
        assert_eq!(
            field(&s, "1795262400123").unwrap().unwrap(),
            "1795262400123"
        );
    }

    #[test]
    fn only_the_time_of_an_item_changes() {
        let times = times(None, None);
        let item = |json: &str| {
            let better = times.of_item(json.as_bytes());
            better.map(|json| String::from_utf8(json.into_owned()).unwrap())
        };
        for (json, better) in [
            (
                r#"{"at":1795262400123,"x":"at"}"#,
                r#"{"at":1795262400123e-3,"x":"at"}"#,
            ),
            (
                r#" {"x":1, "at" : "1795262400" }"#,
                r#" {"x":1, "at" : 1795262400 }"#,
            ),
            (
                r#"{"at":"2026-11-28 10:00:00 UTC"}"#,
                r#"{"at":"2026-11-28T10:00:00Z"}"#,
            ),
        ] {
            assert_eq!(item(json).unwrap(), better);
        }
        for json in [
            r#"{"at":1795262400}"#,
            r#"{"at":"2026-11-28T10:00:00Z"}"#,
            r#"{"at":"noon"}"#,
            r#"{"at":null}"#,
            r#"{"at":true}"#,
            r#"{"at":""}"#,
            r#"{"at":1,"at":1795262400123}"#,
            r#"{"x":"at"}"#,
            r#"{"at":"#,
            r#"["at"]"#,
        ] {
            assert_eq!(item(json).unwrap(), json);
        }
        assert_eq!(item(r#"{"at":"2026-11-28 10:00:00"}"#), Err(NO_ZONE));
    }
}
