//! Delivery of one parcel: again and again while the service can't take it, and no longer than allowed.

use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use bytes::Bytes;
use reqwest::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::Instant;

use crate::cli::client::ClientError;

/// The service's answer to POST /v1/pairs.
#[derive(Debug, Default, Deserialize, Serialize)]
pub(super) struct Verdict {
    pub(super) accepted: u64,
    pub(super) rejected: u64,
    #[serde(default)]
    pub(super) errors: Vec<ItemError>,
    /// What was accepted and probably means something else than it seems to.
    #[serde(default)]
    pub(super) warnings: Vec<String>,
    /// `"spooled"` when the pairs wait on the service's disk for its store.
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

/// The waits when the service names none.
const WAITS: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_millis(200))
    .with_max_delay(Duration::from_secs(10))
    .without_max_times();

/// Posts `body` until the service judges it, refuses it for good, or `retry_for` has passed since the first
/// failure. `retrying` hears of each failure that leads to another try. After an error nothing counts as delivered.
///
/// Repeating is safe: a pair counts once however often it comes.
pub(super) async fn deliver(
    post: impl AsyncFn(Bytes) -> Result<Value, ClientError>,
    body: Bytes,
    retry_for: Duration,
    retrying: impl FnMut(&ClientError, Duration),
) -> Result<Verdict, ClientError> {
    let mut give_up_at = None;
    (|| async { judged(post(body.clone()).await) })
        .retry(WAITS)
        .when(may_pass)
        .adjust(|error, wait| {
            let now = Instant::now();
            let left = *give_up_at.get_or_insert(now + retry_for) - now;
            // Jitter keeps many loaders that were turned away together from coming back together.
            let wait = asked(error).or(wait)?.mul_f64(1.0 + fastrand::f64() / 4.0);
            // The last try comes at the end of the allowed time, not before.
            (!left.is_zero()).then(|| wait.min(left))
        })
        .notify(retrying)
        .await
}

fn may_pass(error: &ClientError) -> bool {
    match error {
        ClientError::Unreachable { .. } | ClientError::Lost { .. } => true,
        ClientError::Nonsense { .. } => false,
        ClientError::Refused { refusal, .. } => {
            let status = refusal.status;
            status.is_server_error()
                || status == StatusCode::TOO_MANY_REQUESTS
                || status == StatusCode::REQUEST_TIMEOUT
        }
    }
}

/// How long the service asks to wait.
fn asked(error: &ClientError) -> Option<Duration> {
    // "At once" may not become a busy loop; and no service means a wait of hours, a broken header might.
    const SHORTEST: Duration = Duration::from_millis(20);
    const LONGEST: Duration = Duration::from_mins(10);
    let ClientError::Refused { refusal, .. } = error else {
        return None;
    };
    let asked = refusal.retry_after?;
    Some(asked.clamp(SHORTEST, LONGEST))
}

fn judged(answer: Result<Value, ClientError>) -> Result<Verdict, ClientError> {
    let document = match answer {
        Ok(document) => document,
        Err(ClientError::Refused { base, refusal })
            if refusal.status == StatusCode::UNPROCESSABLE_ENTITY =>
        {
            // Each pair was judged, and none accepted: that is an answer like any other.
            let verdict = refusal.body.as_ref().map(Verdict::deserialize);
            return match verdict {
                Some(Ok(verdict)) => Ok(verdict),
                _ => Err(ClientError::Refused { base, refusal }),
            };
        }
        Err(error) => return Err(error),
    };
    Verdict::deserialize(document).map_err(|error| ClientError::Nonsense {
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

    fn away() -> Result<Value, ClientError> {
        let (base, reason) = ("http://x".into(), "connection refused".into());
        Err(ClientError::Unreachable { base, reason })
    }

    fn accepted() -> Result<Value, ClientError> {
        Ok(serde_json::json!({"accepted": 2, "rejected": 0, "errors": []}))
    }

    /// Delivers to a service that gives these answers in turn, the last one for ever; returns how often it was
    /// asked, how long that took and what came of it. Time is paused: waits pass at once, but are measured.
    async fn deliver_to(
        answers: &[fn() -> Result<Value, ClientError>],
        retry_for: Duration,
    ) -> (usize, Duration, Result<Verdict, ClientError>) {
        let asked = Cell::new(0);
        let bodies = RefCell::new(Vec::new());
        let begun = Instant::now();
        let post = async |body: Bytes| {
            bodies.borrow_mut().push(body);
            let turn = asked.replace(asked.get() + 1);
            answers[turn.min(answers.len() - 1)]()
        };
        let delivery = deliver(post, Bytes::from("lines"), retry_for, |_, _| {}).await;
        assert!(bodies.borrow().iter().all(|body| body == "lines"));
        (asked.get(), begun.elapsed(), delivery)
    }

    const MINUTE: Duration = Duration::from_mins(1);

    #[tokio::test(start_paused = true)]
    async fn waits_as_long_as_the_service_asks_with_some_jitter() {
        let answers: &[fn() -> _] = &[|| refused(429, Some(3)), || refused(503, Some(2)), accepted];
        let (asked, took, delivery) = deliver_to(answers, MINUTE).await;
        assert_eq!(asked, 3);
        assert!(
            took >= Duration::from_secs(5) && took < Duration::from_millis(6_300),
            "{took:?}"
        );
        assert!(matches!(delivery, Ok(verdict) if verdict.accepted == 2));
    }

    #[tokio::test(start_paused = true)]
    async fn backs_off_by_itself_while_nothing_answers() {
        let answers: &[fn() -> _] = &[
            away,
            away,
            || refused(500, None),
            || refused(502, None),
            accepted,
        ];
        let (asked, took, _) = deliver_to(answers, MINUTE).await;
        assert_eq!(asked, 5);
        assert!(
            took >= Duration::from_secs(3) && took < Duration::from_secs(4),
            "{took:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn gives_up_when_its_time_is_over_and_not_before() {
        let (asked, took, delivery) = deliver_to(&[away], MINUTE).await;
        assert!(asked > 5);
        assert!(
            took >= MINUTE && took < MINUTE + Duration::from_secs(1),
            "{took:?}"
        );
        assert!(matches!(delivery, Err(ClientError::Unreachable { .. })));
        let (asked, _, _) = deliver_to(&[away], Duration::ZERO).await;
        assert_eq!(asked, 1);
        // The service asks for more time than there is: one last try at the end of it.
        let (asked, took, _) = deliver_to(&[|| refused(503, Some(3_600))], MINUTE).await;
        assert_eq!((asked, took.as_secs()), (2, 60));
    }

    #[tokio::test(start_paused = true)]
    async fn what_will_not_change_is_not_repeated() {
        for answer in [
            || refused(400, None),
            || refused(401, None),
            || refused(403, None),
            || refused(413, Some(1)),
            || refused(422, None),
            || Ok(Value::Null),
        ] {
            let (asked, took, delivery) = deliver_to(&[answer], MINUTE).await;
            assert_eq!((asked, took), (1, Duration::ZERO));
            assert!(delivery.is_err());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_422_that_judges_each_pair_is_a_verdict() {
        let answer: fn() -> _ = || {
            let mut answer = refused(422, None);
            if let Err(ClientError::Refused { refusal, .. }) = &mut answer {
                let error = serde_json::json!({"index": 0, "code": "expired", "message": "m"});
                let body = serde_json::json!({"accepted": 0, "rejected": 1, "errors": [error]});
                refusal.body = Some(body);
            }
            answer
        };
        let (_, _, delivery) = deliver_to(&[answer], MINUTE).await;
        assert!(matches!(delivery, Ok(verdict) if verdict.errors[0].code == "expired"));
    }
}
