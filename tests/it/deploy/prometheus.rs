//! Prometheus: judged by promtool, rules tried out, metrics held against the program.

use std::process::Command;

use serde_json::Value;

use super::names::check_expression;
use super::tools::{items, read, run, string, tool, yaml};

const RULES: &str = "deploy/prometheus/rules.yml";
/// The page that says for each alert what to do.
pub const RUNBOOK: &str = "docs/operate/runbook.md";

/// Each alert of the Prometheus rules.
pub fn alerts() -> Vec<Value> {
    let file = yaml(&read(RULES)).remove(0);
    let groups = items(&file["groups"]);
    groups
        .flat_map(|group| items(&group["rules"]))
        .cloned()
        .collect()
}

#[test]
fn promtool_takes_the_files_and_the_alerts_come_when_they_should() {
    let Some(promtool) = tool("promtool") else {
        return;
    };
    for arguments in [
        ["check", "config", "deploy/prometheus/prometheus.yml"],
        ["check", "rules", RULES],
        ["test", "rules", "deploy/prometheus/rules_test.yml"],
    ] {
        let (well, said) = run(Command::new(&promtool).args(arguments));
        assert!(well, "{said}");
    }
    let scrape = read("k8s/prometheus-scrape.yaml");
    let pods = "kubernetes_sd_configs:\n      - role: pod\n";
    assert!(scrape.contains(pods));
    // Debian's is built without a client for Kubernetes; all else of the job it knows.
    let known = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(
        known.path(),
        scrape.replace(pods, "static_configs: [{targets: [a]}]\n"),
    )
    .unwrap();
    let mut command = Command::new(&promtool);
    let (well, said) = run(command.args(["check", "config"]).arg(known.path()));
    assert!(well, "{said}");
    let wrong = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(wrong.path(), read(RULES).replace("rate(", "rats(")).unwrap();
    let mut command = Command::new(&promtool);
    assert!(!run(command.args(["check", "rules"]).arg(wrong.path())).0);
}

#[test]
fn every_alert_uses_real_metrics_is_tried_out_and_says_what_to_do() {
    let tests = read("deploy/prometheus/rules_test.yml");
    let page = read(RUNBOOK);
    for alert in alerts() {
        let name = string(&alert["alert"]);
        check_expression(name, string(&alert["expr"]));
        let tried = tests.contains(&format!("alertname: {name}\n"));
        assert!(tried, "{name} is never seen to come in rules_test.yml");
        let runbook = string(&alert["annotations"]["runbook"]);
        let (file, anchor) = runbook.split_once('#').unwrap();
        assert_eq!(file, RUNBOOK, "{name}");
        let heading = page
            .lines()
            .filter_map(|line| line.strip_prefix("### "))
            .any(|heading| heading.to_lowercase() == anchor);
        assert!(heading, "{name}: no heading for #{anchor}");
    }
}
