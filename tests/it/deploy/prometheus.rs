//! Prometheus: configuration and rules checked by promtool, rule tests run, metrics compared with the program.

use std::process::Command;

use serde_json::Value;

use super::names::check_expression;
use super::tools::{items, read, run, string, tool, yaml};

const RULES: &str = "deploy/prometheus/rules.yml";
/// Examples, which an installation copies.
pub const SEGMENT_RULES: &str = "deploy/prometheus/segment_rules.yml";
/// The page with the actions for each alert.
const RUNBOOK: &str = "docs/operate/runbook.md";
/// Where the book is published, in the links of alerts: an installation puts its own there.
const BOOK: &str = "https://docs.example.com/headcount/";

/// The alerts of the Prometheus rules.
pub fn alerts() -> Vec<Value> {
    alerts_of(RULES)
}

/// The alerts of a file of rules.
pub fn alerts_of(rules: &str) -> Vec<Value> {
    let file = yaml(&read(rules)).remove(0);
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
    let config = "deploy/prometheus/prometheus.yml";
    let segment_tests = "deploy/prometheus/segment_rules_test.yml";
    for arguments in [
        // The token is a file of the container.
        &["check", "config", "--syntax-only", config][..],
        &["check", "rules", RULES, SEGMENT_RULES],
        &["test", "rules", "deploy/prometheus/rules_test.yml"],
        &["test", "rules", segment_tests],
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
    let (ok, output) = run(command
        .args(["check", "config", "--syntax-only"])
        .arg(known.path()));
    assert!(ok, "{output}");
    let wrong = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(wrong.path(), read(RULES).replace("rate(", "rats(")).unwrap();
    let mut command = Command::new(&promtool);
    assert!(!run(command.args(["check", "rules"]).arg(wrong.path())).0);
}

#[test]
fn every_alert_uses_real_metrics_and_has_a_test_and_a_runbook_entry() {
    for (rules, tests) in [
        (RULES, "deploy/prometheus/rules_test.yml"),
        (SEGMENT_RULES, "deploy/prometheus/segment_rules_test.yml"),
    ] {
        let tests = read(tests);
        for alert in alerts_of(rules) {
            let name = string(&alert["alert"]);
            check_expression(name, string(&alert["expr"]));
            // An alert that is expected not to fire tests nothing alone.
            let tested = tests.contains(&format!("alertname: {name}\n"));
            assert!(tested, "{name} has no test");
            check_runbook(name, &alert);
        }
    }
}

#[test]
fn the_test_of_refused_writes_has_every_route_that_takes_pairs() {
    let document: Value = serde_json::from_str(&http::openapi().unwrap()).unwrap();
    let tests = read("deploy/prometheus/rules_test.yml");
    let paths = document["paths"].as_object().unwrap().iter();
    let takes_pairs =
        |(_, path): &(&String, &Value)| path["post"]["security"][0]["bearer"][0] == "write";
    let routes: Vec<_> = paths.filter(takes_pairs).map(|(route, _)| route).collect();
    assert!(routes.len() > 10, "{routes:?}");
    for route in routes {
        let series = format!("{{route=\"{route}\",status=\"429\"}}', values: 0+6x15");
        assert!(tests.contains(&series), "{route} has no series in the test");
    }
}

/// Fails unless an alert links to a heading of the runbook.
pub fn check_runbook(name: &str, alert: &Value) {
    let link = string(&alert["annotations"]["runbook_url"]);
    let page = link
        .strip_prefix(BOOK)
        .and_then(|page| page.split_once('#'));
    let (page, anchor) = page.unwrap_or_else(|| panic!("{name}: {link}"));
    let file = format!("docs/{}", page.replace(".html", ".md"));
    assert_eq!(file, RUNBOOK, "{name}");
    let text = read(RUNBOOK);
    let mut headings = text.lines().filter_map(|line| line.strip_prefix("### "));
    let found = headings.any(|heading| heading.to_lowercase() == anchor);
    assert!(found, "{name}: no heading for #{anchor}");
}
