//! The layer of `HEADCOUNT_*` variables. They are passed in: nothing here reads or changes the process's environment.

use std::ffi::OsString;

use super::ConfigError;
use super::layers::{Layers, Origin};
use super::spelling::{PREFIX, is_secret, is_slip_of, known, mistyped, nearest, variable_of};

/// Variables with the prefix of settings that are for the client commands.
const NOT_SETTINGS: &[&str] = &["HEADCOUNT_URL", "HEADCOUNT_TOKEN", "HEADCOUNT_TOKEN_FILE"];
/// Prefixes of variables that are for the tests and the benches.
const FOR_TESTS: &[&str] = &["HEADCOUNT_TEST_", "HEADCOUNT_BENCH_"];

/// Adds the layer of those `variables` that begin with `HEADCOUNT_`, and returns warnings.
///
/// An empty variable counts as unset: Compose files, unit files and shells pass a missing value as an empty variable.
/// An unknown variable prevents the start only if it is a likely misspelling of a known name. Any other may belong
/// to another program or, after a rollback, to a newer version.
pub(super) fn add(
    layers: &mut Layers,
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Vec<String>, ConfigError> {
    let mut warnings = Vec::new();
    for (variable, value) in variables {
        // A name that is not UTF-8 is not a setting: the names of settings are ASCII.
        let Ok(variable) = variable.into_string() else {
            continue;
        };
        let Some(name) = variable.strip_prefix(PREFIX) else {
            continue;
        };
        let is_for_tests = FOR_TESTS.iter().any(|prefix| variable.starts_with(prefix));
        if NOT_SETTINGS.contains(&variable.as_str()) || is_for_tests {
            continue;
        }
        let key = name.to_ascii_lowercase();
        let is_known = known(&key).is_some() && variable == variable_of(&key);
        if value.to_string_lossy().trim().is_empty() {
            if is_known && is_secret(&key) {
                warnings.push(format!(
                    "{variable} is empty, which is the same as unset: no secret is read from it"
                ));
            }
            continue;
        }
        if is_known {
            let Ok(value) = value.into_string() else {
                return Err(ConfigError::NotUtf8(variable));
            };
            layers.set(&key, &value, Origin::Variable(variable), variable_of)?;
        } else if is_of_a_link(name, &value.to_string_lossy()) {
            continue;
        } else if let Some(meant) = mistyped(&key) {
            return Err(ConfigError::Unknown {
                nearest: Some(variable_of(meant)),
                origin: Origin::Variable(variable.clone()),
                name: variable,
            });
        } else {
            let meant = match nearest(&key) {
                Some(name) => format!("did you mean `{}`?", variable_of(name)),
                None => "`headcount check-config` lists the settings".to_owned(),
            };
            warnings.push(format!(
                "{variable} is not a setting of this version and is ignored: {meant}"
            ));
        }
    }
    Ok(warnings)
}

/// The variable of the client commands that `HEADCOUNT_` followed by `name` probably misspells.
pub fn mistyped_for_clients(name: &str) -> Option<&'static str> {
    let key = name.to_ascii_lowercase();
    let variable = format!("{PREFIX}{name}");
    let is_ours = NOT_SETTINGS.contains(&variable.as_str()) || known(&key).is_some();
    let for_clients = NOT_SETTINGS.iter().filter(|_| !is_ours);
    for_clients
        .filter_map(|meant| Some((meant, meant.strip_prefix(PREFIX)?.to_ascii_lowercase())))
        .find(|(_, known)| is_slip_of(known, &key))
        .map(|(meant, _)| *meant)
}

/// Whether Docker or Kubernetes set this variable, rather than a person.
fn is_of_a_link(name: &str, value: &str) -> bool {
    is_service_link(name, value) || is_container_link(name, value)
}

/// Whether `docker --link` set this variable. A link with the alias `headcount` or `headcount-...` sets
/// `HEADCOUNT_NAME=/web/headcount`, `HEADCOUNT_ENV_...` for each variable of the other container, and the same variables
/// for ports as Kubernetes (<https://docs.docker.com/engine/network/links/#environment-variables>).
fn is_container_link(name: &str, value: &str) -> bool {
    let is_name = name == "NAME" || name.ends_with("_NAME");
    format!("_{name}").contains("_ENV_") || is_name && value.starts_with('/')
}

/// Whether Kubernetes set this variable. For a service named `headcount` or `headcount-...`, every pod of the
/// namespace gets `HEADCOUNT_SERVICE_HOST`, `HEADCOUNT_PORT=tcp://...`, `HEADCOUNT_PORT_8080_TCP_ADDR` and
/// the like (<https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables>).
/// They are not misspelt settings.
fn is_service_link(name: &str, value: &str) -> bool {
    let is_url = ["tcp://", "udp://", "sctp://"]
        .iter()
        .any(|scheme| value.starts_with(scheme));
    let mut words = name.rsplit('_');
    match words.next() {
        Some("HOST") => words.next() == Some("SERVICE"),
        Some("PORT" | "PROTO" | "ADDR") if is_protocol(words.next()) => true,
        Some("PORT") if is_url => true,
        protocol if is_protocol(protocol) => is_url,
        _ => name == "SERVICE_PORT" || format!("_{name}_").contains("_SERVICE_PORT_"),
    }
}

fn is_protocol(word: Option<&str>) -> bool {
    matches!(word, Some("TCP" | "UDP" | "SCTP"))
}
