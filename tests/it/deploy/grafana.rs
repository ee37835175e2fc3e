//! Dashboards, data sources and alert rules: checked against Grafana's published types and against the program.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::Command;

use serde_json::Value;

use super::names::check_expression;
use super::prometheus::RUNBOOK;
use super::tools::{items, read, run, string, tool, tools_folder, yaml};

/// The dashboards, by file name.
pub const DASHBOARDS: [&str; 2] = ["segments", "operations"];

/// Reads a dashboard.
pub fn dashboard(name: &str) -> Value {
    serde_json::from_str(&read(&format!("grafana/dashboards/{name}.json"))).unwrap()
}

/// The alert rules.
pub fn alert_rules() -> Vec<Value> {
    let file = yaml(&read("grafana/provisioning/alerting/headcount.yaml")).remove(0);
    let groups = items(&file["groups"]);
    groups
        .flat_map(|group| items(&group["rules"]))
        .cloned()
        .collect()
}

/// The data sources by uid.
fn data_sources() -> BTreeSet<String> {
    let file = yaml(&read("grafana/provisioning/datasources/headcount.yaml")).remove(0);
    items(&file["datasources"])
        .map(|source| string(&source["uid"]).to_owned())
        .collect()
}

#[test]
fn dashboards_match_the_published_types() {
    let types = tools_folder().join("npm/node_modules/@grafana/schema");
    let Some(compiler) = tool("tsc") else {
        return;
    };
    // A system-wide compiler comes without the types.
    if !types.exists() {
        let line = "SKIPPED: dashboards are not type-checked: run tests/deploy/install-tools\n";
        std::io::stderr().write_all(line.as_bytes()).unwrap();
        return;
    }
    let folder = tempfile::tempdir_in(tools_folder().join("npm")).unwrap();
    let head = read("tests/deploy/dashboard.ts");
    let validate_text = |text: &str| {
        let path = folder.path().join("dashboard.ts");
        let typed = format!("{head}\nexport const dashboard: Strict = {text};\n");
        std::fs::write(&path, typed).unwrap();
        let mut command = Command::new(&compiler);
        command.args([
            "--noEmit",
            "--strict",
            "--skipLibCheck",
            "--target",
            "es2022",
        ]);
        command.args(["--module", "nodenext", "--moduleResolution", "nodenext"]);
        run(command.arg(&path))
    };
    for name in DASHBOARDS {
        let text = read(&format!("grafana/dashboards/{name}.json"));
        let (ok, output) = validate_text(&text);
        assert!(ok, "{name}: {output}");
        for (right, wrong) in [
            (r#""drawStyle": "line""#, r#""drawStyle": "lines""#),
            (r#""colorMode""#, r#""colourMode""#),
            (r#""graphTooltip""#, r#""graphToolTip""#),
        ] {
            let (ok, _) = validate_text(&text.replace(right, wrong));
            assert!(!ok, "{name}: {wrong} passed");
        }
    }
}

#[test]
fn panels_query_known_sources_and_existing_metrics() {
    let sources = data_sources();
    for name in DASHBOARDS {
        let dashboard = dashboard(name);
        let mut ids = BTreeSet::new();
        for panel in items(&dashboard["panels"]) {
            let place = format!("{name}: {}", panel["title"]);
            assert!(ids.insert(panel["id"].as_u64().unwrap()), "{place}");
            if panel["type"] == "row" {
                continue;
            }
            assert!(!string(&panel["description"]).is_empty(), "{place}");
            assert!(items(&panel["targets"]).count() > 0, "{place}");
            for target in items(&panel["targets"]) {
                assert!(
                    sources.contains(string(&target["datasource"]["uid"])),
                    "{place}"
                );
                if let Some(expression) = target["expr"].as_str() {
                    check_expression(&place, expression);
                }
            }
        }
    }
}

#[test]
fn panels_do_not_overlap() {
    for name in DASHBOARDS {
        let dashboard = dashboard(name);
        let mut taken = BTreeSet::new();
        for panel in items(&dashboard["panels"]) {
            let side = |key: &str| panel["gridPos"][key].as_u64().unwrap();
            assert!(side("x") + side("w") <= 24, "{name}: {}", panel["title"]);
            for x in side("x")..side("x") + side("w") {
                for y in side("y")..side("y") + side("h") {
                    assert!(taken.insert((x, y)), "{name}: {}", panel["title"]);
                }
            }
        }
    }
}

#[test]
fn alert_rules_are_consistent() {
    let sources = data_sources();
    let mut uids = BTreeSet::new();
    let rules = alert_rules();
    assert_eq!(rules.len(), 4);
    for rule in &rules {
        let uid = string(&rule["uid"]);
        assert!(uids.insert(uid) && uid.len() <= 40, "{uid}");
        let mut known = BTreeSet::new();
        for query in items(&rule["data"]) {
            let (id, model) = (string(&query["refId"]), &query["model"]);
            assert_eq!(model["refId"], id, "{uid}");
            if let Some(of) = model["expression"].as_str() {
                assert!(known.contains(of), "{uid}: {id} refers to {of}");
                assert_eq!(query["datasourceUid"], "__expr__", "{uid}");
            } else {
                assert!(sources.contains(string(&query["datasourceUid"])), "{uid}");
            }
            if let Some(expression) = model["expr"].as_str() {
                check_expression(uid, expression);
            }
            known.insert(id);
        }
        assert!(known.contains(string(&rule["condition"])), "{uid}");
        let runbook = string(&rule["annotations"]["runbook"]);
        let (file, anchor) = runbook.split_once('#').unwrap();
        assert_eq!(file, RUNBOOK, "{uid}");
        let page = read(RUNBOOK).to_lowercase();
        assert!(page.contains(&format!("### {anchor}\n")), "{uid}");
    }
}
