//! Dashboards, data sources and alert rules: checked against Grafana's published types and against the program.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::Command;

use serde_json::Value;

use super::names::check_expression;
use super::prometheus::check_runbook;
use super::tools::{items, read, run, string, tool, tools_folder, yaml};

/// The dashboards, by file name.
pub const DASHBOARDS: [&str; 3] = ["segments", "segments-prometheus", "operations"];

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

/// The data sources that a dashboard may name: its variables, each of which begins with a provisioned one.
fn chosen_sources(name: &str, dashboard: &Value) -> BTreeSet<String> {
    let provisioned = data_sources();
    let variables = items(&dashboard["templating"]["list"]);
    let chosen = variables.filter(|variable| variable["type"] == "datasource");
    chosen
        .map(|variable| {
            let first = string(&variable["current"]["value"]);
            assert!(provisioned.contains(first), "{name}: {variable}");
            format!("${{{}}}", string(&variable["name"]))
        })
        .collect()
}

#[test]
fn panels_query_chosen_sources_and_existing_metrics_and_explain_themselves() {
    for name in DASHBOARDS {
        let dashboard = dashboard(name);
        let sources = chosen_sources(name, &dashboard);
        let check_source = |place: &str, of: &Value| {
            let uid = string(&of["datasource"]["uid"]);
            assert!(sources.contains(uid), "{place}: {uid}");
        };
        let mut ids = BTreeSet::new();
        for panel in items(&dashboard["panels"]) {
            let place = format!("{name}: {}", panel["title"]);
            assert!(ids.insert(panel["id"].as_u64().unwrap()), "{place}");
            if panel["type"] == "row" {
                continue;
            }
            assert!(!string(&panel["description"]).is_empty(), "{place}");
            let shown = &panel["fieldConfig"]["defaults"];
            assert!(!string(&shown["unit"]).is_empty(), "{place}");
            assert!(items(&shown["thresholds"]["steps"]).count() > 0, "{place}");
            check_source(&place, panel);
            assert!(items(&panel["targets"]).count() > 0, "{place}");
            for target in items(&panel["targets"]) {
                check_source(&place, target);
                if let Some(expression) = target["expr"].as_str() {
                    check_expression(&place, expression);
                    // `vector(0)` is the only part without a selector.
                    assert!(expression.contains("job=~\"$job\""), "{place}");
                }
            }
        }
        let marks: Vec<_> = items(&dashboard["annotations"]["list"]).collect();
        assert_eq!(marks.len(), 3, "{name}");
        for mark in marks {
            let place = format!("{name}: annotation {}", mark["name"]);
            check_source(&place, mark);
            check_expression(&place, string(&mark["target"]["expr"]));
        }
        for variable in items(&dashboard["templating"]["list"]) {
            if variable["type"] == "query" {
                check_source(&format!("{name}: {}", variable["name"]), variable);
            }
        }
    }
}

#[test]
fn dashboards_of_segments_begin_with_ten_and_link_to_their_pages() {
    for name in ["segments", "segments-prometheus"] {
        let dashboard = dashboard(name);
        let named = |wanted: &str| {
            let mut variables = items(&dashboard["templating"]["list"]);
            variables.find(|it| it["name"] == wanted).unwrap()
        };
        assert_eq!(named("top")["current"]["value"], "10", "{name}");
        assert_eq!(named("prefix")["current"]["value"], "", "{name}");
        for kind in ["timeseries", "bargauge", "table"] {
            let mut panels = items(&dashboard["panels"]);
            let first = panels.find(|it| it["type"] == kind).unwrap();
            let properties = items(&first["fieldConfig"]["overrides"])
                .flat_map(|it| items(&it["properties"]))
                .filter(|it| it["id"] == "links");
            let urls: Vec<_> = properties
                .map(|it| string(&it["value"][0]["url"]))
                .collect();
            assert_eq!(urls.len(), 1, "{name}: {kind}");
            assert!(urls[0].starts_with("${page:raw}/segments/-?segment=${__"));
            assert!(urls[0].ends_with(":percentencode}"), "{}", urls[0]);
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
        check_runbook(uid, rule);
    }
}
