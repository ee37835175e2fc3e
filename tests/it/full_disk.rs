//! A disk that is full under the real program, and has room again.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::service::Service;

const PATIENCE: Duration = Duration::from_secs(60);

/// A small file system of its own, gone with this value.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// `None` where this process may not mount one.
    fn mount() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=8m", "headcount-test"])
            .arg(directory.path())
            .output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self(directory));
        }
        let line = "SKIPPED: tests that need a small disk: no tmpfs can be mounted here\n";
        std::io::stderr().write_all(line.as_bytes()).unwrap();
        None
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Leaves no byte free, but for what is given back by removing the file.
    fn fill(&self) -> PathBuf {
        let path = self.path().join("filler");
        let mut file = std::fs::File::create(&path).unwrap();
        for piece in [64 * 1024, 512, 1] {
            while file.write_all(&vec![0; piece]).is_ok() {}
        }
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a process that was just killed may still hold a file.
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

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

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_turns_writers_away_serves_readers_and_recovers_by_itself() {
    let Some(disk) = SmallDisk::mount() else {
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
    let began = Instant::now();
    let mut refused = 0;
    while refused < 10 {
        // The page of a file that is open may have room for a few more.
        match post(&server, &format!("full{refused}-{acknowledged}")).await {
            Ok(users) => acknowledged += users,
            Err(answer) => {
                assert_eq!(answer, (503, true), "after {acknowledged}");
                refused += 1;
            }
        }
        assert!(began.elapsed() < PATIENCE, "the disk does not get full");
        assert_eq!(server.count("s").await, acknowledged, "reads go on");
    }
    std::fs::remove_file(filler).unwrap();
    let began = Instant::now();
    loop {
        match post(&server, "after").await {
            Ok(users) => break acknowledged += users,
            Err(answer) => assert_eq!(answer, (503, true)),
        }
        assert!(began.elapsed() < PATIENCE, "writes do not recover");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(server.count("s").await, acknowledged);
    server.kill();
    drop(server);
    let server = Service::start(&data, &[]).await;
    assert_eq!(server.count("s").await, acknowledged, "after a restart");
}
