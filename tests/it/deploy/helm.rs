//! The chart in `deploy/helm`: checked by Helm and the Kubernetes schemas, and compared with the overlays of kustomize.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use headcount::config;
use serde_json::{Map, Value, json};

use super::kubernetes::{environment, ours, overlays, validate};
use super::names::Container;
use super::references;
use super::tools::{items, read, root, run, stdout_of, string, tool, yaml};

/// Labels of the chart that the overlays lack.
const OF_RELEASE: [&str; 4] = [
    "app.kubernetes.io/instance",
    "app.kubernetes.io/version",
    "app.kubernetes.io/managed-by",
    "helm.sh/chart",
];

/// The names of the values files in `deploy/helm/ci`.
fn values_files() -> Vec<String> {
    let entries = std::fs::read_dir(root().join("deploy/helm/ci")).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut names: Vec<_> = paths
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    names.sort_unstable();
    names
}

fn arguments(values: &str) -> [String; 2] {
    [
        "--values".to_owned(),
        format!("deploy/helm/ci/{values}.yaml"),
    ]
}

/// `helm template` of a release with the name of the overlays.
fn template(helm: &Path, namespace: &str) -> Command {
    let mut command = Command::new(helm);
    command.args(["template", "headcount", "deploy/helm"]);
    command.args(["--namespace", namespace]);
    command
}

/// The chart for each values file, as YAML. Returns `None` without helm.
pub fn rendered() -> Option<Vec<(String, String)>> {
    let helm = tool("helm")?;
    let render = |values: String| {
        // The overlays are for these namespaces.
        let namespace = match values.as_str() {
            "demo" => "headcount-demo",
            _ => "headcount",
        };
        let text = stdout_of(template(&helm, namespace).args(arguments(&values)));
        (values, text)
    };
    Some(values_files().into_iter().map(render).collect())
}

fn charts() -> Option<Vec<(String, Vec<Value>)>> {
    let charts = rendered()?.into_iter();
    Some(charts.map(|(values, text)| (values, yaml(&text))).collect())
}

#[test]
fn every_values_file_passes_lint_and_the_schemas() {
    let (Some(helm), Some(charts)) = (tool("helm"), rendered()) else {
        return;
    };
    assert!(charts.len() >= 5);
    let lint = |more: &[String]| {
        let mut command = Command::new(&helm);
        command.args(["lint", "--strict", "deploy/helm"]).args(more);
        run(&mut command)
    };
    let (ok, output) = lint(&[]);
    assert!(ok, "{output}");
    for (values, _) in &charts {
        let (ok, output) = lint(&arguments(values));
        assert!(ok, "{values}: {output}");
    }
    let all: Vec<_> = charts.into_iter().map(|(_, text)| text).collect();
    validate("deploy/helm", &all.join("\n---\n"));
}

#[test]
fn the_chart_and_the_overlays_are_the_same() {
    let (Some(charts), Some(overlays)) = (charts(), overlays()) else {
        return;
    };
    for (overlay, documents) in &overlays {
        let (_, chart) = charts.iter().find(|(values, _)| values == overlay).unwrap();
        let kustomize = comparable(documents);
        let chart = comparable(chart);
        for (name, expected) in &kustomize {
            let found = chart.get(name);
            let found = found.unwrap_or_else(|| panic!("{overlay}: the chart lacks {name}"));
            let (found, expected) = [found, expected]
                .map(|object| serde_json::to_string_pretty(object).unwrap())
                .into();
            assert_same(&format!("{overlay}: {name}"), &found, &expected);
        }
        let more: Vec<_> = chart
            .keys()
            .filter(|name| !kustomize.contains_key(*name))
            .map(String::as_str)
            .collect();
        let expected: &[&str] = match *overlay {
            // k8s/prometheus-operator.yaml has them for the overlay.
            "production" => &["PodMonitor headcount", "ScrapeConfig headcount-segments"],
            _ => &[],
        };
        assert_eq!(more, expected, "{overlay}");
    }
    let (_, production) = charts.iter().find(|it| it.0 == "production").unwrap();
    for monitor in yaml(&read("k8s/prometheus-operator.yaml")) {
        let (kind, name) = (string(&monitor["kind"]), &monitor["metadata"]["name"]);
        let found = references::find(production, kind, string(name));
        let mut expected = monitor["spec"].clone();
        // The chart's is in the namespace of the release.
        expected
            .as_object_mut()
            .unwrap()
            .remove("namespaceSelector");
        assert_eq!(without_release(&found["spec"]), expected, "{kind}");
    }
}

/// Fails with the lines that differ.
fn assert_same(place: &str, found: &str, expected: &str) {
    let lines = found.lines().zip(expected.lines());
    let different: Vec<_> = lines
        .filter(|(found, expected)| found != expected)
        .collect();
    assert!(
        found == expected,
        "{place}: (chart, overlay): {different:#?}"
    );
}

/// The objects of headcount by kind and name, without what differs by design.
fn comparable(documents: &[Value]) -> BTreeMap<String, Value> {
    let ours = documents.iter().filter(|document| {
        let kind = string(&document["kind"]);
        let labels = &document["metadata"]["labels"];
        labels["app.kubernetes.io/name"] == "headcount"
            // The chart's environment is in the pods. Its hook for `helm test` is its own.
            && !matches!(kind, "Namespace" | "ConfigMap")
            && labels["app.kubernetes.io/component"] != "test"
    });
    let ours = ours.filter(|document| !is_of_demo(document));
    ours.map(|document| {
        let name = format!(
            "{} {}",
            string(&document["kind"]),
            string(&document["metadata"]["name"])
        );
        let mut object = without_release(document);
        match name.as_str() {
            "Job headcount-setup" => {
                // A hook, which runs before the release has a ServiceAccount.
                remove(&mut object["metadata"], "annotations");
                remove(
                    &mut object["spec"]["template"]["spec"],
                    "serviceAccountName",
                );
            }
            // An overlay has a namespace of its own; a release may share one.
            "NetworkPolicy headcount-default" => {
                remove(&mut object["spec"]["podSelector"], "matchLabels");
            }
            _ => {}
        }
        set_environment(documents, &mut object);
        (name, object)
    })
    .collect()
}

/// Whether the object belongs to a database of the demo: kustomize gives it the label of headcount.
fn is_of_demo(document: &Value) -> bool {
    let name = string(&document["metadata"]["name"]);
    ["influxdb", "redis"].contains(&name)
}

fn remove(object: &mut Value, key: &str) {
    if let Some(object) = object.as_object_mut() {
        object.remove(key);
    }
}

/// The object without the labels of a release and without the component of `helm test`.
fn without_release(value: &Value) -> Value {
    match value {
        Value::Object(object) => {
            let kept = object
                .iter()
                .filter(|(key, _)| !OF_RELEASE.contains(&key.as_str()));
            kept.map(|(key, value)| (key.clone(), without_release(value)))
                .collect::<Map<_, _>>()
                .into()
        }
        Value::Array(items) => {
            let kept = items.iter().filter(|item| *item != "test");
            kept.map(without_release).collect()
        }
        _ => value.clone(),
    }
}

/// Replaces `env` and `envFrom` of the containers by one map, and sorts the keys of Secrets.
fn set_environment(documents: &[Value], object: &mut Value) {
    let pod = match object["kind"].as_str() {
        Some("CronJob") => object.pointer_mut("/spec/jobTemplate/spec/template/spec"),
        _ => object.pointer_mut("/spec/template/spec"),
    };
    let Some(pod) = pod else { return };
    for container in pod["containers"].as_array_mut().unwrap() {
        container["env"] = json!(environment(documents, container));
        remove(container, "envFrom");
    }
    for volume in pod["volumes"].as_array_mut().unwrap() {
        if let Some(keys) = volume["secret"]["items"].as_array_mut() {
            keys.sort_by_key(ToString::to_string);
        }
    }
}

#[test]
fn every_values_file_gives_a_sound_release() {
    let Some(charts) = charts() else { return };
    let embedded = ["serve", "health"];
    let network = ["archive", "health", "refresh", "serve", "setup"];
    for (values, documents) in &charts {
        let containers = ours(values, documents);
        let mut commands: Vec<_> = containers.iter().map(Container::command).collect();
        commands.sort_unstable();
        let mut expected: Vec<_> = match values.as_str() {
            "embedded" => embedded.to_vec(),
            "redis" => network.into_iter().filter(|it| *it != "refresh").collect(),
            _ => network.into_iter().chain(["live"]).collect(),
        };
        expected.sort_unstable();
        assert_eq!(commands, expected, "{values}");
        containers.iter().for_each(Container::check);
        references::check_files(values, documents);
        references::check_ports(values, documents);
        // Its policies select the databases of the overlay.
        if values != "demo" {
            references::check_selectors(values, documents);
        }
        let secrets = documents.iter().filter(|it| it["kind"] == "Secret");
        assert_eq!(secrets.count(), 0, "{values}");
        let public = references::public_port(documents);
        let forwarded = references::forwarded(documents);
        match values.as_str() {
            "embedded" => assert!(forwarded.is_empty()),
            // Stated in the file.
            "redis" => assert_eq!(forwarded, [8080]),
            _ => assert_eq!(forwarded, [public], "{values}"),
        }
        match values.as_str() {
            "redis" => assert!(!documents.iter().any(|it| it["kind"] == "NetworkPolicy")),
            "postgres" => references::check_outside(values, documents, "gateways"),
            _ => references::check_outside(values, documents, "ingress-nginx"),
        }
    }
}

#[test]
fn nothing_is_exposed_and_no_more_than_needed_is_created_by_default() {
    let Some(helm) = tool("helm") else { return };
    let documents = yaml(&stdout_of(&mut template(&helm, "headcount")));
    assert!(references::forwarded(&documents).is_empty());
    let mut kinds: Vec<_> = documents.iter().map(|it| string(&it["kind"])).collect();
    kinds.dedup();
    kinds.sort_unstable();
    assert_eq!(
        kinds,
        [
            "Job",
            "NetworkPolicy",
            "PodDisruptionBudget",
            "Service",
            "ServiceAccount",
            "StatefulSet",
        ]
    );
}

/// The template of a Job is immutable: an upgrade that changed it would fail.
#[test]
fn jobs_are_hooks_that_replace_the_former_one() {
    let Some(charts) = charts() else { return };
    for (values, documents) in &charts {
        for job in documents.iter().filter(|it| it["kind"] == "Job") {
            let annotations = &job["metadata"]["annotations"];
            assert!(annotations["helm.sh/hook"].is_string(), "{values}: {job}");
            let policy = string(&annotations["helm.sh/hook-delete-policy"]);
            assert!(policy.contains("before-hook-creation"), "{values}: {job}");
        }
    }
}

/// Renders with `--set` and returns the message of the failure.
fn refusal(helm: &Path, set: &[&str]) -> String {
    let mut command = template(helm, "headcount");
    for set in set {
        command.args(["--set", set]);
    }
    let (ok, output) = run(&mut command);
    assert!(!ok, "{set:?} is accepted");
    output
}

#[test]
fn a_wrong_value_is_named() {
    let Some(helm) = tool("helm") else { return };
    for (set, expected) in [
        (&["store=mysql"][..], "at '/store': value must be one of"),
        (&["serve.replica=2"], "'replica' not allowed"),
        (&["serve.replicas=2"], "at '/serve/replicas'"),
        (&["live.enabled=true"], "at '/live/enabled'"),
        (&["store=influx"], "missing property 'influx_url'"),
        (&["store=postgres"], "networkPolicy.egress"),
        (&["ingress.enabled=true"], "at '/ingress/host'"),
        (&["httpRoute.enabled=true"], "at '/httpRoute/parentRefs'"),
        (&["archive.schedule=hourly"], "at '/archive/schedule'"),
        (&["settings.export=true"], "at '/settings/export'"),
        (&["secretKeys={influx_token}"], "at '/secretKeys/0'"),
        (&["settings.tokens_file=x"], "settings.tokens_file"),
        (&["settings.live=off"], "settings.live: the chart sets it"),
    ] {
        let output = refusal(&helm, set);
        assert!(output.contains(expected), "{set:?}: {output}");
    }
}

#[test]
fn secrets_and_what_the_chart_sets_are_no_values() {
    let (Some(helm), Some(charts)) = (tool("helm"), charts()) else {
        return;
    };
    let names: Vec<_> = config::names().collect();
    let secrets = names
        .iter()
        .filter(|name| names.contains(&&*format!("{name}_file")));
    let secrets: Vec<_> = secrets.copied().chain(["jwt_keys"]).collect();
    assert!(secrets.contains(&"redis_url"));
    for name in secrets {
        let output = refusal(&helm, &[&format!("settings.{name}=x")]);
        let expected = format!("settings.{name}: a secret");
        assert!(output.contains(&expected), "{name}: {output}");
    }
    // The variables of a release without values of its own for settings.
    let (_, production) = charts.iter().find(|it| it.0 == "production").unwrap();
    let service = references::pod(references::find(production, "StatefulSet", "headcount"));
    let variables = environment(production, &service["containers"][0]);
    let given = &yaml(&read("deploy/helm/ci/production.yaml"))[0]["settings"];
    let defaults = &yaml(&read("deploy/helm/values.yaml"))[0]["settings"];
    let mut tried = 0;
    for name in &names {
        let is_of_user = given[name].is_string() || defaults[name].is_string();
        if !variables.contains_key(&config::variable_of(name)) || is_of_user {
            continue;
        }
        let needed = ["store=influx", "cache=redis", "live.enabled=true"];
        let own = format!("settings.{name}=x");
        let policy = [
            "networkPolicy.enabled=false",
            "settings.influx_url=http://a",
        ];
        let output = refusal(&helm, &[&needed[..], &policy, &[&own]].concat());
        assert!(output.contains(&format!("settings.{name}: ")), "{output}");
        tried += 1;
    }
    assert!(tried >= 8, "{tried}");
}

#[test]
fn every_list_and_name_of_the_values_is_in_the_schema() {
    let schema: Value = serde_json::from_str(&read("deploy/helm/values.schema.json")).unwrap();
    let values = &yaml(&read("deploy/helm/values.yaml"))[0];
    check_described("", values, &schema, &schema);
}

/// Checks that the schema describes each value, and allows no other. Without that, a misspelled value is ignored.
fn check_described(place: &str, values: &Value, part: &Value, schema: &Value) {
    let part = match part["$ref"].as_str() {
        Some(reference) => schema.pointer(&reference[1..]).unwrap(),
        None => part,
    };
    let Some(described) = part["properties"].as_object() else {
        return;
    };
    for (name, value) in values.as_object().into_iter().flatten() {
        let place = format!("{place}/{name}");
        let found = described.get(name);
        match found {
            Some(found) => check_described(&place, value, found, schema),
            None => assert_eq!(place.rsplit('/').nth(1), Some("settings"), "{place}"),
        }
    }
    let is_open = part["additionalProperties"].is_object();
    assert!(is_open || part["additionalProperties"] == false, "{place}");
}

#[test]
fn numbers_of_settings_are_written_as_the_program_reads_them() {
    let Some(charts) = charts() else { return };
    let (_, embedded) = charts.iter().find(|it| it.0 == "embedded").unwrap();
    let service = references::pod(references::find(embedded, "StatefulSet", "headcount"));
    let variables = environment(embedded, &service["containers"][0]);
    assert_eq!(variables["HEADCOUNT_MAX_SEGMENTS"], "1000000");
    let count = items(&service["volumes"]).count();
    assert_eq!(count, 1, "the embedded store needs a Secret only");
}
