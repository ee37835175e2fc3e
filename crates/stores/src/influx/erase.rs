//! Deleting single points.
//!
//! The predicate of a delete knows tags and the measurement only, and the user is a field. But a range of time of one
//! nanosecond and the segment name one point: the user's (or that of another one who shares the point and is hidden by
//! it). A delete takes the server tens of milliseconds whatever it deletes, and several at once gain nothing (measured).

use std::time::Duration;

use futures::stream::{self, StreamExt};
use jiff::Timestamp;
use reqwest::Method;
use serde_json::json;
use tokio::time::Instant;

use super::InfluxStore;
use super::error::Error;
use super::line::{PAIR, stored_tag};
use super::server::{refusal, send};
use domain::Segment;

/// Deletes under way at a time: one waits at the server while another is on its way.
const AT_ONCE: usize = 2;
/// How long one delete may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A point of a pair.
pub(super) type Point = (Segment, i64);

/// Deletes points until `deadline`, and returns those of which the server did not say that they are gone.
pub(super) async fn delete(store: &InfluxStore, points: &[Point], deadline: Instant) -> Vec<Point> {
    // The first one tells whether the token may, and whether the server is there.
    let [first, others @ ..] = points else {
        return Vec::new();
    };
    if let Err(error) = delete_one(store, first, deadline).await {
        tracing::warn!(%error, "InfluxDB deletes no points for this token: they are overwritten");
        return points.to_vec();
    }
    let deleted = stream::iter(others.to_vec()).map(|point| async move {
        match delete_one(store, &point, deadline).await {
            Ok(()) => None,
            Err(error) => {
                tracing::debug!(%error, "a point was not deleted");
                Some(point)
            }
        }
    });
    deleted
        .buffer_unordered(AT_ONCE)
        .filter_map(async |left| left)
        .collect()
        .await
}

async fn delete_one(
    store: &InfluxStore,
    (segment, nanos): &Point,
    deadline: Instant,
) -> Result<(), Error> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(Error::TimedOut(Duration::ZERO));
    }
    let at = Timestamp::from_nanosecond(i128::from(*nanos))
        .map_err(|_| Error::Nonsense("a time out of range".into()))?;
    // Both ends belong to the range.
    let body = json!({
        "start": at.to_string(),
        "stop": at.to_string(),
        "predicate": predicate(segment),
    });
    let request = store
        .server
        .org_request(Method::POST, "api/v2/delete")
        .query(&[("bucket", store.options.bucket.as_str())])
        .json(&body);
    let within = left.min(PATIENCE);
    let response = send(request, within).await?;
    if response.status().as_u16() == 204 {
        return Ok(());
    }
    let refused = tokio::time::timeout(within, refusal(response)).await;
    Err(refused.unwrap_or(Error::TimedOut(within)))
}

/// The points of pairs of `segment`. InfluxQL has two escapes within quotes.
fn predicate(segment: &Segment) -> String {
    let tag = stored_tag(segment)
        .replace('\\', "\\\\")
        .replace('"', "\\\"");
    format!("_measurement=\"{PAIR}\" AND segment=\"{tag}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_can_not_leave_its_literal() {
        let segment = |name| Segment::new(name).unwrap();
        assert_eq!(
            predicate(&segment(r#"a"b\c AND"#)),
            r#"_measurement="pair" AND segment="a\"b\\c AND""#
        );
    }
}
