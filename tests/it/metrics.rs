//! /metrics in both formats, checked by promtool.

use std::io::Write;
use std::process::{Command, Stdio};

use reqwest::Method;

use crate::support::app::App;
use crate::support::service::Service;
use crate::support::{program, servers};

#[tokio::test(flavor = "multi_thread")]
async fn open_metrics_is_sent_on_request_and_the_older_format_by_default() {
    let app = App::start().await;
    let plain = app.get("/metrics").await;
    assert_eq!(
        plain.headers["content-type"],
        "text/plain; version=0.0.4; charset=utf-8"
    );
    assert_eq!(plain.headers["vary"], "accept");
    assert!(
        plain
            .text
            .contains("# TYPE headcount_stale_answers_total counter\n")
    );
    let accept = (
        "accept",
        "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
    );
    let open = app.send_with(Method::GET, "/metrics", &[accept]).await;
    assert_eq!(
        open.headers["content-type"],
        "application/openmetrics-text; version=1.0.0; charset=utf-8"
    );
    assert!(
        open.text
            .contains("# TYPE headcount_stale_answers counter\n")
    );
    assert!(open.text.ends_with("# EOF\n"));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn promtool_reports_no_problem() {
    let Some(promtool) = servers::find("promtool", "HEADCOUNT_TEST_PROMTOOL") else {
        return;
    };
    let app = App::start().await;
    app.post(
        "application/json",
        r#"{"user_id": "u1", "segment": "sports"}"#,
    )
    .await;
    app.get("/v1/segments/sports/count").await;
    app.headcount.refresh(None).await.unwrap();
    let text = app.get("/metrics").await.text;
    app.stop().await;
    let judged = tokio::task::spawn_blocking(move || {
        let mut child = Command::new(promtool)
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(text.as_bytes())
            .unwrap();
        child.wait_with_output().unwrap()
    });
    let judged = judged.await.unwrap();
    let said = [judged.stdout, judged.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(judged.status.success() && said.is_empty(), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_reports_its_version_and_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(folder.path(), &[]).await;
    let text = reqwest::get(format!("{}/metrics", service.url()))
        .await
        .unwrap();
    let text = text.text().await.unwrap();
    let version = env!("CARGO_PKG_VERSION");
    let build = format!("headcount_build_info{{version=\"{version}\",commit=\"");
    assert!(text.contains(&build), "{text}");
    for name in [
        "process_resident_memory_bytes ",
        "process_cpu_seconds_total ",
        "process_open_fds ",
    ] {
        assert!(
            text.lines().any(|line| line.starts_with(name)),
            "{name}: {text}"
        );
    }
    let log = service.log();
    let first = log.lines().next().unwrap_or_default();
    for part in [
        "headcount starts",
        version,
        "embedded",
        "memory",
        "none, loopback only",
    ] {
        assert!(first.contains(part), "{part}: {log}");
    }
    assert_eq!(service.terminate().await, Some(0));
    let told = program::run(folder.path(), &[], &["--version"]);
    assert!(
        told.out
            .starts_with(&format!("headcount {version} (commit ")),
        "{told:?}"
    );
}
