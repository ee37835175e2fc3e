//! `deploy/jobs`, the scheduler of Compose's other profiles, against a real service.

use std::path::Path;
use std::process::{Command, Stdio};

use super::tools::root;
use crate::support::service::Service;
use crate::support::wait::until;

#[tokio::test(flavor = "multi_thread")]
async fn jobs_refresh_and_archive_until_sigterm() {
    let folder = tempfile::tempdir().unwrap();
    let server = Service::start(folder.path(), &[("REFRESH_MODE", "off")]).await;
    let program = Path::new(env!("CARGO_BIN_EXE_headcount"));
    let path = format!("{}:/usr/bin:/bin", program.parent().unwrap().display());
    let mut jobs = Command::new("/bin/sh")
        .arg(root().join("deploy/jobs"))
        .args(["1", "1"])
        .env_clear()
        .env("PATH", path)
        .env("HEADCOUNT_URL", server.url())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let completed = async |route: &str| {
        let url = format!("{}/metrics", server.url());
        let text = reqwest::get(url).await.unwrap().text().await.unwrap();
        let start = format!(
            "headcount_http_requests_total{{route=\"{route}\",method=\"POST\",status=\"200\"}} "
        );
        let count = text.lines().find_map(|line| line.strip_prefix(&start));
        count.map_or(0, |count| count.parse::<u64>().unwrap())
    };
    until("a second round", async || {
        completed("/v1/admin/refresh").await >= 2 && completed("/v1/admin/archive").await >= 2
    })
    .await;
    let pid = jobs.id().to_string();
    let sent = Command::new("kill").args(["-TERM", &pid]).status();
    assert!(sent.unwrap().success());
    assert_eq!(jobs.wait().unwrap().code(), Some(0));
}
