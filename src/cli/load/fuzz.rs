//! Fuzz targets: input files of `load`. The lines that are sent must have the same meaning as the file.

use bolero::TypeGenerator;
use serde_json::value::RawValue;

use super::batch::{Batch, Batcher, Piece};
use super::columns::{Columns, TimeColumn};
use super::position::Position;
use super::reading::Reading;
use super::table::Table;
use super::times::Times;
use super::{lines, table};
use crate::cli::args::TimeUnit;
use fuzzing::spell;
use http::parse;

/// The batches that `pass` sends, and whether it failed before the end.
fn batches<T>(pass: impl FnOnce(&mut Batcher) -> T) -> (Vec<Batch>, bool) {
    let (to, mut from) = tokio::sync::mpsc::channel(4096);
    let mut batcher = Batcher::new(to, 1000);
    pass(&mut batcher);
    drop(batcher);
    let (mut batches, mut failed) = (Vec::new(), false);
    while let Ok(piece) = from.try_recv() {
        match piece {
            Piece::Batch(batch) => batches.push(batch),
            Piece::Input(..) | Piece::Warning(_) => {}
            Piece::Failed(_) => failed = true,
        }
    }
    for batch in &batches {
        let sent = batch.body.split(|byte| *byte == b'\n').count() - 1;
        assert_eq!(
            sent,
            batch.lines.len(),
            "a line of the input for each line of the body"
        );
    }
    (batches, failed)
}

/// The batches of a CSV file with the default columns.
fn rows(mut file: &[u8], delimiter: u8) -> (Vec<Batch>, bool) {
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
    batches(|batcher| table::pass(&mut file, table, &Position::default(), batcher))
}

/// A parsed pair: user, segment, time.
type Pair = (String, String, Option<domain::Timestamp>);

/// What the service would parse from a body: pairs, and the index and code of each error.
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

/// Whatever the size of the reads, the service parses from the bodies what it would parse from the file.
#[test]
fn ndjson() {
    bolero::check!()
        .with_type::<(Vec<u8>, u8)>()
        .for_each(|(input, piece)| {
            let file = spell(input, LINES);
            let mut pieces = std::io::BufReader::with_capacity(usize::from(*piece).max(1), &*file);
            let (batches, failed) = batches(|batcher| {
                lines::pass(
                    &mut pieces,
                    &Times::default(),
                    &Position::default(),
                    batcher,
                )
            });
            assert!(!failed);
            let (mut pairs, mut errors) = (Vec::new(), 0);
            for batch in &batches {
                let (read, refused) = read(&batch.body);
                let items = read.len() + refused.len();
                assert_eq!(
                    items,
                    batch.lines.len(),
                    "each result belongs to a line of the input"
                );
                pairs.extend(read);
                errors += refused.len();
            }
            // A byte order mark or white space before a line is not sent, so it is not an error.
            let mark: &[u8] = "\u{feff}".as_bytes();
            let rest = file.strip_prefix(mark).unwrap_or(&file);
            let is_marked = rest.windows(3).any(|bytes| bytes == mark);
            if !is_marked && !file.contains(&0x0c) && errors < 100 {
                let (whole, refused) = read(&file);
                assert_eq!((pairs, errors), (whole, refused.len()));
            }
        });
}

/// Rows of a well-formed CSV file.
#[derive(Debug, TypeGenerator)]
struct Rows {
    rows: Vec<[Vec<u8>; 3]>,
    semicolons: bool,
    crlf: bool,
    quoted: bool,
}

/// A line that was sent. Its time is kept raw, since a JSON parser does not represent all numbers exactly.
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
        let (batches, failed) = rows(file.as_bytes(), delimiter);
        assert!(!failed);
        let body: Vec<u8> = batches
            .iter()
            .flat_map(|batch| batch.body.to_vec())
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
                // The time as in the file, or the same number where JSON requires another notation.
                Err(_) if raw != at => assert_eq!(raw.parse::<f64>().ok(), at.parse().ok()),
                Err(_) => {}
            }
        }
    });
}

/// Any file: each row becomes a line that the service can parse, or is refused with its line number.
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
            let (batches, _) = rows(&file, delimiter);
            for batch in batches {
                let (_, errors) = read(&batch.body);
                assert!(
                    errors.iter().all(|(_, code)| *code != "malformed"),
                    "{errors:?}"
                );
                let mut lines: Vec<u64> = batch.lines.clone();
                lines.extend(batch.refused.iter().map(|refused| refused.line));
                lines.sort_unstable();
                assert!(lines.windows(2).all(|pair| pair[0] <= pair[1]), "{lines:?}");
            }
        });
}
