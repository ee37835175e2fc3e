//! `headcount overlap SEGMENT SEGMENT...`, and `headcount overlap` for the pairs of all segments.

use serde::Deserialize;
use serde_json::Value;

use super::Failure;
use super::args::OverlapArgs;
use super::client::{Client, valid};
use super::coverage::Covered;
use super::output::{grouped, note, print, print_json, sanitized};
use super::variables::Variables;
use domain::overlap::{jaccard, lift};
use domain::text::duration_text;

/// What both responses have.
#[derive(Deserialize)]
struct Certificate {
    everybody: Option<u64>,
    window_seconds: u64,
    as_of: String,
    #[serde(flatten)]
    covered: Covered,
}

/// The users that each two of some segments have in common.
#[derive(Deserialize)]
struct Matrix {
    segments: Vec<String>,
    both: Vec<Vec<Option<u64>>>,
    everybody: Option<u64>,
    #[serde(default)]
    unknown: Vec<String>,
}

/// The pairs of all segments that have most in common.
#[derive(Deserialize)]
struct Top {
    pairs: Vec<TopPair>,
    everybody: Option<u64>,
}

#[derive(Deserialize)]
struct TopPair {
    a: String,
    b: String,
    both: u64,
    users_a: u64,
    users_b: u64,
}

/// A pair as people read it. A number is missing if the service withholds it or one that it follows from.
struct Row {
    both: Option<u64>,
    only_a: Option<u64>,
    only_b: Option<u64>,
    jaccard: Option<f64>,
    lift: Option<f64>,
    a: String,
    b: String,
}

pub(super) async fn run(args: OverlapArgs, variables: &Variables) -> Result<(), Failure> {
    for name in &args.segments {
        valid(name)?;
    }
    if args.segments.len() == 1 {
        return Err(Failure::usage(
            "an overlap is of two segments or more; without any, of the pairs of all segments",
        ));
    }
    let client = Client::new(&args.target, variables)?;
    let is_named = !args.segments.is_empty();
    let path: &[&str] = match is_named {
        true => &["v1", "overlap"],
        false => &["v1", "overlap", "top"],
    };
    let query = query(&args);
    let query: Vec<_> = query
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    let document = client.get(path, &query).await?;
    if args.json {
        return print_json(&document);
    }
    let unexpected = |error| client.unexpected(&error);
    let certificate = Certificate::deserialize(&document).map_err(unexpected)?;
    let (rows, unknown) = rows(&document, is_named).map_err(unexpected)?;
    print(&table(&rows))?;
    note(&sentence(&certificate));
    for name in unknown {
        note(&format!("`{}` was never seen", sanitized(&name)));
    }
    if let Some(remark) = certificate.covered.remark() {
        note(&remark);
    }
    Ok(())
}

fn query(args: &OverlapArgs) -> Vec<(&'static str, String)> {
    let mut query: Vec<_> = args
        .segments
        .iter()
        .map(|name| ("segment", name.clone()))
        .collect();
    query.extend(args.by.map(|by| ("by", by.as_str().to_owned())));
    query.extend(args.limit.map(|limit| ("limit", limit.to_string())));
    let at_least = args.at_least.map(|users| ("at_least", users.to_string()));
    query.extend(at_least);
    query.extend(args.window.clone().map(|window| ("window", window)));
    query.extend(args.fresh.then(|| ("fresh", "true".to_owned())));
    query
}

/// The pairs in a response, and the names in it that the service has never seen.
fn rows(document: &Value, is_named: bool) -> Result<(Vec<Row>, Vec<String>), serde_json::Error> {
    if is_named {
        let mut matrix = Matrix::deserialize(document)?;
        let unknown = std::mem::take(&mut matrix.unknown);
        return Ok((matrix.rows(), unknown));
    }
    Ok((Top::deserialize(document)?.rows(), Vec::new()))
}

impl Matrix {
    fn rows(self) -> Vec<Row> {
        let cell = |row: usize, column: usize| *self.both.get(row)?.get(column)?;
        let mut rows = Vec::new();
        for (at_a, a) in self.segments.iter().enumerate() {
            for (at_b, b) in self.segments.iter().enumerate().skip(at_a + 1) {
                let users = cell(at_a, at_a).zip(cell(at_b, at_b));
                let names = (a.clone(), b.clone());
                rows.push(Row::of(names, cell(at_a, at_b), users, self.everybody));
            }
        }
        rows
    }
}

impl Top {
    fn rows(self) -> Vec<Row> {
        let pairs = self.pairs.into_iter().map(|pair| {
            let users = Some((pair.users_a, pair.users_b));
            Row::of((pair.a, pair.b), Some(pair.both), users, self.everybody)
        });
        pairs.collect()
    }
}

impl Row {
    fn of(
        (a, b): (String, String),
        both: Option<u64>,
        users: Option<(u64, u64)>,
        everybody: Option<u64>,
    ) -> Self {
        let all = both.zip(users);
        Self {
            both,
            only_a: all.map(|(both, (a, _))| a.saturating_sub(both)),
            only_b: all.map(|(both, (_, b))| b.saturating_sub(both)),
            jaccard: all.and_then(|(both, (a, b))| jaccard(both, a, b)),
            lift: all
                .zip(everybody)
                .and_then(|((both, (a, b)), everybody)| lift(both, a, b, everybody)),
            a,
            b,
        }
    }
}

/// Names are the last columns and need no padding: their display width is unknown.
fn table(rows: &[Row]) -> String {
    const HEADS: [&str; 5] = ["BOTH", "ONLY A", "ONLY B", "JACCARD", "LIFT"];
    let number = |number: Option<u64>| number.map_or("-".to_owned(), grouped);
    let ratio = |ratio: Option<f64>| ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.3}"));
    let cells = |row: &Row| {
        [
            number(row.both),
            number(row.only_a),
            number(row.only_b),
            ratio(row.jaccard),
            ratio(row.lift),
        ]
    };
    let all: Vec<_> = rows.iter().map(|row| (cells(row), row)).collect();
    let widths: Vec<usize> = HEADS
        .iter()
        .enumerate()
        .map(|(column, head)| {
            let widths = all.iter().map(|(cells, _)| cells[column].len());
            widths.max().unwrap_or(0).max(head.len())
        })
        .collect();
    let line = |cells: [&str; 5], a: &str, b: &str| {
        let padded = cells.iter().zip(&widths);
        let padded: String = padded
            .map(|(cell, width)| format!("{cell:>width$}  "))
            .collect();
        format!("{padded}{a}  {b}\n")
    };
    let mut text = line(HEADS, "A", "B");
    for (cells, row) in &all {
        let cells = cells.each_ref().map(String::as_str);
        text += &line(cells, &sanitized(&row.a), &sanitized(&row.b));
    }
    text
}

fn sentence(certificate: &Certificate) -> String {
    let window = duration_text(certificate.window_seconds);
    let as_of = sanitized(&certificate.as_of);
    match certificate.everybody {
        Some(1) => format!("of 1 user in the last {window} as of {as_of}"),
        Some(users) => format!(
            "of {} users in the last {window} as of {as_of}",
            grouped(users)
        ),
        None => format!("in the last {window} as of {as_of}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use serde_json::json;

    #[derive(Parser)]
    struct Arguments {
        #[command(flatten)]
        overlap: OverlapArgs,
    }

    #[test]
    fn only_given_arguments_are_sent() {
        let sent = |arguments: &[&str]| {
            let arguments = ["overlap"].iter().chain(arguments);
            let parsed = Arguments::try_parse_from(arguments).ok()?;
            let query = query(&parsed.overlap).into_iter();
            let query: Vec<_> = query
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
            Some(query.join("&"))
        };
        assert_eq!(sent(&[]).unwrap(), "");
        assert_eq!(
            sent(&["a", "b", "--window", "7d", "--fresh"]).unwrap(),
            "segment=a&segment=b&window=7d&fresh=true"
        );
        assert_eq!(
            sent(&["--by", "lift", "--limit", "5", "--at-least", "9"]).unwrap(),
            "by=lift&limit=5&at_least=9"
        );
        assert_eq!(sent(&["a", "b", "--by", "lift"]), None);
    }

    #[test]
    fn people_read_a_row_for_each_pair() {
        let document = json!({
            "segments": ["news", "sports", "few"],
            "both": [[2000, 800, null], [800, 1230, 0], [null, 0, null]],
            "everybody": 10_000, "unknown": ["few"]
        });
        let (rows, unknown) = rows(&document, true).unwrap();
        assert_eq!(
            table(&rows),
            "BOTH  ONLY A  ONLY B  JACCARD   LIFT  A  B\n \
             800   1,200     430    0.329  3.252  news  sports\n   \
             -       -       -        -      -  news  few\n   \
             0       -       -        -      -  sports  few\n"
        );
        assert_eq!(unknown, ["few"]);
        let document = json!({
            "pairs": [{"a": "x", "b": "y\u{1b}", "both": 1, "users_a": 1, "users_b": 1, "jaccard": 1.0, "lift": null}]
        });
        let (rows, _) = super::rows(&document, false).unwrap();
        assert_eq!(
            table(&rows),
            "BOTH  ONLY A  ONLY B  JACCARD  LIFT  A  B\n   1       0       0    1.000     -  x  y\u{fffd}\n"
        );
        let empty = json!({"segments": ["x", "y"], "both": [[0, 0], [0, 0]], "everybody": 0});
        let (rows, _) = super::rows(&empty, true).unwrap();
        assert!(table(&rows).contains("   0       0       0        -     -  x  y\n"));
    }
}
