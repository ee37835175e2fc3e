//! Prometheus: configuration and rules checked by promtool, rule tests run, metrics compared with the program.

use std::process::Command;

use serde_json::Value;

use super::names::check_expression;
use super::tools::{items, read, run, string, tool, yaml};

const RULES: &str = "deploy/prometheus/rules.yml";
/// The page with the actions for each alert.
pub const RUNBOOK: &str = "docs/operate/runbook.md";

/// The alerts of the Prometheus rules.
pub fn alerts() -> Vec<Value> {
    let file = yaml(&read(RULES)).remove(0);
    let groups = items(&file["groups"]);
    groups
        .flat_map(|group| items(&group["rules"]))
        .cloned()
        .collect()
}

#[test]
fn promtool_accepts_the_files_and_the_rule_tests_pass() {
    let Some(promtool) = tool("promtool") else {
        return;
    };
    for arguments in [
        ["check", "config", "deploy/prometheus/prometheus.yml"],
        ["check", "rules", RULES],
        ["test", "rules", "deploy/prometheus/rules_test.yml"],
    ] {
        let (ok, output) = run(Command::new(&promtool).args(arguments));
        assert!(ok, "{output}");
    }
    let scrape = read("k8s/prometheus-scrape.yaml");
    let pods = "kubernetes_sd_configs:\n      - role: pod\n";
    assert!(scrape.contains(pods));
    // Debian's promtool is built without Kubernetes service discovery. It can check the rest of the job.
    let known = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(
        known.path(),
        scrape.replace(pods, "static_configs: [{targets: [a]}]\n"),
    )
    .unwrap();
    let mut command = Command::new(&promtool);
    let (ok, output) = run(command.args(["check", "config"]).arg(known.path()));
    assert!(ok, "{output}");
    let wrong = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(wrong.path(), read(RULES).replace("rate(", "rats(")).unwrap();
    let mut command = Command::new(&promtool);
    assert!(!run(command.args(["check", "rules"]).arg(wrong.path())).0);
}

#[test]
fn every_alert_uses_real_metrics_and_has_a_test_and_a_runbook_entry() {
    let tests = read("deploy/prometheus/rules_test.yml");
    let page = read(RUNBOOK);
    for alert in alerts() {
        let name = string(&alert["alert"]);
        check_expression(name, string(&alert["expr"]));
        let tested = tests.contains(&format!("alertname: {name}\n"));
        assert!(tested, "{name} has no test in rules_test.yml");
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
