//! The life cycle of the process: start, drain, stop, restart, misuse.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;

use crate::support::program::{headcount, run, with_default_signals};
use crate::support::servers::Process;
use crate::support::service::{Service, poll};
use crate::support::wait::until;

const PAIR: &str = r#"{"user_id":"u1","segment":"sports"}"#;

/// Sends a request without the last `missing` bytes of its body.
fn begin_post(server: &Service, missing: usize) -> TcpStream {
    let mut stream = TcpStream::connect(server.address()).unwrap();
    let head = format!(
        "POST /v1/pairs HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\nexpect: 100-continue\r\ncontent-length: {}\r\n\r\n",
        PAIR.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    // The service sends `100 Continue` once it handles the request, and not before.
    let mut asked = [0; 25];
    stream.read_exact(&mut asked).unwrap();
    assert_eq!(&asked, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream
        .write_all(&PAIR.as_bytes()[..PAIR.len() - missing])
        .unwrap();
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_lets_requests_in_flight_finish() {
    let directory = tempfile::tempdir().unwrap();
    let server = Service::start(directory.path(), &[("SHUTDOWN_GRACE", "60s")]).await;
    let mut request = begin_post(&server, 5);
    server.signal("TERM");
    server.wait_until_refusing().await;
    request
        .write_all(&PAIR.as_bytes()[PAIR.len() - 5..])
        .unwrap();
    let mut answer = String::new();
    request.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(server.exit_code().await, Some(0));
    let server = Service::start(directory.path(), &[]).await;
    assert_eq!(server.count("sports").await, 1);
    assert_eq!(server.terminate().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shutdown_delay_leaves_time_for_load_balancers() {
    let directory = tempfile::tempdir().unwrap();
    let server = Service::start(directory.path(), &[("SHUTDOWN_DELAY", "10m")]).await;
    let ready = format!("{}/readyz", server.url());
    assert_eq!(reqwest::get(&ready).await.unwrap().status(), 200);
    server.signal("TERM");
    until("it is no longer ready", async || {
        reqwest::get(&ready).await.unwrap().status() == 503
    })
    .await;
    // Requests on new connections are still served.
    server.post_body(PAIR).await;
    assert_eq!(server.count("sports").await, 1);
    // Ten minutes of the delay are left. A second signal ends it immediately.
    server.signal("TERM");
    assert_ne!(server.exit_code().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_termination_signal_drains() {
    for signal in ["INT", "QUIT", "HUP"] {
        let directory = tempfile::tempdir().unwrap();
        let server =
            Service::start_with_default_signals(directory.path(), &[("SHUTDOWN_GRACE", "60s")]);
        let mut request = begin_post(&server, 5);
        server.signal(signal);
        server.wait_until_refusing().await;
        request
            .write_all(&PAIR.as_bytes()[PAIR.len() - 5..])
            .unwrap();
        let mut answer = String::new();
        request.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{signal}: {answer}");
        assert_eq!(server.exit_code().await, Some(0), "{signal}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ignored_sighup_stays_ignored() {
    let directory = tempfile::tempdir().unwrap();
    let server = Service::start_under("nohup", directory.path(), &[]);
    server.signal("HUP");
    server.post_body(PAIR).await;
    // A first signal is logged as "stopping": no signal was handled before.
    assert_eq!(server.logged("stopping"), [""; 0]);
    server.signal("TERM");
    poll(async || (!server.logged("stopping").is_empty()).then_some(())).await;
    assert!(server.logged("stopping")[0].contains("SIGTERM"));
    assert_eq!(server.exit_code().await, Some(0));
}

/// The last case sends two signals at once. The second one ends the demo immediately.
#[tokio::test(flavor = "multi_thread")]
async fn the_demo_leaves_no_files_on_any_signal() {
    for signals in [&["TERM"][..], &["HUP"], &["QUIT"], &["INT", "INT"]] {
        let temporary = tempfile::tempdir().unwrap();
        let mut command = headcount(temporary.path(), &[], &["demo", "--port", "0"]);
        command.env("TMPDIR", temporary.path());
        let mut demo = Process::start(&mut with_default_signals(&command));
        let left = || std::fs::read_dir(temporary.path()).unwrap().count();
        let is_open = || {
            let entries = std::fs::read_dir(temporary.path()).unwrap();
            entries
                .flatten()
                .any(|entry| entry.path().join("lock").exists())
        };
        poll(async || is_open().then_some(())).await;
        for signal in signals {
            demo.signal(signal);
        }
        poll(async || demo.ended()).await;
        assert_eq!(left(), 0, "{signals:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_the_process_immediately() {
    let directory = tempfile::tempdir().unwrap();
    let server = Service::start(directory.path(), &[("SHUTDOWN_GRACE", "10m")]).await;
    let _unfinished = begin_post(&server, 5);
    server.signal("TERM");
    server.wait_until_refusing().await;
    server.signal("TERM");
    // Ten minutes of grace are left: only the second signal ends it now.
    assert_ne!(server.exit_code().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_abandoned_after_the_grace_period() {
    let directory = tempfile::tempdir().unwrap();
    let server = Service::start(directory.path(), &[("SHUTDOWN_GRACE", "200ms")]).await;
    let _unfinished = begin_post(&server, 5);
    server.signal("TERM");
    assert!(server.exit_code().await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_service_on_the_same_directory_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let server = Service::start(directory.path(), &[]).await;
    let refused = run(directory.path(), &[], &["serve", "--listen", "127.0.0.1:0"]);
    assert_eq!(refused.code, Some(1));
    let said = refused.err;
    assert!(
        said.contains("headcount-data") && said.contains("another process"),
        "{said}"
    );
    assert_eq!(server.terminate().await, Some(0));
}

#[test]
fn invalid_settings_prevent_the_start_and_are_named() {
    let directory = tempfile::tempdir().unwrap();
    for (arguments, named) in [
        (["serve", "--window", "90s"], "window"),
        (["serve", "--listen", "nowhere"], "listen"),
        (["serve", "--max-body", "much"], "max_body"),
    ] {
        let refused = run(directory.path(), &[], &arguments);
        assert_eq!(refused.code, Some(2), "{arguments:?}");
        let said = refused.err;
        assert!(said.contains(named), "{arguments:?}: {said}");
    }
    assert!(
        !directory.path().join("headcount-data").exists(),
        "a failed start creates no file"
    );
}

#[test]
fn a_damaged_log_prevents_the_start_and_names_file_and_offset() {
    let directory = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let mut server = Service::start(directory.path(), &[]).await;
        for _ in 0..20 {
            server.post_body(PAIR).await;
        }
        server.kill();
    });
    let log = find_log(directory.path());
    let mut bytes = std::fs::read(&log).unwrap();
    // In the first group, after the header of the file.
    bytes[40] ^= 1;
    std::fs::write(&log, bytes).unwrap();
    let refused = run(directory.path(), &[], &["serve", "--listen", "127.0.0.1:0"]);
    assert_eq!(refused.code, Some(1));
    let said = refused.err;
    let name = log.file_name().unwrap().to_str().unwrap();
    assert!(
        said.contains(name) && said.contains("damaged at byte 32:"),
        "{said}"
    );
}

/// The largest log file below `directory`.
fn find_log(directory: &Path) -> std::path::PathBuf {
    let mut found = Vec::new();
    let mut open = vec![directory.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "log") {
                found.push(path);
            }
        }
    }
    found
        .into_iter()
        .max_by_key(|path| path.metadata().unwrap().len())
        .unwrap()
}
