//! InfluxDB 2: pairs in a bucket whose retention is the window, counts by one Flux query a segment.
//!
//! A pair is a point of measurement `pair` with the tag `segment` and the string field `user`. The user can't
//! be a tag: every (user, segment) would be a series of its own, about a kilobyte of memory each. So the
//! timestamp tells the users of a slot apart (see [`line::nanos`]), and a pair that is written twice is the
//! same point.

mod dead_letter;
mod deliver;
mod driver;
mod error;
mod export;
mod flux;
mod forget;
mod framing;
#[cfg(test)]
mod fuzz;
mod line;
mod lines;
mod options;
mod query;
mod server;
mod setup;
mod stats;
mod writer;

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

pub use options::InfluxOptions;
pub(crate) use server::{INFLUX_URL, parse_url};
pub use setup::{TOKEN_ROLES, set_up};
pub use stats::InfluxStats;

use self::deliver::Delivery;
use self::error::Error;
use self::flux::{Erased, Range};
use self::forget::Erasures;
use self::line::{segment_of_tag, slot_at};
use self::query::Row;
use self::server::Server;
use self::stats::Counters;
use self::writer::Writer;
use super::{Archived, PairStore, StoreError};
use crate::domain::{
    Batch, Count, Membership, Segment, Slot, Timestamp, TrendPoint, UserId, Window,
};

/// Seconds that Flux can state: its times are nanoseconds in 64 bits.
const LAST_FLUX_SECOND: i64 = i64::MAX / 1_000_000_000;

/// How long a ping may take. The query it makes takes milliseconds.
const PING_TIMEOUT: Duration = Duration::from_secs(3);

/// Pairs in an InfluxDB bucket.
#[derive(Debug)]
pub struct InfluxStore {
    options: InfluxOptions,
    server: Server,
    delivery: Arc<Delivery>,
    writer: Writer,
    counters: Arc<Counters>,
    erasures: Erasures,
    closed: AtomicBool,
}

impl InfluxStore {
    /// A store on the server of `options`. It asks nothing of the server yet, which may be away.
    ///
    /// Must be called within a Tokio runtime, where the writer's task will run.
    pub fn open(options: InfluxOptions) -> Result<Self, StoreError> {
        let server = Server::new(&options)?;
        let counters = Arc::new(Counters::default());
        let delivery = Arc::new(Delivery::new(
            server.clone(),
            &options,
            Arc::clone(&counters),
        ));
        Ok(Self {
            writer: Writer::start(Arc::clone(&delivery), &options),
            options,
            server,
            delivery,
            counters,
            erasures: Erasures::default(),
            closed: AtomicBool::new(false),
        })
    }

    /// What the writing side has done since the store was opened.
    pub fn stats(&self) -> InfluxStats {
        self.counters.read()
    }

    /// How many pairs wait to be written or are on their way.
    pub fn waiting_pairs(&self) -> usize {
        self.writer.waiting()
    }

    fn check_open(&self) -> Result<(), StoreError> {
        if self.closed.load(Ordering::Acquire) {
            return Err(StoreError::Closed);
        }
        Ok(())
    }

    /// The rows of an answer, each as `read` understands it.
    async fn rows<T: Send + 'static>(
        &self,
        flux: &str,
        read: impl FnMut(&Row<'_>) -> Result<T, Error> + Send + 'static,
    ) -> Result<Vec<T>, StoreError> {
        let rows = query::rows(&self.server, flux, self.options.query_timeout, read).await;
        rows.map_err(StoreError::from)
    }

    async fn count_users(
        &self,
        segment: &Segment,
        range: Range,
        erased: Erased,
    ) -> Result<u64, StoreError> {
        let query = flux::count(&self.options.bucket, segment, range, erased);
        let counts = self.rows(&query, |row| row.number("_value")).await?;
        match counts[..] {
            [] => Ok(0),
            [users] => Ok(users),
            _ => Err(Error::Nonsense("a count of several rows".into()).into()),
        }
    }

    /// The latest slot in `range` from which something of `segment` was erased, by its start.
    async fn last_erased(
        &self,
        segment: &Segment,
        range: Range,
    ) -> Result<Option<Timestamp>, StoreError> {
        let query = flux::last_erased(&self.options.bucket, segment, range);
        let times = self.rows(&query, |row| row.time("_time")).await?;
        Ok(times.into_iter().max())
    }

    fn full_range(&self, as_of: Timestamp) -> Range {
        let frame = &self.options.frame;
        Range::of(frame.full_window(), as_of, frame.resolution())
    }
}

#[async_trait]
impl PairStore for InfluxStore {
    async fn record(&self, batch: &Batch) -> Result<(), StoreError> {
        self.check_open()?;
        let resolution = self.options.frame.resolution();
        let batch_pairs = self.options.batch_pairs.max(1);
        self.writer
            .write(line::pairs(batch, resolution, batch_pairs))
            .await
    }

    async fn count(
        &self,
        segment: &Segment,
        window: Window,
        as_of: Timestamp,
    ) -> Result<Count, StoreError> {
        self.check_open()?;
        let range = Range::of(window, as_of, self.options.frame.resolution());
        if self.erasures.known_in(segment, range) {
            let users = self
                .count_users(segment, range, Erased::FilteredOut)
                .await?;
            return Ok(Count { users, as_of });
        }
        let users = self.count_users(segment, range, Erased::Ignored).await?;
        if users == 0 {
            return Ok(Count { users, as_of });
        }
        // Only now: see `Erasures`.
        let Some(erased_at) = self.last_erased(segment, range).await? else {
            return Ok(Count { users, as_of });
        };
        self.erasures.note(segment, erased_at);
        let users = self
            .count_users(segment, range, Erased::FilteredOut)
            .await?;
        Ok(Count { users, as_of })
    }

    async fn segments(&self, as_of: Timestamp) -> Result<Vec<Segment>, StoreError> {
        self.check_open()?;
        let query = flux::segments(&self.options.bucket, self.full_range(as_of));
        let tags = self
            .rows(&query, |row| Ok(segment_of_tag(row.get("segment")?)))
            .await?;
        let mut segments: Vec<Segment> = tags.into_iter().flatten().collect();
        segments.sort_unstable();
        segments.dedup();
        Ok(segments)
    }

    async fn memberships(
        &self,
        user: &UserId<'_>,
        as_of: Timestamp,
    ) -> Result<Vec<Membership>, StoreError> {
        self.check_open()?;
        let query = flux::memberships(&self.options.bucket, user, self.full_range(as_of));
        let resolution = self.options.frame.resolution();
        let found = self
            .rows(&query, move |row| {
                let last_seen = slot_at(row.nanos("_time")?, resolution);
                let segment = segment_of_tag(row.get("segment")?);
                Ok(segment.map(|segment| Membership { segment, last_seen }))
            })
            .await?;
        let mut memberships: Vec<Membership> = found.into_iter().flatten().collect();
        memberships.sort_unstable_by(|a, b| a.segment.cmp(&b.segment));
        Ok(memberships)
    }

    async fn forget(&self, user: &UserId<'_>, as_of: Timestamp) -> Result<u64, StoreError> {
        self.check_open()?;
        forget::forget(self, user, as_of).await
    }

    /// Nothing to do: the server drops what is older than the bucket's retention, and every query states its
    /// range.
    async fn archive(&self, _as_of: Timestamp, _limit: u64) -> Result<Archived, StoreError> {
        self.check_open()?;
        Ok(Archived {
            removed: 0,
            done: true,
        })
    }

    /// Every point gives a pair, so a user who came in several slots comes several times.
    async fn export(
        &self,
        segment: &Segment,
        slots: RangeInclusive<Slot>,
    ) -> Result<Batch, StoreError> {
        self.check_open()?;
        if slots.is_empty() {
            return Ok(Batch::default());
        }
        export::export(self, segment, &slots).await
    }

    async fn record_trend(&self, points: &[TrendPoint]) -> Result<(), StoreError> {
        self.check_open()?;
        for some in points.chunks(self.options.batch_pairs.max(1)) {
            let deadline = Instant::now() + self.options.write_deadline;
            let bucket = &self.options.trend_bucket;
            let refused = self
                .delivery
                .deliver(bucket, line::trend(some), deadline)
                .await?;
            if !refused.is_empty() {
                return Err(StoreError::Rejected("InfluxDB refuses trend points".into()));
            }
        }
        Ok(())
    }

    async fn trend(
        &self,
        segment: &Segment,
        window: Window,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<Count>, StoreError> {
        self.check_open()?;
        // Points keep whole seconds, and a range leaves out its stop.
        let start = from.as_second() + i64::from(from.subsec_nanosecond() > 0);
        let stop = to.as_second().saturating_add(1).min(LAST_FLUX_SECOND);
        let start = start.max(0);
        if start >= stop {
            return Ok(Vec::new());
        }
        let range = Range {
            start: Timestamp::from_second(start).unwrap_or(from),
            stop: Timestamp::from_second(stop).unwrap_or(to),
        };
        let query = flux::trend(&self.options.trend_bucket, segment, window, range);
        self.rows(&query, |row| {
            Ok(Count {
                users: row.number("_value")?,
                as_of: row.time("_time")?,
            })
        })
        .await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.check_open()?;
        let epoch = Timestamp::UNIX_EPOCH;
        let range = Range {
            start: epoch,
            stop: Timestamp::from_second(1).unwrap_or(epoch),
        };
        let query = flux::probe(&self.options.bucket, range);
        let timeout = self.options.query_timeout.min(PING_TIMEOUT);
        query::rows(&self.server, &query, timeout, |_| Ok(())).await?;
        Ok(())
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.closed.store(true, Ordering::Release);
        self.writer.close().await;
        Ok(())
    }
}
