//! Whether the bucket keeps pairs for as long as the window, or else counts are too small and nobody says so.

use std::time::Duration;

use parking_lot::Mutex;
use reqwest::Method;
use serde::Deserialize;
use tokio::time::Instant;

use super::error::Error;
use super::server::{Server, send};
use domain::store::StoreError;

/// A bucket's retention changes when somebody changes it: looking once a minute is enough, and pings come more often.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// The longest answer that is read: one bucket takes less than a kilobyte.
const MAX_BYTES: usize = 256 * 1024;

/// What is known of the retention of the bucket of pairs.
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
    /// An error when `bucket` keeps points for less than `window`. A token that may not look at the bucket, and any other
    /// failure to find out, is none: the first pair that the server drops too early says it then.
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
        // Once it is mended, the next ping says so.
        *self.seen.lock() = None;
        Err(StoreError::NotSetUp(format!(
            "InfluxDB keeps pairs in bucket {bucket:?} for {} s, less than the window of {} s",
            kept.as_secs(),
            window.as_secs()
        )))
    }
}

/// How long `bucket` keeps its points; `None` when the server shows no such bucket.
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

/// No rule, and a rule of 0 s, keep for ever.
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
