//! Reading pairs back, to move them to another store: as they come, whatever there is of them.

use std::collections::VecDeque;
use std::ops::RangeInclusive;

use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};

use super::InfluxStore;
use super::error::Error;
use super::flux::{self, Range};
use super::line::slot_at;
use super::query::{Answer, Row};
use domain::store::StoreError;
use domain::{Batch, BatchBuilder, Segment, Slot, UserId};

/// The most points of one batch that is not a stream, a quarter of a gigabyte of short names at most.
const MAX_POINTS: usize = 4_000_000;
/// Points of one batch of a stream, and a few more: what came with the last of them.
const BATCH_POINTS: usize = 8_000;

/// A point, unless what another program wrote there is no user id: that counts as a user, but has no other home.
type Found = Option<(UserId<'static>, i64)>;
type Rows = Answer<fn(&Row<'_>) -> Result<Found, Error>>;

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
                "InfluxDB: more than {MAX_POINTS} points: ask for fewer slots"
            )));
        }
    }
    Ok(all.finish())
}

/// The same in batches, as they come.
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
        answer: None,
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
    /// What is not asked for yet; `None` before the beginning.
    left: Option<VecDeque<Range>>,
    /// Whether no type of another program can have hidden anything.
    is_sure: bool,
    answer: Option<Rows>,
    rows: Vec<Found>,
}

impl Reading<'_> {
    async fn next(&mut self) -> Result<Option<Batch>, StoreError> {
        self.store.check_agreed().await?;
        if self.left.is_none() {
            self.begin().await?;
        }
        while self.rows.len() < BATCH_POINTS {
            if let Some(answer) = &mut self.answer {
                if !answer.next(&mut self.rows).await? {
                    self.answer = None;
                }
            } else if let Some(range) = self.left.as_mut().and_then(VecDeque::pop_front) {
                self.answer = Some(self.ask(range).await?);
            } else if self.is_sure {
                break;
            } else {
                // Types are looked at after the query as well: see `fields`.
                self.is_sure = true;
                if self.store.look(&self.store.fields).await?.is_mixed {
                    // Another program began meanwhile. Pairs that came already come again, which changes nothing.
                    self.left = Some(self.range.pieces(self.store.shard).into());
                }
            }
        }
        Ok((!self.rows.is_empty()).then(|| self.batch()))
    }

    /// Looks at types first, so that a bucket that is mixed already is read in pieces, and gives each pair once.
    async fn begin(&mut self) -> Result<(), StoreError> {
        let fields = &self.store.fields;
        self.is_sure = fields.are_mixed() || self.store.look(fields).await?.is_mixed;
        self.left = Some(match self.is_sure {
            true => self.range.pieces(self.store.shard).into(),
            false => VecDeque::from([self.range]),
        });
        Ok(())
    }

    async fn ask(&self, range: Range) -> Result<Rows, StoreError> {
        let flux = flux::export(&self.store.options.bucket, self.segment, range);
        let within = self.store.options.query_timeout;
        let asked = Answer::ask(&self.store.server, &flux, within, read as _).await;
        asked.map_err(StoreError::from)
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
