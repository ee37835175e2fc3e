//! Removes what no window reaches, and takes segments off the list that have nothing left.

use std::collections::BTreeMap;

use super::asks::REMOVE_AT_ONCE;
use super::{AT_ONCE, RedisStore, parse};
use domain::store::{Archived, StoreError};
use domain::{Segment, Slot, Timestamp};

/// Removes at most about `limit` pairs from before `first`.
pub(super) async fn step(
    store: &RedisStore,
    first: Slot,
    limit: u64,
) -> Result<Archived, StoreError> {
    // The list is read before the sets, so that a pair which comes in between shows in one of them.
    let listed = store.listed().await?;
    let limit = limit.max(1);
    let mut removed = 0;
    let mut empty = Vec::new();
    let names: Vec<&Segment> = listed.keys().collect();
    // Two requests a segment.
    for part in names.chunks(AT_ONCE / 2) {
        let requests = part
            .iter()
            .flat_map(|it| store.asks.count_before(it, first));
        let counts: Vec<u64> = store.ask_all(&requests.collect::<Vec<_>>()).await?;
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
                let gone = remove(store, segment, first, at_once).await?;
                removed += gone;
                // Somebody else may have removed some, or been seen again.
                old = if gone < at_once {
                    0
                } else {
                    old.saturating_sub(gone)
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

/// Not repeated by itself, so that what a lost answer removed is not counted as something else.
async fn remove(
    store: &RedisStore,
    segment: &Segment,
    first: Slot,
    at_once: u64,
) -> Result<u64, StoreError> {
    let request = store.asks.archive(segment, first, at_once);
    let mut answers = store.link.ask(&[request]).await?;
    parse(answers.pop().unwrap_or(redis::Value::Nil))
}

/// Takes empty segments off the list for which nothing was announced for long, nor since the list was read.
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
        .map(|(segment, score)| store.asks.drop_empty(segment, &score.to_string()))
        .collect();
    store.ask_all::<u64>(&requests).await?;
    Ok(())
}
