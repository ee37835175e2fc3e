//! Fuzz targets: files of `load`, which come out as lines that mean the same.

use bolero::TypeGenerator;
use serde_json::value::RawValue;

use super::columns::{Columns, TimeColumn};
use super::parcel::{Packer, Parcel, Piece};
use super::position::Position;
use super::reading::Reading;
use super::table::Table;
use super::times::Times;
use super::{lines, table};
use crate::cli::args::TimeUnit;
use fuzzing::spell;
use http::parse;

/// What `pass` hands over, and why it stopped before the end.
fn parcels<T>(pass: impl FnOnce(&mut Packer) -> T) -> (Vec<Parcel>, bool) {
    let (to, mut from) = tokio::sync::mpsc::channel(4096);
    let mut packer = Packer::new(to, 1000);
    pass(&mut packer);
    drop(packer);
    let (mut parcels, mut failed) = (Vec::new(), false);
    while let Ok(piece) = from.try_recv() {
        match piece {
            Piece::Parcel(parcel) => parcels.push(parcel),
            Piece::Input(..) | Piece::Warning(_) => {}
            Piece::Failed(_) => failed = true,
        }
    }
    for parcel in &parcels {
        let sent = parcel.body.split(|byte| *byte == b'\n').count() - 1;
        assert_eq!(
            sent,
            parcel.lines.len(),
            "a line of the input for each line of the body"
        );
    }
    (parcels, failed)
}

/// Rows of a table with the usual columns.
fn rows(mut file: &[u8], delimiter: u8) -> (Vec<Parcel>, bool) {
    let columns = Columns {
        user: "user_id".into(),
        segment: "segment".into(),
        at: TimeColumn::Known,
        delimiter: None,
    };
    let table = Table {
        columns: &columns,
        delimiter,
        times: &Times {
            unit: Some(TimeUnit::S),
            zone: None,
        },
        reading: Reading {
            source: "file".into(),
            format: "CSV".into(),
            columns: None,
        },
    };
    parcels(|packer| table::pass(&mut file, table, &Position::default(), packer))
}

/// A pair as it was read.
type Pair = (String, String, Option<domain::Timestamp>);

/// What the service would make of a body: pairs, and the place and code of each mistake.
fn read(body: &[u8]) -> (Vec<Pair>, Vec<(usize, &'static str)>) {
    let mut pairs = Vec::new();
    let report = parse::ndjson(body, &mut |user: &str, segment: &str, at: Option<_>| {
        pairs.push((user.to_owned(), segment.to_owned(), at));
        Ok(())
    });
    (
        pairs,
        report
            .errors
            .iter()
            .map(|error| (error.index, error.code))
            .collect(),
    )
}

const LINES: &[&str] = &[
    "{\"user_id\":\"u\",\"segment\":\"s\"}",
    "\n",
    "\r\n",
    "\u{feff}",
    "user_id",
    "segment",
    "at",
    ",",
    ";",
    "\"",
    "\"\"",
    "1795262400",
    ".5",
    "2026-11-21T12:00:00Z",
    "é",
    "\\",
    "\u{0}",
];

/// However the file comes in pieces, the service reads from the body what it would have read from the file.
#[test]
fn ndjson() {
    bolero::check!()
        .with_type::<(Vec<u8>, u8)>()
        .for_each(|(input, piece)| {
            let file = spell(input, LINES);
            let mut pieces = std::io::BufReader::with_capacity(usize::from(*piece).max(1), &*file);
            let (parcels, failed) = parcels(|packer| {
                lines::pass(&mut pieces, &Times::default(), &Position::default(), packer)
            });
            assert!(!failed);
            let (mut pairs, mut errors) = (Vec::new(), 0);
            for parcel in &parcels {
                let (read, refused) = read(&parcel.body);
                let items = read.len() + refused.len();
                assert_eq!(
                    items,
                    parcel.lines.len(),
                    "what is told is told of the right line"
                );
                pairs.extend(read);
                errors += refused.len();
            }
            // A mark or white space before a line is not sent, and so no mistake.
            let mark: &[u8] = "\u{feff}".as_bytes();
            let rest = file.strip_prefix(mark).unwrap_or(&file);
            let is_marked = rest.windows(3).any(|bytes| bytes == mark);
            if !is_marked && !file.contains(&0x0c) && errors < 100 {
                let (whole, refused) = read(&file);
                assert_eq!((pairs, errors), (whole, refused.len()));
            }
        });
}

/// Rows of a file that another program wrote properly.
#[derive(Debug, TypeGenerator)]
struct Rows {
    rows: Vec<[Vec<u8>; 3]>,
    semicolons: bool,
    crlf: bool,
    quoted: bool,
}

/// A line, its instant as it stands there: the numbers of a JSON parser are not exact.
#[derive(serde::Deserialize)]
struct Sent<'a> {
    user_id: String,
    segment: String,
    #[serde(borrow)]
    at: Option<&'a RawValue>,
}

#[test]
fn csv() {
    bolero::check!().with_type::<Rows>().for_each(|input| {
        let delimiter = if input.semicolons { b';' } else { b',' };
        let end = if input.crlf { "\r\n" } else { "\n" };
        let mut file = format!("at{0}user_id{0}segment{end}", delimiter as char);
        let mut right = Vec::new();
        for row in &input.rows {
            let [at, user, segment] = row
                .each_ref()
                .map(|field| String::from_utf8_lossy(&spell(field, LINES)).into_owned());
            let fields = [&at, &user, &segment].map(|field| {
                let special = field.contains(['"', '\r', '\n', ',', ';']) || field.is_empty();
                match special || input.quoted {
                    true => format!("\"{}\"", field.replace('"', "\"\"")),
                    false => field.clone(),
                }
            });
            file += &fields.join(&char::from(delimiter).to_string());
            file += end;
            right.push((at.trim().to_owned(), user, segment));
        }
        let (parcels, failed) = rows(file.as_bytes(), delimiter);
        assert!(!failed);
        let body: Vec<u8> = parcels
            .iter()
            .flat_map(|parcel| parcel.body.to_vec())
            .collect();
        let lines: Vec<&[u8]> = body.split_inclusive(|byte| *byte == b'\n').collect();
        assert_eq!(lines.len(), right.len());
        for (line, (at, user, segment)) in lines.iter().zip(right) {
            let sent: Sent = serde_json::from_slice(line).unwrap();
            assert_eq!((&*sent.user_id, &*sent.segment), (&*user, &*segment));
            let Some(raw) = sent.at.map(RawValue::get) else {
                assert_eq!(at, "");
                continue;
            };
            match serde_json::from_str::<String>(raw) {
                Ok(text) => assert_eq!(text, at),
                // As it was written, or where JSON has another way of writing it, the same number.
                Err(_) if raw != at => assert_eq!(raw.parse::<f64>().ok(), at.parse().ok()),
                Err(_) => {}
            }
        }
    });
}

/// Any file: each row is a line that the service can read, or is refused with its number.
#[test]
fn any_csv() {
    bolero::check!()
        .with_type::<(Vec<u8>, bool, bool)>()
        .for_each(|(input, header, semicolons)| {
            let mut file = match header {
                true => b"user_id,segment,at\n".to_vec(),
                false => Vec::new(),
            };
            file.extend(spell(input, LINES));
            let delimiter = if *semicolons { b';' } else { b',' };
            let (parcels, _) = rows(&file, delimiter);
            for parcel in parcels {
                let (_, errors) = read(&parcel.body);
                assert!(
                    errors.iter().all(|(_, code)| *code != "malformed"),
                    "{errors:?}"
                );
                let mut lines: Vec<u64> = parcel.lines.clone();
                lines.extend(parcel.refused.iter().map(|refused| refused.line));
                lines.sort_unstable();
                assert!(lines.windows(2).all(|pair| pair[0] <= pair[1]), "{lines:?}");
            }
        });
}
