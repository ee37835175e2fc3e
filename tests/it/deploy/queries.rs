//! Runs every query of dashboards and alerts on the real servers of a rehearsal, with Grafana's variables substituted.

use serde_json::Value;

use super::grafana::{DASHBOARDS, alert_rules, dashboard};
use super::prometheus::alerts;
use super::tools::{items, string};

/// The addresses of the servers.
#[derive(Debug)]
pub struct Servers {
    pub influx: String,
    /// A read-only token.
    pub token: String,
    pub prometheus: String,
    pub client: reqwest::Client,
}

impl Servers {
    /// Runs every query. The queries of panels must return rows.
    pub async fn run_all_queries(&self) {
        let mut queried = (0, 0);
        for name in DASHBOARDS {
            let dashboard = dashboard(name);
            let variables = items(&dashboard["templating"]["list"]);
            for variable in variables.filter(|it| it["type"] == "query") {
                let place = format!("{name}: variable {}", variable["name"]);
                let query = string(&variable["query"]["query"]);
                if let Some(arguments) = query.strip_prefix("label_values(") {
                    let selector = arguments.rsplit_once(',').unwrap().0;
                    assert!(self.promql(&place, selector).await > 0, "{place}");
                } else {
                    assert!(self.flux(&place, query).await > 0, "{place}");
                }
            }
            for panel in items(&dashboard["panels"]) {
                for target in items(&panel["targets"]) {
                    let place = format!("{name}: {}: {}", panel["title"], target["refId"]);
                    let found = if let Some(flux) = target["query"].as_str() {
                        queried.0 += 1;
                        self.flux(&place, flux).await
                    } else {
                        queried.1 += 1;
                        self.promql(&place, string(&target["expr"])).await
                    };
                    // There is no history in Prometheus, and services don't count who enters.
                    let expression = target["expr"].as_str().unwrap_or_default();
                    let is_missing = name == "segments-prometheus"
                        && ["offset", "_entered_", "_left_total"]
                            .iter()
                            .any(|part| expression.contains(part));
                    assert!(found > 0 || is_missing, "{place}: no rows");
                }
            }
            for mark in items(&dashboard["annotations"]["list"]) {
                let place = format!("{name}: annotation {}", mark["name"]);
                let found = self.promql(&place, string(&mark["target"]["expr"])).await;
                assert!(found > 0 || mark["name"] != "Starts", "{place}");
            }
        }
        assert!(queried.0 >= 7 && queried.1 >= 30, "{queried:?}");
        for alert in alerts() {
            self.promql(string(&alert["alert"]), string(&alert["expr"]))
                .await;
        }
        for rule in alert_rules() {
            let place = string(&rule["title"]);
            for model in items(&rule["data"]).map(|it| &it["model"]) {
                let found = match (model["expr"].as_str(), model["query"].as_str()) {
                    (Some(promql), _) => self.promql(place, promql).await,
                    (_, Some(flux)) => self.flux(place, flux).await,
                    _ => continue,
                };
                assert_eq!(found, 1, "{place}: a condition needs one number");
            }
        }
    }

    /// The number of rows that a Flux query returns.
    async fn flux(&self, place: &str, query: &str) -> usize {
        let query = substitute_variables(query);
        let request = self
            .client
            .post(format!("{}/api/v2/query?org=headcount", self.influx))
            .header("authorization", format!("Token {}", self.token))
            .header("content-type", "application/vnd.flux")
            .header("accept", "application/csv");
        let response = request.body(query.clone()).send().await.unwrap();
        let (status, text) = (response.status(), response.text().await.unwrap());
        let broken = text.contains("error,reference");
        assert!(status == 200 && !broken, "{place}: {text}\n{query}");
        // Each table has a header line above its rows.
        let rows = text
            .lines()
            .filter(|line| line.starts_with(",_result,") || line.starts_with(",,"));
        rows.count()
    }

    /// The number of series that a PromQL expression returns.
    async fn promql(&self, place: &str, expression: &str) -> usize {
        promql(&self.client, &self.prometheus, place, expression)
            .await
            .len()
    }
}

/// The series that a PromQL expression returns, with Grafana's variables substituted.
pub async fn promql(
    client: &reqwest::Client,
    prometheus: &str,
    place: &str,
    expression: &str,
) -> Vec<Value> {
    let mut query = expression.to_owned();
    for (variable, value) in [
        ("$__rate_interval", "5m"),
        ("$instance", ".*"),
        ("$job", "headcount.*"),
        ("$processes", "headcount.*"),
        ("$window", "14d"),
        ("$top", "10"),
        ("${segment:regex}", ".*"),
        ("${prefix:regex}", ""),
    ] {
        query = query.replace(variable, value);
    }
    assert!(!query.contains('$'), "{place}: {query}");
    let request = client.get(format!("{prometheus}/api/v1/query"));
    let response = request.query(&[("query", &query)]).send().await.unwrap();
    let response: Value = response.json().await.unwrap();
    assert_eq!(response["status"], "success", "{place}: {response}");
    items(&response["data"]["result"]).cloned().collect()
}

/// Substitutes the variables as Grafana does, for the last hour and all segments.
fn substitute_variables(query: &str) -> String {
    let mut query = query.to_owned();
    for (variable, value) in [
        ("v.timeRangeStart", "-1h"),
        ("v.timeRangeStop", "now()"),
        ("v.windowPeriod", "10s"),
        ("v.defaultBucket", "\"headcount_trend\""),
        ("v.organization", "\"headcount\""),
        ("${window}", "1209600s"),
        ("${segment:regex}", "(s00|s0\\/1|.*)"),
        ("${prefix:regex}", "s"),
        ("${top}", "10"),
    ] {
        query = query.replace(variable, value);
    }
    assert!(!query.contains("v.") || !query.contains("${"), "{query}");
    query
}
