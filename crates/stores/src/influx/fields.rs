//! Detects mixed field types in a bucket. If two shards have different types for a field, Flux silently omits rows.
//!
//! A field's type belongs to a measurement and a shard. One point `pair,segment=x user=1i` of another program, in a
//! day that has no pairs yet, makes `user` an integer there, for every segment. A query over several shards takes the
//! type from the first shard, and stops without an error at the first shard with another type (`storage/reads`,
//! `createCursor` and `nextArrayCursor` in the server's source). A count over such a day would be too small, down to 0.
//!
//! `SHOW FIELD KEYS` returns the types of all shards, from memory, in about a millisecond. A reader runs it *after* its
//! query: by then, every shard that the query could read has its type. If types differ, or the server can't report them,
//! the reader runs the query again for each shard separately, because a shard has only one type.

use std::collections::BTreeSet;
use std::time::Duration;

use parking_lot::Mutex;
use reqwest::Method;
use serde::Deserialize;
use tokio::time::Instant;

use super::error::Error;
use super::line::{ERASED, PAIR, TREND, USER, USERS};
use super::server::{Server, refusal, send};

/// How long a bucket with mixed types is assumed to stay mixed, without another check.
const MIXED_FOR: Duration = Duration::from_secs(60);
/// The minimum time between two warnings about the same bucket.
const WARN_EVERY: Duration = Duration::from_secs(600);
/// The maximum size of a response.
const MAX_BYTES: usize = 1024 * 1024;

/// The known state of the fields of one bucket.
#[derive(Debug)]
pub(super) struct Fields {
    bucket: String,
    mixed_until: Mutex<Option<Instant>>,
    /// The time of the last warning.
    warned: Mutex<Option<Instant>>,
    /// The foreign points that the latest check found.
    foreign: Mutex<Vec<String>>,
}

/// The result of a check.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// Whether shards may have different types for a field that queries read.
    pub(super) is_mixed: bool,
    /// Whether points may have been overwritten instead of deleted.
    pub(super) has_erased: bool,
    /// Descriptions of the points that other programs wrote into the measurements of pairs and trends.
    pub(super) foreign: Vec<String>,
}

impl Fields {
    pub(super) fn of(bucket: &str) -> Self {
        Self {
            bucket: bucket.to_owned(),
            mixed_until: Mutex::new(None),
            warned: Mutex::new(None),
            foreign: Mutex::default(),
        }
    }

    /// A description of the foreign points that the latest check found; `None` if there were none.
    pub(super) fn foreign(&self) -> Option<String> {
        let foreign = self.foreign.lock();
        (!foreign.is_empty())
            .then(|| format!("bucket {:?} has {}", self.bucket, foreign.join("; ")))
    }

    /// Whether a recent check found mixed types.
    pub(super) fn are_mixed(&self) -> bool {
        self.mixed_until
            .lock()
            .is_some_and(|until| Instant::now() < until)
    }

    /// Checks the field types on the server.
    pub(super) async fn look(&self, server: &Server, within: Duration) -> Result<Found, Error> {
        let found = match field_types(server, &self.bucket, within).await? {
            Some(keys) => judge(&keys),
            // An old server without a mapping for this bucket, or a proxy that supports only Flux.
            None => Found {
                is_mixed: true,
                has_erased: true,
                foreign: Vec::new(),
            },
        };
        self.foreign.lock().clone_from(&found.foreign);
        *self.mixed_until.lock() = found.is_mixed.then(|| Instant::now() + MIXED_FOR);
        if !found.foreign.is_empty() && self.should_warn() {
            tracing::warn!(
                bucket = self.bucket,
                found = found.foreign.join("; "),
                "foreign points in this bucket: InfluxDB refuses pairs of the affected days until they are deleted"
            );
        }
        Ok(found)
    }

    fn should_warn(&self) -> bool {
        let mut warned = self.warned.lock();
        let is_time = warned.is_none_or(|at| at.elapsed() >= WARN_EVERY);
        if is_time {
            *warned = Some(Instant::now());
        }
        is_time
    }
}

/// A measurement, a field, and a type of the field in some shard.
type Key = (String, String, String);

#[derive(Deserialize)]
struct ShowResponse {
    #[serde(default)]
    results: Vec<StatementResult>,
}

#[derive(Deserialize)]
struct StatementResult {
    #[serde(default)]
    series: Vec<Series>,
    error: Option<String>,
}

#[derive(Deserialize)]
struct Series {
    name: String,
    #[serde(default)]
    values: Vec<(String, String)>,
}

/// The types of the fields that this program writes; `None` if the server can't report them.
async fn field_types(
    server: &Server,
    bucket: &str,
    within: Duration,
) -> Result<Option<Vec<Key>>, Error> {
    let statement = format!("SHOW FIELD KEYS FROM {PAIR}, {ERASED}, {TREND}");
    // The server maps a bucket to a database by its name. After a slash, the name is that of a retention policy.
    let mut mapped = vec![("q", statement.as_str()), ("db", bucket)];
    if let Some((database, policy)) = bucket.split_once('/') {
        mapped.truncate(1);
        mapped.extend([("db", database), ("rp", policy)]);
    }
    let request = server.org_request(Method::GET, "query").query(&mapped);
    let types = async {
        let mut response = send(request, within).await?;
        match response.status().as_u16() {
            200 => {}
            400..=404 => return Ok(None),
            _ => return Err(refusal(response).await),
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            body.extend_from_slice(&chunk);
            if body.len() > MAX_BYTES {
                return Err(Error::TooLarge(MAX_BYTES));
            }
        }
        Ok(read(&body))
    };
    match tokio::time::timeout(within, types).await {
        Ok(keys) => keys,
        Err(_) => Err(Error::TimedOut(within)),
    }
}

fn read(body: &[u8]) -> Option<Vec<Key>> {
    let response: ShowResponse = serde_json::from_slice(body).ok()?;
    let [outcome] = <[StatementResult; 1]>::try_from(response.results).ok()?;
    if outcome.error.is_some() {
        return None;
    }
    let keys = outcome.series.into_iter().flat_map(|series| {
        let name = series.name;
        let values = series.values.into_iter();
        values.map(move |(field, kind)| (name.clone(), field, kind))
    });
    Some(keys.collect())
}

fn judge(keys: &[Key]) -> Found {
    let ours = [(PAIR, USER, "string"), (TREND, USERS, "integer")];
    let mut found = Found {
        has_erased: keys.iter().any(|(measurement, ..)| measurement == ERASED),
        ..Found::default()
    };
    let mut foreign = BTreeSet::new();
    for (measurement, field, kind) in keys {
        let of_ours = ours.iter().find(|(m, f, _)| m == measurement && f == field);
        // Other fields hide no points of the fields that queries read.
        let Some((_, _, ours)) = of_ours else {
            continue;
        };
        if kind != ours {
            let kind: String = kind.chars().filter(char::is_ascii_lowercase).collect();
            foreign.insert(format!(
                "points of measurement {measurement} whose field {field} has type {kind}"
            ));
        }
    }
    found.is_mixed = !foreign.is_empty();
    found.foreign = foreign.into_iter().collect();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const RIGHT: &str = r#"{"results":[{"statement_id":0,"series":[
        {"name":"pair","columns":["fieldKey","fieldType"],"values":[["user","string"]]}]}]}"#;

    fn found(body: &str) -> Found {
        judge(&read(body.as_bytes()).unwrap())
    }

    #[test]
    fn types_that_differ_are_seen() {
        assert_eq!(found(RIGHT), Found::default());
        assert_eq!(
            found(r#"{"results":[{"statement_id":0}]}"#),
            Found::default()
        );
        let mixed = RIGHT.replace(
            r#"["user","string"]"#,
            r#"["user","integer"],["user","string"]"#,
        );
        let mixed = found(&mixed);
        assert!(mixed.is_mixed && !mixed.has_erased);
        assert_eq!(
            mixed.foreign,
            ["points of measurement pair whose field user has type integer"]
        );
        let other = RIGHT.replace(
            r#"["user","string"]"#,
            r#"["host","integer"],["user","string"]"#,
        );
        assert_eq!(found(&other), Found::default());
        let erased = found(&RIGHT.replace("\"pair\"", "\"erased\""));
        assert!(erased.has_erased && !erased.is_mixed);
    }

    #[test]
    fn what_is_no_such_answer_tells_nothing() {
        for body in [
            "",
            "\r\n",
            "{}",
            r#"{"results":[]}"#,
            r#"{"results":[{"statement_id":0,"error":"database not found"}]}"#,
            r#"{"error":"database not found"}"#,
        ] {
            assert_eq!(read(body.as_bytes()), None, "{body}");
        }
    }
}
