//! The real program on a full disk or under a file size limit, and its recovery.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::disks::OwnDisk;
use crate::support::service::Service;

const TIMEOUT: Duration = Duration::from_secs(120);

/// Posts new users. Returns their number if they were acknowledged, else the status and whether it has `Retry-After`.
async fn post(server: &Service, prefix: &str) -> Result<u64, (u16, bool)> {
    const GROUP: u64 = 500;
    let lines: String = (0..GROUP)
        .map(|n| format!("{{\"user_id\": \"{prefix}-{n}\", \"segment\": \"s\"}}\n"))
        .collect();
    let response = reqwest::Client::new()
        .post(format!("{}/v1/pairs", server.url()))
        .header("content-type", "application/x-ndjson")
        .body(lines)
        .send()
        .await
        .unwrap();
    match response.status().as_u16() {
        200 => Ok(GROUP),
        status => Err((status, response.headers().contains_key("retry-after"))),
    }
}

/// Posts until ten writes were rejected, and checks that reads continue.
async fn post_until_rejected(server: &Service, acknowledged: &mut u64) {
    let began = Instant::now();
    let mut refused = 0;
    while refused < 10 {
        // The last page of an open file may have space for a few more pairs.
        match post(server, &format!("full{refused}-{acknowledged}")).await {
            Ok(users) => *acknowledged += users,
            Err(response) => {
                assert_eq!(response, (503, true), "after {acknowledged}");
                refused += 1;
            }
        }
        assert!(began.elapsed() < TIMEOUT, "the disk does not fill up");
        assert_eq!(server.count("s").await, *acknowledged, "reads continue");
    }
}

/// Posts until a write is accepted.
async fn post_until_accepted(server: &Service, acknowledged: &mut u64) {
    let began = Instant::now();
    loop {
        match post(server, "after").await {
            Ok(users) => break *acknowledged += users,
            Err(response) => assert_eq!(response, (503, true)),
        }
        assert!(began.elapsed() < TIMEOUT, "writes do not recover");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(server.count("s").await, *acknowledged);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_rejects_writes_serves_reads_and_recovers() {
    let Some(disk) = OwnDisk::in_memory("8m") else {
        return;
    };
    let data = disk.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let mut server = Service::start(&data, &[]).await;
    let mut acknowledged = 0;
    for round in 0..5 {
        acknowledged += post(&server, &format!("before{round}")).await.unwrap();
    }
    let filler = disk.fill();
    post_until_rejected(&server, &mut acknowledged).await;
    std::fs::remove_file(filler).unwrap();
    post_until_accepted(&server, &mut acknowledged).await;
    server.kill();
    drop(server);
    let server = Service::start(&data, &[]).await;
    assert_eq!(server.count("s").await, acknowledged, "after a restart");
}

/// Sets the file size limit of the service.
fn limit_files(server: &Service, limit: &str) {
    let id = server.process().id().to_string();
    let limit = format!("--fsize={limit}:");
    let done = Command::new("prlimit")
        .args(["--pid", &id, &limit])
        .status();
    assert!(done.unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_size_limit_acts_like_a_full_disk_and_does_not_kill_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Service::start(folder.path(), &[]).await;
    let mut acknowledged = post(&server, "before").await.unwrap();
    limit_files(&server, "10000");
    post_until_rejected(&server, &mut acknowledged).await;
    limit_files(&server, "unlimited");
    post_until_accepted(&server, &mut acknowledged).await;
    server.kill();
    drop(server);
    let server = Service::start(folder.path(), &[]).await;
    assert_eq!(server.count("s").await, acknowledged, "after a restart");
}
