//! The variables, commands with flags, and metrics of the program. Deployment files may name no others.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use headcount::config;
use telemetry::{Metrics, SegmentMetrics};

use super::tools::{root, run};
use crate::support::program::headcount;

/// Variables of the client commands, which are not settings.
const OF_CLIENTS: [&str; 3] = ["HEADCOUNT_URL", "HEADCOUNT_TOKEN", "HEADCOUNT_TOKEN_FILE"];

/// A container that runs the program, in any deployment.
#[derive(Debug)]
pub struct Container {
    /// Its location in the files, for messages.
    pub place: String,
    /// The program's arguments.
    pub arguments: Vec<String>,
    /// Its environment.
    pub environment: BTreeMap<String, String>,
}

impl Container {
    /// Fails unless the program accepts this environment and these arguments.
    pub fn check(&self) {
        let known: BTreeSet<_> = config::names().map(config::variable_of).collect();
        for name in self.environment.keys() {
            let is_ours = name.starts_with(config::PREFIX);
            let is_known = known.contains(name) || OF_CLIENTS.contains(&name.as_str());
            assert!(
                !is_ours || is_known,
                "{}: {name} is not a setting",
                self.place
            );
        }
        // `--help` comes last, so that a wrong command or flag is reported first.
        let (ok, output) = run(headcount(root(), &[], &[])
            .args(&self.arguments)
            .arg("--help"));
        assert!(ok, "{}: {:?}: {output}", self.place, self.arguments);
        if matches!(self.command(), "serve" | "live" | "worker" | "setup") {
            self.check_settings();
        }
    }

    /// The command, such as `serve`.
    pub fn command(&self) -> &str {
        &self.arguments[0]
    }

    /// Checks the values with `check-config`. Placeholders stand in for the files of the container.
    fn check_settings(&self) {
        let folder = tempfile::tempdir().unwrap();
        let mut command = headcount(folder.path(), &[], &[]);
        for (name, value) in &self.environment {
            if OF_CLIENTS.contains(&name.as_str()) || !name.starts_with(config::PREFIX) {
                continue;
            }
            let Some(text) = placeholder(name) else {
                command.env(name, value);
                continue;
            };
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            command.env(name, path);
        }
        let (ok, output) = run(command.arg("check-config"));
        assert!(ok, "{}: {output}", self.place);
    }
}

/// Placeholder content for the file that a variable names.
fn placeholder(variable: &str) -> Option<&'static str> {
    Some(match variable {
        "HEADCOUNT_INFLUX_TOKEN_FILE" => "a-token",
        "HEADCOUNT_REDIS_URL_FILE" => "redis://:password@redis:6379/0",
        "HEADCOUNT_POSTGRES_URL_FILE" => "postgres://headcount:password@postgres:5432/headcount",
        "HEADCOUNT_USER_KEY_FILE" => "a key of user ids that is long enough",
        "HEADCOUNT_SESSION_KEY_FILE" => "a key of sessions that is long enough",
        "HEADCOUNT_TOKENS_FILE" => "",
        _ if variable.ends_with("_FILE") => panic!("no placeholder for {variable}"),
        _ => return None,
    })
}

/// The names of all series that the program exports, from its own registry.
pub fn metrics() -> BTreeSet<String> {
    let metrics = Metrics::default();
    let instant = Duration::ZERO;
    // A metric family without series is not rendered.
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
    let samples = samples.map(|line| line.split(['{', ' ']).next().unwrap());
    let all = samples.chain(SegmentMetrics::NAMES);
    all.map(str::to_owned).collect()
}

/// The metrics of headcount that a PromQL expression names.
pub fn metrics_in(expression: &str) -> BTreeSet<String> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let words = expression.split(|c: char| !is_word(c));
    words
        .filter(|word| word.starts_with("headcount_"))
        .map(str::to_owned)
        .collect()
}

/// Fails if an expression names a metric that does not exist, or no metric at all.
pub fn check_expression(place: &str, expression: &str) {
    let exported = metrics();
    let named = metrics_in(expression);
    assert!(
        !named.is_empty() || expression.contains("up{") || expression.contains("process_"),
        "{place}: no metric in {expression}"
    );
    for name in named {
        assert!(exported.contains(&name), "{place}: {name} is not a metric");
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
