//! The program itself: exit codes, and what goes to standard output and standard error.

use std::process::Stdio;

use crate::support::program::{headcount, texts};

/// A URL on which nobody listens.
fn nobody() -> String {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", free.local_addr().unwrap())
}

#[test]
fn settings_are_shown_with_their_origin_and_without_secrets() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("headcount.toml"),
        "# ours\nwindow = '7d'\n",
    )
    .unwrap();
    let mut command = headcount(
        folder.path(),
        &[],
        &["check-config", "--json", "--listen", "[::1]:9"],
    );
    command.env("HEADCOUNT_USER_KEY", "correct horse battery");
    let (code, out, err) = texts(&mut command);
    assert_eq!((code, err.as_str()), (0, ""));
    let document: serde_json::Value = serde_json::from_str(&out).unwrap();
    let row = |name: &str| {
        let rows = document["settings"].as_array().unwrap();
        let row = rows.iter().find(|row| row["name"] == name).unwrap();
        (
            row["value"].as_str().unwrap().to_owned(),
            row["origin"].as_str().unwrap().to_owned(),
        )
    };
    assert_eq!(row("window"), ("7d".into(), "headcount.toml:2".into()));
    assert_eq!(row("listen"), ("[::1]:9".into(), "--listen".into()));
    assert_eq!(row("user_key"), ("***".into(), "HEADCOUNT_USER_KEY".into()));
    assert_eq!(row("log"), ("info".into(), "default".into()));
}

#[test]
fn wrong_usage_and_wrong_settings_exit_with_2() {
    let folder = tempfile::tempdir().unwrap();
    for arguments in [
        &["frobnicate"][..],
        &["count"],
        &["count", ""],
        &["count", ".."],
        &["count", "x", "--url", "ftp://x"],
        &["check-config", "--window", "13 parsecs"],
        &["check-config", "--config", "missing.toml"],
        &["load", "missing.ndjson"],
        &["load", "--generate", "pairs=many"],
        &["refresh"],
        &["archive"],
    ] {
        let (code, out, err) = texts(&mut headcount(folder.path(), &[], arguments));
        assert_eq!((code, out.as_str()), (2, ""), "{arguments:?}: {err}");
        assert!(!err.is_empty());
    }
    let mut command = headcount(folder.path(), &[], &["check-config"]);
    command.env("HEADCOUNT_WINDWO", "7d");
    let (code, _, err) = texts(&mut command);
    assert_eq!(code, 2);
    assert!(
        err.contains("HEADCOUNT_WINDWO") && err.contains("HEADCOUNT_WINDOW`?"),
        "{err}"
    );
}

#[test]
fn help_is_a_result() {
    let folder = tempfile::tempdir().unwrap();
    for arguments in [&["--help"][..], &["load", "--help"], &["--version"]] {
        let (code, out, err) = texts(&mut headcount(folder.path(), &[], arguments));
        assert_eq!((code, err.as_str()), (0, ""));
        assert!(out.contains("headcount"));
    }
}

#[test]
fn a_service_that_is_away_exits_with_1_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let url = nobody();
    for arguments in [
        &["count", "sports"][..],
        &["segments"],
        &["refresh"],
        &["archive"],
        &[
            "load",
            "--generate",
            "pairs=3,users=3,segments=1",
            "--retry-for",
            "0s",
        ],
    ] {
        let mut command = headcount(folder.path(), &[], arguments);
        command.env("HEADCOUNT_URL", &url);
        let (code, _, err) = texts(&mut command);
        assert_eq!(code, 1, "{arguments:?}: {err}");
        let sentence =
            format!("error: cannot reach {url}: connection refused; is `headcount serve` running?");
        assert!(err.contains(&sentence), "{arguments:?}: {err}");
    }
}

#[test]
fn a_reader_that_leaves_causes_no_complaint() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = headcount(folder.path(), &[], &["check-config"]);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), said.as_str()), (Some(0), ""));
}
