//! `headcount load` and the commands that read counts, as programs: no error exits with 0 and without a message.

use std::path::Path;

use serde_json::Value;

use crate::support::program::{Run, run};
use crate::support::service::Service;

/// Writes `text` to a file of this name and loads it.
fn load(folder: &Path, url: &str, name: &str, text: impl AsRef<[u8]>, flags: &[&str]) -> Run {
    std::fs::write(folder.join(name), text).unwrap();
    let arguments = [&["load", name, "--url", url][..], flags].concat();
    run(folder, &[], &arguments)
}

#[tokio::test]
async fn old_timestamps_do_not_count_as_now() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let service = Service::start(folder, &[]).await;
    let url = service.url();
    for (name, header) in [
        ("a.csv", "timestamp"),
        ("b.csv", "At"),
        ("c.csv", "last_seen"),
    ] {
        let text = format!("user_id,segment,{header}\nu1,old,2020-03-01T12:00:00Z\n");
        let run = load(folder, &url, name, text, &[]);
        assert_eq!(run.code, Some(1), "{run:?}");
        assert!(
            run.err.contains("nothing was accepted: 1 of 1 pairs"),
            "{run:?}"
        );
        assert!(run.out.contains("expired: 1") && run.out.contains(&format!("at from `{header}`")));
    }
    assert_eq!(service.count("old").await, 0);

    // An unusual column name causes a warning.
    let text = "user_id,segment,Zeitpunkt\nu1,new,2020-03-01T12:00:00Z\n";
    let run = load(folder, &url, "d.csv", text, &[]);
    assert_eq!(run.code, Some(0), "{run:?}");
    assert!(
        run.err
            .contains("warning: d.csv: no column is read as the time"),
        "{run:?}"
    );
    assert!(
        run.err.contains("`Zeitpunkt`") && run.out.contains("not used   `Zeitpunkt`"),
        "{run:?}"
    );
    // An unusual field of JSON does as well.
    let text = r#"{"user_id":"u1","segment":"new","ts":1583064000}"#;
    let run = load(folder, &url, "e.ndjson", text, &[]);
    assert_eq!(run.code, Some(0), "{run:?}");
    assert!(
        run.err
            .contains("warning: e.ndjson: item 0 has `ts` and no `at`"),
        "{run:?}"
    );
}

#[tokio::test]
async fn a_load_without_accepted_pairs_fails() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let service = Service::start(folder, &[]).await;
    let url = service.url();
    for (name, bytes, part) in [
        ("a.ndjson", &b"nonsense\n"[..], "nothing was accepted"),
        ("a.csv", b"nonsense\n", "no column is named `user_id`"),
        ("a.ndjson", b"", "there are no pairs in the input"),
        (
            "a.csv",
            b"user_id,segment\n",
            "there are no pairs in the input",
        ),
        ("a.zip", b"PK\x03\x04", "zip archive"),
        (
            "a.ndjson",
            b"{\0\"\0u\0",
            "UTF-16 without a byte order mark",
        ),
        (
            "a.json",
            b"[{\"user_id\":\"u\",\"segment\":",
            "does not end",
        ),
        (
            "a.csv",
            b"user_id,segment,at\nu,s,2026-11-28 10:00:00\n",
            "nothing was accepted",
        ),
    ] {
        for flags in [&[][..], &["--dry-run"]] {
            let run = load(folder, &url, name, bytes, flags);
            assert!(matches!(run.code, Some(1 | 2)), "{run:?}");
            assert!(run.err.contains(part), "{run:?}");
        }
    }
    assert_eq!(
        service.get("/v1/segments").await["segments"],
        Value::Array(vec![])
    );
}

#[tokio::test]
async fn rejected_pairs_are_reported_and_saved() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let service = Service::start(folder, &[]).await;
    let url = service.url();
    let bad: String = (0..300)
        .map(|number| format!("{{\"user_id\":\"u{number}\",\"segment\":\" x\"}}\n"))
        .collect();
    let text = format!("{{\"user_id\":\"u\",\"segment\":\"x\"}}\n{bad}");
    let flags = ["--rejects", "rejects.ndjson"];
    let run = load(folder, &url, "a.ndjson", &text, &flags);
    assert_eq!(run.code, Some(0), "{run:?}");
    assert_eq!(run.err, "warning: 300 of 301 pairs were rejected\n");
    let rejects = std::fs::read_to_string(folder.join("rejects.ndjson")).unwrap();
    let items: Vec<String> = rejects
        .lines()
        .map(|line| {
            serde_json::from_str::<Value>(line).unwrap()["item"]
                .as_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    assert_eq!(
        items.join("\n") + "\n",
        bad,
        "all rejected items as they were sent"
    );

    for (flags, part) in [
        (
            &["--max-rejects", "10"][..],
            "more than 10 pairs were rejected",
        ),
        (&["--strict"], "300 pairs were rejected"),
    ] {
        let run = load(folder, &url, "a.ndjson", &text, flags);
        assert_eq!(run.code, Some(1));
        assert!(run.err.contains(part), "{run:?}");
    }
    let run = load(folder, &url, "a.ndjson", &text, &["--dry-run", "--json"]);
    assert_eq!(run.code, Some(0));
    let document = run.json();
    assert_eq!(
        (
            &document["dry_run"],
            &document["accepted"],
            &document["rejected"]
        ),
        (&true.into(), &1.into(), &300.into())
    );
}

#[tokio::test]
async fn every_timestamp_format_is_accepted() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let service = Service::start(folder, &[]).await;
    let url = service.url();
    let now = jiff::Timestamp::now();
    let civil = now.strftime("%Y-%m-%d %H:%M:%S").to_string();
    let formats = [
        now.as_second().to_string(),
        now.as_millisecond().to_string(),
        now.as_microsecond().to_string(),
        now.as_nanosecond().to_string(),
        format!("{civil} UTC"),
        format!("{civil}+00:00"),
        civil,
    ];
    let rows: String = formats
        .iter()
        .enumerate()
        .map(|(number, at)| format!("u{number},csv,{at}\n"))
        .collect();
    let run = load(
        folder,
        &url,
        "a.csv",
        format!("user_id,segment,at\n{rows}"),
        &["--zone", "UTC"],
    );
    assert_eq!((run.code, run.err.as_str()), (Some(0), ""), "{run:?}");
    assert_eq!(service.count("csv").await, 7);
    let items: Vec<String> = formats
        .iter()
        .enumerate()
        .map(|(number, at)| format!(r#"{{"user_id":"u{number}","segment":"json","at":"{at}"}}"#))
        .collect();
    let run = load(
        folder,
        &url,
        "a.json",
        format!("[{}]", items.join(",\n")),
        &["--zone", "UTC"],
    );
    assert_eq!((run.code, run.err.as_str()), (Some(0), ""), "{run:?}");
    assert_eq!(service.count("json").await, 7);
}

#[tokio::test]
async fn a_misspelled_segment_is_reported_as_never_seen() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let service = Service::start(folder, &[]).await;
    let url = service.url();
    let run_with_url =
        |arguments: &[&str]| run(folder, &[], &[arguments, &["--url", &url]].concat());
    let run = run_with_url(&["segments"]);
    assert_eq!(
        (run.code, run.err.as_str()),
        (Some(0), "there are no segments\n")
    );
    load(
        folder,
        &url,
        "a.ndjson",
        r#"{"user_id":"u","segment":"sports"}"#,
        &[],
    );
    let run = run_with_url(&["count", "sports"]);
    assert!(run.err.starts_with("warning: not complete"), "{run:?}");
    run_with_url(&["coverage", "--since", "2026-01-01"]);
    let run = run_with_url(&["count", "sports"]);
    assert_eq!((run.code, run.err.as_str()), (Some(0), ""), "{run:?}");
    let run = run_with_url(&["count", "spotrs"]);
    assert_eq!(run.code, Some(0));
    assert!(
        run.out.starts_with("spotrs: 0 users") && run.out.contains("never seen"),
        "{run:?}"
    );
    assert_eq!(run.err, "`spotrs` was never seen: did you mean `sports`?\n");
    let run = run_with_url(&["count", "gardening", "--json"]);
    assert_eq!((run.code, &run.json()["users"]), (Some(0), &0.into()));
    assert_eq!(
        run.err,
        "`gardening` was never seen; `headcount segments` lists the known segments\n"
    );
    let run = run_with_url(&["count", "--expr", "(sports OR spotrs) NOT cars"]);
    assert_eq!(run.code, Some(0), "{run:?}");
    assert!(
        run.out
            .starts_with("(sports OR spotrs) AND NOT cars: 1 user in the last 14d"),
        "{run:?}"
    );
    assert_eq!(
        run.err,
        "`spotrs` was never seen: did you mean `sports`?\n\
         `cars` was never seen; `headcount segments` lists the known segments\n"
    );
    let run = run_with_url(&["segments", "--prefix", "x"]);
    assert_eq!(
        (run.code, run.err.as_str()),
        (Some(0), "no segment begins with `x`\n")
    );
    let run = run_with_url(&["audit", "spotrs"]);
    assert_eq!(run.code, Some(0), "{run:?}");
    assert!(run.err.contains("segment `spotrs` has no users"), "{run:?}");
}
