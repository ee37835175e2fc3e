//! The installation's record, on which all instances on a bucket must agree: the fingerprint key, `user_key`, `window`
//! and `resolution`.
//!
//! The record is a point in the trend bucket, which has a longer retention than the bucket of the pairs. The first
//! process with write permission creates it: `headcount setup`, or an instance. InfluxDB has no "create unless it
//! exists", so several processes may each find no record and write a candidate. The server assigns the candidate's
//! timestamp. The process then waits until any candidate with an earlier timestamp must be visible, and reads all
//! candidates. A process that finds a new record waits as well. The earliest candidate is the record, permanently and for
//! all instances.
//!
//! If the server takes longer than the wait, an instance may adopt another candidate. It notices at the next check and
//! switches to the record. Points under the former key stay correct, because a count is of distinct user ids.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use super::flux;
use super::line;
use super::options::InfluxOptions;
use super::query;
use super::server::Server;
use crate::user_key;
use domain::store::{Change, StoreError};
use domain::{FingerprintKey, Timestamp};

/// The version of the record's format.
const FORMAT: u32 = 1;
/// How long the server may take to make a candidate visible after it assigned the timestamp.
const SETTLING: Duration = Duration::from_millis(500);
/// On a slow server, this multiple of the candidate's write time is used instead, if it is longer.
const SETTLING_FACTOR: u32 = 4;
/// A record younger than this may not be the earliest one. Its age is measured with the clocks of two machines.
const NEW: Duration = Duration::from_secs(60);
/// The interval of checks of the record.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// A record older than this is written again, because the trend bucket drops points that are older than 400 days.
const RENEW_AFTER: Duration = Duration::from_hours(7 * 24);
/// The timeout of one request about the record.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The record as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    format: u32,
    /// The bucket of the pairs: several installations may share the trend bucket.
    bucket: String,
    key: String,
    /// A digest of `user_key`; `None` if it is not set.
    user_key: Option<String>,
    window_seconds: u64,
    resolution_seconds: u32,
}

/// A record with its id and timestamps.
#[derive(Debug, Clone, PartialEq, Eq)]
struct StoredRecord {
    id: String,
    /// The creation time by the server's clock, in nanoseconds since 1970. The earliest record wins.
    made: i64,
    /// The time of the last write, in nanoseconds since 1970.
    at: i64,
    record: Record,
}

/// The known state of the record.
#[derive(Debug, Clone)]
enum Known {
    /// Unknown: no check was made, or it failed.
    Nothing,
    /// The record does not exist, or the token may not read it.
    Absent(Instant),
    /// The record matches the options.
    Key(FingerprintKey, Instant),
    /// The record does not match, for this reason.
    Differs(String, Instant),
}

/// One instance's view of the installation's record.
#[derive(Debug)]
pub(super) struct Installation {
    server: Server,
    bucket: String,
    trend_bucket: String,
    user_key: Option<String>,
    window_seconds: u64,
    resolution_seconds: u32,
    any_window: bool,
    known: RwLock<Known>,
    /// Held during a check, so that one task at a time sends requests.
    checking: tokio::sync::Mutex<()>,
    /// Whether the options contain a key, which turns off all checks.
    is_given: bool,
}

impl Installation {
    /// The record for the buckets of `options`. No request is sent yet.
    pub(super) fn new(server: Server, options: &InfluxOptions) -> Self {
        let known = match options.key {
            Some(key) => Known::Key(key, Instant::now()),
            None => Known::Nothing,
        };
        Self {
            server,
            bucket: options.bucket.clone(),
            trend_bucket: options.trend_bucket.clone(),
            user_key: options.user_key.clone(),
            window_seconds: options.frame.full_window().seconds(),
            resolution_seconds: options.frame.resolution().seconds(),
            any_window: options.any_window,
            known: RwLock::new(known),
            checking: tokio::sync::Mutex::new(()),
            is_given: options.key.is_some(),
        }
    }

    /// The key, for writes. Creates the record if it does not exist.
    pub(super) async fn key(&self) -> Result<FingerprintKey, StoreError> {
        if let Known::Key(key, _) = &*self.known.read() {
            return Ok(*key);
        }
        let _checking = self.checking.lock().await;
        // Another task may have checked in the meantime.
        match self.known.read().clone() {
            Known::Key(key, _) => return Ok(key),
            Known::Differs(why, at) if at.elapsed() < LOOK_EVERY => {
                return Err(StoreError::Damaged(why));
            }
            _ => {}
        }
        let noted = match self.find().await? {
            Some(noted) => noted,
            None => self.create().await?,
        };
        self.adopt(&noted)
    }

    /// For reads: fails if the options do not match the record. Passes if there is no record, or the token may not read it.
    pub(super) async fn check(&self) -> Result<(), StoreError> {
        match &*self.known.read() {
            Known::Key(..) => return Ok(()),
            Known::Absent(at) if at.elapsed() < LOOK_EVERY => return Ok(()),
            _ => {}
        }
        let _checking = self.checking.lock().await;
        match self.known.read().clone() {
            Known::Key(..) => return Ok(()),
            Known::Absent(at) if at.elapsed() < LOOK_EVERY => return Ok(()),
            Known::Differs(why, at) if at.elapsed() < LOOK_EVERY => {
                return Err(StoreError::Damaged(why));
            }
            _ => {}
        }
        self.look().await
    }

    /// Checks the record again, if that is due.
    pub(super) async fn look_again(&self) -> Result<(), StoreError> {
        let is_due = match &*self.known.read() {
            Known::Nothing => true,
            Known::Absent(at) | Known::Key(_, at) | Known::Differs(_, at) => {
                at.elapsed() >= LOOK_EVERY
            }
        };
        if self.is_given {
            return Ok(());
        }
        if !is_due {
            return self.check().await;
        }
        let _checking = self.checking.lock().await;
        self.look().await
    }

    async fn look(&self) -> Result<(), StoreError> {
        let noted = match self.find().await {
            Ok(noted) => noted,
            // A token that may read only the pairs is allowed.
            Err(StoreError::NotSetUp(_)) => None,
            Err(error) => return Err(error),
        };
        let Some(noted) = noted else {
            let former = self.known.read().clone();
            if let Known::Key(key, _) = former {
                // The record was deleted. Write it again, so that writes continue under the same key.
                tracing::warn!("the installation's record was deleted; writing it again");
                self.renew(&self.candidate(key)).await;
                *self.known.write() = Known::Key(key, Instant::now());
            } else {
                *self.known.write() = Known::Absent(Instant::now());
            }
            return Ok(());
        };
        self.adopt(&noted)?;
        let age = now().saturating_sub(noted.at);
        if age > i64::try_from(RENEW_AFTER.as_nanos()).unwrap_or(i64::MAX) {
            self.renew(&noted).await;
        }
        Ok(())
    }

    /// Creates the record if it is missing, or updates it as far as that is allowed.
    pub(super) async fn set_up(
        &self,
        has_pairs: impl AsyncFnOnce() -> Result<bool, StoreError>,
    ) -> Result<Change, StoreError> {
        let Some(mut noted) = self.find().await? else {
            let made = self.create().await?;
            self.adopt(&made)?;
            return Ok(Change::Created);
        };
        let held = noted.record.clone();
        let is_other =
            held.user_key != self.user_key || held.resolution_seconds != self.resolution_seconds;
        if is_other && has_pairs().await? {
            self.adopt(&noted)?;
        }
        noted.record.user_key.clone_from(&self.user_key);
        noted.record.resolution_seconds = self.resolution_seconds;
        noted.record.window_seconds = self.window_seconds;
        if noted.record == held {
            return Ok(Change::Unchanged);
        }
        noted.at = now().max(noted.at + 1);
        self.write(&noted, Some(noted.at)).await?;
        self.adopt(&noted)?;
        Ok(Change::Updated)
    }

    /// Adopts a record that matches the options, or returns how it differs.
    fn adopt(&self, noted: &StoredRecord) -> Result<FingerprintKey, StoreError> {
        let record = &noted.record;
        let key = FingerprintKey::from_hex(&record.key);
        let wrong = match key {
            _ if record.format != FORMAT => Some(format!(
                "the installation's record has format {}, but this version of headcount supports {FORMAT}: use another version",
                record.format
            )),
            None => Some("the installation's record has no key".to_owned()),
            Some(_) => self.difference(record),
        };
        match (wrong, key) {
            (None, Some(key)) => {
                let former =
                    std::mem::replace(&mut *self.known.write(), Known::Key(key, Instant::now()));
                if matches!(former, Known::Key(former, _) if former != key) {
                    tracing::warn!(
                        "another instance created the installation's key first: switched to that key"
                    );
                }
                Ok(key)
            }
            (wrong, _) => {
                let wrong = wrong.unwrap_or_default();
                *self.known.write() = Known::Differs(wrong.clone(), Instant::now());
                Err(StoreError::Damaged(wrong))
            }
        }
    }

    /// The first difference between the options and the record, with its remedy.
    fn difference(&self, record: &Record) -> Option<String> {
        let bucket = &self.bucket;
        if record.resolution_seconds != self.resolution_seconds {
            return Some(format!(
                "the pairs in bucket {bucket:?} have a resolution of {0} s, and {1} s is configured; set \
                 resolution = \"{0}s\", or use another influx_bucket",
                record.resolution_seconds, self.resolution_seconds
            ));
        }
        if record.user_key != self.user_key {
            let was = user_key::recorded(record.user_key.as_deref(), self.user_key.as_deref());
            return Some(format!(
                "the pairs in bucket {bucket:?} were recorded {was}: every user would count twice; set user_key to its \
                 former value, or use another influx_bucket"
            ));
        }
        if record.window_seconds != self.window_seconds && !self.any_window {
            return Some(format!(
                "the instances on bucket {bucket:?} have a window of {0} s, and {1} s is configured; set \
                 window = \"{0}s\", or stop them all, run `headcount setup` with the new window, and start them with it",
                record.window_seconds, self.window_seconds
            ));
        }
        None
    }

    fn candidate(&self, key: FingerprintKey) -> StoredRecord {
        let now = now();
        StoredRecord {
            id: format!("{:016x}", fastrand::u64(..)),
            made: now,
            at: now,
            record: Record {
                format: FORMAT,
                bucket: self.bucket.clone(),
                key: key.to_hex(),
                user_key: self.user_key.clone(),
                window_seconds: self.window_seconds,
                resolution_seconds: self.resolution_seconds,
            },
        }
    }

    /// Writes a candidate, and returns the record that wins.
    async fn create(&self) -> Result<StoredRecord, StoreError> {
        let candidate = self.candidate(FingerprintKey::random().map_err(|error| {
            StoreError::Unavailable(format!("can't generate a random key: {error}"))
        })?);
        let begun = Instant::now();
        self.write(&candidate, None).await?;
        // A server that was slow with this candidate may be slow with another.
        sleep(SETTLING.max(begun.elapsed() * SETTLING_FACTOR)).await;
        // The candidate was acknowledged, so it exists.
        Ok(self.read().await?.unwrap_or(candidate))
    }

    async fn renew(&self, noted: &StoredRecord) {
        let mut renewed = noted.clone();
        renewed.at = now().max(noted.at + 1);
        // Best effort: with a read-only token, another instance renews the record.
        if let Err(error) = self.write(&renewed, Some(renewed.at)).await {
            tracing::debug!(%error, "the installation's record was not renewed");
        }
    }

    /// The winning record, if there is one. For a new record it waits, and reads again, since an earlier one may appear.
    async fn find(&self) -> Result<Option<StoredRecord>, StoreError> {
        let Some(noted) = self.read().await? else {
            return Ok(None);
        };
        let age = now().saturating_sub(noted.made).unsigned_abs();
        if u128::from(age) > NEW.as_nanos() {
            return Ok(Some(noted));
        }
        sleep(SETTLING).await;
        Ok(Some(self.read().await?.unwrap_or(noted)))
    }

    /// The winning record among those that are visible now.
    async fn read(&self) -> Result<Option<StoredRecord>, StoreError> {
        let query = flux::installation(&self.trend_bucket);
        let rows = query::rows(&self.server, &query, TIMEOUT, |row| {
            // Another program may have written a value that is not a record.
            let record = serde_json::from_str(row.get("_value")?).ok();
            Ok(record.zip(Some((row.get("id")?.to_owned(), row.nanos("_time")?))))
        });
        let rows = rows.await?.into_iter().flatten();
        let mut all: BTreeMap<String, StoredRecord> = BTreeMap::new();
        for (record, (id, at)) in rows {
            let record: Record = record;
            // Other installations may share the trend bucket.
            if record.bucket != self.bucket {
                continue;
            }
            let noted = all.entry(id.clone()).or_insert_with(|| StoredRecord {
                id,
                made: at,
                at,
                record: record.clone(),
            });
            noted.made = at.min(noted.made);
            if at > noted.at {
                noted.at = at;
                noted.record = record;
            }
        }
        let all = all.into_values();
        Ok(all.min_by(|a, b| (a.made, &a.id).cmp(&(b.made, &b.id))))
    }

    /// Writes a record with the timestamp `at`, or with the server's time if that is `None`.
    async fn write(&self, noted: &StoredRecord, at: Option<i64>) -> Result<(), StoreError> {
        let record = serde_json::to_string(&noted.record)
            .map_err(|error| StoreError::Unavailable(error.to_string()))?;
        let line = line::installation(&noted.id, &record, at);
        Ok(self.server.write(&self.trend_bucket, line, TIMEOUT).await?)
    }
}

fn now() -> i64 {
    i64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}
