//! The program: exit codes, standard output and standard error.

use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::closed_port::ClosedPort;
use crate::support::program::{finish, headcount, output_of};
use crate::support::servers;
use crate::support::service::Service;

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
    let (code, out, err) = output_of(&mut command);
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
fn completions_and_man_pages_have_every_command() {
    let folder = tempfile::tempdir().unwrap();
    for shell in ["bash", "fish", "zsh"] {
        let arguments = ["completions", shell];
        let (code, out, err) = output_of(&mut headcount(folder.path(), &[], &arguments));
        assert_eq!((code, err.as_str()), (0, ""), "{shell}");
        for part in ["check-config", "refresh", "watch", "influx-url"] {
            assert!(out.contains(part), "{shell}: {part}");
        }
        // The shell itself reads the script, and runs none of it.
        if let Some(program) = servers::find(shell, "HEADCOUNT_TEST_SHELL") {
            let script = folder.path().join(shell);
            std::fs::write(&script, &out).unwrap();
            let read = finish(Command::new(program).arg("-n").arg(&script));
            assert_eq!((read.code, read.err.as_str()), (Some(0), ""), "{shell}");
        }
    }
    let (code, out, err) = output_of(&mut headcount(folder.path(), &[], &["man", "new/pages"]));
    assert_eq!((code, out.as_str(), err.as_str()), (0, "", ""));
    for page in ["headcount.1", "headcount-serve.1", "headcount-token-new.1"] {
        let path = folder.path().join("new/pages").join(page);
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let title = format!(".TH {} 1 ", page.trim_end_matches(".1"));
        assert!(text.contains(&title), "{page}: {text}");
        assert!(text.contains(env!("CARGO_PKG_VERSION")), "{page}: {text}");
    }
    let pages = std::fs::read_dir(folder.path().join("new/pages")).unwrap();
    let pages: Vec<_> = pages.map(|page| page.unwrap().path()).collect();
    if let Some(mandoc) = servers::find("mandoc", "HEADCOUNT_TEST_MANDOC") {
        let linted = finish(
            Command::new(mandoc)
                .args(["-Tlint", "-Wwarning"])
                .args(&pages),
        );
        // The generator writes needless line breaks, and the version in place of a date.
        let accepted = ["skipping paragraph macro", "cannot parse date"];
        let told: Vec<_> = linted
            .out
            .lines()
            .filter(|line| !accepted.iter().any(|part| line.contains(part)))
            .collect();
        assert!(told.is_empty(), "{told:?}");
    }
    // A file exists where the directory should be.
    let (code, _, err) = output_of(&mut headcount(
        folder.path(),
        &[],
        &["man", "new/pages/headcount.1"],
    ));
    assert_eq!(code, 1);
    assert!(
        err.contains("can't write man pages to new/pages/headcount.1"),
        "{err}"
    );
}

#[test]
fn invalid_arguments_and_settings_exit_with_2() {
    let folder = tempfile::tempdir().unwrap();
    for arguments in [
        &["frobnicate"][..],
        &["count"],
        &["count", ""],
        &["count", "--expr", "news AND"],
        &["count", "x", "--expr", "news"],
        &["count", "a", " b"],
        &["count", "a", "--json", "--format", "csv"],
        &["trend"],
        &["trend", "a", ""],
        &["segments", "--watch", "--format", "csv"],
        &["count", "x", "--url", "ftp://x"],
        &["check-config", "--window", "13 parsecs"],
        &["check-config", "--config", "missing.toml"],
        &["load", "missing.ndjson"],
        &["load", "--generate", "pairs=many"],
        &["refresh"],
        &["archive"],
    ] {
        let (code, out, err) = output_of(&mut headcount(folder.path(), &[], arguments));
        assert_eq!((code, out.as_str()), (2, ""), "{arguments:?}: {err}");
        assert!(!err.is_empty());
    }
    let mut command = headcount(folder.path(), &[], &["check-config"]);
    command.env("HEADCOUNT_WINDWO", "7d");
    let (code, _, err) = output_of(&mut command);
    assert_eq!(code, 2);
    assert!(
        err.contains("HEADCOUNT_WINDWO") && err.contains("HEADCOUNT_WINDOW`?"),
        "{err}"
    );
}

#[test]
fn unrelated_and_empty_variables_do_not_stop_a_command() {
    let folder = tempfile::tempdir().unwrap();
    let check = |name: &str, value: &str| {
        output_of(headcount(folder.path(), &[], &["check-config"]).env(name, value))
    };
    for name in [
        "HEADCOUNT_DATA_DIR",
        "HEADCOUNT_LOG",
        "HEADCOUNT_STORE",
        "HEADCOUNT_URL",
    ] {
        let (code, out, err) = check(name, "");
        assert_eq!((code, err.as_str()), (0, ""), "{name}");
        assert!(!out.contains(name), "{out}");
    }
    let (code, _, err) = check("HEADCOUNT_ENV_PATH", "/bin");
    assert_eq!((code, err.as_str()), (0, ""));
    let (code, _, err) = check("HEADCOUNT_FOO", "bar");
    assert_eq!(code, 0);
    assert!(
        err.starts_with("warning: HEADCOUNT_FOO is not a setting of this version"),
        "{err}"
    );
    let (code, _, err) = check("HEADCOUNT_USER_KEY", "");
    assert_eq!(code, 0);
    assert!(
        err.starts_with("warning: HEADCOUNT_USER_KEY is empty"),
        "{err}"
    );
    let (code, _, err) = output_of(&mut headcount(
        folder.path(),
        &[],
        &["serve", "--data-dir", ""],
    ));
    assert_eq!(code, 2);
    assert!(
        err.contains("setting `data_dir` is empty (--data-dir)"),
        "{err}"
    );
}

#[test]
fn a_service_logs_warnings_about_its_settings() {
    let folder = tempfile::tempdir().unwrap();
    let settings = [
        ("influx_url", "http://127.0.0.1:1"),
        ("foo", "bar"),
        ("log", ""),
    ];
    let service = Service::launch(folder.path(), &settings, &[]);
    let log = service.log();
    for part in [
        "HEADCOUNT_FOO is not a setting of this version",
        "setting `influx_url` (HEADCOUNT_INFLUX_URL) is not used",
        "listening on",
    ] {
        assert!(log.contains(part), "{log}");
    }
}

#[test]
fn no_message_shows_a_password() {
    let folder = tempfile::tempdir().unwrap();
    for (name, value) in [
        ("HEADCOUNT_INFLUX_URL", "http://u:hunter2@127.0.0.1:8086"),
        (
            "HEADCOUNT_INFLUX_URL",
            "http://127.0.0.1:8086?token=hunter2",
        ),
        ("HEADCOUNT_REDIS_URL", "redis://:hunter2@h/hunter2"),
        (
            "HEADCOUNT_POSTGRES_URL",
            "postgres://u:hunter2@h/d?sslmode=no",
        ),
        ("HEADCOUNT_URL", "ftp://u:hunter2@h"),
        ("HEADCOUNT_URL", "http://u:hunter2@h"),
        ("HEADCOUNT_URL", "u:hunter2@h"),
    ] {
        let arguments: &[&str] = match name {
            "HEADCOUNT_URL" => &["segments"],
            _ => &["check-config"],
        };
        let (code, out, err) = output_of(headcount(folder.path(), &[], arguments).env(name, value));
        assert_eq!(code, 2, "{name}={value}: {err}");
        assert!(
            !err.contains("hunter2") && !out.contains("hunter2"),
            "{err}"
        );
    }
}

#[test]
fn help_goes_to_standard_output_and_exits_with_0() {
    let folder = tempfile::tempdir().unwrap();
    for arguments in [&["--help"][..], &["load", "--help"], &["--version"]] {
        let (code, out, err) = output_of(&mut headcount(folder.path(), &[], arguments));
        assert_eq!((code, err.as_str()), (0, ""));
        assert!(out.contains("headcount"));
    }
}

#[test]
fn an_unreachable_service_exits_with_1_and_a_clear_error() {
    let folder = tempfile::tempdir().unwrap();
    let closed_port = ClosedPort::new();
    let url = closed_port.url();
    for arguments in [
        &["count", "sports"][..],
        &["segments"],
        &["trend", "sports"],
        &["refresh", "--retry-for", "0s"],
        &["archive", "--retry-for", "0s"],
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
        let (code, _, err) = output_of(&mut command);
        assert_eq!(code, 1, "{arguments:?}: {err}");
        let sentence =
            format!("error: cannot reach {url}: connection refused; is `headcount serve` running?");
        assert!(err.contains(&sentence), "{arguments:?}: {err}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_of_a_scheduler_wait_for_a_service_that_starts_two_seconds_later() {
    let folder = tempfile::tempdir().unwrap();
    let closed_port = ClosedPort::new();
    let url = closed_port.url();
    let jobs = ["refresh", "archive"].map(|job| {
        let mut command = headcount(folder.path(), &[], &[job, "--url", &url]);
        let command = command.stdout(Stdio::null()).stderr(Stdio::piped());
        command.spawn().unwrap()
    });
    tokio::time::sleep(Duration::from_secs(2)).await;
    drop(closed_port);
    let address = url.strip_prefix("http://").unwrap();
    let _service = Service::launch(folder.path(), &[], &["--listen", address]);
    for job in jobs {
        let done = job.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{said}");
        assert!(said.contains("connection refused"), "{said}");
        assert!(said.contains("retrying for 30s"), "{said}");
    }
}

#[test]
fn a_closed_standard_output_is_not_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = headcount(folder.path(), &[], &["check-config"]);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), errors.as_str()), (Some(0), ""));
}
