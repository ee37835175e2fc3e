//! `headcount coverage`: prints since when the counts of a service are complete, or states it.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Failure;
use super::args::CoverageArgs;
use super::client::{Client, ClientError};
use super::output::{grouped, print, print_json, sanitized};
use super::variables::Variables;

const PATH: [&str; 2] = ["v1", "coverage"];
const ADMIN_PATH: [&str; 3] = ["v1", "admin", "coverage"];

/// The two members of every answer with numbers, and a service's response. Version 0.1.0 has neither.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Covered {
    #[serde(skip_serializing_if = "Option::is_none")]
    covered_since: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    complete: Option<bool>,
}

#[derive(Deserialize)]
struct Coverage {
    #[serde(flatten)]
    covered: Covered,
    complete_from: Option<String>,
    losses: Vec<Loss>,
}

#[derive(Deserialize)]
struct Loss {
    from: String,
    until: String,
    pairs: Option<u64>,
    reason: String,
}

impl Covered {
    /// A remark on counts that are not complete.
    pub(super) fn remark(&self) -> Option<String> {
        if self.complete != Some(false) {
            return None;
        }
        Some(match &self.covered_since {
            Some(since) => format!(
                "warning: not complete: users who were last seen before {} may be missing; see `headcount coverage`",
                sanitized(since)
            ),
            None => "warning: it is not known since when counts are complete: users may be missing"
                .to_owned(),
        })
    }
}

pub(super) async fn run(args: CoverageArgs, variables: &Variables) -> Result<(), Failure> {
    let client = Client::new(&args.target, variables)?;
    let document = match &args.since {
        None => client.get(&PATH, &[]).await?,
        Some(since) => state(&client, since).await?,
    };
    let coverage = Coverage::deserialize(&document).map_err(|error| client.unexpected(&error))?;
    match args.json {
        true => print_json(&document),
        false => print(&text(&coverage)),
    }
}

/// States that the store has every pair that was seen since `since`.
pub(super) async fn state(client: &Client, since: &str) -> Result<Value, ClientError> {
    client.put(&ADMIN_PATH, &[("since", since)]).await
}

fn text(coverage: &Coverage) -> String {
    let covered = &coverage.covered;
    let mut text = match &covered.covered_since {
        Some(since) => format!(
            "every pair is counted that was seen since {}\n",
            sanitized(since)
        ),
        None => "it is not known since when every pair is counted\n".to_owned(),
    };
    match (covered.complete, &coverage.complete_from) {
        (Some(true), _) => text += "counts over the configured window are complete\n",
        (_, Some(from)) => {
            text += &format!(
                "counts over the configured window are complete from {} on\n",
                sanitized(from)
            );
        }
        (_, None) => {}
    }
    for loss in &coverage.losses {
        let pairs = match loss.pairs {
            Some(1) => "1 pair".to_owned(),
            Some(pairs) => format!("{} pairs", grouped(pairs)),
            None => "pairs".to_owned(),
        };
        text += &format!(
            "may be missing: {pairs} from {} to {} ({})\n",
            sanitized(&loss.from),
            sanitized(&loss.until),
            sanitized(&loss.reason)
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn people_read_since_when_and_why() {
        let coverage = json!({
            "covered_since": "2026-11-20T14:05:00Z", "complete": false, "complete_from": "2026-12-04T14:04:00Z",
            "losses": [
                {"from": "2026-11-20T13:40:00Z", "until": "2026-11-20T14:05:00Z", "pairs": 4200, "reason": "unavailable"},
                {"from": "2026-11-01T00:00:00Z", "until": "2026-11-02T00:00:00Z", "pairs": null, "reason": "not_running"}
            ]
        });
        assert_eq!(
            text(&Coverage::deserialize(coverage).unwrap()),
            "every pair is counted that was seen since 2026-11-20T14:05:00Z\n\
             counts over the configured window are complete from 2026-12-04T14:04:00Z on\n\
             may be missing: 4,200 pairs from 2026-11-20T13:40:00Z to 2026-11-20T14:05:00Z (unavailable)\n\
             may be missing: pairs from 2026-11-01T00:00:00Z to 2026-11-02T00:00:00Z (not_running)\n"
        );
    }

    #[test]
    fn only_counts_that_are_known_to_be_incomplete_are_remarked_on() {
        let remark = |covered: Value| Covered::deserialize(covered).unwrap().remark();
        assert_eq!(remark(json!({})), None, "version 0.1.0");
        assert_eq!(
            remark(json!({"covered_since": "2026-11-20T14:05:00Z", "complete": true})),
            None
        );
        let since = remark(json!({"covered_since": "2026-11-20T14:05:00Z", "complete": false}));
        assert!(since.unwrap().contains("2026-11-20T14:05:00Z"));
        assert!(remark(json!({"covered_since": null, "complete": false})).is_some());
    }
}
