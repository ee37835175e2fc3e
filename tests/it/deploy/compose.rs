//! docker-compose.yml: parsed by the parser of Compose itself, and compared with the program and the other files.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::Value;

use super::haproxy::addresses;
use super::names::Container;
use super::tools::{entries, items, read, root, run, stdout_of, string, tool, yaml};

/// The file with the services of all profiles, after interpolation and merges. Returns `None` without the parser.
fn parsed() -> Option<Value> {
    let parser = tool("compose-parse")?;
    let mut command = Command::new(parser);
    command.args(["-format", "json", "docker-compose.yml"]);
    let text = stdout_of(&mut command);
    Some(serde_json::from_str(&text).unwrap())
}

#[test]
fn compose_accepts_the_file() {
    let Some(parser) = tool("compose-parse") else {
        return;
    };
    let file = parsed().unwrap();
    let of = |profile: Option<&str>| {
        let services = entries(&file["services"]);
        services
            .filter(|(_, it)| it["profiles"].get(0).and_then(Value::as_str) == profile)
            .count()
    };
    assert_eq!(
        (of(None), of(Some("postgres")), of(Some("redis-store"))),
        (9, 4, 3)
    );
    for (name, service) in entries(&file["services"]) {
        for (other, _) in entries(&service["depends_on"]) {
            // Profiles must start the dependencies of each service.
            let needed = &file["services"][other]["profiles"];
            let together = needed.is_null() || *needed == service["profiles"];
            assert!(
                together,
                "{name} depends on {other}, which its profile does not start"
            );
        }
    }
    let wrong = tempfile::NamedTempFile::new_in(root().join("target")).unwrap();
    let text = read("docker-compose.yml").replace("    restart:", "    restarts:");
    std::fs::write(wrong.path(), text).unwrap();
    assert!(!run(Command::new(&parser).arg(wrong.path())).0);
}

fn is_ours(service: &Value) -> bool {
    string(&service["image"]).starts_with("headcount:")
}

fn words(list: &Value) -> Vec<String> {
    items(list).map(|word| string(word).to_owned()).collect()
}

#[test]
fn services_use_known_commands_and_settings() {
    let Some(file) = parsed() else { return };
    for (name, service) in entries(&file["services"]).filter(|(_, it)| is_ours(it)) {
        let environment: BTreeMap<_, _> = entries(&service["environment"])
            .map(|(name, value)| (name.to_owned(), string(value).to_owned()))
            .collect();
        let mut runs = vec![words(&service["command"])];
        if service["entrypoint"].is_array() {
            runs = script_commands(service);
        }
        let health = words(&service["healthcheck"]["test"]);
        if let [_, program, arguments @ ..] = &health[..] {
            assert_eq!(program, "headcount");
            runs.push(arguments.to_vec());
        } else {
            assert_eq!(service["healthcheck"]["disable"], true, "{name}");
        }
        for arguments in runs {
            Container {
                place: format!("docker-compose.yml: {name}"),
                arguments,
                environment: environment.clone(),
            }
            .check();
        }
        check_files(name, service);
    }
}

/// The commands that `deploy/jobs` runs.
fn script_commands(service: &Value) -> Vec<Vec<String>> {
    assert_eq!(
        words(&service["entrypoint"]),
        ["/bin/sh", "/etc/headcount/jobs"]
    );
    assert!(items(&service["configs"]).any(|it| it["target"] == "/etc/headcount/jobs"));
    let script = read("deploy/jobs");
    let calls = script.lines().map(str::trim_start);
    let calls = calls.filter_map(|line| {
        line.strip_prefix("headcount ")
            .or(line.strip_prefix("if ! headcount "))
    });
    let commands: Vec<_> = calls
        .map(|line| vec![line.split_whitespace().next().unwrap().to_owned()])
        .collect();
    assert_eq!(commands.len(), 2, "{script}");
    commands
}

/// Checks that each file in a variable is a secret of the service or below a mounted volume.
fn check_files(name: &str, service: &Value) {
    for (variable, path) in entries(&service["environment"]) {
        let path = string(path);
        if !variable.ends_with("_FILE") {
            continue;
        }
        let secret = items(&service["secrets"]).any(|it| it["target"] == path);
        let mut volumes = items(&service["volumes"]);
        let volume = volumes.any(|it| path.starts_with(string(&it["target"])));
        assert!(secret || volume, "{name}: {variable}: nothing is at {path}");
    }
}

#[test]
fn only_haproxy_and_grafana_publish_ports_and_only_on_loopback() {
    let Some(file) = parsed() else { return };
    for (name, service) in entries(&file["services"]) {
        for port in items(&service["ports"]) {
            assert!(["haproxy", "grafana"].contains(&name), "{name}: {port}");
            assert_eq!(port["host_ip"], "127.0.0.1", "{name}");
        }
        assert_ne!(service["network_mode"], "host", "{name}");
        assert_ne!(service["privileged"], true, "{name}");
        let options = words(&service["security_opt"]);
        assert!(options.contains(&"no-new-privileges:true".into()), "{name}");
        assert!(service["mem_limit"].is_string(), "{name}");
        if is_ours(service) {
            assert_eq!(service["read_only"], true, "{name}");
            assert_eq!(words(&service["cap_drop"]), ["ALL"], "{name}");
        }
    }
    for network in ["data", "watch"] {
        assert_eq!(file["networks"][network]["internal"], true);
    }
}

#[test]
fn images_are_pinned_and_services_have_health_checks() {
    let Some(file) = parsed() else { return };
    for (name, service) in entries(&file["services"]) {
        let (_, tag) = string(&service["image"]).rsplit_once(':').unwrap();
        let digits = tag.trim_start_matches('v').split(['.', '-']);
        let numbers = digits
            .take_while(|part| part.parse::<u32>().is_ok())
            .count();
        // Postgres versions have two numbers.
        let whole = if name == "postgres" { 2 } else { 3 };
        assert_eq!(numbers, whole, "{name}: {tag} is not a full version");
        let one_shot = name.starts_with("setup");
        let checked = service["healthcheck"]["test"].is_array();
        let scheduler = name.starts_with("jobs");
        assert!(
            checked || one_shot || scheduler,
            "{name} has no health check"
        );
        assert!(service["restart"].is_string(), "{name}");
    }
    let serve = &file["services"]["headcount-1"];
    assert_eq!(
        serve["depends_on"]["setup"]["condition"],
        "service_completed_successfully"
    );
    assert_eq!(serve["depends_on"]["redis"]["condition"], "service_healthy");
}

#[test]
fn postgres_is_healthy_only_once_it_accepts_connections() {
    let Some(file) = parsed() else { return };
    // While the image initialises the database, a server listens on the socket alone.
    let health = words(&file["services"]["postgres"]["healthcheck"]["test"]);
    assert!(
        health.windows(2).any(|it| it == ["--host", "127.0.0.1"]),
        "{health:?}"
    );
}

#[test]
fn mounted_secrets_and_files_exist() {
    let Some(file) = parsed() else { return };
    let made = super::secrets::files();
    let name_of = |path: &Value| string(path).rsplit('/').next().unwrap().to_owned();
    for (name, secret) in entries(&file["secrets"]) {
        assert!(
            made.contains(&name_of(&secret["file"])),
            "make-secrets does not create {name}"
        );
    }
    for (name, config) in entries(&file["configs"]) {
        let path = string(&config["file"]);
        assert!(std::path::Path::new(path).is_file(), "{name}: {path}");
    }
    for (name, service) in entries(&file["services"]) {
        for volume in items(&service["volumes"]).filter(|it| it["type"] == "bind") {
            let path = string(&volume["source"]);
            let is_made =
                path.ends_with("deploy/secrets/tokens") && made.contains(&"tokens".into());
            assert!(
                is_made || std::path::Path::new(path).is_dir(),
                "{name}: {path}"
            );
            assert_eq!(volume["read_only"], true, "{name}: {path}");
        }
    }
}

#[test]
fn each_live_process_has_a_volume_of_its_own_that_the_image_owns() {
    let Some(file) = parsed() else { return };
    let live = &file["services"]["live"];
    let volume = items(&live["volumes"]).find(|it| it["target"] == "/var/lib/headcount/live");
    // A name would be the same in all containers of the service.
    assert!(volume.unwrap()["source"].is_null());
    let image = read("Dockerfile");
    for place in [
        " /var/lib/headcount/live ",
        "HEADCOUNT_LIVE_DIR=/var/lib/headcount/live\n",
    ] {
        assert!(image.contains(place), "{place}");
    }
}

#[test]
fn haproxy_and_prometheus_target_existing_services_and_ports() {
    let Some(file) = parsed() else { return };
    let mut published: Vec<_> = items(&file["services"]["haproxy"]["ports"])
        .map(|port| port["target"].to_string())
        .collect();
    published.push("8404".into());
    let listens = |name: &str, port: &str| {
        if name == "haproxy" {
            assert!(published.iter().any(|known| known == port), "{name}:{port}");
            return;
        }
        let service = &file["services"][name];
        let environment = &service["environment"];
        let own = [
            &environment["HEADCOUNT_WORKER_LISTEN"],
            &environment["HEADCOUNT_LISTEN"],
        ];
        let own = own.into_iter().find_map(Value::as_str);
        // The default is the port of the Dockerfile.
        let expected = own.unwrap_or("0.0.0.0:8080").rsplit(':').next().unwrap();
        assert!(service.is_object() && port == expected, "{name}:{port}");
    };
    for (variable, address) in addresses() {
        let (name, port) = address.rsplit_once(':').unwrap();
        if variable.ends_with("_BIND") {
            assert!(
                name.is_empty() && published.contains(&port.into()),
                "{address}"
            );
        } else {
            listens(name, port);
        }
    }
    let prometheus = &yaml(&read("deploy/prometheus/prometheus.yml"))[0];
    for job in items(&prometheus["scrape_configs"]) {
        for address in items(&job["static_configs"]).flat_map(|it| items(&it["targets"])) {
            let (name, port) = string(address).rsplit_once(':').unwrap();
            listens(name, port);
        }
        for found in items(&job["dns_sd_configs"]) {
            for name in items(&found["names"]) {
                listens(string(name), &found["port"].to_string());
            }
        }
    }
}
