//! Exports pairs for a copy to another store, as a stream of any length.

use std::collections::VecDeque;
use std::ops::RangeInclusive;

use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};

use super::InfluxStore;
use super::error::Error;
use super::flux::{self, Range};
use super::line::slot_at;
use super::query::{QueryResponse, Row};
use domain::store::StoreError;
use domain::{Batch, BatchBuilder, Segment, Slot, UserId};

/// The maximum number of points in an export that is not a stream: at most a quarter of a gigabyte with short user ids.
const MAX_POINTS: usize = 4_000_000;
/// The minimum number of points in one batch of a stream. The last chunk of the response may add a few more.
const BATCH_POINTS: usize = 8_000;

/// A point; `None` if another program wrote a value that is not a valid user id. Such a value counts as a user, but can't
/// be exported.
type Found = Option<(UserId<'static>, i64)>;
type Rows = QueryResponse<fn(&Row<'_>) -> Result<Found, Error>>;

/// The points of `segment` in `slots`, each as a pair.
pub(super) async fn export(
    store: &InfluxStore,
    segment: &Segment,
    slots: RangeInclusive<Slot>,
) -> Result<Batch, StoreError> {
    let mut batches = stream(store, segment, slots);
    let mut all = BatchBuilder::default();
    let admitted = all.admit(segment.clone());
    while let Some(batch) = batches.try_next().await? {
        for pair in batch.pairs() {
            all.push(&pair.user, admitted, pair.slot);
        }
        if all.len() > MAX_POINTS {
            return Err(StoreError::Rejected(format!(
                "InfluxDB: more than {MAX_POINTS} points: request fewer slots"
            )));
        }
    }
    Ok(all.finish())
}

/// The points of `segment` in `slots` as pairs, in batches as they arrive.
pub(super) fn stream<'a>(
    store: &'a InfluxStore,
    segment: &'a Segment,
    slots: RangeInclusive<Slot>,
) -> BoxStream<'a, Result<Batch, StoreError>> {
    if slots.is_empty() {
        return stream::empty().boxed();
    }
    let range = Range::of_slots(&slots, store.options.frame.resolution());
    let reading = Reading {
        store,
        segment,
        range,
        left: None,
        is_sure: false,
        response: None,
        rows: Vec::new(),
    };
    stream::try_unfold(reading, async |mut reading| {
        Ok(reading.next().await?.map(|batch| (batch, reading)))
    })
    .boxed()
}

struct Reading<'a> {
    store: &'a InfluxStore,
    segment: &'a Segment,
    range: Range,
    /// The ranges that are not queried yet; `None` before the start.
    left: Option<VecDeque<Range>>,
    /// Whether it is certain that no conflicting field type hid any points.
    is_sure: bool,
    response: Option<Rows>,
    rows: Vec<Found>,
}

impl Reading<'_> {
    async fn next(&mut self) -> Result<Option<Batch>, StoreError> {
        self.store.check_agreed().await?;
        if self.left.is_none() {
            self.begin().await?;
        }
        while self.rows.len() < BATCH_POINTS {
            if let Some(response) = &mut self.response {
                if !response.next(&mut self.rows).await? {
                    self.response = None;
                }
            } else if let Some(range) = self.left.as_mut().and_then(VecDeque::pop_front) {
                self.response = Some(self.query(range).await?);
            } else if self.is_sure {
                break;
            } else {
                // Field types must be checked after the query too: see `fields`.
                self.is_sure = true;
                if self.store.look(&self.store.fields).await?.is_mixed {
                    // Another program wrote in the meantime. Read again: repeated pairs change nothing.
                    self.left = Some(self.range.pieces(self.store.shard).into());
                }
            }
        }
        Ok((!self.rows.is_empty()).then(|| self.batch()))
    }

    /// Checks field types first. A bucket that is already mixed is read shard by shard, so that each point is read once.
    async fn begin(&mut self) -> Result<(), StoreError> {
        let fields = &self.store.fields;
        self.is_sure = fields.are_mixed() || self.store.look(fields).await?.is_mixed;
        self.left = Some(match self.is_sure {
            true => self.range.pieces(self.store.shard).into(),
            false => VecDeque::from([self.range]),
        });
        Ok(())
    }

    async fn query(&self, range: Range) -> Result<Rows, StoreError> {
        let flux = flux::export(&self.store.options.bucket, self.segment, range);
        let within = self.store.options.query_timeout;
        let response = QueryResponse::run(&self.store.server, &flux, within, read as _).await;
        response.map_err(StoreError::from)
    }

    fn batch(&mut self) -> Batch {
        let resolution = self.store.options.frame.resolution();
        let mut batch = BatchBuilder::with_capacity(self.rows.len());
        let segment = batch.admit(self.segment.clone());
        for (user, nanos) in self.rows.drain(..).flatten() {
            batch.push(&user, segment, slot_at(nanos, resolution));
        }
        batch.finish()
    }
}

fn read(row: &Row<'_>) -> Result<Found, Error> {
    let user = UserId::new(row.get("_value")?.to_owned()).ok();
    Ok(user.zip(Some(row.nanos("_time")?)))
}
