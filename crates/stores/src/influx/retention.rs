//! Checks that the bucket's retention is at least the window. Otherwise counts would be too small without any error.

use std::time::Duration;

use parking_lot::Mutex;
use reqwest::Method;
use serde::Deserialize;
use tokio::time::Instant;

use super::error::Error;
use super::server::{Server, send};
use domain::store::StoreError;

/// The interval of checks. Retention changes only by hand, so once a minute is enough; pings are more frequent.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// The maximum size of a response. One bucket takes less than a kilobyte.
const MAX_BYTES: usize = 256 * 1024;

/// The last known retention of the bucket of the pairs.
#[derive(Debug, Default)]
pub(super) struct Retention {
    seen: Mutex<Option<(Instant, Duration)>>,
}

#[derive(Deserialize)]
struct Buckets {
    buckets: Vec<Bucket>,
}

#[derive(Deserialize)]
struct Bucket {
    name: String,
    #[serde(rename = "retentionRules", default)]
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
struct Rule {
    #[serde(rename = "everySeconds", default)]
    seconds: u64,
}

impl Retention {
    /// Fails if the retention of `bucket` is less than `window`. Passes if the retention can't be determined, for example
    /// because the token may not read it: then the first pair that the server drops too early shows the problem.
    pub(super) async fn check(
        &self,
        server: &Server,
        bucket: &str,
        window: Duration,
        within: Duration,
    ) -> Result<(), StoreError> {
        let seen = *self.seen.lock();
        let known = seen.filter(|(at, _)| at.elapsed() < LOOK_EVERY);
        let kept = match known {
            Some((_, kept)) => kept,
            None => match tokio::time::timeout(within, look(server, bucket, within)).await {
                Ok(Ok(Some(kept))) => {
                    *self.seen.lock() = Some((Instant::now(), kept));
                    kept
                }
                _ => return Ok(()),
            },
        };
        if kept >= window {
            return Ok(());
        }
        // Do not cache a failure, so that the next ping notices the repair.
        *self.seen.lock() = None;
        Err(StoreError::NotSetUp(format!(
            "InfluxDB keeps pairs in bucket {bucket:?} for {} s, less than the window of {} s",
            kept.as_secs(),
            window.as_secs()
        )))
    }
}

/// The retention of `bucket`; `None` if the server does not show such a bucket.
async fn look(server: &Server, bucket: &str, within: Duration) -> Result<Option<Duration>, Error> {
    let request = server.org_request(Method::GET, "api/v2/buckets");
    let mut response = send(request.query(&[("name", bucket)]), within).await?;
    if response.status().as_u16() != 200 {
        return Ok(None);
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        body.extend_from_slice(&chunk);
        if body.len() > MAX_BYTES {
            return Ok(None);
        }
    }
    Ok(retention_in(&body, bucket))
}

/// No rule, or a rule of 0 s, means unlimited retention.
fn retention_in(body: &[u8], bucket: &str) -> Option<Duration> {
    let listed: Buckets = serde_json::from_slice(body).ok()?;
    let found = listed.buckets.into_iter().find(|one| one.name == bucket)?;
    let shortest = found.rules.into_iter().map(|rule| rule.seconds);
    let shortest = shortest.filter(|seconds| *seconds > 0).min();
    Some(shortest.map_or(Duration::MAX, Duration::from_secs))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_retention_of_the_bucket_of_that_name_is_read() {
        let body = br#"{"buckets": [
            {"name": "other", "retentionRules": [{"type": "expire", "everySeconds": 1}]},
            {"name": "pairs", "retentionRules": [{"type": "expire", "everySeconds": 3600}]},
            {"name": "for ever", "retentionRules": []},
            {"name": "for ever too", "retentionRules": [{"type": "expire", "everySeconds": 0}]}]}"#;
        let read = |bucket| retention_in(body, bucket);
        assert_eq!(read("pairs"), Some(Duration::from_secs(3600)));
        assert_eq!(read("for ever"), Some(Duration::MAX));
        assert_eq!(read("for ever too"), Some(Duration::MAX));
        assert_eq!(read("none"), None);
        assert_eq!(retention_in(b"<html>", "pairs"), None);
    }
}
