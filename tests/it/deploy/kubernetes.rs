//! The overlays: rendered by kubectl, checked against the Kubernetes schemas and against the program.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::Value;

use super::names::{Container, check_expression, metrics_in};
use super::references::{self, has_port, pod_labels, selects};
use super::tools::{entries, items, read, run, stdout_of, string, tool, yaml};

/// The newest version that the schemas cover, and an older version that is still in use.
const VERSIONS: [&str; 2] = ["1.37", "1.32"];

/// Each overlay, rendered. Returns `None` without kubectl or kustomize.
pub fn overlays() -> Option<Vec<(&'static str, Vec<Value>)>> {
    let rendered = ["demo", "production"].map(|name| Some((name, yaml(&render(name)?))));
    rendered.into_iter().collect()
}

/// Renders an overlay as YAML.
pub fn render(overlay: &str) -> Option<String> {
    let folder = format!("k8s/overlays/{overlay}");
    let program = tool("kubectl")?;
    let verb = if program.ends_with("kustomize") {
        "build"
    } else {
        "kustomize"
    };
    Some(stdout_of(Command::new(program).args([verb, &folder])))
}

/// Validates rendered objects against the schemas of each version. Kinds that Kubernetes itself lacks are ignored.
pub fn validate(place: &str, rendered: &str) {
    let Some(validate) = tool("kubernetes-validate") else {
        return;
    };
    let file = tempfile::NamedTempFile::with_suffix(".yaml").unwrap();
    for version in VERSIONS {
        std::fs::write(file.path(), rendered).unwrap();
        let run_validator = || {
            let mut command = Command::new(&validate);
            command.args(["--strict", "-k", version]).arg(file.path());
            run(&mut command)
        };
        let (ok, output) = run_validator();
        assert!(ok, "{place}, Kubernetes {version}: {output}");
        // Check the validator itself: it must report an unknown field.
        let wrong = rendered.replace("serviceName:", "serviceNane:");
        std::fs::write(file.path(), wrong).unwrap();
        assert!(
            !run_validator().0,
            "the validator accepted an unknown field"
        );
    }
}

#[test]
fn every_overlay_matches_the_schemas() {
    for overlay in ["demo", "production"] {
        let Some(rendered) = render(overlay) else {
            return;
        };
        validate(overlay, &rendered);
    }
}

#[test]
fn pods_use_known_commands_and_settings() {
    let Some(overlays) = overlays() else { return };
    for (overlay, documents) in &overlays {
        let containers = ours(overlay, documents);
        let mut commands: Vec<_> = containers.iter().map(Container::command).collect();
        commands.sort_unstable();
        assert_eq!(
            commands,
            ["archive", "live", "refresh", "serve", "setup"],
            "{overlay}"
        );
        containers.iter().for_each(Container::check);
    }
}

/// The containers that run the program, with the environment from their ConfigMaps.
pub fn ours(overlay: &str, documents: &[Value]) -> Vec<Container> {
    let mut found = Vec::new();
    for document in documents {
        let pod = references::pod(document);
        for container in items(&pod["containers"]) {
            let image = string(&container["image"]);
            if !image.ends_with("headcount:0.1.0") && !image.contains("headcount@sha256:") {
                continue;
            }
            let environment = environment(documents, container);
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

/// The environment of a container, with its ConfigMaps. A value of the container overrides theirs.
pub fn environment(documents: &[Value], container: &Value) -> BTreeMap<String, String> {
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
    environment
}

/// `auth::public` tests what the service does on its public port.
#[test]
fn the_ingress_reaches_the_public_port_only() {
    let Some(overlays) = overlays() else { return };
    for (overlay, documents) in &overlays {
        let public = references::public_port(documents);
        assert_eq!(references::forwarded(documents), [public], "{overlay}");
        references::check_outside(overlay, documents, "ingress-nginx");
        // docs/operate/upgrades.md applies these last: pods of 0.1.0 lack the port.
        for (kind, name) in [
            ("Ingress", "headcount"),
            ("NetworkPolicy", "headcount-serve"),
        ] {
            let labels = &references::find(documents, kind, name)["metadata"]["labels"];
            assert_eq!(labels["app.kubernetes.io/component"], "ingress", "{kind}");
        }
    }
}

#[test]
fn cron_jobs_do_not_overlap_and_have_deadlines() {
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
            // A network policy may take effect after the start of a pod, which is then refused.
            let pod = references::pod(job);
            assert_eq!(pod["restartPolicy"], "OnFailure", "{job}");
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

/// The template of a Job is immutable, so an apply with a new image fails while the former Job exists.
#[test]
fn a_finished_job_is_soon_out_of_the_way_of_the_next_apply() {
    let Some(overlays) = overlays() else { return };
    for (overlay, documents) in &overlays {
        let mut jobs = documents.iter().filter(|it| it["kind"] == "Job");
        let setup = jobs.next().unwrap();
        let rest = setup["spec"]["ttlSecondsAfterFinished"].as_u64().unwrap();
        assert!(rest <= 60 && jobs.next().is_none(), "{overlay}: {rest} s");
    }
}

#[test]
fn pods_have_restricted_security_contexts() {
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
fn the_autoscaler_uses_an_existing_metric() {
    let Some(overlays) = overlays() else { return };
    let adapter = &yaml(&read("k8s/prometheus-adapter.yaml"))[0];
    let rules: Vec<_> = items(&adapter["rules"]["custom"]).collect();
    for rule in &rules {
        check_expression("prometheus-adapter.yaml", string(&rule["seriesQuery"]));
    }
    for (overlay, documents) in &overlays {
        let autoscaler = references::find(documents, "HorizontalPodAutoscaler", "headcount");
        let mut custom = 0;
        for metric in items(&autoscaler["spec"]["metrics"]) {
            let Some(name) = metric["pods"]["metric"]["name"].as_str() else {
                assert_eq!(metric["resource"]["name"], "cpu");
                continue;
            };
            custom += 1;
            assert!(metrics_in(name).contains(name));
            let defined = rules.iter().any(|rule| rule["name"]["as"] == name);
            assert!(defined, "{overlay}: no rule of the adapter defines {name}");
        }
        assert_eq!(custom, 1, "{overlay}");
        let target = &autoscaler["spec"]["scaleTargetRef"];
        let target = references::find(documents, string(&target["kind"]), string(&target["name"]));
        // With `replicas`, each apply would undo the autoscaler.
        assert!(target["spec"]["replicas"].is_null(), "{overlay}");
    }
}

#[test]
fn prometheus_scrapes_segments_through_the_service() {
    let Some(overlays) = overlays() else { return };
    let jobs = &yaml(&read("k8s/prometheus-scrape.yaml"))[0]["scrape_configs"];
    let job = items(jobs).find(|job| job["job_name"] == "headcount-segments");
    let operator = yaml(&read("k8s/prometheus-operator.yaml"));
    let scrape = &references::find(&operator, "ScrapeConfig", "headcount-segments")["spec"];
    let job = job.unwrap();
    assert_eq!(job["static_configs"], scrape["staticConfigs"]);
    assert_eq!(job["metrics_path"], scrape["metricsPath"]);
    assert_eq!(job["sample_limit"], scrape["sampleLimit"]);
    let (_, production) = overlays
        .iter()
        .find(|(name, _)| *name == "production")
        .unwrap();
    let target = string(&job["static_configs"][0]["targets"][0]);
    let service = references::find(production, "Service", "headcount");
    let namespace = string(&service["metadata"]["namespace"]);
    let port = &service["spec"]["ports"][0]["port"];
    assert_eq!(target, format!("headcount.{namespace}.svc:{port}"));
    let monitor = &references::find(&operator, "PodMonitor", "headcount")["spec"];
    assert_eq!(monitor["namespaceSelector"]["matchNames"][0], namespace);
    let endpoint = &monitor["podMetricsEndpoints"][0];
    for name in ["headcount", "headcount-live"] {
        let set = references::find(production, "StatefulSet", name);
        assert!(selects(&monitor["selector"], pod_labels(set)), "{name}");
        assert!(has_port(references::pod(set), &endpoint["port"]), "{name}");
    }
}
