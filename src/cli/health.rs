//! `headcount health`: checks a service or worker, for the health checks of container orchestrators.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::Failure;
use super::args::HealthArgs;
use super::client::{Client, ClientError};
use super::output::{print, print_json, sanitized};
use super::variables::Variables;

/// The timeout of the request. Orchestrators check often, and a slower service is not healthy.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The fields of the `/healthz` and `/readyz` documents that are displayed.
#[derive(Deserialize)]
struct HealthResponse {
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
    let response = tokio::time::timeout(TIMEOUT, client.get(&[path], &[])).await;
    let document = match response {
        Ok(Ok(document)) => document,
        Ok(Err(error)) => return Err(unhealthy(error)),
        Err(_) => {
            return Err(Failure::failed(format!(
                "no response from {} within {TIMEOUT:?}",
                client.base()
            )));
        }
    };
    let response =
        HealthResponse::deserialize(&document).map_err(|error| client.unexpected(&error))?;
    let healthy: &[&str] = if args.ready {
        &["ready", "degraded"]
    } else {
        &["ok"]
    };
    if !healthy.contains(&response.status.as_str()) {
        return Err(client
            .unexpected(&format!("status {:?}", response.status))
            .into());
    }
    match args.json {
        true => print_json(&document),
        false => print(&format!("{}\n", sentence(&response))),
    }
}

/// The failure to report. The response of a service that is not ready names the components that are unavailable.
fn unhealthy(error: ClientError) -> Failure {
    let reason = match &error {
        ClientError::Refused { refusal, .. } => refusal.body.as_ref().and_then(reason),
        _ => None,
    };
    match reason {
        Some(reason) => Failure::failed(reason),
        None => error.into(),
    }
}

fn reason(body: &Value) -> Option<String> {
    HealthResponse::deserialize(body)
        .ok()
        .map(|response| sentence(&response))
}

fn sentence(response: &HealthResponse) -> String {
    let notes: Vec<_> = response.components.iter().filter_map(note).collect();
    match notes.is_empty() {
        true => sanitized(&response.status),
        false => sanitized(&format!("{} ({})", response.status, notes.join("; "))),
    }
}

/// The detail of a component, or that it fails.
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

    async fn check(url: &str, ready: bool) -> Result<(), Failure> {
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
        assert!(check(&server.url, false).await.is_ok());
        let Err(Failure::Failed(said)) = check(&server.url, true).await else {
            panic!("a service that is not ready passed for ready");
        };
        assert_eq!(
            said,
            "unavailable (cache does not work; store: connection refused)"
        );
        let gone = check("http://127.0.0.1:1", false).await;
        assert!(matches!(gone, Err(Failure::Failed(said)) if said.contains("connection refused")));
    }

    #[tokio::test]
    async fn another_program_is_not_taken_for_a_service() {
        let routes = warp::any().map(|| warp::reply::json(&json!({"status": "up"})));
        let server = TestServer::start(routes).await;
        for ready in [false, true] {
            let Err(Failure::Failed(said)) = check(&server.url, ready).await else {
                panic!("passed for well")
            };
            assert!(said.contains("is it the URL"), "{said}");
        }
    }

    #[test]
    fn a_degraded_service_says_why() {
        let response = |document: Value| HealthResponse::deserialize(document).unwrap();
        assert_eq!(sentence(&response(json!({"status": "ok"}))), "ok");
        let spooling = json!({"status": "degraded", "writes": true, "reads": true, "components":
            {"cache": {"ok": true}, "spool": {"ok": true, "detail": "2 pairs wait"}}});
        assert_eq!(
            sentence(&response(spooling)),
            "degraded (spool: 2 pairs wait)"
        );
    }
}
