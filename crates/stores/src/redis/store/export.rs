//! Exports all pairs of a segment in a range of slots, page by page.

use std::ops::RangeInclusive;

use super::RedisStore;
use super::requests::PAGE_PAIRS;
use domain::store::StoreError;
use domain::{Batch, BatchBuilder, Segment, Slot, UserId};

/// More pages than any segment has. An export that does not end is an error, not a hang.
const MAX_PAGES: usize = 1_000_000;

/// Reads the pages in the order of slots and names. Pairs may move to later slots meanwhile. Each page starts after a
/// pair of the previous page that has not moved, so that no pair is skipped. A pair may be exported twice, the second
/// time with a later slot.
pub(super) async fn all(
    store: &RedisStore,
    segment: &Segment,
    slots: RangeInclusive<Slot>,
) -> Result<Batch, StoreError> {
    let (first, last) = (*slots.start(), slots.end().number());
    let mut batch = BatchBuilder::default();
    let mut page: Vec<(String, u64)> = Vec::new();
    for _ in 0..MAX_PAGES {
        // If all remembered pairs have moved, the last slot is read again.
        let resume = page.last().map_or(first, |(_, slot)| Slot::new(*slot));
        page = store
            .query(store.requests.page(segment, resume, &page))
            .await?;
        for (user, slot) in page.iter().filter(|(_, slot)| *slot <= last) {
            let user = UserId::new(user.as_str()).map_err(|_| {
                let key = store.requests.keys.pairs(segment);
                StoreError::Damaged(format!(
                    "{key} in redis has a member that is not a valid user id"
                ))
            })?;
            let index = match batch.find(segment.as_str()) {
                Some(index) => index,
                None => batch.admit(segment.clone()),
            };
            batch.push(&user, index, Slot::new(*slot));
        }
        let is_last = page.len() < PAGE_PAIRS || page.last().is_some_and(|(_, slot)| *slot > last);
        if is_last {
            return Ok(batch.finish());
        }
    }
    Err(StoreError::Busy(format!(
        "redis: an export did not end after {MAX_PAGES} pages"
    )))
}
