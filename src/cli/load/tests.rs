//! Whole loads against a small service that answers as told.

use super::*;
use crate::cli::args::{Cli, Command};
use crate::cli::test_server::TestServer;
use clap::Parser;
use serde_json::json;
use std::path::Path;
use std::sync::{Arc, Mutex};
use warp::Filter;
use warp::http::Response;

/// What a service was posted, and what it is to answer first.
#[derive(Clone, Default)]
struct Script {
    bodies: Arc<Mutex<Vec<String>>>,
    first: Arc<Mutex<Vec<(u16, &'static str)>>>,
}

impl Script {
    fn first(answers: &[(u16, &'static str)]) -> Self {
        let script = Self::default();
        script.first.lock().unwrap().extend(answers);
        script
    }

    async fn start(&self) -> TestServer {
        let script = self.clone();
        TestServer::start(
            warp::post()
                .and(warp::path!("v1" / "pairs"))
                .and(warp::header::exact("content-type", "application/x-ndjson"))
                .and(warp::body::bytes())
                .map(move |body: bytes::Bytes| script.answer(&body)),
        )
        .await
    }

    fn answer(&self, body: &[u8]) -> Response<String> {
        let mut first = self.first.lock().unwrap();
        if !first.is_empty() {
            let (status, text) = first.remove(0);
            let response = Response::builder()
                .status(status)
                .header("retry-after", "0");
            return response.body(text.to_owned()).unwrap();
        }
        let body = String::from_utf8_lossy(body).into_owned();
        let bad: Vec<_> = body
            .lines()
            .enumerate()
            .filter(|(_, line)| line.contains("bad"))
            .map(|(index, _)| json!({"index": index, "code": "malformed", "message": "no"}))
            .collect();
        let all = body.lines().count();
        let answer = json!({"accepted": all - bad.len(), "rejected": bad.len(), "errors": bad});
        self.bodies.lock().unwrap().push(body);
        Response::new(answer.to_string())
    }

    /// All lines that came, sorted: requests may overtake each other.
    fn lines(&self) -> Vec<String> {
        let bodies = self.bodies.lock().unwrap();
        let mut lines: Vec<_> = bodies
            .iter()
            .flat_map(|body| body.lines())
            .map(str::to_owned)
            .collect();
        lines.sort();
        lines
    }
}

async fn load(server: &TestServer, arguments: &[&str]) -> (Report, Option<Failure>) {
    let all = [&["headcount", "load", "--url", &server.url], arguments].concat();
    let Command::Load(args) = Cli::try_parse_from(all).unwrap().command else {
        panic!("not a load")
    };
    match prepare(&args, &Variables::default()) {
        Ok((load, parcels)) => load.run(parcels, args.connections as usize).await,
        Err(failure) => (Report::default(), Some(failure)),
    }
}

fn write(folder: &Path, name: &str, text: impl AsRef<[u8]>) -> String {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn lines_arrive_in_batches_and_blank_ones_do_not() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(
        folder.path(),
        "a.ndjson",
        "\u{feff}{\"a\":1}\r\n\n  \n{\"a\":2}\n{\"a\":3}",
    );
    let script = Script::default();
    let server = script.start().await;
    let (report, failure) = load(&server, &[&file, "--batch", "2"]).await;
    assert!(failure.is_none());
    assert_eq!(
        (report.accepted, report.rejected, report.requests),
        (3, 0, 2)
    );
    assert_eq!(script.lines(), [r#"{"a":1}"#, r#"{"a":2}"#, r#"{"a":3}"#]);
}

#[tokio::test]
async fn a_batch_that_is_turned_away_comes_again_whole() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), "a.ndjson", "1\n2\n3\n4\n5\n");
    let script = Script::first(&[(429, ""), (503, "{}"), (500, "")]);
    let server = script.start().await;
    let (report, failure) = load(&server, &[&file, "--batch", "2", "--connections", "1"]).await;
    assert!(failure.is_none());
    assert_eq!((report.accepted, report.retries), (5, 3));
    assert_eq!(script.lines(), ["1", "2", "3", "4", "5"]);
}

#[tokio::test]
async fn a_refusal_for_good_stops_the_load() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), "a.ndjson", "1\n2\n3\n");
    let script = Script::first(&[(
        403,
        r#"{"code":"forbidden","detail":"lacks the scope write"}"#,
    )]);
    let server = script.start().await;
    let (report, failure) = load(&server, &[&file, "--batch", "1", "--connections", "1"]).await;
    let Some(Failure::Failed(text)) = failure else {
        panic!("{failure:?}")
    };
    assert!(
        text.ends_with("answered 403 forbidden: lacks the scope write"),
        "{text}"
    );
    assert_eq!((report.accepted, report.undelivered), (0, 1));
}

#[tokio::test]
async fn rejects_are_told_with_the_line_of_their_file() {
    let folder = tempfile::tempdir().unwrap();
    let good = write(folder.path(), "good.ndjson", "1\n");
    let long = "x".repeat(parcel::MAX_LINE + 1);
    let file = write(
        folder.path(),
        "a.ndjson",
        format!("1\n\nbad\n4\n5\nbad\n{long}\n8"),
    );
    let script = Script::default();
    let server = script.start().await;
    let (report, failure) = load(&server, &[&good, &file, "--batch", "2"]).await;
    assert!(failure.is_none());
    assert_eq!((report.accepted, report.rejected), (5, 3));
    let text = report.text();
    assert!(text.contains("  malformed: 2\n"), "{text}");
    assert!(text.contains("a.ndjson:3: no\n"), "{text}");
    assert!(text.contains("a.ndjson:6: no\n"), "{text}");
    assert!(
        text.contains("a.ndjson:7: the line has more than 1048576 bytes\n"),
        "{text}"
    );
}

#[tokio::test]
async fn csv_rows_become_pairs() {
    let folder = tempfile::tempdir().unwrap();
    let text = "\u{feff}when;who;what\n\
        2026-11-21T08:00:00Z;\"a;\"\"b\";sports\n\
        1800000000;7;\"two\nlines\"\n\
        1800000000.5;7;x\n\
        ;8;x\n\
        noon;9;x\n\
        1800000000\n";
    let file = write(folder.path(), "a.CSV", text);
    let script = Script::default();
    let server = script.start().await;
    let columns = [
        "--user-column",
        "who",
        "--segment-column",
        "what",
        "--at-column",
        "when",
        "--delimiter",
        ";",
    ];
    let (report, failure) = load(&server, &[&[file.as_str()], &columns[..]].concat()).await;
    assert!(failure.is_none(), "{failure:?}");
    assert_eq!((report.accepted, report.rejected), (5, 1));
    assert!(
        report
            .text()
            .contains("a.CSV:8: the row has no field `who`"),
        "{}",
        report.text()
    );
    assert_eq!(
        script.lines(),
        [
            r#"{"user_id":"7","segment":"two\nlines","at":1800000000}"#,
            r#"{"user_id":"7","segment":"x","at":1800000000.5}"#,
            r#"{"user_id":"8","segment":"x"}"#,
            r#"{"user_id":"9","segment":"x","at":"noon"}"#,
            r#"{"user_id":"a;\"b","segment":"sports","at":"2026-11-21T08:00:00Z"}"#,
        ]
    );
    let (_, failure) = load(&server, &[&file, "--delimiter", ";"]).await;
    let Some(Failure::Usage(text)) = failure else {
        panic!("{failure:?}")
    };
    assert_eq!(
        text,
        format!(
            "{file}: no column is named `user_id`: name one with --user-column; there are: when, who, what"
        )
    );
}

#[tokio::test]
async fn a_quote_left_open_does_not_fill_the_memory() {
    let folder = tempfile::tempdir().unwrap();
    let rows = "a,x\n".repeat(500_000);
    let file = write(
        folder.path(),
        "a.csv",
        format!("user_id,segment\nb,y\n\"{rows}"),
    );
    let script = Script::default();
    let server = script.start().await;
    let (report, failure) = load(&server, &[&file]).await;
    assert!(
        matches!(&failure, Some(Failure::Failed(text)) if text.ends_with("is a quote left open?")),
        "{failure:?}"
    );
    assert_eq!(report.accepted, 1);
    // Many rows are no long row.
    let file = write(folder.path(), "b.csv", format!("user_id,segment\n{rows}"));
    let (report, failure) = load(&server, &[&file]).await;
    assert!(failure.is_none());
    assert_eq!(report.accepted, 500_000);
}

#[tokio::test]
async fn marks_of_joined_files_are_not_sent() {
    let folder = tempfile::tempdir().unwrap();
    let text = "\u{feff}\u{feff}\n\u{feff} {\"a\":1}\n\u{feff}\u{feff}{\"a\":\"bad\"}\n{\"a\":2}\n";
    let file = write(folder.path(), "joined.ndjson", text);
    let script = Script::default();
    let server = script.start().await;
    // Each request with one line: what a mark meant would depend on where a request begins.
    let (report, failure) = load(&server, &["--batch", "1", &file]).await;
    assert!(failure.is_none(), "{failure:?}");
    assert_eq!((report.accepted, report.rejected), (2, 1));
    let mut sent = script.lines();
    sent.sort();
    assert_eq!(sent, ["{\"a\":\"bad\"}", "{\"a\":1}", "{\"a\":2}"]);
}

#[tokio::test]
async fn instants_of_tables_are_sent_digit_by_digit() {
    let folder = tempfile::tempdir().unwrap();
    let rows = ["1795262399.9999999999", ".5", "1e400", "007", "noon", "-1"];
    let rows: String = rows.iter().map(|at| format!("u,s,{at}\n")).collect();
    let file = write(
        folder.path(),
        "a.csv",
        format!("user_id,segment,at\n{rows}"),
    );
    let script = Script::default();
    let server = script.start().await;
    load(&server, &[&file]).await;
    let mut sent: Vec<String> = script
        .lines()
        .iter()
        .map(|line| line.split_once("\"at\":").unwrap().1.to_owned())
        .collect();
    sent.sort();
    let mut digits = [
        "1795262399.9999999999}",
        "0.5}",
        "1e400}",
        "7}",
        "\"noon\"}",
        "-1}",
    ];
    digits.sort();
    assert_eq!(sent, digits);
}

#[tokio::test]
async fn gzip_files_of_several_members_are_read() {
    use flate2::{Compression, write::GzEncoder};
    use std::io::Write;
    let folder = tempfile::tempdir().unwrap();
    let mut bytes = Vec::new();
    for text in ["user_id,segment,at\na,x,\n", "b,y,1\n"] {
        let mut encoder = GzEncoder::new(&mut bytes, Compression::fast());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap();
    }
    let file = write(folder.path(), "a.csv.gz", &bytes);
    let script = Script::default();
    let server = script.start().await;
    let (report, failure) = load(&server, &[&file]).await;
    assert!(failure.is_none(), "{failure:?}");
    assert_eq!(report.accepted, 2);
    assert_eq!(script.lines()[1], r#"{"user_id":"b","segment":"y","at":1}"#);

    let cut = write(folder.path(), "cut.csv.gz", &bytes[..bytes.len() - 12]);
    let (_, failure) = load(&server, &[&cut]).await;
    assert!(matches!(failure, Some(Failure::Failed(text)) if text.contains("cut.csv.gz")));
}

#[tokio::test]
async fn a_file_that_is_not_there_stops_before_anything_is_sent() {
    let folder = tempfile::tempdir().unwrap();
    let good = write(folder.path(), "good.ndjson", "1\n");
    let script = Script::default();
    let server = script.start().await;
    for bad in ["/nonexistent.csv", folder.path().to_str().unwrap()] {
        let (_, failure) = load(&server, &[&good, bad]).await;
        assert!(matches!(failure, Some(Failure::Usage(_))));
    }
    assert!(script.lines().is_empty());
}

#[tokio::test]
async fn made_up_pairs_are_the_same_for_the_same_seed() {
    let mut runs = Vec::new();
    for spec in [
        "pairs=2000,users=50,segments=7",
        "pairs=2_000,users=50,segments=7,seed=1",
        "pairs=2000,users=50,segments=7,seed=2",
    ] {
        let script = Script::default();
        let server = script.start().await;
        let (report, failure) = load(&server, &["--generate", spec, "--batch", "300"]).await;
        assert!(failure.is_none());
        assert_eq!(report.accepted, 2_000);
        runs.push(script.lines());
    }
    assert_eq!(runs[0], runs[1]);
    assert_ne!(runs[0], runs[2]);
    let of = |segment: &str| runs[0].iter().filter(|line| line.contains(segment)).count();
    assert!(of("segment-000") > 2 * of("segment-006"));
    assert!(of("segment-006") > 0);
    assert!(!runs[0][0].contains("at"));
}
