//! `headcount health`: whether a service or worker is well, for what starts and stops containers.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::Failure;
use super::args::HealthArgs;
use super::client::{Client, ClientError};
use super::output::{harmless, print, print_json};
use super::variables::Variables;

/// Whoever asks so often needs an answer soon, and a service that takes longer is not well.
const PATIENCE: Duration = Duration::from_secs(5);

/// The document of `/healthz` and `/readyz`, as far as people need it.
#[derive(Deserialize)]
struct Answer {
    status: String,
    #[serde(default)]
    components: BTreeMap<String, Component>,
}

#[derive(Deserialize)]
struct Component {
    ok: bool,
    detail: Option<String>,
}

pub(super) async fn run(args: HealthArgs, variables: &Variables) -> Result<(), Failure> {
    let client = Client::new(&args.target, variables)?;
    let path = if args.ready { "readyz" } else { "healthz" };
    let asked = tokio::time::timeout(PATIENCE, client.get(&[path], &[])).await;
    let document = match asked {
        Ok(Ok(document)) => document,
        Ok(Err(error)) => return Err(unwell(error)),
        Err(_) => {
            return Err(Failure::failed(format!(
                "no answer from {} in {PATIENCE:?}",
                client.base()
            )));
        }
    };
    let answer = Answer::deserialize(&document).map_err(|error| client.nonsense(&error))?;
    let well: &[&str] = if args.ready {
        &["ready", "degraded"]
    } else {
        &["ok"]
    };
    if !well.contains(&answer.status.as_str()) {
        return Err(client
            .nonsense(&format!("status {:?}", answer.status))
            .into());
    }
    match args.json {
        true => print_json(&document),
        false => print(&format!("{}\n", sentence(&answer))),
    }
}

/// A service that is not ready says in its answer what is missing.
fn unwell(error: ClientError) -> Failure {
    let told = match &error {
        ClientError::Refused { refusal, .. } => refusal.body.as_ref().and_then(told),
        _ => None,
    };
    match told {
        Some(told) => Failure::failed(told),
        None => error.into(),
    }
}

fn told(body: &Value) -> Option<String> {
    Answer::deserialize(body)
        .ok()
        .map(|answer| sentence(&answer))
}

fn sentence(answer: &Answer) -> String {
    let notes: Vec<_> = answer.components.iter().filter_map(note).collect();
    match notes.is_empty() {
        true => harmless(&answer.status),
        false => harmless(&format!("{} ({})", answer.status, notes.join("; "))),
    }
}

/// What is wrong with a part, or worth knowing of it.
fn note((name, component): (&String, &Component)) -> Option<String> {
    match (&component.detail, component.ok) {
        (Some(detail), _) => Some(format!("{name}: {detail}")),
        (None, false) => Some(format!("{name} does not work")),
        (None, true) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::Target;
    use crate::cli::test_server::TestServer;
    use serde_json::json;
    use warp::Filter;
    use warp::http::StatusCode;

    async fn asked(url: &str, ready: bool) -> Result<(), Failure> {
        let target = Target {
            url: Some(url.to_owned()),
            token: None,
            token_file: None,
        };
        let args = HealthArgs {
            ready,
            json: false,
            target,
        };
        run(args, &Variables::new([])).await
    }

    #[tokio::test]
    async fn healthy_and_ready_are_asked_apart() {
        let unready = json!({"status": "unavailable", "components": {
            "store": {"ok": false, "detail": "connection refused"}, "cache": {"ok": false}}});
        let routes = warp::path("healthz")
            .map(|| warp::reply::json(&json!({"status": "ok"})))
            .map(|reply| warp::reply::with_status(reply, StatusCode::OK))
            .or(warp::path("readyz").map(move || {
                let body = warp::reply::json(&unready);
                warp::reply::with_status(body, StatusCode::SERVICE_UNAVAILABLE)
            }))
            .unify();
        let server = TestServer::start(routes).await;
        assert!(asked(&server.url, false).await.is_ok());
        let Err(Failure::Failed(said)) = asked(&server.url, true).await else {
            panic!("a service that is not ready passed for ready");
        };
        assert_eq!(
            said,
            "unavailable (cache does not work; store: connection refused)"
        );
        let gone = asked("http://127.0.0.1:1", false).await;
        assert!(matches!(gone, Err(Failure::Failed(said)) if said.contains("connection refused")));
    }

    #[tokio::test]
    async fn another_program_is_not_taken_for_a_service() {
        let routes = warp::any().map(|| warp::reply::json(&json!({"status": "up"})));
        let server = TestServer::start(routes).await;
        for ready in [false, true] {
            let Err(Failure::Failed(said)) = asked(&server.url, ready).await else {
                panic!("passed for well")
            };
            assert!(said.contains("is this its URL?"), "{said}");
        }
    }

    #[test]
    fn a_degraded_service_says_why() {
        let answer = |document: Value| Answer::deserialize(document).unwrap();
        assert_eq!(sentence(&answer(json!({"status": "ok"}))), "ok");
        let spooling = json!({"status": "degraded", "writes": true, "reads": true, "components":
            {"cache": {"ok": true}, "spool": {"ok": true, "detail": "2 pairs wait"}}});
        assert_eq!(
            sentence(&answer(spooling)),
            "degraded (spool: 2 pairs wait)"
        );
    }
}
