//! Postgres: one row a (segment, user) with the latest slot, counted by an index on (segment, slot).

mod archive;
mod error;
mod options;
mod queries;
mod record;
mod rows;
mod server;
mod session;
mod setup;
mod stats;
mod trend;

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
use self::queries::{COUNT, ERASURES, EXPORT, FORGET, MEMBERSHIPS, NOTE_ERASURE, PING, SEGMENTS};
use self::record::repeated;
use self::rows::number;
use self::session::Sessions;
use self::stats::Counters;
use domain::store::{Archived, PairStore, Remains, StoreError};
use domain::{
    Batch, BatchBuilder, Count, Erasure, Membership, Segment, Slot, Timestamp, TrendPoint, UserId,
    Window,
};

/// How long a ping may take, a new connection included.
const PING_TIMEOUT: Duration = Duration::from_millis(1_500);

/// How much earlier than the client the server gives a write up, so that its error arrives.
const MARGIN: Duration = Duration::from_secs(1);

/// Pairs in a schema of a Postgres database.
#[derive(Debug)]
pub struct PostgresStore {
    options: PostgresOptions,
    writes: Sessions,
    reads: Sessions,
    counters: Counters,
    calls: TaskTracker,
}

impl PostgresStore {
    /// A store on the server of `options`. It asks nothing of the server yet, which may be away.
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
            calls: TaskTracker::new(),
            options,
        })
    }

    /// Fails when the database is there and holds slots of another length than these options say. A database
    /// that can't be asked, or is not set up, passes: that may change.
    pub async fn check_frame(&self) -> Result<(), StoreError> {
        match self.writes.session_within(PING_TIMEOUT).await {
            Err(error @ Error::OtherFrame(_)) => Err(StoreError::Rejected(format!(
                "Postgres: {error}; `headcount setup` changes it where there are no pairs yet"
            ))),
            _ => Ok(()),
        }
    }

    /// What the store has done, and how its connections are used.
    pub fn stats(&self) -> PostgresStats {
        PostgresStats {
            retries: self.counters.retries(),
            writing: self.writes.usage(),
            reading: self.reads.usage(),
        }
    }

    /// Begins a call, which [`close`](PairStore::close) waits for.
    fn begin(&self) -> Result<TaskTrackerToken, StoreError> {
        let call = self.calls.token();
        if self.calls.is_closed() {
            return Err(StoreError::Closed);
        }
        Ok(call)
    }

    /// First and last slot of a window.
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

/// The one number of an answer.
fn single(rows: &[tokio_postgres::Row]) -> Result<u64, Error> {
    let nonsense = || Error::Nonsense("not one count".to_owned());
    let [row] = rows else {
        return Err(nonsense());
    };
    let count: i64 = row.try_get(0)?;
    u64::try_from(count).map_err(|_| nonsense())
}

fn segment_of(name: &str) -> Result<Segment, Error> {
    Segment::new(name).map_err(|error| Error::Nonsense(error.to_string()))
}

fn slot_of(number: i64) -> Result<Slot, Error> {
    let slot = u64::try_from(number).map_err(|_| Error::Nonsense("a slot below 0".to_owned()));
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
                // A try that ended with its connection may have taken effect; the next one would count less.
                Err(error @ Error::Transport(_)) => Ok(Err(error)),
                erased => erased.map(Ok),
            }
        };
        Ok(repeated(self, erase).await??)
    }

    async fn note_erasure(&self, erasure: &Erasure) -> Result<(), StoreError> {
        let _call = self.begin()?;
        let (at, mark) = (erasure.at().as_microsecond(), erasure.mark());
        let note = || async {
            let mut session = self.writes.session().await?;
            session.execute(NOTE_ERASURE, &[&at, &mark]).await
        };
        repeated(self, note).await?;
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
                    .map_err(|error| Error::Nonsense(error.to_string()))?;
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
        Ok(repeated(self, || trend::record(self, points)).await?)
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
        session.query(PING, &[]).await?;
        Ok(())
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.calls.close();
        self.calls.wait().await;
        self.writes.close();
        self.reads.close();
        Ok(())
    }
}
