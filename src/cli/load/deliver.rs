//! Delivery of one batch, with retries and exponential backoff up to a time limit.

use std::collections::BTreeMap;
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use bytes::Bytes;
use reqwest::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::Instant;

use crate::cli::client::ClientError;

/// The response to POST /v1/pairs.
#[derive(Debug, Default, Deserialize, Serialize)]
pub(super) struct PairsResponse {
    pub(super) accepted: u64,
    pub(super) rejected: u64,
    #[serde(default)]
    pub(super) errors: Vec<ItemError>,
    /// The number of rejected pairs by code, also of those that are not in `errors`. Version 0.1.0 does not return it.
    #[serde(default)]
    pub(super) codes: BTreeMap<String, u64>,
    /// Warnings about accepted pairs that were probably not meant as the service understands them.
    #[serde(default)]
    pub(super) warnings: Vec<String>,
    /// `"spooled"` if the pairs wait in the service's spool until its store is available.
    #[serde(default)]
    pub(super) durable: Option<String>,
}

/// Why one pair was rejected.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct ItemError {
    pub(super) index: usize,
    pub(super) code: String,
    pub(super) message: String,
}

/// The backoff if the response has no `Retry-After`.
const BACKOFF: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_millis(200))
    .with_max_delay(Duration::from_secs(10))
    .without_max_times();

/// Posts `body` until the service returns a result, an error that is not retryable, or `retry_for` has passed since the
/// first failure. `retrying` is called before each retry. After an error no pair of the body counts as delivered.
///
/// Retrying is safe: a repeated pair has no effect.
pub(super) async fn deliver(
    post: impl AsyncFn(Bytes) -> Result<Value, ClientError>,
    body: Bytes,
    retry_for: Duration,
    retrying: impl FnMut(&ClientError, Duration),
) -> Result<PairsResponse, ClientError> {
    let mut give_up_at = None;
    (|| async { parse(post(body.clone()).await) })
        .retry(BACKOFF)
        .when(is_retryable)
        .adjust(|error, wait| {
            let now = Instant::now();
            let left = *give_up_at.get_or_insert(now + retry_for) - now;
            // Jitter keeps clients that were refused at the same time from retrying at the same time.
            let wait = retry_after(error)
                .or(wait)?
                .mul_f64(1.0 + fastrand::f64() / 4.0);
            // The last attempt is at the end of the allowed time, not before.
            (!left.is_zero()).then(|| wait.min(left))
        })
        .notify(retrying)
        .await
}

fn is_retryable(error: &ClientError) -> bool {
    match error {
        ClientError::Unreachable { .. } | ClientError::NoResponse { .. } => true,
        ClientError::Unexpected { .. } => false,
        ClientError::Refused { refusal, .. } => {
            let status = refusal.status;
            status.is_server_error()
                || status == StatusCode::TOO_MANY_REQUESTS
                || status == StatusCode::REQUEST_TIMEOUT
        }
    }
}

/// The `Retry-After` of the response, within bounds.
fn retry_after(error: &ClientError) -> Option<Duration> {
    // A wait of 0 must not cause a busy loop. A wait of hours can only come from a broken header.
    const SHORTEST: Duration = Duration::from_millis(20);
    const LONGEST: Duration = Duration::from_mins(10);
    let ClientError::Refused { refusal, .. } = error else {
        return None;
    };
    let wait = refusal.retry_after?;
    Some(wait.clamp(SHORTEST, LONGEST))
}

fn parse(response: Result<Value, ClientError>) -> Result<PairsResponse, ClientError> {
    let document = match response {
        Ok(document) => document,
        Err(ClientError::Refused { base, refusal })
            if refusal.status == StatusCode::UNPROCESSABLE_ENTITY =>
        {
            // A result like any other: every pair was rejected.
            let parsed = refusal.body.as_ref().map(PairsResponse::deserialize);
            return match parsed {
                Some(Ok(response)) => Ok(response),
                _ => Err(ClientError::Refused { base, refusal }),
            };
        }
        Err(error) => return Err(error),
    };
    PairsResponse::deserialize(document).map_err(|error| ClientError::Unexpected {
        base: "the service".into(),
        reason: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::client::Refusal;
    use std::cell::{Cell, RefCell};

    fn refused(status: u16, retry_after: Option<u64>) -> Result<Value, ClientError> {
        Err(ClientError::Refused {
            base: "http://x".into(),
            refusal: Box::new(Refusal {
                status: StatusCode::from_u16(status).unwrap(),
                retry_after: retry_after.map(Duration::from_secs),
                ..Refusal::default()
            }),
        })
    }

    fn unavailable() -> Result<Value, ClientError> {
        let (base, reason) = ("http://x".into(), "connection refused".into());
        Err(ClientError::Unreachable { base, reason })
    }

    fn accepted() -> Result<Value, ClientError> {
        Ok(serde_json::json!({"accepted": 2, "rejected": 0, "errors": []}))
    }

    /// Delivers to a service that returns these responses in turn, and repeats the last one. Returns the number of
    /// requests, the time that passed, and the result. Time is paused: waits are measured but don't take real time.
    async fn deliver_to(
        responses: &[fn() -> Result<Value, ClientError>],
        retry_for: Duration,
    ) -> (usize, Duration, Result<PairsResponse, ClientError>) {
        let requests = Cell::new(0);
        let bodies = RefCell::new(Vec::new());
        let begun = Instant::now();
        let post = async |body: Bytes| {
            bodies.borrow_mut().push(body);
            let turn = requests.replace(requests.get() + 1);
            responses[turn.min(responses.len() - 1)]()
        };
        let delivery = deliver(post, Bytes::from("lines"), retry_for, |_, _| {}).await;
        assert!(bodies.borrow().iter().all(|body| body == "lines"));
        (requests.get(), begun.elapsed(), delivery)
    }

    const MINUTE: Duration = Duration::from_mins(1);

    #[tokio::test(start_paused = true)]
    async fn waits_as_long_as_the_service_asks_with_some_jitter() {
        let responses: &[fn() -> _] =
            &[|| refused(429, Some(3)), || refused(503, Some(2)), accepted];
        let (requests, took, delivery) = deliver_to(responses, MINUTE).await;
        assert_eq!(requests, 3);
        assert!(
            took >= Duration::from_secs(5) && took < Duration::from_millis(6_300),
            "{took:?}"
        );
        assert!(matches!(delivery, Ok(response) if response.accepted == 2));
    }

    #[tokio::test(start_paused = true)]
    async fn backs_off_by_itself_while_nothing_answers() {
        let responses: &[fn() -> _] = &[
            unavailable,
            unavailable,
            || refused(500, None),
            || refused(502, None),
            accepted,
        ];
        let (requests, took, _) = deliver_to(responses, MINUTE).await;
        assert_eq!(requests, 5);
        assert!(
            took >= Duration::from_secs(3) && took < Duration::from_secs(4),
            "{took:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn gives_up_when_its_time_is_over_and_not_before() {
        let (requests, took, delivery) = deliver_to(&[unavailable], MINUTE).await;
        assert!(requests > 5);
        assert!(
            took >= MINUTE && took < MINUTE + Duration::from_secs(1),
            "{took:?}"
        );
        assert!(matches!(delivery, Err(ClientError::Unreachable { .. })));
        let (requests, _, _) = deliver_to(&[unavailable], Duration::ZERO).await;
        assert_eq!(requests, 1);
        // `Retry-After` exceeds the time that is left: one last attempt is made at its end.
        let (requests, took, _) = deliver_to(&[|| refused(503, Some(3_600))], MINUTE).await;
        assert_eq!((requests, took.as_secs()), (2, 60));
    }

    #[tokio::test(start_paused = true)]
    async fn what_will_not_change_is_not_repeated() {
        for response in [
            || refused(400, None),
            || refused(401, None),
            || refused(403, None),
            || refused(413, Some(1)),
            || refused(422, None),
            || Ok(Value::Null),
        ] {
            let (requests, took, delivery) = deliver_to(&[response], MINUTE).await;
            assert_eq!((requests, took), (1, Duration::ZERO));
            assert!(delivery.is_err());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_422_that_judges_each_pair_is_a_verdict() {
        let response: fn() -> _ = || {
            let mut response = refused(422, None);
            if let Err(ClientError::Refused { refusal, .. }) = &mut response {
                let error = serde_json::json!({"index": 0, "code": "expired", "message": "m"});
                let body = serde_json::json!({"accepted": 0, "rejected": 1, "errors": [error]});
                refusal.body = Some(body);
            }
            response
        };
        let (_, _, delivery) = deliver_to(&[response], MINUTE).await;
        assert!(matches!(delivery, Ok(response) if response.errors[0].code == "expired"));
    }
}
