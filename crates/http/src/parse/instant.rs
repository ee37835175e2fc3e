//! Parsers of instants: RFC 3339 and unix seconds.

use std::borrow::Cow;

use jiff::Timestamp;
use jiff::civil::{Date, Time};
use jiff::tz::Offset;

/// Nanoseconds of a second.
const NANOS: i128 = 1_000_000_000;
/// Decimal digits of the nanoseconds of a second.
const NANO_DIGITS: i64 = 9;
/// More digits of nanoseconds than any instant has, and fewer than an `i128` takes.
const MOST_DIGITS: i64 = 30;

/// Parses an instant in RFC 3339. An instant beyond the representable range becomes the last representable one, which is in
/// the future too.
pub fn parse_rfc3339(text: &str) -> Option<Timestamp> {
    if let Some(at) = parse_plain(text) {
        return Some(at);
    }
    let text = &*without_fine_digits(text);
    if let Ok(at) = text.parse() {
        return Some(at);
    }
    // The representable range ends within the last two days of year 9999.
    let time = text
        .strip_prefix("9999-12-30")
        .or_else(|| text.strip_prefix("9999-12-31"))?;
    let representable: Result<Timestamp, _> = format!("9999-12-01{time}").parse();
    representable.ok().map(|_| Timestamp::MAX)
}

/// `text` with its fraction of a second truncated to nanoseconds. RFC 3339 allows any number of digits.
fn without_fine_digits(text: &str) -> Cow<'_, str> {
    const KEPT: usize = 9;
    let Some((before, fraction)) = text.split_once('.') else {
        return Cow::Borrowed(text);
    };
    let digits = fraction.bytes().take_while(u8::is_ascii_digit).count();
    match digits > KEPT {
        true => Cow::Owned(format!(
            "{before}.{}{}",
            &fraction[..KEPT],
            &fraction[digits..]
        )),
        false => Cow::Borrowed(text),
    }
}

/// Parses exactly the form `2026-11-21T12:00:00Z`, which most programs write. Several times as fast as the general parser.
fn parse_plain(text: &str) -> Option<Timestamp> {
    let bytes: &[u8; 20] = text.as_bytes().try_into().ok()?;
    let [y0, y1, y2, y3, b'-', m0, m1, b'-', d0, d1, b'T', rest @ ..] = bytes else {
        return None;
    };
    let [h0, h1, b':', n0, n1, b':', s0, s1, b'Z'] = rest else {
        return None;
    };
    let two = |tens: &u8, ones: &u8| {
        let digits = tens.is_ascii_digit() && ones.is_ascii_digit();
        digits.then(|| i8::try_from((tens - b'0') * 10 + (ones - b'0')).unwrap_or(i8::MAX))
    };
    let year = i16::from(two(y0, y1)?) * 100 + i16::from(two(y2, y3)?);
    let date = Date::new(year, two(m0, m1)?, two(d0, d1)?).ok()?;
    let time = Time::new(two(h0, h1)?, two(n0, n1)?, two(s0, s1)?, 0).ok()?;
    Offset::UTC.to_timestamp(date.to_datetime(time)).ok()
}

/// Parses a JSON number of unix seconds, rounded down to nanoseconds. A number beyond the representable range becomes the
/// first or last representable instant.
///
/// Parsed digit by digit: an `f64` of current unix seconds has a precision of only a quarter of a microsecond, so the last
/// instant of a slot could be rounded to the next slot.
pub(crate) fn parse_unix(number: &str) -> Option<Timestamp> {
    if let Ok(seconds) = number.parse::<i64>() {
        return Some(clamped(i128::from(seconds) * NANOS));
    }
    let (mantissa, exponent) = match number.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, parse_exponent(exponent)?),
        None => (number, 0),
    };
    let positive = mantissa.strip_prefix('-');
    let sign = if positive.is_some() { -1 } else { 1 };
    let mantissa = positive.unwrap_or(mantissa);
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = whole.bytes().chain(fraction.bytes());
    let is_empty = whole.is_empty() && fraction.is_empty();
    if is_empty || !digits.clone().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let zeroes = digits.clone().take_while(|digit| *digit == b'0').count();
    let mut digits = digits.skip(zeroes).map(|digit| i128::from(digit - b'0'));
    // The number of digits down to the nanosecond.
    let kept = offset(whole.len(), zeroes).saturating_add(exponent) + NANO_DIGITS;
    if kept > MOST_DIGITS {
        let is_zero = digits.next().is_none();
        return Some(clamped(if is_zero { 0 } else { sign * i128::MAX }));
    }
    let mut nanos = 0;
    for _ in 0..kept {
        nanos = nanos * 10 + digits.next().unwrap_or(0);
    }
    let is_more = digits.any(|digit| digit > 0);
    Some(clamped(match sign {
        1 => nanos,
        _ => -nanos - i128::from(is_more),
    }))
}

/// Parses an exponent. An extreme exponent is clamped, which does not change the result.
fn parse_exponent(text: &str) -> Option<i64> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let size = digits.parse().unwrap_or(i64::MAX / 2).min(i64::MAX / 2);
    Some(if text.starts_with('-') { -size } else { size })
}

/// The position of the decimal point relative to the first significant digit.
fn offset(whole: usize, zeroes: usize) -> i64 {
    // Both are lengths of strings in memory.
    let length = |length: usize| i64::try_from(length).unwrap_or(i64::MAX / 4);
    length(whole) - length(zeroes)
}

/// Parses an instant of a query parameter, in either form.
pub(crate) fn parse_either(text: &str) -> Option<Timestamp> {
    let number = text.starts_with(|c: char| c.is_ascii_digit() || c == '-')
        && text
            .bytes()
            .all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'+' | b'e' | b'E'));
    if number && let Some(at) = parse_unix(text) {
        return Some(at);
    }
    parse_rfc3339(text)
}

/// The instant at `nanos` since the unix epoch, or the nearest representable one.
fn clamped(nanos: i128) -> Timestamp {
    Timestamp::from_nanosecond(nanos).unwrap_or(if nanos < 0 {
        Timestamp::MIN
    } else {
        Timestamp::MAX
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc3339_with_any_offset() {
        let noon = Timestamp::from_second(1_795_262_400).unwrap();
        for text in [
            "2026-11-21T12:00:00Z",
            "2026-11-21T12:00:00.000Z",
            "2026-11-21t12:00:00z",
            "2026-11-21T14:00:00+02:00",
            "2026-11-21T06:30:00-05:30",
        ] {
            assert_eq!(parse_rfc3339(text), Some(noon), "{text}");
        }
    }

    #[test]
    fn digits_finer_than_a_nanosecond_are_cut() {
        let last = Timestamp::new(1_795_262_399, 999_999_999).ok();
        for text in [
            "2026-11-21T11:59:59.999999999Z",
            "2026-11-21T11:59:59.9999999999Z",
            "2026-11-21T12:59:59.99999999999999999999999999999999999999999+01:00",
            "2026-11-21 11:59:59.999999999999z",
        ] {
            assert_eq!(parse_rfc3339(text), last, "{text}");
            assert_eq!(parse_either(text), last, "{text}");
        }
        let end = "9999-12-31T23:59:59.9999999999Z";
        assert_eq!(parse_rfc3339(end), Some(Timestamp::MAX));
        for text in ["2026-11-21T11:59:59.9999999999", "1.0000000000é", "."] {
            assert_eq!(parse_rfc3339(text), None, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn the_plain_way_means_the_same(text in "[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-6][0-9]:[0-6][0-9]Z") {
            if let Some(at) = parse_plain(&text) {
                proptest::prop_assert_eq!(text.parse::<Timestamp>().ok(), Some(at));
            }
        }
    }

    #[test]
    fn the_plain_way_is_exact() {
        let parsed = |text| parse_plain(text).map(Timestamp::as_second);
        assert_eq!(parsed("2026-11-21T12:00:00Z"), Some(1_795_262_400));
        assert_eq!(parsed("2024-02-29T23:59:59Z"), Some(1_709_251_199));
        for bad in [
            "2026-02-29T00:00:00Z",
            "2026-11-21T24:00:00Z",
            "2026-11-21T12:00:60Z",
            "2026-11-21t12:00:00Z",
            "2026-11-21 12:00:00Z",
            "2026-1a-21T12:00:00Z",
            "+026-11-21T12:00:00Z",
            "2026-11-21T12:00:00",
        ] {
            assert_eq!(parsed(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_end_of_time_is_still_an_instant() {
        for text in [
            "9999-12-31T23:59:59Z",
            "9999-12-31T23:59:59.999999999-12:00",
            "9999-12-30T22:00:01Z",
        ] {
            assert_eq!(parse_rfc3339(text), Some(Timestamp::MAX), "{text}");
        }
        assert!(parse_rfc3339("0000-01-01T00:00:00Z").unwrap() < Timestamp::UNIX_EPOCH);
        assert_eq!(parse_unix("1e400"), Some(Timestamp::MAX));
        assert_eq!(parse_unix("-1e400"), Some(Timestamp::MIN));
        assert_eq!(parse_unix("99999999999999999999999"), Some(Timestamp::MAX));
        assert_eq!(parse_unix("-99999999999999999999999"), Some(Timestamp::MIN));
        assert_eq!(parse_unix("-1"), Timestamp::from_second(-1).ok());
    }

    #[test]
    fn fractions_count_to_the_nanosecond() {
        assert_eq!(
            parse_unix("1795262400.5"),
            Timestamp::new(1_795_262_400, 500_000_000).ok()
        );
        assert_eq!(parse_unix("-0.5"), Timestamp::new(0, -500_000_000).ok());
        // The last instant of a minute stays in that minute, with any number of nines.
        let last = Timestamp::new(1_795_262_399, 999_999_999).ok();
        assert_eq!(parse_unix("1795262399.9999999999"), last);
        assert_eq!(parse_unix("17952623999999999999E-10"), last);
        assert_eq!(parse_unix("-1e-400"), Timestamp::new(0, -1).ok());
        assert_eq!(
            parse_unix("1.7952624e9"),
            Timestamp::from_second(1_795_262_400).ok()
        );
    }

    #[test]
    fn what_is_no_instant() {
        for text in [
            "",
            "yesterday",
            "2026-11-21",
            "2026-11-21T12:00:00",
            "2026-13-01T00:00:00Z",
            "9999-12-31",
            "9999-12-31T25:00:00Z",
            "NaN",
            "-",
            "1e",
            "inf",
            "é",
        ] {
            assert_eq!(parse_either(text), None, "{text}");
        }
        assert!(parse_either("1795262400").is_some());
        assert!(parse_either("2026-11-21T12:00:00Z").is_some());
    }
}
