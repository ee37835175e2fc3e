//! Whole loads against a test service with scripted responses.

use super::*;
use crate::cli::args::{Cli, Command};
use crate::cli::test_server::TestServer;
use clap::Parser;
use serde_json::json;
use std::path::Path;
use std::sync::{Arc, Mutex};
use warp::Filter;
use warp::http::Response;

/// What was posted to the service, and its first responses.
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
        let listed = &bad[..bad.len().min(LISTED)];
        let answer = json!({"accepted": all - bad.len(), "rejected": bad.len(), "errors": listed});
        self.bodies.lock().unwrap().push(body);
        Response::new(answer.to_string())
    }

    /// All lines that were received, sorted, since requests may overtake each other.
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
        Ok((load, pieces)) => load.run(pieces, args.connections as usize).await,
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
        text.ends_with("responded with 403 forbidden: lacks the scope write"),
        "{text}"
    );
    assert_eq!((report.accepted, report.undelivered), (0, 1));
}

#[tokio::test]
async fn rejects_are_told_with_the_line_of_their_file() {
    let folder = tempfile::tempdir().unwrap();
    let good = write(folder.path(), "good.ndjson", "1\n");
    let long = "x".repeat(batch::MAX_LINE + 1);
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
            "{file}: no column is named `user_id`: name one with --user-column; the columns are: when, who, what"
        )
    );
}

#[tokio::test]
async fn a_quote_left_open_takes_no_pair_in_silence() {
    let folder = tempfile::tempdir().unwrap();
    let rows: String = (0..100).map(|n| format!("u{n},s,x\n")).collect();
    let script = Script::default();
    let server = script.start().await;
    for head in ["u,s,\"stray\n", "u,s,x\n\"u,s,x\n"] {
        let text = format!("user_id,segment,note\n{head}{rows}");
        let file = write(folder.path(), "a.csv", text);
        let (_, failure) = load(&server, &[&file]).await;
        assert!(
            matches!(&failure, Some(Failure::Failed(text)) if text.contains("never closed")),
            "{failure:?}"
        );
    }
    // A later quote closes it.
    let text = format!("user_id,segment,note\nu,s,\"stray\n{rows}v,s,\"x\nw,s,y\n");
    let file = write(folder.path(), "a.csv", text);
    let (report, failure) = load(&server, &[&file]).await;
    assert!(failure.is_none(), "{failure:?}");
    let [warning] = &report.warnings[..] else {
        panic!("{:?}", report.warnings)
    };
    assert!(warning.contains("line 2 spans 102 lines"), "{warning}");
}

#[tokio::test]
async fn a_table_that_may_be_cut_off_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let script = Script::default();
    let server = script.start().await;
    let file = write(folder.path(), "a.csv", "user_id,segment\nu1,sports\nu2,spo");
    let (report, failure) = load(&server, &[&file]).await;
    assert!(failure.is_none() && report.accepted == 2, "{failure:?}");
    let [warning] = &report.warnings[..] else {
        panic!("{:?}", report.warnings)
    };
    assert!(warning.contains("line 3, has no line end"), "{warning}");
    let file = write(folder.path(), "b.csv", "user_id,segment\nu1,sports\n");
    assert!(load(&server, &[&file]).await.0.warnings.is_empty());
    let file = write(folder.path(), "c.csv", "");
    let (_, failure) = load(&server, &[&file]).await;
    assert!(
        matches!(&failure, Some(Failure::Failed(text)) if text.ends_with("it is empty")),
        "{failure:?}"
    );
}

#[tokio::test]
async fn what_is_read_is_never_overwritten_by_what_was_rejected() {
    let folder = tempfile::tempdir().unwrap();
    let text = "1\n2\n";
    let file = write(folder.path(), "a.ndjson", text);
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(&file, &link).unwrap();
    let script = Script::default();
    let server = script.start().await;
    for rejects in [&file, link.to_str().unwrap()] {
        let (_, failure) = load(&server, &[&file, "--rejects", rejects]).await;
        assert!(
            matches!(&failure, Some(Failure::Usage(text)) if text.contains("is an input")),
            "{failure:?}"
        );
        assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
    }
    // An input that cannot be read leaves an existing file untouched.
    let (_, failure) = load(&server, &["missing", "--rejects", &file]).await;
    assert!(failure.is_some());
    assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
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
    // Many rows are not one long row.
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
    // One line per request: whether a byte order mark is accepted would otherwise depend on where a request begins.
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

fn compressed(text: &[u8], by_zstd: bool) -> Vec<u8> {
    use flate2::{Compression, write::GzEncoder};
    use std::io::Write;
    if by_zstd {
        return zstd::stream::encode_all(text, 1).unwrap();
    }
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn inputs_are_read_as_their_content_says() {
    let lines = "{\"user_id\":\"a\",\"segment\":\"x\"}\n{\"user_id\":\"b\",\"segment\":\"x\"}\n";
    let array = "[{\"user_id\":\"a\",\"segment\":\"x\"},\n {\"user_id\":\"b\",\"segment\":\"x\"}]";
    let table = "user_id,segment\na,x\nb,x\n";
    let utf16 = |text: &str| -> Vec<u8> {
        let marked = format!("\u{feff}{text}");
        marked.encode_utf16().flat_map(u16::to_le_bytes).collect()
    };
    let twice = compressed(&compressed(table.as_bytes(), true), false);
    let cases: [(&str, Vec<u8>, &str); 11] = [
        ("a.ndjson", lines.into(), "NDJSON"),
        ("a.csv", lines.into(), "NDJSON"),
        ("a", table.into(), "CSV"),
        ("a.ndjson", table.into(), "CSV"),
        ("a.tsv", table.replace(',', "\t").into(), "TSV"),
        ("a.txt", table.replace(',', ";").into(), "CSV"),
        ("a.json", array.into(), "JSON"),
        ("a.csv", utf16(table), "CSV, UTF-16LE"),
        ("a.csv", compressed(table.as_bytes(), false), "CSV, gzip"),
        (
            "a.json.zst",
            compressed(array.as_bytes(), true),
            "JSON, zstd",
        ),
        ("a.csv.gz", twice, "CSV, zstd, gzip"),
    ];
    for (name, bytes, format) in cases {
        let folder = tempfile::tempdir().unwrap();
        let file = write(folder.path(), name, bytes);
        let script = Script::default();
        let server = script.start().await;
        let (report, failure) = load(&server, &[&file]).await;
        assert!(failure.is_none(), "{name}: {failure:?}");
        assert_eq!((report.accepted, report.rejected), (2, 0), "{name}");
        assert_eq!(report.inputs[0].format, format);
        assert!(script.lines()[0].contains(r#""user_id":"a","segment":"x""#));
    }
}

#[tokio::test]
async fn what_can_not_be_read_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let script = Script::default();
    let server = script.start().await;
    for (name, bytes, part) in [
        (
            "a.xlsx",
            &b"PK\x03\x04...."[..],
            "a.xlsx: it is a zip archive or an Excel workbook",
        ),
        ("a.ndjson", b"BZh91AY", "bzip2"),
        ("a.csv", b"u\0s\0e\0r\0", "UTF-16 without a byte order mark"),
        ("a.csv", b"\xff\xfea", "ends within a character"),
        ("a.zst", b"\x28\xb5\x2f\xfd\x04", "a.zst: "),
        ("a.html", b"<html></html>", "an error page perhaps"),
    ] {
        let file = write(folder.path(), name, bytes);
        let (report, failure) = load(&server, &[&file]).await;
        let Some(Failure::Failed(text)) = failure else {
            panic!("{name}: {failure:?}")
        };
        assert!(text.contains(part), "{text}");
        assert_eq!(report.accepted, 0);
    }
    assert!(script.lines().is_empty());
}

#[tokio::test]
async fn a_column_of_times_is_read_or_warned_of() {
    let folder = tempfile::tempdir().unwrap();
    for (header, flags, at, warned) in [
        ("timestamp", &[][..], Some("timestamp"), false),
        ("At", &[], Some("At"), false),
        ("Zeitpunkt", &[], None, true),
        ("x", &[], None, true),
        ("x", &["--at-column", "x"], Some("x"), false),
        ("timestamp", &["--no-at-column"], None, false),
    ] {
        let text = format!("user_id,segment,{header},country\nu,s,2020-01-01T00:00:00Z,DE\n");
        let file = write(folder.path(), "a.csv", text);
        let script = Script::default();
        let server = script.start().await;
        let (report, failure) = load(&server, &[&[file.as_str()], flags].concat()).await;
        assert!(failure.is_none(), "{failure:?}");
        let used = report.inputs[0].columns.as_ref().unwrap();
        assert_eq!(used.at.as_deref(), at);
        assert!(used.unused.contains(&"country".to_owned()));
        assert_eq!(script.lines()[0].contains("2020-01-01"), at.is_some());
        let names_it = |warning: &String| warning.contains(&format!("`{header}` may hold it"));
        assert_eq!(
            report.warnings.iter().any(names_it),
            warned,
            "{:?}",
            report.warnings
        );
        let text = report.text();
        assert!(
            text.contains("user_id from `user_id`, segment from `segment`"),
            "{text}"
        );
        assert!(text.contains("`country`"), "{text}");
    }
}

#[tokio::test]
async fn times_of_other_programs_are_understood() {
    let folder = tempfile::tempdir().unwrap();
    let rows = "user_id,segment,ts\na,s,1795262400123\nb,s,2026-11-28 10:00:00 UTC\nc,s,2026-11-28 10:00:00\nd,s,\n";
    let file = write(folder.path(), "a.csv", rows);
    let script = Script::default();
    let server = script.start().await;
    let (report, _) = load(&server, &[&file]).await;
    assert_eq!(
        (report.accepted, report.rejected, report.untimed),
        (3, 1, 1)
    );
    let text = report.text();
    assert!(
        text.contains("a.csv:4: the time has no time zone: give"),
        "{text}"
    );
    assert!(text.contains("1, which count as seen now"), "{text}");
    let lines = script.lines();
    assert!(lines[0].ends_with("\"at\":1795262400123e-3}"), "{lines:?}");
    assert!(
        lines[1].ends_with("\"at\":\"2026-11-28T10:00:00Z\"}"),
        "{lines:?}"
    );

    let script = Script::default();
    let server = script.start().await;
    let (report, _) = load(&server, &[&file, "--zone", "+02:00"]).await;
    assert_eq!((report.accepted, report.rejected), (4, 0));
    assert!(script.lines()[2].ends_with("\"at\":\"2026-11-28T08:00:00Z\"}"));

    let item = r#"{"user_id":"a","segment":"s","at":1795262400123}"#;
    let file = write(folder.path(), "a.ndjson", item);
    let script = Script::default();
    let server = script.start().await;
    load(&server, &[&file, "--time-unit", "us"]).await;
    assert_eq!(script.lines(), [item.replace("123}", "123e-6}")]);
}

#[tokio::test]
async fn a_row_that_does_not_fit_the_header_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let text = "user_id,segment,at\na,news, world,1795262400\nb,s,1795262400,,\n";
    let file = write(folder.path(), "a.csv", text);
    let script = Script::default();
    let server = script.start().await;
    let (report, _) = load(&server, &[&file]).await;
    assert_eq!((report.accepted, report.rejected), (1, 1));
    assert!(
        report
            .text()
            .contains("a.csv:2: the row has 4 fields, the header 3")
    );
}

#[tokio::test]
async fn every_rejected_pair_is_in_the_file_of_rejects() {
    let folder = tempfile::tempdir().unwrap();
    let bad: String = (0..250)
        .map(|number| format!("bad {number}\n{number}\n"))
        .collect();
    let file = write(
        folder.path(),
        "a.ndjson",
        format!("{bad}{}\n", "x".repeat(batch::MAX_LINE + 1)),
    );
    let rejects = folder.path().join("rejects.ndjson");
    let script = Script::default();
    let server = script.start().await;
    let flags = ["--rejects", rejects.to_str().unwrap()];
    let (report, failure) = load(&server, &[&[file.as_str()], &flags[..]].concat()).await;
    assert!(failure.is_none(), "{failure:?}");
    assert_eq!((report.accepted, report.rejected), (250, 251));
    let text = std::fs::read_to_string(&rejects).unwrap();
    let rows: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(rows.len(), 251);
    let of =
        |code: &str| -> Vec<&Value> { rows.iter().filter(|row| row["code"] == code).collect() };
    assert_eq!(of("unreadable")[0]["line"], 501);
    for (number, row) in of("malformed").into_iter().enumerate() {
        assert_eq!(row["item"], format!("bad {number}"));
        assert_eq!(
            (&row["line"], &row["message"]),
            (&json!(2 * number + 1), &json!("no"))
        );
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = rejects.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    let (_, failure) = load(&server, &[&file, "--rejects", "/nonexistent/x"]).await;
    assert!(
        matches!(failure, Some(Failure::Usage(text)) if text.starts_with("can't write /nonexistent/x"))
    );
}

#[tokio::test]
async fn a_load_stops_when_too_much_is_rejected() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), "a.ndjson", "bad\n".repeat(100));
    let script = Script::default();
    let server = script.start().await;
    let flags = ["--max-rejects", "10", "--batch", "5", "--connections", "1"];
    let (report, failure) = load(&server, &[&[file.as_str()], &flags[..]].concat()).await;
    assert!(matches!(failure, Some(Failure::Failed(text)) if text.contains("more than 10 pairs")));
    assert!((11..=20).contains(&report.rejected), "{}", report.rejected);
}

#[tokio::test]
async fn a_dry_run_judges_and_sends_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let text = "user_id,segment,ts\na,s,2020-01-01T00:00:00Z\nb, s,2020-01-01T00:00:00Z\nc,s,9999-01-01T00:00:00Z\n";
    let file = write(folder.path(), "a.csv", text);
    let script = Script::default();
    let server = script.start().await;
    let (report, failure) = load(&server, &[&file, "--dry-run"]).await;
    assert!(failure.is_none(), "{failure:?}");
    assert_eq!((report.accepted, report.rejected), (1, 2));
    let text = report.text();
    assert!(text.contains("nothing was sent"), "{text}");
    assert!(
        text.contains("2020-01-01T00:00:00Z to 2020-01-01T00:00:00Z"),
        "{text}"
    );
    assert!(
        text.contains("invalid_segment: 1") && text.contains("in_future: 1"),
        "{text}"
    );
    assert!(
        report.warnings[0].contains("1 pairs are older than 14 days"),
        "{:?}",
        report.warnings
    );
    assert!(script.lines().is_empty());
}

#[tokio::test]
async fn an_answer_for_other_pairs_is_not_believed() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), "a.ndjson", "1\n2\n");
    let script = Script::first(&[(200, r#"{"accepted":1,"rejected":0,"errors":[]}"#)]);
    let server = script.start().await;
    let (report, failure) = load(&server, &[&file]).await;
    assert!(matches!(failure, Some(Failure::Failed(text)) if text.contains("covers 1 of 2 pairs")));
    assert_eq!((report.accepted, report.undelivered), (0, 2));
}

#[tokio::test]
async fn warnings_of_the_service_are_told_once() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), "a.ndjson", "1\n2\n");
    let answer = r#"{"accepted":1,"rejected":0,"errors":[],"warnings":["item 0 has `ts`"]}"#;
    let script = Script::first(&[(200, answer), (200, answer)]);
    let server = script.start().await;
    let (report, failure) = load(&server, &[&file, "--batch", "1"]).await;
    assert!(failure.is_none(), "{failure:?}");
    assert_eq!(report.warnings, [format!("{file}: item 0 has `ts`")]);
}

#[tokio::test]
async fn flags_of_tables_are_missed_by_json() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), "a.ndjson", "{}\n");
    let script = Script::default();
    let server = script.start().await;
    let (report, _) = load(&server, &[&file, "--user-column", "customer"]).await;
    assert!(report.warnings[0].contains("it holds JSON, so --user-column has no effect"));
}

#[test]
fn a_load_of_nothing_is_a_failure() {
    let report = |accepted, rejected| Report {
        accepted,
        rejected,
        ..Report::default()
    };
    assert!(outcome(&report(0, 0), false).is_err());
    assert!(outcome(&report(0, 3), false).is_err());
    assert!(outcome(&report(1, 3), false).is_ok());
    assert!(outcome(&report(1, 3), true).is_err());
    assert!(outcome(&report(1, 0), true).is_ok());
}
