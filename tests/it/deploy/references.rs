//! References between Kubernetes objects: names, ports, keys and selectors must resolve.

use serde_json::Value;

use super::kubernetes::{environment, overlays};
use super::secrets::kubernetes_secret;
use super::tools::{entries, items, string};

/// The pod template of an object, or null without one.
pub fn pod(document: &Value) -> &Value {
    match document["kind"].as_str() {
        Some("CronJob") => &document["spec"]["jobTemplate"]["spec"]["template"]["spec"],
        _ => &document["spec"]["template"]["spec"],
    }
}

pub fn pod_labels(document: &Value) -> &Value {
    match document["kind"].as_str() {
        Some("CronJob") => {
            &document["spec"]["jobTemplate"]["spec"]["template"]["metadata"]["labels"]
        }
        _ => &document["spec"]["template"]["metadata"]["labels"],
    }
}

/// The object of this kind and name.
pub fn find<'a>(documents: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let mut found = documents
        .iter()
        .filter(|document| document["kind"] == kind && document["metadata"]["name"] == name);
    found
        .next()
        .unwrap_or_else(|| panic!("{kind} {name} does not exist"))
}

/// Whether a label selector matches these labels. Supports `matchLabels` and `matchExpressions` with `In`.
pub fn selects(selector: &Value, labels: &Value) -> bool {
    entries(&selector["matchLabels"]).all(|(key, value)| labels[key] == *value)
        && items(&selector["matchExpressions"]).all(|expression| {
            assert_eq!(expression["operator"], "In");
            let label = &labels[string(&expression["key"])];
            items(&expression["values"]).any(|value| value == label)
        })
}

fn pods(documents: &[Value]) -> impl Iterator<Item = &Value> {
    documents.iter().filter(|document| !pod(document).is_null())
}

pub fn has_port(pod: &Value, port: &Value) -> bool {
    items(&pod["containers"]).any(|container| {
        items(&container["ports"])
            .any(|open| open["name"] == *port || open["containerPort"] == *port)
    })
}

#[test]
fn config_maps_secrets_and_accounts_exist() {
    let (Some(overlays), Some(secret)) = (overlays(), kubernetes_secret()) else {
        return;
    };
    for (overlay, documents) in &overlays {
        for document in pods(documents) {
            let pod = pod(document);
            find(
                documents,
                "ServiceAccount",
                string(&pod["serviceAccountName"]),
            );
            for volume in items(&pod["volumes"]) {
                if let Some(name) = volume["configMap"]["name"].as_str() {
                    find(documents, "ConfigMap", name);
                }
                if volume["secret"].is_object() {
                    assert_eq!(volume["secret"]["secretName"], secret["metadata"]["name"]);
                }
                for item in items(&volume["secret"]["items"]) {
                    let key = string(&item["key"]);
                    assert!(
                        secret["stringData"][key].is_string(),
                        "{overlay}: the Secret lacks {key}"
                    );
                }
            }
        }
        check_files(overlay, documents);
    }
}

/// Checks that each mount has a volume, that each file in a variable or ConfigMap is below a mount, and that secrets are items of
/// their volume.
pub fn check_files(overlay: &str, documents: &[Value]) {
    for document in pods(documents) {
        let pod = pod(document);
        let mut mounted: Vec<_> = items(&pod["volumes"]).map(|it| &it["name"]).collect();
        let claimed = items(&document["spec"]["volumeClaimTemplates"]);
        mounted.extend(claimed.map(|it| &it["metadata"]["name"]));
        for container in items(&pod["containers"]) {
            for mount in items(&container["volumeMounts"]) {
                assert!(mounted.contains(&&mount["name"]), "{overlay}: {mount}");
            }
        }
        check_files_of(overlay, documents, pod);
    }
}

fn check_files_of(overlay: &str, documents: &[Value], pod: &Value) {
    for container in items(&pod["containers"]) {
        for (name, path) in environment(documents, container) {
            if !name.ends_with("_FILE") || pod["containers"][0]["args"][0] == "refresh" {
                continue;
            }
            let mount = items(&container["volumeMounts"])
                .find(|mount| path.starts_with(string(&mount["mountPath"])))
                .unwrap_or_else(|| panic!("{overlay}: {name}: nothing is mounted at {path}"));
            let volume = items(&pod["volumes"]).find(|volume| volume["name"] == mount["name"]);
            let file = path.rsplit('/').next().unwrap();
            let given = items(&volume.unwrap()["secret"]["items"]).any(|it| it["path"] == file);
            assert!(given, "{overlay}: {name}: no {file} in the volume");
        }
    }
}

#[test]
fn ports_and_services_resolve_to_pods() {
    let Some(overlays) = overlays() else { return };
    for (overlay, documents) in &overlays {
        check_ports(overlay, documents);
    }
}

/// Checks that probes, URLs, Services and what is in front of them name ports of pods.
pub fn check_ports(overlay: &str, documents: &[Value]) {
    for document in pods(documents) {
        for container in items(&pod(document)["containers"]) {
            for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
                let probe = &container[probe];
                for port in [&probe["httpGet"]["port"], &probe["tcpSocket"]["port"]] {
                    let known = port.is_null() || has_port(pod(document), port);
                    assert!(known, "{overlay}: a probe uses the unknown port {port}");
                }
            }
            for argument in items(&container["args"]) {
                check_url(documents, string(argument));
            }
        }
        if document["kind"] == "StatefulSet" {
            find(
                documents,
                "Service",
                string(&document["spec"]["serviceName"]),
            );
        }
    }
    for service in documents.iter().filter(|it| it["kind"] == "Service") {
        let labels = serde_json::json!({"matchLabels": service["spec"]["selector"]});
        let selected: Vec<_> = pods(documents)
            .filter(|it| selects(&labels, pod_labels(it)))
            .collect();
        assert_eq!(selected.len(), 1, "{overlay}: {service}");
        for port in items(&service["spec"]["ports"]) {
            assert!(has_port(pod(selected[0]), &port["targetPort"]), "{service}");
        }
    }
    forwarded(documents);
}

/// The ports of pods to which Ingresses and HTTPRoutes forward.
pub fn forwarded(documents: &[Value]) -> Vec<u64> {
    let backends = documents.iter().flat_map(|document| {
        let rules = items(&document["spec"]["rules"]);
        match document["kind"].as_str() {
            Some("Ingress") => rules
                .flat_map(|rule| items(&rule["http"]["paths"]))
                .map(|path| &path["backend"]["service"])
                .map(|to| (string(&to["name"]), &to["port"]["name"]))
                .collect(),
            Some("HTTPRoute") => rules
                .flat_map(|rule| items(&rule["backendRefs"]))
                .map(|to| (string(&to["name"]), &to["port"]))
                .collect(),
            _ => Vec::new(),
        }
    });
    let ports = backends.map(|(name, port)| {
        let service = find(documents, "Service", name);
        let mut ports = items(&service["spec"]["ports"]);
        let found = ports.find(|it| it["name"] == *port || it["port"] == *port);
        let target = &found.unwrap_or_else(|| panic!("{name}: no port {port}"))["targetPort"];
        let container = &pod(find(documents, "StatefulSet", name))["containers"][0];
        let mut open = items(&container["ports"]);
        let open = open.find(|it| it["name"] == *target);
        open.and_then(|it| it["containerPort"].as_u64()).unwrap()
    });
    ports.collect()
}

/// The port on which the service serves only writes of pairs and reads of counts.
pub fn public_port(documents: &[Value]) -> u64 {
    let service = pod(find(documents, "StatefulSet", "headcount"));
    let environment = environment(documents, &service["containers"][0]);
    let (_, port) = environment["HEADCOUNT_PUBLIC_LISTEN"]
        .rsplit_once(':')
        .unwrap();
    port.parse().unwrap()
}

/// Checks that network policies let the namespace of an ingress controller or gateway reach the public port only.
pub fn check_outside(overlay: &str, documents: &[Value], namespace: &str) {
    let policies = documents.iter().filter(|it| it["kind"] == "NetworkPolicy");
    let rules = policies.flat_map(|it| items(&it["spec"]["ingress"]));
    let of_namespace = rules.filter(|rule| {
        items(&rule["from"]).any(|peer| {
            peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"] == namespace
        })
    });
    let ports: Vec<_> = of_namespace
        .flat_map(|rule| items(&rule["ports"]))
        .map(|it| it["port"].as_u64())
        .collect();
    assert_eq!(ports, [Some(public_port(documents))], "{overlay}");
}

/// Checks that a URL within the cluster names a service and one of its ports.
fn check_url(documents: &[Value], argument: &str) {
    let Some(host) = argument.strip_prefix("http://") else {
        return;
    };
    let (name, port) = host.split_once(':').unwrap();
    let service = find(documents, "Service", name);
    let port: u64 = port.parse().unwrap();
    assert!(items(&service["spec"]["ports"]).any(|it| it["port"] == port));
}

#[test]
fn live_processes_have_a_disk_each_and_are_reachable_for_services() {
    let Some(overlays) = overlays() else { return };
    for (overlay, documents) in &overlays {
        let live = find(documents, "StatefulSet", "headcount-live");
        let services = find(documents, "StatefulSet", "headcount");
        assert_eq!(live["spec"]["replicas"], 2, "{overlay}: one stands by");
        let container = &pod(live)["containers"][0];
        let settings = string(&container["envFrom"][0]["configMapRef"]["name"]);
        let settings = &find(documents, "ConfigMap", settings)["data"];
        assert_eq!(settings["HEADCOUNT_LIVE"], "redis", "{overlay}");
        let mut mounts = items(&container["volumeMounts"]);
        let mount = mounts.find(|it| it["mountPath"] == settings["HEADCOUNT_LIVE_DIR"]);
        let claim = &live["spec"]["volumeClaimTemplates"][0];
        assert_eq!(mount.unwrap()["name"], claim["metadata"]["name"]);
        for (way, peer, from, to) in [
            ("egress", "to", services, live),
            ("ingress", "from", live, services),
        ] {
            let policies = documents.iter().filter(|it| it["kind"] == "NetworkPolicy");
            let of_pod = policies
                .map(|it| &it["spec"])
                .filter(|it| selects(&it["podSelector"], pod_labels(from)));
            let ways: Vec<_> = of_pod.flat_map(|it| items(&it[way])).collect();
            let is_allowed = ways.iter().any(|it| {
                let mut peers = items(&it[peer]).filter(|it| it["podSelector"].is_object());
                peers.any(|it| selects(&it["podSelector"], pod_labels(to)))
                    && items(&it["ports"]).any(|it| has_port(pod(live), &it["port"]))
            });
            assert!(is_allowed, "{overlay}: {way}");
        }
    }
}

#[test]
fn policies_and_budgets_select_existing_pods() {
    let Some(overlays) = overlays() else { return };
    for (overlay, documents) in &overlays {
        check_selectors(overlay, documents);
    }
}

/// Checks that policies, budgets and autoscalers select existing pods.
pub fn check_selectors(overlay: &str, documents: &[Value]) {
    let reach = |selector: &Value| pods(documents).any(|it| selects(selector, pod_labels(it)));
    for document in documents {
        let spec = &document["spec"];
        match document["kind"].as_str() {
            Some("PodDisruptionBudget") => assert!(reach(&spec["selector"]), "{document}"),
            Some("HorizontalPodAutoscaler") => {
                let target = &spec["scaleTargetRef"];
                find(documents, string(&target["kind"]), string(&target["name"]));
            }
            Some("NetworkPolicy") => {
                assert!(reach(&spec["podSelector"]), "{overlay}: {document}");
                let ways = items(&spec["ingress"]).chain(items(&spec["egress"]));
                let peers = ways.flat_map(|way| items(&way["from"]).chain(items(&way["to"])));
                for peer in peers {
                    // Pods of other namespaces are not rendered here. Their selectors must not use the labels
                    // of headcount.
                    let elsewhere = peer["namespaceSelector"].is_object();
                    let ours = peer["podSelector"].is_object() && reach(&peer["podSelector"]);
                    let labels = peer["podSelector"]["matchLabels"].to_string();
                    let named = labels.contains("app.kubernetes.io/name");
                    let network = peer["ipBlock"].is_object();
                    assert!(
                        network || (elsewhere && !named) || (!elsewhere && ours),
                        "{overlay}: {peer}"
                    );
                }
            }
            _ => {}
        }
    }
}
