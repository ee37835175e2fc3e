//! A data directory that can't be written, from the start or later.

use std::path::Path;
use std::process::{Command, Output};

use crate::support::disks::OwnDisk;
use crate::support::program;
use crate::support::service::Service;
use crate::support::stderr::skip;

/// Runs `headcount serve` on `data`, which must fail. Returns its error message.
fn refused(mut command: Command) -> String {
    let Output { status, stderr, .. } = command.output().unwrap();
    let said = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(1), "{said}");
    said
}

fn serve(data: &Path) -> Command {
    let settings = [
        ("data_dir", data.to_str().unwrap()),
        ("listen", "127.0.0.1:0"),
    ];
    program::headcount(Path::new("/"), &settings, &["serve"])
}

fn assert_names(said: &str, data: &Path, reason: &str) {
    assert!(said.contains(data.to_str().unwrap()), "{said}");
    assert!(said.contains(reason), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_on_a_read_only_directory_names_it_and_does_not_change_it() {
    let Some(disk) = OwnDisk::in_memory("8m") else {
        return;
    };
    let (used, new) = (disk.path().join("used"), disk.path().join("new"));
    std::fs::create_dir(&used).unwrap();
    let mut server = Service::start(&used, &[]).await;
    server
        .post_body(r#"{"user_id": "u", "segment": "s"}"#)
        .await;
    assert!(!disk.remount("ro"), "the system refuses to remount it");
    server.kill();
    drop(server);
    assert!(disk.remount("ro"));
    for data in [used.join("headcount-data"), new] {
        assert_names(&refused(serve(&data)), &data, "Read-only file system");
    }
    assert!(disk.remount("rw"));
    let server = Service::start(&used, &[]).await;
    assert_eq!(server.count("s").await, 1);
}

#[test]
fn a_start_without_permission_names_the_directory() {
    let folder = tempfile::tempdir().unwrap();
    // Not below a directory that other users can't enter.
    let program = folder.path().join("headcount");
    // Copied by another process: a file that this process had open for writing can't be executed while the child
    // process of another test, just forked, has a copy of the descriptor.
    let copied = Command::new("cp")
        .arg(env!("CARGO_BIN_EXE_headcount"))
        .arg(&program)
        .status();
    assert!(copied.unwrap().success());
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(folder.path(), mode).unwrap();
    let data = folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let as_nobody = |arguments: &[&str]| {
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(&program)
            .args(arguments)
            .env("HEADCOUNT_LISTEN", "127.0.0.1:0");
        command
    };
    let works = as_nobody(&["--version"]).output();
    if !works.is_ok_and(|output| output.status.success()) {
        skip("another user: setpriv can't change the user");
        return;
    }
    for data in [&data, &data.join("below")] {
        let said = refused(as_nobody(&["serve", "--data-dir", data.to_str().unwrap()]));
        assert_names(&said, data, "Permission denied");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_system_that_becomes_read_only_rejects_writes_and_loses_nothing() {
    let Some(disk) = OwnDisk::ext4() else {
        return;
    };
    let data = disk.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let mut server = Service::start(&data, &[]).await;
    server
        .post_body(r#"[{"user_id": "u", "segment": "s"}, {"user_id": "v", "segment": "s"}]"#)
        .await;
    disk.trigger_error();
    let client = reqwest::Client::new();
    for _ in 0..3 {
        let request = client
            .post(format!("{}/v1/pairs", server.url()))
            .header("content-type", "application/json")
            .body(r#"{"user_id": "w", "segment": "s"}"#);
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 503);
        assert!(answer.headers().contains_key("retry-after"));
        assert_eq!(server.count("s").await, 2, "reads continue");
    }
    server.kill();
    drop(server);
    disk.mount_again();
    let server = Service::start(&data, &[]).await;
    assert_eq!(server.count("s").await, 2);
    server
        .post_body(r#"{"user_id": "w", "segment": "s"}"#)
        .await;
    assert_eq!(server.count("s").await, 3);
}
