//! The InfluxDB 2 store. Pairs are points in a bucket whose retention is the window. One Flux query counts one
//! segment, or a group of small segments.
//!
//! A pair is a point of measurement `pair` with the tag `segment` and the string field `user`. The user can't
//! be a tag: every (user, segment) would be a series of its own, about a kilobyte of memory each. Instead the
//! timestamp distinguishes the users of a slot (see [`line::nanos`]), so a pair that is written twice is the
//! same point.

mod dead_letter;
mod deliver;
mod driver;
mod erase;
mod erasure_notes;
mod error;
mod export;
mod fields;
mod flow_control;
mod flux;
mod foreign_points;
mod forget;
mod framing;
#[cfg(test)]
mod fuzz;
mod group;
mod installation;
mod line;
mod lines;
#[cfg(test)]
mod model;
mod options;
mod plan;
mod properties;
mod query;
mod refusal;
mod retention;
mod server;
mod setup;
mod stats;
mod writer;

use std::collections::{BTreeMap, HashMap};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use tokio::sync::{Semaphore, SemaphorePermit};

pub use options::InfluxOptions;
pub use server::{INFLUX_URL, parse_url};
pub use setup::{TOKEN_ROLES, set_up};
pub use stats::InfluxStats;

use self::deliver::Delivery;
use self::error::Error;
use self::fields::{Fields, Found};
use self::flux::{Erased, Range};
use self::forget::Erasures;
use self::installation::Installation;
use self::line::{segment_of_tag, slot_at};
use self::query::Row;
use self::retention::Retention;
use self::server::Server;
use self::setup::shard_length;
use self::stats::Counters;
use self::writer::Writer;
use domain::store::{
    Archived, Change, PairStore, Remains, StoreError, check_property, last_of_each,
};
use domain::{
    Batch, Count, Erasure, FingerprintKey, Membership, Segment, Slot, Timestamp, TrendPoint,
    UserId, Window,
};

/// The last second that Flux can represent: its times are nanoseconds in 64 bits.
const LAST_FLUX_SECOND: i64 = i64::MAX / 1_000_000_000;

/// Segments per query. With 4 million points in 500 segments and 2 concurrent queries, queries of 1, 5, 25 and 100
/// segments took 71, 40, 25 and 30 s.
const COUNTS_AT_ONCE: usize = 25;

/// The timeout of a ping. Its query takes milliseconds.
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
    lookups: Semaphore,
    installation: Installation,
    fields: Fields,
    trend_fields: Fields,
    /// The shard length of the bucket.
    shard: Duration,
    retention: Retention,
    closed: AtomicBool,
}

impl InfluxStore {
    /// Opens a store on the server of `options`. It sends no request yet, so the server may be unavailable.
    ///
    /// Must be called within a Tokio runtime, which then runs the writer's task.
    pub fn open(options: InfluxOptions) -> Result<Self, StoreError> {
        let server = Server::new(&options)?;
        let counters = Arc::new(Counters::default());
        let delivery = Arc::new(Delivery::new(
            Arc::new(server.clone()),
            &options,
            Arc::clone(&counters),
        ));
        let lookups = Semaphore::new(options.lookups.max(1));
        Ok(Self {
            writer: Writer::start(Arc::clone(&delivery), &options),
            installation: Installation::new(server.clone(), &options),
            fields: Fields::of(&options.bucket),
            trend_fields: Fields::of(&options.trend_bucket),
            shard: setup::shard_of(&options),
            options,
            server,
            delivery,
            counters,
            erasures: Erasures::default(),
            lookups,
            retention: Retention::default(),
            closed: AtomicBool::new(false),
        })
    }

    /// The counters of the write path since the store was opened.
    pub fn stats(&self) -> InfluxStats {
        self.counters.read()
    }

    /// The number of pairs that are queued or being written.
    pub fn waiting_pairs(&self) -> usize {
        self.writer.waiting()
    }

    /// Reads the record that all instances on the bucket must agree on. Creates it if it is missing and the token may
    /// write. [`StoreError::Damaged`] reports how this instance differs from the record.
    pub async fn prepare(&self) -> Result<(), StoreError> {
        self.installation.check().await?;
        self.installation.key().await?;
        Ok(())
    }

    /// Creates the record that all instances on the bucket must agree on, or updates it where that is safe.
    async fn set_up(&self) -> Result<Change, StoreError> {
        let has_pairs = async || {
            let query = flux::any_point(
                &self.options.bucket,
                line::PAIR,
                self.full_range(Timestamp::now()),
                flux::Types::Any,
            );
            Ok(!self.rows(&query, |_| Ok(())).await?.is_empty())
        };
        self.installation.set_up(has_pairs).await
    }

    /// Waits for a permit to read all pairs for one user.
    async fn lookup_permit(&self) -> Result<SemaphorePermit<'_>, StoreError> {
        let busy = || StoreError::Busy("InfluxDB: too many concurrent user lookups".into());
        let permit = tokio::time::timeout(self.options.lookup_wait, self.lookups.acquire()).await;
        permit.map_err(|_| busy())?.map_err(|_| StoreError::Closed)
    }

    /// Checks that the store is open and agrees with the installation's record.
    async fn check_agreed(&self) -> Result<(), StoreError> {
        self.check_open()?;
        self.installation.check().await
    }

    fn check_open(&self) -> Result<(), StoreError> {
        if self.closed.load(Ordering::Acquire) {
            return Err(StoreError::Closed);
        }
        Ok(())
    }

    /// The rows of a query's response, each parsed by `read`.
    async fn rows<T>(
        &self,
        flux: &str,
        read: impl FnMut(&Row<'_>) -> Result<T, Error> + Send,
    ) -> Result<Vec<T>, StoreError> {
        let rows = query::rows(&self.server, flux, self.options.query_timeout, read).await;
        rows.map_err(StoreError::from)
    }

    /// The rows of the query that `flux` builds for `range`. No row is hidden by a field type that another program
    /// introduced in some shard.
    ///
    /// If the bucket has mixed field types, this runs one query for each shard's part of the range.
    async fn rows_over<T>(
        &self,
        fields: &Fields,
        (range, shard): (Range, Duration),
        flux: impl Fn(Range) -> String,
        mut read: impl FnMut(&Row<'_>) -> Result<T, Error> + Send,
    ) -> Result<Vec<T>, StoreError> {
        if !fields.are_mixed() {
            let rows = self.rows(&flux(range), &mut read).await?;
            // The check must follow the query: see `fields`.
            if !self.look(fields).await?.is_mixed {
                return Ok(rows);
            }
        }
        let mut rows = Vec::new();
        for piece in range.pieces(shard) {
            rows.extend(self.rows(&flux(piece), &mut read).await?);
        }
        Ok(rows)
    }

    async fn look(&self, fields: &Fields) -> Result<Found, StoreError> {
        let found = fields.look(&self.server, self.options.query_timeout).await;
        found.map_err(StoreError::from)
    }

    /// The number of distinct users of each of `segments`. A segment without users is omitted.
    async fn users_of(
        &self,
        segments: &[Segment],
        window: Window,
        as_of: Timestamp,
    ) -> Result<HashMap<Segment, u64>, StoreError> {
        self.check_agreed().await?;
        let range = Range::of(window, as_of, self.options.frame.resolution());
        self.count_users(segments, range).await
    }

    /// The number of distinct users of each of `segments` in `range`. A segment without users is omitted.
    async fn count_users(
        &self,
        segments: &[Segment],
        range: Range,
    ) -> Result<HashMap<Segment, u64>, StoreError> {
        let bucket = &self.options.bucket;
        let apart = || flux::count_apart(bucket, segments, &range.pieces(self.shard));
        if self.fields.are_mixed() {
            return self.counts(&apart()).await;
        }
        let has_erased = |segment: &Segment| self.erasures.known_in(segment, range);
        let erased = match segments.iter().any(has_erased) {
            true => Erased::FilteredOut,
            false => Erased::Ignored,
        };
        let query = flux::count(bucket, segments, range, erased);
        let mut users = self.counts(&query).await?;
        // The check must follow the query: see `fields` and `Erasures`.
        let found = self.look(&self.fields).await?;
        if found.is_mixed {
            return self.counts(&apart()).await;
        }
        if erased == Erased::FilteredOut || !found.has_erased || users.is_empty() {
            return Ok(users);
        }
        self.look_for_erasures(range).await?;
        let again: Vec<Segment> = segments
            .iter()
            .filter(|segment| has_erased(segment))
            .cloned()
            .collect();
        if !again.is_empty() {
            let query = flux::count(bucket, &again, range, Erased::FilteredOut);
            let filtered = self.counts(&query).await?;
            users.retain(|segment, _| !again.contains(segment));
            users.extend(filtered);
        }
        Ok(users)
    }

    /// The counts in a query's response. A segment without users is omitted.
    async fn counts(&self, query: &str) -> Result<HashMap<Segment, u64>, StoreError> {
        let counts = self
            .rows(query, |row| {
                let segment = segment_of_tag(row.get("segment")?);
                let segment = segment
                    .ok_or_else(|| Error::InvalidResponse("an unknown segment tag".into()))?;
                Ok((segment, row.number("_value")?))
            })
            .await?;
        let mut users = HashMap::with_capacity(counts.len());
        for (segment, count) in counts {
            if users.insert(segment, count).is_some() {
                return Err(Error::InvalidResponse("several rows for one segment".into()).into());
            }
        }
        Ok(users)
    }

    /// Notes the segments in which points in `range` were erased by overwriting, with the latest slot of each.
    async fn look_for_erasures(&self, range: Range) -> Result<(), StoreError> {
        let query = flux::last_erased(&self.options.bucket, range);
        let noted = self
            .rows(&query, |row| {
                Ok((segment_of_tag(row.get("segment")?), row.time("_time")?))
            })
            .await?;
        for (segment, at) in noted {
            if let Some(segment) = segment {
                self.erasures.note(&segment, at);
            }
        }
        Ok(())
    }

    /// The points of a trend, or the last one of each step.
    async fn trend_of(
        &self,
        segment: &Segment,
        window: Window,
        (from, to): (Timestamp, Timestamp),
        step: Option<Duration>,
    ) -> Result<Vec<Count>, StoreError> {
        self.check_open()?;
        // Points have whole seconds, and a range excludes its stop.
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
        let bucket = &self.options.trend_bucket;
        let points = self
            .rows_over(
                &self.trend_fields,
                (range, shard_length(setup::TREND_SECONDS)),
                |range| flux::trend(bucket, segment, window, range, step),
                |row| {
                    let as_of = row.time("_time")?;
                    // Another program may have written a value of another type.
                    let users = row.number("_value").ok();
                    Ok(users.map(|users| Count { users, as_of }))
                },
            )
            .await?;
        Ok(points.into_iter().flatten().collect())
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
        let key = self.installation.key().await?;
        let resolution = self.options.frame.resolution();
        let bodies = line::bodies(batch, resolution, self.writer.batch_lines(), key);
        let mut made = Vec::new();
        for body in bodies {
            if !made.is_empty() {
                // Building a body takes a millisecond on a thread that serves connections.
                tokio::task::yield_now().await;
            }
            made.push(body);
        }
        self.writer.write(made).await
    }

    async fn count(
        &self,
        segment: &Segment,
        window: Window,
        as_of: Timestamp,
    ) -> Result<Count, StoreError> {
        let users = self.users_of(std::slice::from_ref(segment), window, as_of);
        let users = users.await?.get(segment).copied().unwrap_or(0);
        Ok(Count { users, as_of })
    }

    async fn count_many(
        &self,
        segments: &[Segment],
        window: Window,
        as_of: Timestamp,
    ) -> Result<Vec<Count>, StoreError> {
        let mut counts = Vec::with_capacity(segments.len());
        for some in segments.chunks(COUNTS_AT_ONCE) {
            let users = self.users_of(some, window, as_of).await?;
            counts.extend(some.iter().map(|segment| Count {
                users: users.get(segment).copied().unwrap_or(0),
                as_of,
            }));
        }
        Ok(counts)
    }

    fn counts_at_once(&self) -> usize {
        COUNTS_AT_ONCE
    }

    /// A point stays when its user is seen again.
    fn keeps_every_slot(&self) -> bool {
        true
    }

    async fn segments(&self, as_of: Timestamp) -> Result<Vec<Segment>, StoreError> {
        self.check_agreed().await?;
        let bucket = &self.options.bucket;
        let tags = self
            .rows_over(
                &self.fields,
                (self.full_range(as_of), self.shard),
                |range| flux::segments(bucket, range),
                |row| Ok(segment_of_tag(row.get("segment")?)),
            )
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
        self.check_agreed().await?;
        let _permit = self.lookup_permit().await?;
        let bucket = &self.options.bucket;
        let resolution = self.options.frame.resolution();
        let found = self
            .rows_over(
                &self.fields,
                (self.full_range(as_of), self.shard),
                |range| flux::memberships(bucket, user, range),
                |row| {
                    let last_seen = slot_at(row.nanos("_time")?, resolution);
                    Ok((segment_of_tag(row.get("segment")?), last_seen))
                },
            )
            .await?;
        let mut latest = BTreeMap::new();
        for (segment, last_seen) in found {
            let Some(segment) = segment else { continue };
            let known = latest.entry(segment).or_insert(last_seen);
            *known = last_seen.max(*known);
        }
        let memberships = latest.into_iter();
        Ok(memberships
            .map(|(segment, last_seen)| Membership { segment, last_seen })
            .collect())
    }

    async fn forget(&self, user: &UserId<'_>, as_of: Timestamp) -> Result<u64, StoreError> {
        self.check_agreed().await?;
        let _permit = self.lookup_permit().await?;
        forget::forget(self, user, None, as_of).await
    }

    async fn forget_in(
        &self,
        segment: &Segment,
        user: &UserId<'_>,
        as_of: Timestamp,
    ) -> Result<bool, StoreError> {
        self.check_agreed().await?;
        let _permit = self.lookup_permit().await?;
        let segments = std::slice::from_ref(segment);
        let erased = forget::forget(self, user, Some(segments), as_of).await?;
        Ok(erased > 0)
    }

    async fn forget_seen(
        &self,
        user: &UserId<'_>,
        seen: &[Membership],
        as_of: Timestamp,
    ) -> Result<u64, StoreError> {
        self.check_agreed().await?;
        if seen.is_empty() {
            return Ok(0);
        }
        let _permit = self.lookup_permit().await?;
        forget::forget_seen(self, user, seen, as_of).await
    }

    async fn drop_segment(
        &self,
        segment: &Segment,
        _windows: &[Window],
        as_of: Timestamp,
    ) -> Result<u64, StoreError> {
        self.check_agreed().await?;
        forget::drop_segment(self, segment, as_of).await
    }

    async fn note_erasure(&self, erasure: &Erasure) -> Result<(), StoreError> {
        self.check_agreed().await?;
        erasure_notes::note(self, erasure).await
    }

    async fn erasures(&self, since: Timestamp) -> Result<Vec<Erasure>, StoreError> {
        self.check_agreed().await?;
        erasure_notes::since(self, since).await
    }

    async fn erase_refused(&self, erasures: &[Erasure]) -> Result<u64, StoreError> {
        self.delivery.erase_refused(erasures).await
    }

    fn remains(&self, at: Timestamp) -> Vec<Remains> {
        let window = Duration::from_secs(self.options.frame.full_window().seconds());
        let kept = window + self.shard + forget::EXPIRY;
        vec![Remains {
            place: "influxdb_files",
            what: "the deleted points in InfluxDB's own files, until it compacts them, at the latest until it drops \
                   their shard; points without the user's name, if there were more than 50, until an archive run"
                .to_owned(),
            until: at.checked_add(kept).ok(),
        }]
    }

    async fn fingerprint_key(&self) -> Result<FingerprintKey, StoreError> {
        self.installation.key().await
    }

    async fn properties(&self, prefix: &str) -> Result<BTreeMap<String, String>, StoreError> {
        self.check_agreed().await?;
        properties::read(self, prefix).await
    }

    async fn set_property(&self, name: &str, value: Option<&str>) -> Result<(), StoreError> {
        check_property(name, value)?;
        self.check_agreed().await?;
        properties::set(self, name, value).await
    }

    /// The server drops points that are older than the bucket's retention, and every query states its range. What
    /// remains to be removed are points whose user was overwritten instead of deleted.
    async fn archive(&self, as_of: Timestamp, limit: u64) -> Result<Archived, StoreError> {
        self.check_agreed().await?;
        forget::sweep(self, as_of, limit).await
    }

    /// Returns one pair per point, so a user who was seen in several slots appears several times.
    async fn export(
        &self,
        segment: &Segment,
        slots: RangeInclusive<Slot>,
    ) -> Result<Batch, StoreError> {
        self.check_agreed().await?;
        export::export(self, segment, slots).await
    }

    fn streams(&self) -> bool {
        true
    }

    fn export_stream<'a>(
        &'a self,
        segment: &'a Segment,
        slots: RangeInclusive<Slot>,
    ) -> BoxStream<'a, Result<Batch, StoreError>> {
        export::stream(self, segment, slots)
    }

    async fn record_trend(&self, points: &[TrendPoint]) -> Result<(), StoreError> {
        self.check_open()?;
        for some in points.chunks(self.options.batch_pairs.max(1)) {
            let bucket = &self.options.trend_bucket;
            self.delivery.deliver(bucket, line::trend(some)).await?;
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
        self.trend_of(segment, window, (from, to), None).await
    }

    async fn trend_in_steps(
        &self,
        segment: &Segment,
        window: Window,
        from: Timestamp,
        to: Timestamp,
        step: Duration,
    ) -> Result<Vec<Count>, StoreError> {
        let points = self.trend_of(segment, window, (from, to), Some(step));
        // If each shard was queried separately, one step may span two shards.
        Ok(last_of_each(points.await?, step))
    }

    async fn strangers(&self, as_of: Timestamp) -> Result<Vec<String>, StoreError> {
        self.check_open()?;
        foreign_points::find(self, as_of).await
    }

    fn known_strangers(&self) -> Vec<String> {
        let buckets = [&self.fields, &self.trend_fields];
        buckets.into_iter().filter_map(Fields::foreign).collect()
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.check_open()?;
        self.installation.look_again().await?;
        let epoch = Timestamp::UNIX_EPOCH;
        let range = Range {
            start: epoch,
            stop: Timestamp::from_second(1).unwrap_or(epoch),
        };
        let query = flux::probe(&self.options.bucket, range);
        let timeout = self.options.query_timeout.min(PING_TIMEOUT);
        query::rows(&self.server, &query, timeout, |_| Ok(())).await?;
        for fields in [&self.fields, &self.trend_fields] {
            fields.look(&self.server, timeout).await?;
        }
        let window = Duration::from_secs(self.options.frame.full_window().seconds());
        self.retention
            .check(&self.server, &self.options.bucket, window, timeout)
            .await
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.closed.store(true, Ordering::Release);
        self.writer.close().await;
        Ok(())
    }
}
