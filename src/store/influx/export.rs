//! Reading pairs back, to move them to another store.

use std::ops::RangeInclusive;

use super::InfluxStore;
use super::error::Error;
use super::flux::{self, Range};
use super::line::slot_at;
use crate::domain::{Batch, BatchBuilder, Segment, Slot, UserId};
use crate::store::StoreError;

/// The most points of one answer, a quarter of a gigabyte of short names at most. Who moves pairs asks for some
/// ten thousand at a time; an answer beyond this means that the range is too wide for any memory.
const MAX_POINTS: usize = 4_000_000;

/// The points of `segment` in `slots`, each as a pair.
pub(super) async fn export(
    store: &InfluxStore,
    segment: &Segment,
    slots: &RangeInclusive<Slot>,
) -> Result<Batch, StoreError> {
    let resolution = store.options.frame.resolution();
    let range = Range::of_slots(slots, resolution);
    let query = flux::export(&store.options.bucket, segment, range);
    let mut points = 0;
    let rows = store
        .rows(&query, move |row| {
            points += 1;
            if points > MAX_POINTS {
                return Err(Error::Nonsense(format!(
                    "more than {MAX_POINTS} points: ask for fewer slots"
                )));
            }
            // What another program wrote there and is no user id counts as a user, but has no other home.
            let user = UserId::new(row.get("_value")?.to_owned()).ok();
            Ok(user.zip(Some(slot_at(row.nanos("_time")?, resolution))))
        })
        .await?;
    let mut batch = BatchBuilder::with_capacity(rows.len());
    let segment = batch.admit(segment.clone());
    for (user, slot) in rows.into_iter().flatten() {
        batch.push(&user, segment, slot);
    }
    Ok(batch.finish())
}
