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
/// The pairs of a request: as many messages as a library of Segment sends at most, and as in the other sections.
const BATCHES: [usize; 2] = [1_000, BATCH];

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
    let [small, large] = BATCHES.map(|batch| {
        progress(&format!(
            "formats of other programs, {batch} pairs a request"
        ));
        rates(run, headcount.port(), batch)
    });
    let mut report = Report::default();
    report.paragraph(&format!(
        "The same pairs of users that are mostly stored already, on {CONNECTIONS} connections, in pairs/s. Segment's libraries send at \
         most 500 kB a request, about {} of their messages; larger requests show what a format costs when nothing waits for the disk.",
        BATCHES[0]
    ));
    let [of_small, of_large] = BATCHES.map(|batch| format!("{batch} a request"));
    let mut table = Table::new(&["Format", &of_small, "to NDJSON", &of_large, "to NDJSON"]);
    for ((format, small_rate), large_rate) in FORMATS.iter().zip(&small).zip(&large) {
        table.row([
            format.name.to_owned(),
            rate(*small_rate),
            ratio(small_rate / small[0]),
            rate(*large_rate),
            ratio(large_rate / large[0]),
        ]);
    }
    report.table(&table);
    for (format, small_rate) in FORMATS.iter().zip(&small).skip(1) {
        let to = small_rate / small[0];
        let what = format!("{}: {} of NDJSON", format.name, ratio(to));
        report.target(to >= 0.5, &what, "0.50");
    }
    report
}

/// The pairs/s of each format, in requests of `batch` pairs.
fn rates(run: &Run, port: u16, batch: usize) -> Vec<f64> {
    let now = Timestamp::now();
    let each = u64::try_from(run.pick(80_000, 20_000) / batch).unwrap();
    let of = |format: &Format| {
        let request = |n: u64| {
            let pairs = Traffic::new(USERS, 1).seeded(n).take(batch);
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
        Peer::new(port, CONNECTIONS, each, request)
    };
    let (rounds, time) = run.pick((3, seconds(1.0)), (1, seconds(0.6)));
    let measured = compare(FORMATS.iter().map(of).collect(), rounds, time);
    measured.iter().map(|it| it.rate * batch as f64).collect()
}
