//! What the program knows: variables, commands with their flags, metrics. Nothing else may be named in a file.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use headcount::config;
use telemetry::Metrics;

use super::tools::{root, run};
use crate::support::program::headcount;

/// Variables of the commands that speak to a service; no settings.
const OF_CLIENTS: [&str; 3] = ["HEADCOUNT_URL", "HEADCOUNT_TOKEN", "HEADCOUNT_TOKEN_FILE"];

/// A container that runs the program, whoever starts it.
#[derive(Debug)]
pub struct Container {
    /// Where it stands, for messages.
    pub place: String,
    /// The program's arguments.
    pub arguments: Vec<String>,
    /// Its environment.
    pub environment: BTreeMap<String, String>,
}

impl Container {
    /// Fails unless the program takes this environment and these arguments.
    pub fn check(&self) {
        let known: BTreeSet<_> = config::names().map(config::variable_of).collect();
        for name in self.environment.keys() {
            let is_ours = name.starts_with(config::PREFIX);
            let is_known = known.contains(name) || OF_CLIENTS.contains(&name.as_str());
            assert!(!is_ours || is_known, "{}: no setting is {name}", self.place);
        }
        // Help comes last, so that a wrong command or flag is met first.
        let (well, said) = run(headcount(root(), &[], &[])
            .args(&self.arguments)
            .arg("--help"));
        assert!(well, "{}: {:?}: {said}", self.place, self.arguments);
        if matches!(self.command(), "serve" | "worker" | "setup") {
            self.check_settings();
        }
    }

    /// The command, such as `serve`.
    pub fn command(&self) -> &str {
        &self.arguments[0]
    }

    /// The values too must be right together. Files are the container's: others take their place.
    fn check_settings(&self) {
        let folder = tempfile::tempdir().unwrap();
        let mut command = headcount(folder.path(), &[], &[]);
        for (name, value) in &self.environment {
            if OF_CLIENTS.contains(&name.as_str()) || !name.starts_with(config::PREFIX) {
                continue;
            }
            let Some(text) = stand_in(name) else {
                command.env(name, value);
                continue;
            };
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            command.env(name, path);
        }
        let (well, said) = run(command.arg("check-config"));
        assert!(well, "{}: {said}", self.place);
    }
}

/// What a file that a variable names might hold.
fn stand_in(variable: &str) -> Option<&'static str> {
    Some(match variable {
        "HEADCOUNT_INFLUX_TOKEN_FILE" => "a-token",
        "HEADCOUNT_REDIS_URL_FILE" => "redis://:password@redis:6379/0",
        "HEADCOUNT_POSTGRES_URL_FILE" => "postgres://headcount:password@postgres:5432/headcount",
        "HEADCOUNT_SESSION_KEY_FILE" => "a key of sessions that is long enough",
        "HEADCOUNT_TOKENS_FILE" => "",
        _ if variable.ends_with("_FILE") => panic!("no stand-in for {variable}"),
        _ => return None,
    })
}

/// The names of all series that the program exports, from its own registry.
pub fn metrics() -> BTreeSet<String> {
    let metrics = Metrics::default();
    let instant = Duration::ZERO;
    // A family without a member is not rendered.
    metrics.http.request("/v1/pairs", "POST", 200, instant);
    metrics.ingest.accepted(1, false);
    metrics.ingest.rejected.with(["malformed"]);
    metrics.wal.synced(1, 1, instant);
    metrics.refresh.ended("ok", instant);
    metrics.store.call("count", "ok", instant);
    metrics.store.lines.with(["written"]);
    metrics.runtime.panic_counter()("refresher", 0);
    metrics.auth.file_broken.with(["tokens_file"]);
    let text = metrics.render().unwrap();
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    samples
        .map(|line| line.split(['{', ' ']).next().unwrap().to_owned())
        .collect()
}

/// The metrics of ours that a PromQL expression names.
pub fn metrics_in(expression: &str) -> BTreeSet<String> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let words = expression.split(|c: char| !is_word(c));
    words
        .filter(|word| word.starts_with("headcount_"))
        .map(str::to_owned)
        .collect()
}

/// Fails where an expression names a metric that does not exist, or none at all.
pub fn check_expression(place: &str, expression: &str) {
    let exported = metrics();
    let named = metrics_in(expression);
    assert!(
        !named.is_empty() || expression.contains("up{"),
        "{place}: no metric in {expression}"
    );
    for name in named {
        assert!(exported.contains(&name), "{place}: no metric is {name}");
    }
}

#[test]
fn metrics_are_found_in_expressions() {
    let expression =
        r#"sum(rate(headcount_http_requests_total{route=~"/v1/.*"}[5m])) / headcount_x:y"#;
    let named: Vec<_> = metrics_in(expression).into_iter().collect();
    assert_eq!(named, ["headcount_http_requests_total", "headcount_x:y"]);
    assert!(metrics().contains("headcount_count_age_seconds_bucket"));
}
