//! All pairs of a segment in some slots, page by page.

use std::ops::RangeInclusive;

use super::RedisStore;
use super::asks::PAGE_PAIRS;
use domain::store::StoreError;
use domain::{Batch, BatchBuilder, Segment, Slot, UserId};

/// More pages than any segment has.
const MAX_PAGES: usize = 1_000_000;

/// Reads the pages in the order of slots and names. Pairs move on to later slots meanwhile; one page begins after a
/// pair of the last one that has not moved, so that nothing is left out. A pair may come twice, the second time later.
pub(super) async fn all(
    store: &RedisStore,
    segment: &Segment,
    slots: RangeInclusive<Slot>,
) -> Result<Batch, StoreError> {
    let (first, last) = (*slots.start(), slots.end().number());
    let mut batch = BatchBuilder::default();
    let mut page: Vec<(String, u64)> = Vec::new();
    for _ in 0..MAX_PAGES {
        // Where everything of the last page has moved on, its slot is read again.
        let resume = page.last().map_or(first, |(_, slot)| Slot::new(*slot));
        page = store.ask(store.asks.page(segment, resume, &page)).await?;
        for (user, slot) in page.iter().filter(|(_, slot)| *slot <= last) {
            let user = UserId::new(user.as_str()).map_err(|_| {
                let key = store.asks.keys.pairs(segment);
                StoreError::Damaged(format!("{key} in redis has a member that is no user"))
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
    Err(StoreError::Busy("redis: a segment without end".to_owned()))
}
