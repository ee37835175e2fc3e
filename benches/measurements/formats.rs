//! Ingest of the same pairs in the formats of other programs, compared with NDJSON.

use std::fmt::Write;

use jiff::Timestamp;

use super::client::{Peer, Request, compare};
use super::report::Report;
use super::support::peer::{self, post};
use super::support::traffic::{BATCH, Seen, Traffic};
use super::table::{Table, rate, ratio};
use super::{Run, progress, seconds};

const CONNECTIONS: u64 = 8;
const USERS: u64 = 1_000_000;

/// A format: its name, path and content type, what precedes, separates and follows the items of a body, and an item seen at a time.
struct Format {
    name: &'static str,
    path: &'static str,
    kind: &'static str,
    around: [&'static str; 3],
    item: fn(&mut String, &Seen, Timestamp) -> std::fmt::Result,
}

const FORMATS: [Format; 4] = [
    Format {
        name: "NDJSON with `at`",
        path: "/v1/pairs",
        kind: "application/x-ndjson",
        around: ["", "\n", ""],
        item: |body, seen, at| {
            let Seen { user, segment, .. } = seen;
            write!(
                body,
                r#"{{"user_id":"u{user}","segment":"segment-{segment}","at":"{at:.3}"}}"#
            )
        },
    },
    Format {
        name: "Line protocol with nanoseconds",
        path: "/api/v2/write?org=o&bucket=b",
        kind: "text/plain",
        around: ["", "\n", ""],
        item: |body, seen, at| {
            let Seen { user, segment, .. } = seen;
            let at = at.as_nanosecond();
            write!(
                body,
                r#"pair,segment=segment-{segment} user="u{user}" {at}"#
            )
        },
    },
    Format {
        name: "Segment's messages with nothing but what counts",
        path: "/v1/batch",
        kind: "application/json",
        around: ["{\"batch\":[", ",", "]}"],
        item: |body, seen, at| {
            let Seen { user, segment, .. } = seen;
            write!(
                body,
                r#"{{"type":"track","userId":"u{user}","event":"Viewed","properties":{{"segment":"segment-{segment}"}},"timestamp":"{at:.3}"}}"#
            )
        },
    },
    Format {
        name: "Messages as Segment's library for Node sends them",
        path: "/v1/batch",
        kind: "application/json",
        around: ["{\"batch\":[", ",", "],\"writeKey\":\"K\"}"],
        item: |body, seen, at| {
            let Seen { user, segment, .. } = seen;
            write!(
                body,
                r#"{{"timestamp":"{at:.3}","integrations":{{}},"event":"Viewed","type":"track","properties":{{"segment":"segment-{segment}"}},"context":{{"library":{{"name":"@segment/analytics-node","version":"3.1.0"}}}},"userId":"u{user}","messageId":"node-next-1795951705691-0613517c-c293-46bd-ad30-9ef2e7981ddb","_metadata":{{"nodeVersion":"v20.20.2","jsRuntime":"node"}}}}"#
            )
        },
    },
];

pub(crate) fn measure(run: &Run) -> Report {
    let directory = tempfile::tempdir().unwrap();
    let headcount = peer::Peer::headcount(directory.path(), &[]);
    progress("formats of other programs");
    let now = Timestamp::now();
    let each = run.pick(16, 4);
    let of = |format: &Format| {
        let request = |n: u64| {
            let pairs = Traffic::new(USERS, 1).seeded(n).take(BATCH);
            let [start, between, end] = format.around;
            let mut body = start.to_owned();
            for (index, seen) in pairs.enumerate() {
                if index > 0 {
                    body += between;
                }
                (format.item)(&mut body, &seen, now).unwrap();
            }
            Request::Http(post(format.path, &(body + end), format.kind))
        };
        Peer::new(headcount.port(), CONNECTIONS, each, request)
    };
    let (rounds, time) = run.pick((3, seconds(1.0)), (1, seconds(0.6)));
    let measured = compare(FORMATS.iter().map(of).collect(), rounds, time);
    let rates: Vec<f64> = measured.iter().map(|it| it.rate * BATCH as f64).collect();
    let mut report = Report::default();
    report.paragraph(&format!(
        "The same pairs of users that are mostly stored already, in batches of {BATCH} on {CONNECTIONS} connections, in pairs/s."
    ));
    let mut table = Table::new(&["Format", "pairs/s", "to NDJSON"]);
    for (format, pairs) in FORMATS.iter().zip(&rates) {
        table.row([
            format.name.to_owned(),
            rate(*pairs),
            ratio(pairs / rates[0]),
        ]);
    }
    report.table(&table);
    for (format, pairs) in FORMATS.iter().zip(&rates).skip(1) {
        let to = pairs / rates[0];
        let what = format!("{}: {} of NDJSON", format.name, ratio(to));
        report.target(to >= 0.5, &what, "0.50");
    }
    report
}
