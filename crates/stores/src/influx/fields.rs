//! Which types the fields of a bucket have: where two shards disagree, Flux leaves rows out and says nothing.
//!
//! A field's type belongs to a measurement and a shard. One point `pair,segment=x user=1i` of another program in a
//! day that has no pairs yet makes `user` an integer there, for every segment. A query over several shards takes the
//! type from the first of them, and stops without an error at the first that has another one (`storage/reads`,
//! `createCursor` and `nextArrayCursor` in the server's source). So a count over such a day would be anything down
//! to 0.
//!
//! The server tells the types of all shards at once, from memory, in about a millisecond: `SHOW FIELD KEYS`. A reader
//! asks it *after* its query: a shard whose type the query could meet has its type by then. Where types differ, or where
//! the server can't tell them, the query is made again over each shard by itself, where there is one type only.

use std::collections::BTreeSet;
use std::time::Duration;

use parking_lot::Mutex;
use reqwest::Method;
use serde::Deserialize;
use tokio::time::Instant;

use super::error::Error;
use super::line::{ERASED, PAIR, TREND, USER, USERS};
use super::server::{Server, refusal, send};

/// How long a bucket that was found mixed is taken for mixed without asking again.
const MIXED_FOR: Duration = Duration::from_secs(60);
/// How often a log line says that a bucket is mixed.
const TOLD_EVERY: Duration = Duration::from_secs(600);
/// The longest answer that is read.
const MAX_BYTES: usize = 1024 * 1024;

/// What is known of the fields of one bucket.
#[derive(Debug)]
pub(super) struct Fields {
    bucket: String,
    mixed_until: Mutex<Option<Instant>>,
    told: Mutex<Option<Instant>>,
    /// What other programs had written when the server was asked last.
    strange: Mutex<Vec<String>>,
}

/// What the server told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// Whether shards may differ in the type of a field that is read.
    pub(super) is_mixed: bool,
    /// Whether something was ever overwritten in place of being deleted.
    pub(super) has_erased: bool,
    /// What other programs wrote into our measurements, in words.
    pub(super) strange: Vec<String>,
}

impl Fields {
    pub(super) fn of(bucket: &str) -> Self {
        Self {
            bucket: bucket.to_owned(),
            mixed_until: Mutex::new(None),
            told: Mutex::new(None),
            strange: Mutex::default(),
        }
    }

    /// What other programs had written when the server was asked last, in words.
    pub(super) fn strange(&self) -> Option<String> {
        let strange = self.strange.lock();
        (!strange.is_empty())
            .then(|| format!("bucket {:?} has {}", self.bucket, strange.join("; ")))
    }

    /// Whether the bucket was found mixed lately.
    pub(super) fn are_mixed(&self) -> bool {
        self.mixed_until
            .lock()
            .is_some_and(|until| Instant::now() < until)
    }

    /// Asks the server.
    pub(super) async fn look(&self, server: &Server, within: Duration) -> Result<Found, Error> {
        let found = match ask(server, &self.bucket, within).await? {
            Some(keys) => judge(&keys),
            // An old server without a mapping for this bucket, or something in between that knows Flux only.
            None => Found {
                is_mixed: true,
                has_erased: true,
                strange: Vec::new(),
            },
        };
        self.strange.lock().clone_from(&found.strange);
        *self.mixed_until.lock() = found.is_mixed.then(|| Instant::now() + MIXED_FOR);
        if !found.strange.is_empty() && self.is_time_to_tell() {
            tracing::warn!(
                bucket = self.bucket,
                found = found.strange.join("; "),
                "another program writes into this bucket: pairs of its days are refused until its points are deleted"
            );
        }
        Ok(found)
    }

    fn is_time_to_tell(&self) -> bool {
        let mut told = self.told.lock();
        let is_time = told.is_none_or(|at| at.elapsed() >= TOLD_EVERY);
        if is_time {
            *told = Some(Instant::now());
        }
        is_time
    }
}

/// A measurement, a field of it, and a type that the field has in some shard.
type Key = (String, String, String);

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    results: Vec<Outcome>,
}

#[derive(Deserialize)]
struct Outcome {
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

/// The types of our measurements' fields, or `None` if the server can't tell.
async fn ask(server: &Server, bucket: &str, within: Duration) -> Result<Option<Vec<Key>>, Error> {
    let statement = format!("SHOW FIELD KEYS FROM {PAIR}, {ERASED}, {TREND}");
    // The server maps each bucket to a database by its name, whose second part would be a retention policy.
    let mut mapped = vec![("q", statement.as_str()), ("db", bucket)];
    if let Some((database, policy)) = bucket.split_once('/') {
        mapped.truncate(1);
        mapped.extend([("db", database), ("rp", policy)]);
    }
    let request = server.org_request(Method::GET, "query").query(&mapped);
    let asked = async {
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
                return Err(Error::TooMuch(MAX_BYTES));
            }
        }
        Ok(read(&body))
    };
    match tokio::time::timeout(within, asked).await {
        Ok(keys) => keys,
        Err(_) => Err(Error::TimedOut(within)),
    }
}

fn read(body: &[u8]) -> Option<Vec<Key>> {
    let answer: Answer = serde_json::from_slice(body).ok()?;
    let [outcome] = <[Outcome; 1]>::try_from(answer.results).ok()?;
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
    let mut strange = BTreeSet::new();
    for (measurement, field, kind) in keys {
        let of_ours = ours.iter().find(|(m, f, _)| m == measurement && f == field);
        // Other fields lie beside ours and hide nothing.
        let Some((_, _, ours)) = of_ours else {
            continue;
        };
        if kind != ours {
            let kind: String = kind.chars().filter(char::is_ascii_lowercase).collect();
            strange.insert(format!(
                "points of measurement {measurement} whose field {field} has type {kind}"
            ));
        }
    }
    found.is_mixed = !strange.is_empty();
    found.strange = strange.into_iter().collect();
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
            mixed.strange,
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
