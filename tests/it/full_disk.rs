//! A disk that is full under the real program, or files that may not grow, and room again.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::disks::OwnDisk;
use crate::support::service::Service;

const PATIENCE: Duration = Duration::from_secs(120);

/// Posts new users; their number when they were acknowledged, else the status and its `Retry-After`.
async fn post(server: &Service, prefix: &str) -> Result<u64, (u16, bool)> {
    const GROUP: u64 = 500;
    let lines: String = (0..GROUP)
        .map(|n| format!("{{\"user_id\": \"{prefix}-{n}\", \"segment\": \"s\"}}\n"))
        .collect();
    let answer = reqwest::Client::new()
        .post(format!("{}/v1/pairs", server.url()))
        .header("content-type", "application/x-ndjson")
        .body(lines)
        .send()
        .await
        .unwrap();
    match answer.status().as_u16() {
        200 => Ok(GROUP),
        status => Err((status, answer.headers().contains_key("retry-after"))),
    }
}

/// Posts until writers were refused ten times. Reads go on meanwhile.
async fn be_refused(server: &Service, acknowledged: &mut u64) {
    let began = Instant::now();
    let mut refused = 0;
    while refused < 10 {
        // The page of a file that is open may have room for a few more.
        match post(server, &format!("full{refused}-{acknowledged}")).await {
            Ok(users) => *acknowledged += users,
            Err(answer) => {
                assert_eq!(answer, (503, true), "after {acknowledged}");
                refused += 1;
            }
        }
        assert!(began.elapsed() < PATIENCE, "the disk does not get full");
        assert_eq!(server.count("s").await, *acknowledged, "reads go on");
    }
}

/// Posts until writers are not refused any more.
async fn recover(server: &Service, acknowledged: &mut u64) {
    let began = Instant::now();
    loop {
        match post(server, "after").await {
            Ok(users) => break *acknowledged += users,
            Err(answer) => assert_eq!(answer, (503, true)),
        }
        assert!(began.elapsed() < PATIENCE, "writes do not recover");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(server.count("s").await, *acknowledged);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_turns_writers_away_serves_readers_and_recovers_by_itself() {
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
    be_refused(&server, &mut acknowledged).await;
    std::fs::remove_file(filler).unwrap();
    recover(&server, &mut acknowledged).await;
    server.kill();
    drop(server);
    let server = Service::start(&data, &[]).await;
    assert_eq!(server.count("s").await, acknowledged, "after a restart");
}

/// Sets how large a file the service may write.
fn limit_files(server: &Service, limit: &str) {
    let id = server.process().id().to_string();
    let limit = format!("--fsize={limit}:");
    let done = Command::new("prlimit")
        .args(["--pid", &id, &limit])
        .status();
    assert!(done.unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_of_file_sizes_is_a_full_disk_and_no_end_of_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Service::start(folder.path(), &[]).await;
    let mut acknowledged = post(&server, "before").await.unwrap();
    limit_files(&server, "10000");
    be_refused(&server, &mut acknowledged).await;
    limit_files(&server, "unlimited");
    recover(&server, &mut acknowledged).await;
    server.kill();
    drop(server);
    let server = Service::start(folder.path(), &[]).await;
    assert_eq!(server.count("s").await, acknowledged, "after a restart");
}
