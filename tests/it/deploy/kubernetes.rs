//! The overlays: rendered by kubectl, judged by the Kubernetes schemas, held against the program.

use std::collections::BTreeMap;
use std::process::Command;

use http::auth::Scope;
use serde_json::Value;

use super::names::{Container, check_expression, metrics_in};
use super::references;
use super::tools::{done, entries, items, read, run, string, tool, yaml};

/// The newest that the schemas know, and one that is still in use.
const VERSIONS: [&str; 2] = ["1.37", "1.32"];

/// Each overlay, rendered; `None` where nothing can render them.
pub fn overlays() -> Option<Vec<(&'static str, Vec<Value>)>> {
    let rendered = ["demo", "production"].map(|name| Some((name, yaml(&render(name)?))));
    rendered.into_iter().collect()
}

/// The text of an overlay.
pub fn render(overlay: &str) -> Option<String> {
    let folder = format!("k8s/overlays/{overlay}");
    let program = tool("kubectl")?;
    let verb = if program.ends_with("kustomize") {
        "build"
    } else {
        "kustomize"
    };
    Some(done(Command::new(program).args([verb, &folder])))
}

#[test]
fn every_overlay_is_right_by_the_schemas() {
    let Some(validate) = tool("kubernetes-validate") else {
        return;
    };
    for overlay in ["demo", "production"] {
        let Some(rendered) = render(overlay) else {
            return;
        };
        let file = tempfile::NamedTempFile::with_suffix(".yaml").unwrap();
        for version in VERSIONS {
            std::fs::write(file.path(), &rendered).unwrap();
            let judge = || {
                let mut command = Command::new(&validate);
                command.args(["--strict", "-k", version]).arg(file.path());
                run(&mut command)
            };
            let (well, said) = judge();
            assert!(well, "{overlay}, Kubernetes {version}: {said}");
            // The judge must be awake: a field that no schema knows is a finding.
            let wrong = rendered.replace("replicas:", "replikas:");
            std::fs::write(file.path(), wrong).unwrap();
            assert!(!judge().0, "an unknown field passed for right");
        }
    }
}

#[test]
fn pods_run_what_the_program_knows() {
    let Some(overlays) = overlays() else { return };
    for (overlay, documents) in &overlays {
        let containers = ours(overlay, documents);
        let mut commands: Vec<_> = containers.iter().map(Container::command).collect();
        commands.sort_unstable();
        assert_eq!(
            commands,
            ["archive", "refresh", "serve", "setup", "worker"],
            "{overlay}"
        );
        containers.iter().for_each(Container::check);
    }
}

/// The containers that run the program, with what their ConfigMaps say.
fn ours(overlay: &str, documents: &[Value]) -> Vec<Container> {
    let mut found = Vec::new();
    for document in documents {
        let pod = references::pod(document);
        for container in items(&pod["containers"]) {
            let image = string(&container["image"]);
            let Some((_, "0.1.0")) = image
                .rsplit_once(':')
                .filter(|(name, _)| name.ends_with("headcount"))
            else {
                continue;
            };
            let mut environment = BTreeMap::new();
            for from in items(&container["envFrom"]) {
                let name = string(&from["configMapRef"]["name"]);
                let map = references::find(documents, "ConfigMap", name);
                for (key, value) in entries(&map["data"]) {
                    environment.insert(key.to_owned(), string(value).to_owned());
                }
            }
            for given in items(&container["env"]) {
                let (name, value) = (string(&given["name"]), string(&given["value"]));
                environment.insert(name.to_owned(), value.to_owned());
            }
            let arguments = items(&container["args"]).map(|text| string(text).to_owned());
            found.push(Container {
                place: format!("{overlay}: {}", string(&document["metadata"]["name"])),
                arguments: arguments.collect(),
                environment,
            });
        }
    }
    found
}

#[test]
fn the_ingress_lets_in_pairs_and_counts_alone() {
    let Some(overlays) = overlays() else { return };
    for (overlay, documents) in &overlays {
        let ingress = references::find(documents, "Ingress", "headcount");
        let paths: Vec<_> = items(&ingress["spec"]["rules"])
            .flat_map(|rule| items(&rule["http"]["paths"]))
            .collect();
        let lets_in = |template: &str| {
            paths.iter().any(|path| {
                let rest = template.strip_prefix(string(&path["path"]));
                let is_prefix = path["pathType"] == "Prefix";
                rest.is_some_and(|rest| rest.is_empty() || (is_prefix && rest.starts_with('/')))
            })
        };
        let mut let_in = 0;
        for (method, template, scope) in http::resources() {
            let expected =
                template.starts_with("/v1/") && matches!(scope, Some(Scope::Read | Scope::Write));
            assert_eq!(
                lets_in(template),
                expected,
                "{overlay}: {method} {template}"
            );
            let_in += usize::from(expected);
        }
        assert!(let_in >= 4, "{overlay}");
    }
}

#[test]
fn schedulers_start_one_job_at_a_time_and_give_up() {
    let Some(overlays) = overlays() else { return };
    for (overlay, documents) in &overlays {
        let jobs: Vec<_> = documents
            .iter()
            .filter(|document| document["kind"] == "CronJob")
            .collect();
        assert_eq!(jobs.len(), 2, "{overlay}");
        for job in jobs {
            let spec = &job["spec"];
            assert_eq!(spec["concurrencyPolicy"], "Forbid", "{job}");
            for number in [
                &spec["startingDeadlineSeconds"],
                &spec["failedJobsHistoryLimit"],
                &spec["successfulJobsHistoryLimit"],
                &spec["jobTemplate"]["spec"]["backoffLimit"],
                &spec["jobTemplate"]["spec"]["activeDeadlineSeconds"],
            ] {
                assert!(number.is_u64(), "{overlay}: {job}");
            }
        }
    }
}

#[test]
fn pods_have_no_rights_they_do_not_need() {
    let Some(overlays) = overlays() else { return };
    for (overlay, documents) in &overlays {
        for document in documents {
            let pod = references::pod(document);
            if pod.is_null() {
                continue;
            }
            let place = format!("{overlay}: {}", document["metadata"]["name"]);
            assert_eq!(pod["automountServiceAccountToken"], false, "{place}");
            assert_eq!(pod["securityContext"]["runAsNonRoot"], true, "{place}");
            for container in items(&pod["containers"]) {
                let security = &container["securityContext"];
                assert_eq!(security["readOnlyRootFilesystem"], true, "{place}");
                assert_eq!(security["allowPrivilegeEscalation"], false, "{place}");
                assert!(container["resources"]["limits"]["memory"].is_string());
            }
        }
    }
}

#[test]
fn the_autoscaler_asks_for_a_metric_that_exists() {
    let Some(overlays) = overlays() else { return };
    let adapter = &yaml(&read("k8s/prometheus-adapter.yaml"))[0];
    let rules: Vec<_> = items(&adapter["rules"]["custom"]).collect();
    for rule in &rules {
        check_expression("prometheus-adapter.yaml", string(&rule["seriesQuery"]));
    }
    for (overlay, documents) in &overlays {
        let autoscaler = references::find(documents, "HorizontalPodAutoscaler", "headcount");
        let mut asked = 0;
        for metric in items(&autoscaler["spec"]["metrics"]) {
            let Some(name) = metric["pods"]["metric"]["name"].as_str() else {
                assert_eq!(metric["resource"]["name"], "cpu");
                continue;
            };
            asked += 1;
            assert!(metrics_in(name).contains(name));
            let made = rules.iter().any(|rule| rule["name"]["as"] == name);
            assert!(made, "{overlay}: no rule of the adapter makes {name}");
        }
        assert_eq!(asked, 1, "{overlay}");
        let target = &autoscaler["spec"]["scaleTargetRef"];
        let target = references::find(documents, string(&target["kind"]), string(&target["name"]));
        // Else each apply would set it back.
        assert!(target["spec"]["replicas"].is_null(), "{overlay}");
    }
}
