//! The properties of the installation: points in the trend bucket, which has a longer retention than the bucket of the pairs.
//!
//! Each property is a series of its own, and its latest point is its value, or says that it is removed. InfluxDB drops
//! points that are older than the retention, so a read writes an old value again. That copy is dated an hour back, so that
//! a value that another instance sets meanwhile stays the latest.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::InfluxStore;
use super::flux;
use super::line;
use super::query;
use domain::Timestamp;
use domain::store::StoreError;

/// A value older than this is written again.
const RENEW_AFTER: Duration = Duration::from_hours(7 * 24);
/// How far back a renewed value is dated: more than the clocks of two instances may differ.
const RENEWED_AT: Duration = Duration::from_hours(1);
/// The timeout of one request.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A point's value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Document {
    /// The bucket of the pairs: several installations may share the trend bucket.
    bucket: String,
    name: String,
    /// `None` if the property was removed.
    value: Option<String>,
}

impl Document {
    fn new(store: &InfluxStore, name: &str, value: Option<&str>) -> Self {
        Self {
            bucket: store.options.bucket.clone(),
            name: name.to_owned(),
            value: value.map(str::to_owned),
        }
    }
}

/// The properties whose name begins with `prefix`.
pub(super) async fn read(
    store: &InfluxStore,
    prefix: &str,
) -> Result<BTreeMap<String, String>, StoreError> {
    let (mut found, mut may_write) = (BTreeMap::new(), true);
    for (document, at) in latest(store).await? {
        let Some(value) = document.value.clone() else {
            continue;
        };
        if may_write && nanos(RENEW_AFTER) < now().saturating_sub(at) {
            // Best effort: with a token that may only read, another instance renews it and the others.
            if let Err(error) = write(store, &document, now() - nanos(RENEWED_AT)).await {
                tracing::debug!(%error, "properties were not renewed");
                may_write = false;
            }
        }
        if document.name.starts_with(prefix) {
            found.insert(document.name, value);
        }
    }
    Ok(found)
}

/// Sets or removes a property.
pub(super) async fn set(
    store: &InfluxStore,
    name: &str,
    value: Option<&str>,
) -> Result<(), StoreError> {
    let all = latest(store).await?;
    let held = all.into_iter().find(|(document, _)| document.name == name);
    // Another instance's clock may be ahead.
    let at = held.map_or_else(now, |(_, at)| now().max(at.saturating_add(1)));
    write(store, &Document::new(store, name, value), at).await
}

/// The latest point of each property, with its timestamp in nanoseconds since 1970.
async fn latest(store: &InfluxStore) -> Result<Vec<(Document, i64)>, StoreError> {
    let query = flux::properties(&store.options.trend_bucket);
    let rows = query::rows(&store.server, &query, TIMEOUT, |row| {
        // Another program may have written a value that is not a document.
        let document: Option<Document> = serde_json::from_str(row.get("_value")?).ok();
        Ok(document.zip(Some(row.nanos("_time")?)))
    });
    let mut found: Vec<_> = rows.await?.into_iter().flatten().collect();
    found.retain(|(document, _)| document.bucket == store.options.bucket);
    Ok(found)
}

async fn write(store: &InfluxStore, document: &Document, at: i64) -> Result<(), StoreError> {
    let text = serde_json::to_string(document)
        .map_err(|error| StoreError::Unavailable(error.to_string()))?;
    let line = line::property(&document.bucket, &document.name, &text, at);
    let bucket = &store.options.trend_bucket;
    Ok(store.server.write(bucket, line, TIMEOUT).await?)
}

fn now() -> i64 {
    i64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}
