//! Archiving: removes expired pairs, and removes empty segments from the list.

use std::collections::BTreeMap;

use super::requests::REMOVE_AT_ONCE;
use super::{AT_ONCE, RedisStore, parse};
use domain::store::{Archived, StoreError};
use domain::{Segment, Slot, Timestamp};

/// Removes about `limit` pairs at most, from slots before `first`.
pub(super) async fn step(
    store: &RedisStore,
    first: Slot,
    limit: u64,
) -> Result<Archived, StoreError> {
    // The list is read before the sets, so that a pair recorded in between changes one of them.
    let listed = store.listed().await?;
    let limit = limit.max(1);
    let mut removed = 0;
    let mut empty = Vec::new();
    let names: Vec<&Segment> = listed.keys().collect();
    // Two requests a segment.
    for part in names.chunks(AT_ONCE / 2) {
        let requests = part
            .iter()
            .flat_map(|it| store.requests.count_before(it, first));
        let counts: Vec<u64> = store.query_all(&requests.collect::<Vec<_>>()).await?;
        for (segment, counts) in part.iter().zip(counts.chunks_exact(2)) {
            let (mut old, all) = (counts[0], counts[1]);
            if all == 0 {
                empty.push(*segment);
            }
            while old > 0 {
                if removed >= limit {
                    return Ok(Archived {
                        removed,
                        done: false,
                    });
                }
                let at_once = REMOVE_AT_ONCE.min(limit - removed);
                let count = remove(store, segment, first, at_once).await?;
                removed += count;
                // Fewer than requested: another instance removed some, or users were seen again.
                old = if count < at_once {
                    0
                } else {
                    old.saturating_sub(count)
                };
            }
        }
    }
    drop_empty(store, &listed, &empty).await?;
    Ok(Archived {
        removed,
        done: true,
    })
}

/// Removes up to `at_once` pairs. Not retried here: a retry after a lost response would return a wrong number.
async fn remove(
    store: &RedisStore,
    segment: &Segment,
    first: Slot,
    at_once: u64,
) -> Result<u64, StoreError> {
    let request = store.requests.archive(segment, first, at_once);
    let mut responses = store.client.send(&[request]).await?;
    parse(responses.pop().unwrap_or(redis::Value::Nil))
}

/// Removes empty segments from the list unless pairs were announced for them within `quiet`, or since the list was read.
async fn drop_empty(
    store: &RedisStore,
    listed: &BTreeMap<Segment, f64>,
    empty: &[&Segment],
) -> Result<(), StoreError> {
    let quiet = i64::try_from(store.options.quiet.as_millis()).unwrap_or(i64::MAX);
    let before = Timestamp::now().as_millisecond().saturating_sub(quiet);
    let requests: Vec<_> = empty
        .iter()
        .filter_map(|segment| Some((*segment, *listed.get(*segment)?)))
        .filter(|(_, score)| *score < before as f64)
        .map(|(segment, score)| store.requests.drop_empty(segment, &score.to_string()))
        .collect();
    store.query_all::<u64>(&requests).await?;
    Ok(())
}
