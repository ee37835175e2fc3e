//! Fuzz targets: bodies of `POST /v1/pairs`, compared with a reference parser that shares only the JSON parser, and bodies of other
//! formats.

use std::convert::Infallible;
use std::fmt;

use serde::de::{Deserializer, MapAccess, Visitor};

use super::*;
use crate::parse::messages::Dialect;
use domain::{Segment, UserId};
use fuzzing::{Edit, edit, spell};

const WORDS: &[&str] = &[
    "{\"user_id\":\"u\",\"segment\":\"s\"}",
    "\"user_id\":",
    "\"segment\":",
    "\"at\":",
    "\"us\\u0065r_id\":",
    "null",
    "true",
    "\"u1\"",
    "-0",
    "340282366920938463463374607431768211456",
    "1795262400",
    "1795262399.9999999999",
    "\"2026-11-21T12:00:00.123456789012Z\"",
    "-0.5",
    "17952624E-1",
    "1e400",
    "-1e-400",
    "\"2026-11-21T12:00:00Z\"",
    "\"2026-02-29t23:59:60.5+05:30\"",
    "\"9999-12-31T23:59:59Z\"",
    "\"0000-01-01T00:00:00-23:59\"",
    "\\ud83c\\udfc0",
    "\\ud800",
    "\\\\",
    "\u{feff}",
    "\u{a0}",
    "Юля",
    "\r\n",
    "[{},{}]",
    "\\\"",
];

/// The result of an item: the pair, or the code of its error.
type Outcome = Result<(String, String, Option<Timestamp>), &'static str>;

/// Receives the pairs of a body.
type Pushed<'a> = &'a mut dyn FnMut(&str, &str, Option<Timestamp>) -> Result<(), PairError>;

/// The results of the parser for a body.
fn parsed<E>(read: impl FnOnce(Pushed<'_>) -> Result<Report, E>) -> Result<Vec<Outcome>, E> {
    let mut pushed = Vec::new();
    let mut push = |user: &str, segment: &str, at: Option<Timestamp>| {
        UserId::new(user)?;
        Segment::new(segment)?;
        pushed.push((user.to_owned(), segment.to_owned(), at));
        Ok(())
    };
    let report = read(&mut push)?;
    assert_eq!(
        pushed.len() + report.rejected(),
        report.items,
        "each item is a pair or an error"
    );
    let listed = report.rejected().min(100);
    assert_eq!(report.errors.len(), listed);
    let mut outcomes = Vec::new();
    let (mut pushed, mut errors) = (pushed.into_iter(), report.errors.iter().peekable());
    for index in 0..report.items {
        outcomes.push(match errors.next_if(|error| error.index == index) {
            Some(error) => Err(error.code),
            None => match pushed.next() {
                Some(pair) => Ok(pair),
                // Errors beyond the first hundred are not listed.
                None => break,
            },
        });
        if listed == 100 && errors.peek().is_none() {
            break;
        }
    }
    Ok(outcomes)
}

fn agree(parsed: &[Outcome], expected: &[Outcome], what: &str) {
    assert!(parsed.len() <= expected.len());
    for (index, (parsed, expected)) in parsed.iter().zip(expected).enumerate() {
        match (parsed, expected) {
            // Only RFC 3339 is documented. jiff accepts more forms of instants.
            (Ok((user, segment, Some(_))), Err("invalid_at")) => {
                assert!(!user.is_empty() && !segment.is_empty());
            }
            _ => assert_eq!(parsed, expected, "{what} {index}"),
        }
    }
    if parsed.iter().filter(|outcome| outcome.is_err()).count() < 100 {
        assert_eq!(parsed.len(), expected.len(), "{what}s");
    }
}

/// An object's fields in order, with duplicates.
struct Object(Vec<(String, String)>);

impl<'de> serde::Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Object;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut fields = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, Box<RawValue>>()? {
                    fields.push((name, value.get().to_owned()));
                }
                Ok(Object(fields))
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

/// The result of an item by the documentation.
fn expected(text: &str) -> Outcome {
    let Ok(Object(fields)) = serde_json::from_str(text) else {
        return Err("malformed");
    };
    let field = |name: &str| {
        let mut values = fields.iter().filter(|(found, _)| found == name);
        let first = values.next().map(|(_, value)| value.as_str());
        match values.next() {
            Some(_) => Err("malformed"),
            None => Ok(first.filter(|value| *value != "null")),
        }
    };
    let (user, segment, at) = (field("user_id")?, field("segment")?, field("at")?);
    let string = |raw: &str| serde_json::from_str::<String>(raw).ok();
    let integer = |raw: &str| {
        let digits = raw.trim_start_matches('-');
        let whole = !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit());
        whole.then(|| if raw == "-0" { "0" } else { raw }.to_owned())
    };
    let plain = |text: &str| text.chars().all(|c| !c.is_control());
    let user = user.and_then(|raw| string(raw).or_else(|| integer(raw)));
    let user = user.ok_or("invalid_user_id")?;
    let segment = segment.and_then(string).ok_or("invalid_segment")?;
    let at = match at {
        None => None,
        Some(raw) => Some(match string(raw) {
            Some(text) => rfc3339(&text).ok_or("invalid_at")?,
            None => decimal(raw).ok_or("invalid_at")?,
        }),
    };
    if !(1..=256).contains(&user.len()) || !plain(&user) {
        return Err("invalid_user_id");
    }
    let outer = segment.trim() != segment || segment.ends_with('\\');
    if !(1..=128).contains(&segment.len()) || !plain(&segment) || outer {
        return Err("invalid_segment");
    }
    Ok((user, segment, at))
}

/// The instant at `nanos` since the unix epoch, clamped to the representable range.
fn instant(nanos: i128) -> Timestamp {
    let (first, last) = (
        Timestamp::MIN.as_nanosecond(),
        Timestamp::MAX.as_nanosecond(),
    );
    Timestamp::from_nanosecond(nanos.clamp(first, last)).unwrap()
}

/// The instant of a JSON number of unix seconds, rounded down to nanoseconds.
fn decimal(number: &str) -> Option<Timestamp> {
    let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    let (mantissa, sign) = match mantissa.strip_prefix('-') {
        Some(rest) => (rest, -1),
        None => (mantissa, 1),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let zero = digits.bytes().all(|digit| digit == b'0');
    // An exponent may have any number of digits. If it does not fit, only its sign matters.
    let exponent: i64 = match exponent.parse::<i128>() {
        _ if zero => 0,
        Ok(exponent) => exponent.clamp(-1_000_000, 1_000_000) as i64,
        Err(_) if exponent.starts_with('-') => -1_000_000,
        Err(_) => 1_000_000,
    };
    // Digit by digit, for numbers of any length. `shift` is the power of ten of a digit, in nanoseconds.
    let mut nanos: i128 = 0;
    let mut rest = false;
    let first = digits.find(|digit| digit != '0').unwrap_or(0);
    for (place, digit) in digits.bytes().enumerate().skip(first) {
        let shift = whole.len() as i64 - 1 - place as i64 + exponent + 9;
        let digit = i128::from(digit - b'0');
        match shift {
            0..30 => nanos += digit * 10_i128.pow(shift as u32),
            30.. if digit > 0 => return Some(instant(sign * i128::MAX)),
            _ => rest |= digit > 0,
        }
    }
    Some(instant(match sign {
        1 => nanos,
        _ => -nanos - i128::from(rest),
    }))
}

/// The instant of a string in exactly the grammar of RFC 3339, section 5.6, without leap seconds.
fn rfc3339(text: &str) -> Option<Timestamp> {
    let number = |range: std::ops::Range<usize>| {
        let digits = text.get(range)?;
        let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
        plain.then(|| digits.parse::<i64>().ok()).flatten()
    };
    let byte = |at: usize| text.as_bytes().get(at).copied();
    let marks = [(4, b"-"), (7, b"-"), (13, b":"), (16, b":")];
    let marked = marks.iter().all(|(at, mark)| byte(*at) == Some(mark[0]));
    if !marked || !matches!(byte(10), Some(b'T' | b't')) {
        return None;
    }
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let lengths = [
        31,
        28 + i64::from(leap),
        31,
        30,
        31,
        30,
        31,
        31,
        30,
        31,
        30,
        31,
    ];
    let length = *lengths.get(usize::try_from(month - 1).ok()?)?;
    if !(1..=length).contains(&day) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let (mut rest, mut fraction) = (text.get(19..)?, 0);
    if let Some(digits) = rest.strip_prefix('.') {
        let end = digits.find(|c: char| !c.is_ascii_digit())?;
        if end == 0 {
            return None;
        }
        // Digits beyond nanoseconds are dropped.
        let kept = end.min(9);
        fraction = digits[..kept].parse::<i128>().ok()? * 10_i128.pow(9 - kept as u32);
        rest = &digits[end..];
    }
    let offset = match rest.as_bytes() {
        b"Z" | b"z" => 0,
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let two = |a: &u8, b: &u8| {
                let digits = a.is_ascii_digit() && b.is_ascii_digit();
                digits.then(|| i64::from(a - b'0') * 10 + i64::from(b - b'0'))
            };
            let (hours, minutes) = (two(h1, h2)?, two(m1, m2)?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            (hours * 3600 + minutes * 60) * if *sign == b'-' { -1 } else { 1 }
        }
        _ => return None,
    };
    let mut days = day - 1 + lengths[..(month - 1) as usize].iter().sum::<i64>();
    for earlier in 0..year {
        let leap = earlier % 4 == 0 && (earlier % 100 != 0 || earlier % 400 == 0);
        days += 365 + i64::from(leap);
    }
    // From year 0 to 1970 there are 719,528 days.
    let seconds = (days - 719_528) * 86_400 + hour * 3600 + minute * 60 + second - offset;
    Some(instant(i128::from(seconds) * 1_000_000_000 + fraction))
}

fn check(body: &[u8]) {
    let mark: &[u8] = "\u{feff}".as_bytes();
    let text = body.strip_prefix(mark).unwrap_or(body);

    let Ok(lines) = parsed(|mut push| Ok::<_, Infallible>(ndjson(body, &mut push)));
    let expected_lines: Vec<Outcome> = text
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.trim_ascii().is_empty())
        .map(|line| std::str::from_utf8(line).map_or(Err("malformed"), expected))
        .collect();
    agree(&lines, &expected_lines, "line");

    let document = parsed(|mut push| json(body, &mut push));
    let whole: Result<&RawValue, _> = serde_json::from_slice(text);
    match (document, whole) {
        (Ok(document), Ok(whole)) if whole.get().starts_with('[') => {
            let items: Vec<&RawValue> = serde_json::from_str(whole.get()).unwrap();
            let items: Vec<Outcome> = items.iter().map(|item| expected(item.get())).collect();
            agree(&document, &items, "item");
        }
        (Ok(document), Ok(whole)) => agree(&document, &[expected(whole.get())], "item"),
        (Err(BadBody::Shape), Ok(whole)) => assert!(!whole.get().starts_with(['{', '['])),
        (Err(BadBody::NotUtf8(at)), _) => assert!(std::str::from_utf8(&text[..at]).is_ok()),
        (Err(BadBody::Compressed(_)), _) => unreachable!("checked before parsing"),
        (Err(BadBody::Empty), _) => assert!(text.trim_ascii().is_empty()),
        (Err(BadBody::NotJson(_) | BadBody::Lines), Err(_)) => {}
        (document, whole) => panic!("{document:?}, but the JSON parser returns {whole:?}"),
    }
}

#[test]
fn bodies() {
    bolero::check!().for_each(|input: &[u8]| check(&spell(input, WORDS)));
}

#[test]
fn instants() {
    bolero::check!().for_each(|input: &[u8]| {
        let words = &[
            "1795262399",
            ".9999999999",
            ".99999999999999999999",
            "e-",
            "E+",
            "2026-11-21T12:00:00",
            "9999-12-3",
            "Z",
            "-23:59",
            "-0",
        ];
        let Ok(text) = String::from_utf8(spell(input, words)) else {
            return;
        };
        if let Some(at) = rfc3339(&text) {
            assert_eq!(parse_instant(&text), Some(at), "{text}");
        }
        let json = serde_json::from_str::<&RawValue>(&text).is_ok_and(|raw| raw.get() == text);
        if json && text.starts_with(|c: char| c == '-' || c.is_ascii_digit()) {
            assert_eq!(instant::parse_unix(&text), decimal(&text), "{text}");
            assert_eq!(parse_instant(&text), decimal(&text), "{text}");
        }
    });
}

/// Bodies of formats of other programs: nothing panics, and each item is a pair or an error.
#[test]
fn foreign_formats() {
    const BODIES: [&str; 6] = [
        "pair,segment=a user=\"u\" 5\npair,segment=b user=7i\n",
        "{\"batch\": [{\"type\": \"track\", \"userId\": \"u\", \"event\": \"e\", \"timestamp\": \"2026-11-21T12:00:00Z\"}], \"sentAt\": null}",
        "{\"api_key\": \"k\", \"batch\": [{\"event\": \"e\", \"distinct_id\": 1, \"properties\": {\"segment\": \"a\"}}]}",
        "{\"data\": [{\"e\": \"se\", \"se_ca\": \"segment\", \"se_ac\": \"a\", \"uid\": \"u\", \"dtm\": \"5\", \"aid\": \"k\"}]}",
        "[{\"subject\": \"u\", \"time\": \"2026-11-21T12:00:00Z\", \"data\": {\"segment\": \"a\"}}]",
        "{\"segment\": \"a\"}",
    ];
    let names = crate::settings::PairNames::default();
    bolero::check!()
        .with_type::<(u8, Vec<Edit>)>()
        .for_each(move |(which, edits)| {
            let mut body = BODIES[usize::from(*which) % BODIES.len()]
                .as_bytes()
                .to_vec();
            edit(&mut body, edits);
            let lines = |mut push: Pushed<'_>| {
                let precision = line_protocol::Precision::Seconds;
                Ok::<_, BadBody>(line_protocol::lines(
                    &body,
                    &names.lines,
                    precision,
                    &mut push,
                ))
            };
            parsed(lines).unwrap();
            for dialect in [
                Dialect::Message("track"),
                Dialect::Batch,
                Dialect::PostHog,
                Dialect::Snowplow,
            ] {
                let (rules, now) = (&names.messages, Timestamp::UNIX_EPOCH);
                let _ = messages::token(&body, dialect);
                let _ =
                    parsed(|mut push| messages::messages(&body, dialect, rules, now, &mut push));
            }
            let _ = parsed(|mut push| cloud_events::structured(&body, &mut push));
            let attributes = cloud_events::Attributes::default();
            let _ = parsed(|mut push| cloud_events::binary(&body, &attributes, &mut push));
        });
}
