//! Fuzz targets: line protocol, compared with another parser of it.

use influxdb_line_protocol::{FieldValue, ParsedLine, parse_lines};

use super::*;
use domain::{Segment, UserId};
use fuzzing::spell;

const WORDS: &[&str] = &[
    "pair",
    ",segment=",
    "segment",
    "user",
    "=",
    ",",
    " ",
    "\"u\"",
    "\"",
    "\\",
    "\n",
    "1i",
    "2u",
    "-",
    "1.5",
    "1e3",
    "true",
    "t",
    "17",
    "a",
    "é",
    "#",
    "\\,",
    "\\ ",
    "\\=",
    "\\\"",
    "\\\\",
    " user=\"u\"",
    "pair,segment=a user=\"u\" 5\n",
    "pair,segment=b user=7i -5\n",
    "x,segment=a user=1\n",
    "9223372036854775808",
];

type Seen = (String, String, Option<i64>);

/// The pairs of a body, and the numbers of refused and of ignored points.
type Read = (Vec<Seen>, usize, usize);

fn ours(text: &str, names: &LineNames) -> Read {
    let mut pairs = Vec::new();
    let mut push = |user: &str, segment: &str, at: Option<Timestamp>| {
        let at = at.map(|at| i64::try_from(at.as_nanosecond()).unwrap());
        pairs.push((user.to_owned(), segment.to_owned(), at));
        Ok(())
    };
    let report = lines(text.as_bytes(), names, Precision::Nanoseconds, &mut push);
    assert_eq!(pairs.len() + report.rejected(), report.items);
    (pairs, report.rejected(), report.ignored)
}

fn theirs(text: &str, names: &LineNames) -> Read {
    let (mut pairs, mut refused, mut ignored) = (Vec::new(), 0, 0);
    for line in parse_lines(text) {
        match line {
            Err(_) => refused += 1,
            Ok(line) if line.series.measurement.as_str() != names.measurement => ignored += 1,
            Ok(line) => match pair_of(&line, names) {
                Some(pair) => pairs.push(pair),
                None => refused += 1,
            },
        }
    }
    (pairs, refused, ignored)
}

fn pair_of(line: &ParsedLine<'_>, names: &LineNames) -> Option<Seen> {
    let segment = line.tag_value(&names.segment)?.to_string();
    let mut fields = line.field_set.iter();
    let user = fields.rfind(|(name, _)| name.as_str() == names.user);
    let user = match &user?.1 {
        FieldValue::String(text) => text.to_string(),
        FieldValue::I64(number) => number.to_string(),
        FieldValue::U64(number) => number.to_string(),
        FieldValue::F64(_) | FieldValue::Boolean(_) => return None,
    };
    Some((user, segment, line.timestamp))
}

/// Whether both parsers may take the text in different ways: the other one is lenient with what InfluxDB 2.9.1, whose own code
/// this one follows, refuses or reads as part of a name.
fn is_disputed(text: &str) -> bool {
    let mut parts = ["\\\\", "\\\n", ", ", ",,", ",\n"].iter();
    parts.any(|part| text.contains(part))
        || text.ends_with([',', '\\'])
        || text.contains(['\t', '\r', '\0'])
}

/// What both parsers take is the same. What InfluxDB itself takes is compared by an integration test.
#[test]
fn lines_are_read_as_another_parser_reads_them() {
    let names = crate::settings::PairNames::default().lines;
    bolero::check!()
        .with_type::<Vec<u8>>()
        .for_each(move |input| {
            let text = String::from_utf8_lossy(&spell(input, WORDS)).into_owned();
            let (read, other) = (ours(&text, &names), theirs(&text, &names));
            if read.1 == 0 && other.1 == 0 && !is_disputed(&text) {
                assert_eq!(read, other, "{text:?}");
            }
        });
}

/// A pair that is written as clients write it is read as it was.
#[test]
fn what_clients_write_is_read() {
    let names = crate::settings::PairNames::default().lines;
    bolero::check!()
        .with_type::<Vec<(String, String, Option<i64>)>>()
        .for_each(move |points| {
            let points = points.iter().filter(|(user, segment, _)| {
                let is_valid = UserId::new(user).is_ok() && Segment::new(segment).is_ok();
                is_valid && !segment.contains('\\')
            });
            let points: Vec<Seen> = points.cloned().collect();
            let mut body = String::new();
            for (user, segment, at) in &points {
                let user = user.replace('\\', "\\\\").replace('"', "\\\"");
                let mut tag = segment.clone();
                for delimiter in [",", " ", "="] {
                    tag = tag.replace(delimiter, &format!("\\{delimiter}"));
                }
                let at = at.map(|at| at.to_string()).unwrap_or_default();
                body += &format!("pair,host=a,segment={tag} user=\"{user}\",n=1i {at}\n");
            }
            assert_eq!(ours(&body, &names), (points, 0, 0), "{body:?}");
        });
}
