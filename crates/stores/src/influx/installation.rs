//! What all instances on a bucket must agree on: the key of fingerprints, `user_key`, `window` and `resolution`.
//!
//! It is one record in the trend bucket, which keeps points longer than the other. The first one that may write makes
//! it: `headcount setup`, or an instance. InfluxDB has no "create unless it exists", so each of several that find none
//! writes a candidate of its own, to which the server gives its time; waits until one that has an earlier time must be
//! visible; and reads them all. Whoever finds a new one waits as well. The earliest is the one, for everybody and for ever. An instance that took another one
//! nevertheless, since the server needed longer than that, notices at the next look and changes over: points under the
//! former key stay right, since a count is of distinct names.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::RwLock;
use reqwest::Method;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use super::error::Error;
use super::flux;
use super::key::PointKey;
use super::line;
use super::options::InfluxOptions;
use super::query;
use super::server::{Server, refusal, send};
use crate::user_key;
use domain::Timestamp;
use domain::store::{Change, StoreError};

/// The layout of a record.
const FORMAT: u32 = 1;
/// How long the server may take from giving a candidate its time to showing it.
const SETTLING: Duration = Duration::from_millis(500);
/// How many times as long as its answer to a candidate the server may take for that, where that is longer.
const SLOWER: u32 = 4;
/// A record that was made no longer ago than this, by a clock that may differ from ours, may not be the earliest.
const NEW: Duration = Duration::from_secs(60);
/// How often the record is looked at again.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// A record is written again when it is older than this: the trend bucket drops what is older than 400 days.
const RENEW_AFTER: Duration = Duration::from_hours(7 * 24);
/// How long one request about the record may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// The record as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    format: u32,
    /// The bucket of the pairs: others may share the trend bucket.
    bucket: String,
    key: String,
    /// A digest of `user_key`, none without one.
    user_key: Option<String>,
    window_seconds: u64,
    resolution_seconds: u32,
}

/// A record and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Noted {
    id: String,
    /// When it was made, by the server's clock, in nanoseconds since 1970: the earliest of several is the one.
    made: i64,
    /// When it was written last.
    at: i64,
    record: Record,
}

/// What is known of the record.
#[derive(Debug, Clone)]
enum Known {
    /// Nothing: it was not looked for, or could not be.
    Nothing,
    /// There was none, or none that this token may read.
    Absent(Instant),
    /// It fits these options.
    Key(PointKey, Instant),
    /// It does not, for this reason.
    Differs(String, Instant),
}

/// The record, as one instance knows it.
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
    /// Held by the one that looks.
    looking: tokio::sync::Mutex<()>,
    is_given: bool,
}

impl Installation {
    /// The record of the buckets of `options`. Nothing is asked yet.
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
            looking: tokio::sync::Mutex::new(()),
            is_given: options.key.is_some(),
        }
    }

    /// The key, made if there is none: for those who write.
    pub(super) async fn key(&self) -> Result<PointKey, StoreError> {
        if let Known::Key(key, _) = &*self.known.read() {
            return Ok(*key);
        }
        let _looking = self.looking.lock().await;
        // Somebody else may have looked meanwhile.
        match self.known.read().clone() {
            Known::Key(key, _) => return Ok(key),
            Known::Differs(why, at) if at.elapsed() < LOOK_EVERY => {
                return Err(StoreError::Damaged(why));
            }
            _ => {}
        }
        let noted = match self.find().await? {
            Some(noted) => noted,
            None => self.make().await?,
        };
        self.take(&noted)
    }

    /// Whether what these options say fits what is in the store, or nothing is known of it: for those who read.
    pub(super) async fn check(&self) -> Result<(), StoreError> {
        match &*self.known.read() {
            Known::Key(..) => return Ok(()),
            Known::Absent(at) if at.elapsed() < LOOK_EVERY => return Ok(()),
            _ => {}
        }
        let _looking = self.looking.lock().await;
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

    /// Looks again, if that is due.
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
        let _looking = self.looking.lock().await;
        self.look().await
    }

    async fn look(&self) -> Result<(), StoreError> {
        let noted = match self.find().await {
            Ok(noted) => noted,
            // A token that reads pairs only may do that.
            Err(StoreError::NotSetUp(_)) => None,
            Err(error) => return Err(error),
        };
        let Some(noted) = noted else {
            let former = self.known.read().clone();
            if let Known::Key(key, _) = former {
                // Somebody deleted it: what is written under this key goes on.
                tracing::warn!(
                    "the record of the installation's key is gone, and is written again"
                );
                self.renew(&self.candidate(key)).await;
                *self.known.write() = Known::Key(key, Instant::now());
            } else {
                *self.known.write() = Known::Absent(Instant::now());
            }
            return Ok(());
        };
        self.take(&noted)?;
        let age = now().saturating_sub(noted.at);
        if age > i64::try_from(RENEW_AFTER.as_nanos()).unwrap_or(i64::MAX) {
            self.renew(&noted).await;
        }
        Ok(())
    }

    /// Makes what is missing, and changes what may be changed.
    pub(super) async fn set_up(
        &self,
        has_pairs: impl AsyncFnOnce() -> Result<bool, StoreError>,
    ) -> Result<Change, StoreError> {
        let Some(mut noted) = self.find().await? else {
            let made = self.make().await?;
            self.take(&made)?;
            return Ok(Change::Created);
        };
        let held = noted.record.clone();
        let is_other =
            held.user_key != self.user_key || held.resolution_seconds != self.resolution_seconds;
        if is_other && has_pairs().await? {
            self.take(&noted)?;
        }
        noted.record.user_key.clone_from(&self.user_key);
        noted.record.resolution_seconds = self.resolution_seconds;
        noted.record.window_seconds = self.window_seconds;
        if noted.record == held {
            return Ok(Change::Unchanged);
        }
        noted.at = now().max(noted.at + 1);
        self.write(&noted, Some(noted.at)).await?;
        self.take(&noted)?;
        Ok(Change::Updated)
    }

    /// Believes the record that counts, or says what differs.
    fn take(&self, noted: &Noted) -> Result<PointKey, StoreError> {
        let record = &noted.record;
        let key = PointKey::from_hex(&record.key);
        let wrong = match key {
            _ if record.format != FORMAT => Some(format!(
                "the installation's record has format {}, and this version of headcount knows {FORMAT}: use another \
                 version",
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
                        "another instance made the installation's key first: changed over to it"
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

    /// What these options say otherwise than the record, and what would be right.
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
                "the pairs in bucket {bucket:?} were recorded {was}: every user would count twice; give user_key its \
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

    fn candidate(&self, key: PointKey) -> Noted {
        let now = now();
        Noted {
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

    /// Makes a record, and returns the one that counts.
    async fn make(&self) -> Result<Noted, StoreError> {
        let candidate = self.candidate(PointKey::random()?);
        let begun = Instant::now();
        self.write(&candidate, None).await?;
        // A server that is slow with this one is slow with another's.
        sleep(SETTLING.max(begun.elapsed() * SLOWER)).await;
        // What was acknowledged is there.
        Ok(self.read().await?.unwrap_or(candidate))
    }

    async fn renew(&self, noted: &Noted) {
        let mut renewed = noted.clone();
        renewed.at = now().max(noted.at + 1);
        // One that may only read leaves that to others.
        if let Err(error) = self.write(&renewed, Some(renewed.at)).await {
            tracing::debug!(%error, "the installation's record was not renewed");
        }
    }

    /// The record that counts, if there is one. Of a new one it is not certain yet that it does.
    async fn find(&self) -> Result<Option<Noted>, StoreError> {
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

    /// The record that counts, of those that are to be seen.
    async fn read(&self) -> Result<Option<Noted>, StoreError> {
        let query = flux::installation(&self.trend_bucket);
        let rows = query::rows(&self.server, &query, PATIENCE, |row| {
            // What is no record was written by somebody else.
            let record = serde_json::from_str(row.get("_value")?).ok();
            Ok(record.zip(Some((row.get("id")?.to_owned(), row.nanos("_time")?))))
        });
        let rows = rows.await?.into_iter().flatten();
        let mut all: BTreeMap<String, Noted> = BTreeMap::new();
        for (record, (id, at)) in rows {
            let record: Record = record;
            // Other installations may share the trend bucket.
            if record.bucket != self.bucket {
                continue;
            }
            let noted = all.entry(id.clone()).or_insert_with(|| Noted {
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

    /// Writes a record, at the server's time unless told otherwise.
    async fn write(&self, noted: &Noted, at: Option<i64>) -> Result<(), StoreError> {
        let record = serde_json::to_string(&noted.record)
            .map_err(|error| StoreError::Unavailable(error.to_string()))?;
        let request = self
            .server
            .org_request(Method::POST, "api/v2/write")
            .query(&[("bucket", self.trend_bucket.as_str()), ("precision", "ns")])
            .body(line::installation(&noted.id, &record, at));
        let response = send(request, PATIENCE).await?;
        if response.status().as_u16() == 204 {
            return Ok(());
        }
        let refused = tokio::time::timeout(PATIENCE, refusal(response)).await;
        Err(refused.unwrap_or(Error::TimedOut(PATIENCE)).into())
    }
}

fn now() -> i64 {
    i64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}
