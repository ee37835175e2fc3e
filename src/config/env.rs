//! The layer of `HEADCOUNT_*` variables. They are passed in: nothing here reads or changes the environment.

use std::ffi::OsString;

use super::ConfigError;
use super::layers::{Layers, Origin};
use super::table::{PREFIX, nearest, variable_of};

/// Variables that begin like settings but speak to others: the client commands, the tests and the benches.
const NOT_SETTINGS: &[&str] = &["HEADCOUNT_URL", "HEADCOUNT_TOKEN", "HEADCOUNT_TOKEN_FILE"];
const FOR_TESTS: &[&str] = &["HEADCOUNT_TEST_", "HEADCOUNT_BENCH_"];

/// Adds the layer of the variables among `variables` that begin with `HEADCOUNT_`.
pub(super) fn add(
    layers: &mut Layers,
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<(), ConfigError> {
    for (variable, value) in variables {
        // A name that is not UTF-8 is none of ours: ours are ASCII.
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
        let Ok(value) = value.into_string() else {
            return Err(ConfigError::NotUtf8(variable));
        };
        if is_service_link(name, &value) {
            continue;
        }
        let origin = Origin::Variable(variable.clone());
        let key = name.to_ascii_lowercase();
        if variable != variable_of(&key) {
            return Err(ConfigError::Unknown {
                nearest: nearest(&key).map(variable_of),
                name: variable,
                origin,
            });
        }
        layers.set(&key, &value, origin, variable_of)?;
    }
    Ok(())
}

/// Whether Kubernetes set this variable: for a service named `headcount` or `headcount-...` every pod of the
/// namespace gets `HEADCOUNT_SERVICE_HOST`, `HEADCOUNT_PORT=tcp://...`, `HEADCOUNT_PORT_8080_TCP_ADDR` and
/// the like (<https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables>).
/// They are no mistakes of the one who configures us.
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
