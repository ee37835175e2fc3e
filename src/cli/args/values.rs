//! Parsers of argument values.

use std::num::NonZeroU32;
use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::Date;

use crate::cli::duration;
use domain::Reach;
use http::auth::{MAX_RATE, PATTERN};

pub(super) fn delimiter(text: &str) -> Result<u8, String> {
    match text.as_bytes() {
        b"\\t" => Ok(b'\t'),
        [byte] if byte.is_ascii() && !matches!(byte, b'"' | b'\r' | b'\n') => Ok(*byte),
        _ => Err(r#"give one ASCII character, or \t for a tab"#.into()),
    }
}

/// Checks a day or an instant, which the service then reads.
pub(super) fn day_or_instant(text: &str) -> Result<String, String> {
    let is_valid = text
        .parse::<Date>()
        .is_ok_and(|day| day.to_string() == text)
        || text.parse::<Timestamp>().is_ok();
    match is_valid {
        true => Ok(text.to_owned()),
        false => {
            Err("give a day such as 2026-11-15, or a time such as 2026-11-15T08:00:00Z".into())
        }
    }
}

pub(super) fn lifetime(text: &str) -> Result<Duration, String> {
    // Longer than any token should live, and within the range of timestamps.
    const LONGEST: Duration = Duration::from_hours(24 * 365 * 100);
    match duration(text) {
        Some(time) if !time.is_zero() && time <= LONGEST => Ok(time),
        _ => Err("give a duration such as 90d or 1y".into()),
    }
}

pub(super) fn pattern(text: &str) -> Result<String, String> {
    match Reach::of([text]) {
        Some(_) => Ok(text.to_owned()),
        None => Err(format!("give {PATTERN}")),
    }
}

pub(super) fn rate(text: &str) -> Result<NonZeroU32, String> {
    let rate = text.parse().ok();
    rate.filter(|rate: &NonZeroU32| rate.get() <= MAX_RATE)
        .ok_or_else(|| format!("give a whole number from 1 to {MAX_RATE}"))
}

pub(super) fn retry_time(text: &str) -> Result<Duration, String> {
    // Longer than any useful value, and far from overflow of an instant.
    const LONGEST: Duration = Duration::from_hours(24 * 365);
    match duration(text) {
        Some(time) if time <= LONGEST => Ok(time),
        _ => Err("give a duration such as 30s or 5m".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_values_are_refused_in_words() {
        for bad in ["", "ab", "\"", "é"] {
            assert!(delimiter(bad).is_err());
        }
        assert_eq!(delimiter("\\t"), Ok(b'\t'));
        assert_eq!(delimiter(";"), Ok(b';'));
        for bad in ["", "5", "0s", "101y"] {
            assert!(lifetime(bad).is_err(), "{bad}");
        }
        for bad in ["0", "-1", "10000001", "x"] {
            assert!(rate(bad).is_err(), "{bad}");
        }
        assert!(retry_time("5").is_err());
        assert!(retry_time("999999y").is_err());
        assert_eq!(retry_time("0s"), Ok(Duration::ZERO));
    }
}
