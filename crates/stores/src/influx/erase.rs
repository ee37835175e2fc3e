//! Deletes single points, and all points of a segment.
//!
//! The predicate of a delete supports only tags and the measurement, and the user is a field. But a time range of one
//! nanosecond and the segment identify one point: the point of the user, or of another user whose point has the same
//! timestamp and overwrote it. A delete takes the server tens of milliseconds, whatever it deletes. Concurrent deletes
//! gain nothing (measured).

use std::time::Duration;

use futures::stream::{self, StreamExt};
use jiff::Timestamp;
use reqwest::Method;
use serde_json::json;
use tokio::time::Instant;

use super::InfluxStore;
use super::error::Error;
use super::line::{PAIR, TREND, stored_tag};
use super::server::expect_no_content;
use domain::Segment;
use domain::store::StoreError;

/// Concurrent deletes. Two hide the network latency: one is queued at the server while the other is in transit.
const AT_ONCE: usize = 2;
/// The timeout of one delete.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The segment and the timestamp of a pair's point.
pub(super) type Point = (Segment, i64);

/// Deletes points until `deadline`. Returns the points whose deletion the server did not confirm.
pub(super) async fn delete(store: &InfluxStore, points: &[Point], deadline: Instant) -> Vec<Point> {
    // The first delete shows whether the token has the permission and the server is available.
    let [first, others @ ..] = points else {
        return Vec::new();
    };
    if let Err(error) = delete_one(store, first, deadline).await {
        tracing::warn!(%error, "InfluxDB did not delete a point; overwriting all points instead");
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
        .map_err(|_| Error::InvalidResponse("a timestamp out of range".into()))?;
    let deletion = Deletion {
        bucket: &store.options.bucket,
        range: (at, at),
        measurement: PAIR,
        segment,
    };
    deletion.send(store, left.min(TIMEOUT)).await
}

/// Deletes all points of a segment in the two buckets that may exist until `stop`.
pub(super) async fn delete_segment(
    store: &InfluxStore,
    segment: &Segment,
    stop: Timestamp,
) -> Result<(), StoreError> {
    let options = &store.options;
    for (bucket, measurement) in [(&options.bucket, PAIR), (&options.trend_bucket, TREND)] {
        let deletion = Deletion {
            bucket,
            range: (Timestamp::UNIX_EPOCH, stop),
            measurement,
            segment,
        };
        deletion.send(store, options.query_timeout).await?;
    }
    Ok(())
}

/// The points of a segment within a range, both ends inclusive.
struct Deletion<'a> {
    bucket: &'a str,
    range: (Timestamp, Timestamp),
    measurement: &'static str,
    segment: &'a Segment,
}

impl Deletion<'_> {
    async fn send(&self, store: &InfluxStore, within: Duration) -> Result<(), Error> {
        let (start, stop) = self.range;
        let body = json!({
            "start": start.to_string(),
            "stop": stop.to_string(),
            "predicate": predicate(self.measurement, self.segment),
        });
        let request = store
            .server
            .org_request(Method::POST, "api/v2/delete")
            .query(&[("bucket", self.bucket)])
            .json(&body);
        expect_no_content(request, within).await
    }
}

/// Selects the points of `segment`. A quoted string of InfluxQL has two escapes.
fn predicate(measurement: &str, segment: &Segment) -> String {
    let tag = stored_tag(segment)
        .replace('\\', "\\\\")
        .replace('"', "\\\"");
    format!("_measurement=\"{measurement}\" AND segment=\"{tag}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_can_not_leave_its_literal() {
        let segment = |name| Segment::new(name).unwrap();
        assert_eq!(
            predicate(PAIR, &segment(r#"a"b\c AND"#)),
            r#"_measurement="pair" AND segment="a\"b\\c AND""#
        );
    }
}
