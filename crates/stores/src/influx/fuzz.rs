//! Fuzz targets: requests to InfluxDB and its responses, checked against independent parsers.

use std::collections::BTreeMap;

use bolero::TypeGenerator;

use super::*;
use domain::{BatchBuilder, FingerprintKey};
use fuzzing::{Edit, edit, spell};

const NAMES: &[&str] = &[
    "\\", "\\\\", "\\,", "\\ ", "\\=", ",", " ", "=", "\"", "${", "$", "}", "\\x24", "\\${", "u1",
    "pair", " user=\"", "é", "\u{2028}", "\u{feff}", "🏀", "\u{301}", "'", "|>", "\u{a0}x", "#",
    "\t", "\n",
];

fn text(input: &[u8]) -> String {
    String::from_utf8_lossy(&spell(input, NAMES)).into_owned()
}

fn frame() -> domain::TimeFrame {
    domain::store::conformance::frame(60)
}

/// A parsed point: measurement, tags, field, value and timestamp.
type Point = (String, BTreeMap<String, String>, String, String, i64);

/// Parses a line like InfluxDB's Go parser, which makes two passes. In the first pass, for the ends of lines, a
/// backslash escapes the byte after it. In the second pass, for the parts, a byte is escaped if a backslash precedes it.
/// Where the two passes would disagree, this parser rejects the line.
fn read_line(line: &str) -> Option<Point> {
    let bytes = line.as_bytes();
    let stop = |from: usize, stops: &[u8]| {
        let skipping = {
            let mut at = from;
            while at < bytes.len() && !stops.contains(&bytes[at]) {
                at += if bytes[at] == b'\\' { 2 } else { 1 };
            }
            at
        };
        let hides = |at: usize| at > from && bytes[at - 1] == b'\\';
        let looking_back =
            (from..bytes.len()).find(|at| stops.contains(&bytes[*at]) && !hides(*at));
        (looking_back == Some(skipping)).then_some(skipping)
    };
    let unescape = |text: &str| {
        text.replace("\\,", ",")
            .replace("\\ ", " ")
            .replace("\\=", "=")
    };
    let mut at = stop(0, b", ")?;
    let measurement = line[..at].to_owned();
    let mut tags = BTreeMap::new();
    while bytes[at] == b',' {
        let equals = stop(at + 1, b"=")?;
        let end = stop(equals + 1, b", ")?;
        let value = unescape(&line[equals + 1..end]);
        if value.is_empty()
            || tags
                .insert(unescape(&line[at + 1..equals]), value)
                .is_some()
        {
            return None;
        }
        at = end;
    }
    let equals = stop(at + 1, b"=")?;
    let field = unescape(&line[at + 1..equals]);
    let mut value = String::new();
    let mut rest = line[equals + 1..].strip_prefix('"')?.chars();
    loop {
        match rest.next()? {
            '"' => break,
            '\\' => match rest.next()? {
                escaped @ ('"' | '\\') => value.push(escaped),
                other => value.extend(['\\', other]),
            },
            other => value.push(other),
        }
    }
    let time = rest.as_str().strip_prefix(' ')?.parse().ok()?;
    Some((measurement, tags, field, value, time))
}

#[test]
fn lines() {
    type Input = (Vec<(Vec<u8>, Vec<u8>, u32)>, u8);
    bolero::check!()
        .with_type::<Input>()
        .for_each(|(pairs, most)| {
            let (resolution, key) = (frame().resolution(), FingerprintKey::new([3; 16]));
            let mut batch = BatchBuilder::default();
            let mut given = Vec::new();
            for (user, segment, slot) in pairs {
                let (user, segment) = (text(user), text(segment));
                let Ok(id) = UserId::new(&user) else { continue };
                // Until the year 2150, so that the nanoseconds fit into 64 bits.
                let slot = Slot::new(u64::from(*slot) % 95_000_000);
                if batch.push_pair(&id, &segment, slot).is_ok() {
                    given.push((user, segment, slot));
                }
            }
            let most = usize::from(*most).max(1);
            let batch = batch.finish();
            let bodies: Vec<_> = line::bodies(&batch, resolution, most, key).collect();
            assert_eq!(bodies.len(), given.len().div_ceil(most));
            let mut given = given.into_iter();
            for body in &bodies {
                let body = std::str::from_utf8(body.as_bytes()).unwrap();
                for line in body.strip_suffix('\n').unwrap().split('\n') {
                    let (user, segment, slot) = given.next().unwrap();
                    let (measurement, tags, field, value, time) = read_line(line).expect(line);
                    assert_eq!((&*measurement, &*field), ("pair", "user"));
                    assert_eq!(value, user);
                    assert_eq!(tags.len(), 1);
                    let named = segment_of_tag(&tags["segment"]).unwrap();
                    assert_eq!(named.as_str(), segment);
                    assert_eq!(line::slot_at(time, resolution), slot);
                    assert_eq!(
                        time,
                        line::nanos(&UserId::new(&value).unwrap(), slot, resolution, key)
                    );
                }
            }
            assert_eq!(given.next(), None);
        });
}

/// The values of all string literals of a query, by the grammar of Flux. `None` if a literal contains an expression or
/// is not terminated.
fn literals(flux: &str) -> Option<Vec<String>> {
    let mut found = Vec::new();
    let mut rest = flux.chars();
    while let Some(c) = rest.next() {
        // A comment would hide the rest of its line.
        if c == '/' && rest.as_str().starts_with('/') {
            return None;
        }
        if c != '"' {
            continue;
        }
        let mut bytes = Vec::new();
        loop {
            match rest.next()? {
                '"' => break,
                // The scanner's rules for a `$` are irregular, so no unescaped `$` is allowed at all.
                '$' => return None,
                '\\' => match rest.next()? {
                    'n' => bytes.push(b'\n'),
                    'r' => bytes.push(b'\r'),
                    't' => bytes.push(b'\t'),
                    'x' => {
                        let digits: String = rest.by_ref().take(2).collect();
                        bytes.push(u8::from_str_radix(&digits, 16).ok()?);
                    }
                    escaped @ ('"' | '\\' | '$') => bytes.push(escaped as u8),
                    _ => return None,
                },
                other => bytes.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        found.push(String::from_utf8(bytes).ok()?);
    }
    Some(found)
}

#[test]
fn flux() {
    bolero::check!()
        .with_type::<(Vec<u8>, Vec<u8>, Vec<u8>)>()
        .for_each(|(bucket, segment, user)| {
            let (bucket, segment, user) = (text(bucket), text(segment), text(user));
            let range = Range::of_slots(&(Slot::new(7)..=Slot::new(9)), frame().resolution());
            let written = |flux: &str| literals(flux).unwrap_or_else(|| panic!("{flux}"));
            if let Ok(name) = Segment::new(&segment) {
                let found = written(&flux::count(
                    &bucket,
                    std::slice::from_ref(&name),
                    range,
                    Erased::FilteredOut,
                ));
                assert_eq!(found[..3], [&*bucket, "pair", "user"]);
                assert_eq!(segment_of_tag(&found[3]), Some(name));
                assert_eq!(found[4..], ["\u{1}erased", "segment", "_field", "_value"]);
            }
            if let Ok(id) = UserId::new(&user) {
                let found = written(&flux::memberships(&bucket, &id, range));
                assert_eq!(found[..5], [&*bucket, "pair", "user", "", &*user]);
            }
            assert_eq!(written(&flux::probe(&user, range))[0], user);
        });
}

/// Parses a response strictly by RFC 4180 and the rules of annotated CSV. Returns `_value` of each row.
fn read_answer(body: &str) -> Option<Vec<String>> {
    if body == "\r\n" {
        return Some(Vec::new());
    }
    let mut values = Vec::new();
    let mut records = records(body)?.into_iter().peekable();
    while records.peek().is_some() {
        let annotations = records.next()?;
        if !annotations[0].starts_with('#') {
            return None;
        }
        let mut header = records.next()?;
        while header[0].starts_with('#') {
            header = records.next()?;
        }
        let mut columns = header
            .iter()
            .enumerate()
            .filter(|(_, name)| *name == "_value");
        let (value, _) = columns.next()?;
        if columns.next().is_some() || header.len() != annotations.len() {
            return None;
        }
        let mut rows = 0;
        loop {
            let row = records.next()?;
            // An empty line ends a table.
            if row == [""] {
                break;
            }
            if row.len() != header.len() || row[0].starts_with('#') {
                return None;
            }
            values.push(row[value].clone());
            rows += 1;
        }
        if rows == 0 {
            return None;
        }
    }
    Some(values)
}

fn records(body: &str) -> Option<Vec<Vec<String>>> {
    let mut records = Vec::new();
    let mut rest = body;
    while !rest.is_empty() {
        let mut record = Vec::new();
        loop {
            let mut field = String::new();
            if let Some(mut quoted) = rest.strip_prefix('"') {
                loop {
                    let (part, after) = quoted.split_once('"')?;
                    field.push_str(part);
                    let Some(more) = after.strip_prefix('"') else {
                        rest = after;
                        break;
                    };
                    field.push('"');
                    quoted = more;
                }
            } else {
                let end = rest.find([',', '"', '\r', '\n'])?;
                field.push_str(&rest[..end]);
                rest = &rest[end..];
            }
            record.push(field);
            if let Some(after) = rest.strip_prefix(',') {
                rest = after;
                continue;
            }
            rest = rest.strip_prefix("\r\n")?;
            break;
        }
        records.push(record);
    }
    Some(records)
}

const ANSWER: &[&str] = &[
    "#datatype,string,long,string,long\r\n",
    ",result,table,segment,_value\r\n",
    ",_result,0,sports,123\r\n",
    ",_result,1,\"a,\"\"b\r\nc\",7\r\n",
    "\r\n",
    "#datatype,string,string\r\n,error,reference\r\n,\"it broke\",\r\n\r\n",
    "error,reference\r\n\"it broke\",897\r\n",
    "#group,false,false,true,false\r\n",
    ",_result,0,",
    "\"",
    "\n",
    "\r",
    ",",
    "#",
    "_value",
    "18446744073709551616",
    "é",
    "\u{feff}",
];

/// Checks that the parser accepts only what the strict parser accepts, with the same values. A changed digit or a missing
/// row can't be detected here: TCP and TLS protect against those.
fn check_answer(body: &[u8]) {
    let believed = query::parse(body, |row| Ok(row.get("_value")?.to_owned()));
    if let Ok(values) = believed {
        let text = std::str::from_utf8(body).unwrap();
        assert_eq!(Some(values), read_answer(text), "{text:?}");
    }
    if let Ok(numbers) = query::parse(body, |row| row.number("_value")) {
        let read = read_answer(std::str::from_utf8(body).unwrap()).unwrap();
        let read: Vec<u64> = read.iter().map(|value| value.parse().unwrap()).collect();
        assert_eq!(numbers, read);
    }
    drop(query::parse(body, |row| row.nanos("_time")));
}

#[test]
fn answers() {
    bolero::check!().for_each(|input: &[u8]| check_answer(&spell(input, ANSWER)));
}

#[derive(Debug, TypeGenerator)]
struct Damaged {
    tables: Vec<Vec<(Vec<u8>, u64)>>,
    edits: Vec<Edit>,
}

#[test]
fn damaged_answers() {
    bolero::check!()
        .with_type::<Damaged>()
        .for_each(|Damaged { tables, edits }| {
            let mut body = Vec::new();
            let mut right = Vec::new();
            for rows in tables.iter().filter(|rows| !rows.is_empty()) {
                body.extend_from_slice(ANSWER[0].as_bytes());
                body.extend_from_slice(ANSWER[1].as_bytes());
                for (table, (name, users)) in rows.iter().enumerate() {
                    let name = text(name).replace('"', "\"\"");
                    body.extend_from_slice(
                        format!(",_result,{table},\"{name}\",{users}\r\n").as_bytes(),
                    );
                    right.push(*users);
                }
                body.extend_from_slice(b"\r\n");
            }
            if right.is_empty() {
                body.extend_from_slice(b"\r\n");
            }
            assert_eq!(
                query::parse(&body, |row| row.number("_value")).unwrap(),
                right
            );
            edit(&mut body, edits);
            check_answer(&body);
        });
}
