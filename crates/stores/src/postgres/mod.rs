//! The Postgres store: one row per (segment, user) with the latest slot. An index on (segment, slot) serves the counts.

mod archive;
mod drop;
mod error;
mod key;
mod options;
mod queries;
mod record;
mod rows;
mod server;
mod session;
mod setup;
mod stats;
mod trend;

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use async_trait::async_trait;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

pub use options::PostgresOptions;
pub use options::{SCHEMA, is_schema};
pub use server::POSTGRES_URL;
pub use server::PostgresServer;
pub use session::PoolUse;
pub use setup::set_up;
pub use stats::PostgresStats;

use self::error::Error;
use self::queries::{
    COUNT, ERASURES, EXPORT, FORGET, FORGET_IN, FORGET_SEEN, MEMBERSHIPS, NOTE_ERASURE, PROPERTIES,
    REMOVE_PROPERTY, SEGMENTS, SET_PROPERTY,
};
use self::record::with_retries;
use self::rows::number;
use self::session::Sessions;
use self::stats::Counters;
use crate::installation_key::KnownKey;
use domain::store::{Archived, PairStore, Remains, StoreError, check_property};
use domain::{
    Batch, BatchBuilder, Count, Erasure, FingerprintKey, Membership, Segment, Slot, Timestamp,
    TrendPoint, UserId, Window,
};

/// The timeout of a ping, including a new connection.
const PING_TIMEOUT: Duration = Duration::from_millis(1_500);

/// The server's statement timeout for writes is shorter than the client's timeout by this, so that its error arrives in
/// time.
const MARGIN: Duration = Duration::from_secs(1);

/// Pairs in a schema of a Postgres database.
#[derive(Debug)]
pub struct PostgresStore {
    options: PostgresOptions,
    writes: Sessions,
    reads: Sessions,
    counters: Counters,
    key: KnownKey,
    calls: TaskTracker,
}

impl PostgresStore {
    /// Opens a store on the server of `options`. It sends no query yet, so the server may be unavailable.
    pub fn open(options: PostgresOptions) -> Result<Self, StoreError> {
        if !is_schema(&options.schema) {
            return Err(StoreError::Rejected(format!(
                "postgres_schema must be {SCHEMA}"
            )));
        }
        let writers = (options.connections / 2).max(1);
        let readers = options.connections.saturating_sub(writers).max(1);
        let write_timeout = options.write_timeout.saturating_sub(MARGIN).max(MARGIN);
        Ok(Self {
            writes: Sessions::new(&options, writers, write_timeout)?,
            reads: Sessions::new(&options, readers, options.statement_timeout)?,
            counters: Counters::default(),
            key: KnownKey::default(),
            calls: TaskTracker::new(),
            options,
        })
    }

    /// Fails if the database has slots of another length, or pairs recorded with another `user_key`, than the options. A
    /// database that is unavailable or not set up passes, because that may change later.
    pub async fn check_frame(&self) -> Result<(), StoreError> {
        match self.writes.session_within(PING_TIMEOUT).await {
            Err(error @ Error::OtherFrame(_)) => Err(StoreError::Rejected(format!(
                "Postgres: {error}; `headcount setup` changes it where there are no pairs yet"
            ))),
            _ => Ok(()),
        }
    }

    /// Counters, and the current use of the connections.
    pub fn stats(&self) -> PostgresStats {
        PostgresStats {
            retries: self.counters.retries(),
            writing: self.writes.usage(),
            reading: self.reads.usage(),
        }
    }

    /// Registers a call. [`close`](PairStore::close) waits until its token is dropped.
    fn begin(&self) -> Result<TaskTrackerToken, StoreError> {
        let call = self.calls.token();
        if self.calls.is_closed() {
            return Err(StoreError::Closed);
        }
        Ok(call)
    }

    /// The first and the last slot of a window.
    fn bounds(&self, window: Window, as_of: Timestamp) -> (i64, i64) {
        let slots = window.slots_as_of(self.options.frame.resolution().slot_of(as_of));
        (number(slots.start().number()), number(slots.end().number()))
    }

    fn full_bounds(&self, as_of: Timestamp) -> (i64, i64) {
        self.bounds(self.options.frame.full_window(), as_of)
    }

    async fn erase(&self, user: &UserId<'_>, as_of: Timestamp) -> Result<u64, Error> {
        let (first, last) = self.full_bounds(as_of);
        let mut session = self.writes.session().await?;
        let rows = session
            .query(FORGET, &[&user.as_str(), &first, &last])
            .await?;
        single(&rows)
    }
}

/// The row of a result that has exactly one.
fn only(rows: &[tokio_postgres::Row]) -> Result<&tokio_postgres::Row, Error> {
    match rows {
        [row] => Ok(row),
        _ => Err(Error::InvalidResponse(
            "expected exactly one row".to_owned(),
        )),
    }
}

/// The number in a result of exactly one row.
fn single(rows: &[tokio_postgres::Row]) -> Result<u64, Error> {
    number_of(only(rows)?, 0)
}

/// A number that is not negative.
fn number_of(row: &tokio_postgres::Row, column: usize) -> Result<u64, Error> {
    let number: i64 = row.try_get(column)?;
    u64::try_from(number).map_err(|_| Error::InvalidResponse("a negative number".to_owned()))
}

fn segment_of(name: &str) -> Result<Segment, Error> {
    Segment::new(name).map_err(|error| Error::InvalidResponse(error.to_string()))
}

fn slot_of(number: i64) -> Result<Slot, Error> {
    let slot =
        u64::try_from(number).map_err(|_| Error::InvalidResponse("a negative slot".to_owned()));
    slot.map(Slot::new)
}

#[async_trait]
impl PairStore for PostgresStore {
    async fn record(&self, batch: &Batch) -> Result<(), StoreError> {
        let _call = self.begin()?;
        Ok(record::record(self, batch).await?)
    }

    async fn count(
        &self,
        segment: &Segment,
        window: Window,
        as_of: Timestamp,
    ) -> Result<Count, StoreError> {
        let _call = self.begin()?;
        let (first, last) = self.bounds(window, as_of);
        let mut session = self.reads.session().await?;
        let rows = session
            .query(COUNT, &[&segment.as_str(), &first, &last])
            .await?;
        let users = single(&rows)?;
        Ok(Count { users, as_of })
    }

    async fn segments(&self, as_of: Timestamp) -> Result<Vec<Segment>, StoreError> {
        let _call = self.begin()?;
        let (first, last) = self.full_bounds(as_of);
        let mut segments = Vec::new();
        let mut session = self.reads.session().await?;
        session
            .each_row(SEGMENTS, &[&first, &last], |row| {
                segments.push(segment_of(row.try_get(0)?)?);
                Ok(())
            })
            .await?;
        Ok(segments)
    }

    async fn memberships(
        &self,
        user: &UserId<'_>,
        as_of: Timestamp,
    ) -> Result<Vec<Membership>, StoreError> {
        let _call = self.begin()?;
        let (first, last) = self.full_bounds(as_of);
        let mut memberships = Vec::new();
        let mut session = self.reads.session().await?;
        session
            .each_row(MEMBERSHIPS, &[&user.as_str(), &first, &last], |row| {
                memberships.push(Membership {
                    segment: segment_of(row.try_get(0)?)?,
                    last_seen: slot_of(row.try_get(1)?)?,
                });
                Ok(())
            })
            .await?;
        Ok(memberships)
    }

    async fn forget(&self, user: &UserId<'_>, as_of: Timestamp) -> Result<u64, StoreError> {
        let _call = self.begin()?;
        let erase = || async {
            match self.erase(user, as_of).await {
                // If the connection ends, the attempt may have taken effect, and a retry would return a smaller number.
                Err(error @ Error::Transport(_)) => Ok(Err(error)),
                erased => erased.map(Ok),
            }
        };
        Ok(with_retries(self, erase).await??)
    }

    async fn forget_in(
        &self,
        segment: &Segment,
        user: &UserId<'_>,
        as_of: Timestamp,
    ) -> Result<bool, StoreError> {
        let _call = self.begin()?;
        let (first, last) = self.full_bounds(as_of);
        let mut session = self.writes.session().await?;
        let rows = session
            .query(
                FORGET_IN,
                &[&segment.as_str(), &user.as_str(), &first, &last],
            )
            .await?;
        Ok(single(&rows)? > 0)
    }

    async fn forget_seen(
        &self,
        user: &UserId<'_>,
        seen: &[Membership],
        as_of: Timestamp,
    ) -> Result<u64, StoreError> {
        let _call = self.begin()?;
        let (first, last) = self.full_bounds(as_of);
        let segments: Vec<&str> = seen.iter().map(|it| it.segment.as_str()).collect();
        let slots: Vec<i64> = seen
            .iter()
            .map(|it| number(it.last_seen.number()))
            .collect();
        let erase = || async {
            let mut session = self.writes.session().await?;
            let rows = session
                .query(
                    FORGET_SEEN,
                    &[&user.as_str(), &segments, &slots, &first, &last],
                )
                .await?;
            single(&rows)
        };
        Ok(with_retries(self, erase).await?)
    }

    async fn drop_segment(
        &self,
        segment: &Segment,
        _windows: &[Window],
        as_of: Timestamp,
    ) -> Result<u64, StoreError> {
        let _call = self.begin()?;
        Ok(drop::segment(self, segment, self.full_bounds(as_of)).await?)
    }

    async fn note_erasure(&self, erasure: &Erasure) -> Result<(), StoreError> {
        let _call = self.begin()?;
        let (at, mark) = (erasure.at().as_microsecond(), erasure.mark());
        let note = || async {
            let mut session = self.writes.session().await?;
            session.execute(NOTE_ERASURE, &[&at, &mark]).await
        };
        with_retries(self, note).await?;
        Ok(())
    }

    async fn erasures(&self, since: Timestamp) -> Result<Vec<Erasure>, StoreError> {
        let _call = self.begin()?;
        let mut erasures = Vec::new();
        let mut session = self.writes.session().await?;
        session
            .each_row(ERASURES, &[&since.as_microsecond()], |row| {
                let at = Timestamp::from_microsecond(row.try_get(0)?);
                let mark: &str = row.try_get(1)?;
                erasures.extend(at.ok().and_then(|at| Erasure::from_mark(mark, at)));
                Ok(())
            })
            .await?;
        Ok(erasures)
    }

    fn remains(&self, _at: Timestamp) -> Vec<Remains> {
        vec![Remains {
            place: "postgres_files",
            what: "the deleted rows in Postgres' own files, until it vacuums the table and recycles its write-ahead log"
                .to_owned(),
            until: None,
        }]
    }

    async fn fingerprint_key(&self) -> Result<FingerprintKey, StoreError> {
        let _call = self.begin()?;
        key::key(self).await
    }

    async fn properties(&self, prefix: &str) -> Result<BTreeMap<String, String>, StoreError> {
        let _call = self.begin()?;
        let mut properties = BTreeMap::new();
        let mut session = self.writes.session().await?;
        session
            .each_row(PROPERTIES, &[&prefix], |row| {
                properties.insert(row.try_get(0)?, row.try_get(1)?);
                Ok(())
            })
            .await?;
        Ok(properties)
    }

    async fn set_property(&self, name: &str, value: Option<&str>) -> Result<(), StoreError> {
        check_property(name, value)?;
        let _call = self.begin()?;
        let set = || async {
            let mut session = self.writes.session().await?;
            match value {
                Some(value) => session.execute(SET_PROPERTY, &[&name, &value]).await,
                None => session.execute(REMOVE_PROPERTY, &[&name]).await,
            }
        };
        with_retries(self, set).await?;
        Ok(())
    }

    async fn archive(&self, as_of: Timestamp, limit: u64) -> Result<Archived, StoreError> {
        let _call = self.begin()?;
        Ok(archive::archive(self, as_of, limit).await?)
    }

    async fn export(
        &self,
        segment: &Segment,
        slots: RangeInclusive<Slot>,
    ) -> Result<Batch, StoreError> {
        let _call = self.begin()?;
        let mut batch = BatchBuilder::default();
        if slots.is_empty() {
            return Ok(batch.finish());
        }
        let place = batch.admit(segment.clone());
        let (first, last) = (number(slots.start().number()), number(slots.end().number()));
        let mut session = self.reads.session().await?;
        session
            .each_row(EXPORT, &[&segment.as_str(), &first, &last], |row| {
                let user = UserId::new(row.try_get::<_, &str>(0)?)
                    .map_err(|error| Error::InvalidResponse(error.to_string()))?;
                batch.push(&user, place, slot_of(row.try_get(1)?)?);
                Ok(())
            })
            .await?;
        Ok(batch.finish())
    }

    async fn record_trend(&self, points: &[TrendPoint]) -> Result<(), StoreError> {
        let _call = self.begin()?;
        if points.is_empty() {
            return Ok(());
        }
        Ok(with_retries(self, || trend::record(self, points)).await?)
    }

    async fn trend(
        &self,
        segment: &Segment,
        window: Window,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<Count>, StoreError> {
        let _call = self.begin()?;
        Ok(trend::read(self, segment, window, from, to).await?)
    }

    async fn ping(&self) -> Result<(), StoreError> {
        let _call = self.begin()?;
        let mut session = self.writes.session_within(PING_TIMEOUT).await?;
        Ok(key::look_again(self, &mut session).await?)
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.calls.close();
        self.calls.wait().await;
        self.writes.close();
        self.reads.close();
        Ok(())
    }
}
