//! `headcount segments --watch` against a running service.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use serde_json::Value;

use crate::support::program::headcount;
use crate::support::service::Service;

#[tokio::test(flavor = "multi_thread")]
async fn each_change_prints_a_line_and_ctrl_c_exits_cleanly() {
    let directory = tempfile::tempdir().unwrap();
    let server = Service::start(directory.path(), &[]).await;
    server
        .post_body(r#"{"user_id": "u1", "segment": "a"}"#)
        .await;
    let url = server.url();
    let arguments = ["segments", "--watch", "--json", "--url", &url];
    let mut watch = headcount(directory.path(), &[], &arguments)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(watch.stdout.take().unwrap());
    let (line, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for text in output.lines().map_while(Result::ok) {
            // The test may have ended.
            let _ = line.send(serde_json::from_str::<Value>(&text).unwrap());
        }
    });
    let next = || lines.recv_timeout(Duration::from_secs(120)).unwrap();
    let first = next();
    assert_eq!(
        (&first["segment"], &first["users"]),
        (&"a".into(), &1.into())
    );
    server
        .post_body(r#"{"user_id": "u1", "segment": "b"}"#)
        .await;
    let second = next();
    assert_eq!(
        (&second["segment"], &second["users"]),
        (&"b".into(), &1.into())
    );
    server
        .post_body(r#"{"user_id": "u2", "segment": "a"}"#)
        .await;
    let third = next();
    assert_eq!(
        (&third["segment"], &third["users"]),
        (&"a".into(), &2.into())
    );
    let pid = watch.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-INT", &pid])
            .status()
            .unwrap()
            .success()
    );
    assert_eq!(watch.wait().unwrap().code(), Some(0));
    assert!(lines.recv().is_err(), "no other line was printed");
}
