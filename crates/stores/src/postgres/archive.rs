//! Removes pairs that no window reaches, and thins the trend, in short steps that do not block writers.

use super::error::Error;
use super::queries::PRUNE_ERASURES;
use super::rows::number;
use super::session::Session;
use super::{PostgresStore, only};
use domain::Timestamp;
use domain::store::Archived;

/// Skips locked rows: a writer is about to move them to a later slot, or the next step removes them. So the statement
/// never waits for a lock and can't be part of a deadlock. The condition on the slot is repeated, because a row may move
/// between its selection and its deletion.
const REMOVE_PAIRS: &str = "delete from pairs where seen_slot < $1 and ctid = any (array( \
    select expired.place from segments cross join lateral ( \
        select pairs.ctid as place from pairs \
        where pairs.segment_id = segments.id and pairs.seen_slot < $1 \
        limit $2 for update skip locked) as expired \
    limit $2))";

const ANY_LEFT: &str = "select exists (select from segments cross join lateral ( \
    select from pairs where pairs.segment_id = segments.id and pairs.seen_slot < $1 limit 1) as expired)";

const PRUNE_TREND: &str = "delete from trend where ctid = any (array( \
    select ctid from trend where at < to_timestamp($1::int8) limit $2))";

const THINNED_UNTIL: &str = "select trend_thinned_until from frame";

/// Keeps the last point of the hour for each segment and window. Of several instances, the first to advance
/// `trend_thinned_until` does the work.
const THIN_HOUR: &str = "with ours as (update frame set trend_thinned_until = $2 \
        where trend_thinned_until = $1 returning 1) \
    delete from trend as old where exists (select from ours) \
    and old.at >= to_timestamp($1::int8) and old.at < to_timestamp($2::int8) \
    and exists (select from trend as later where later.segment_id = old.segment_id \
        and later.window_seconds = old.window_seconds \
        and later.at > old.at and later.at < to_timestamp($2::int8))";

const HOUR: i64 = 3_600;
/// How long every trend point is kept, in seconds, as in the embedded store.
const FINE: i64 = 48 * HOUR;
/// How long the last point of each hour is kept, in seconds.
const KEPT: i64 = 400 * 24 * HOUR;
/// Hours of the trend that one step thins. The statement for each hour takes a few milliseconds.
const HOURS_PER_STEP: usize = 24;

/// One step, which removes at most `limit` pairs.
pub(super) async fn archive(
    store: &PostgresStore,
    as_of: Timestamp,
    limit: u64,
) -> Result<Archived, Error> {
    let frame = &store.options.frame;
    let reached = frame
        .full_window()
        .slots_as_of(frame.resolution().slot_of(as_of));
    let first = number(reached.start().number());
    let limit = i64::try_from(limit.max(1)).unwrap_or(i64::MAX);
    let mut session = store.writes.session().await?;
    let removed = session.execute(REMOVE_PAIRS, &[&first, &limit]).await?;
    if removed >= limit.unsigned_abs() {
        return Ok(Archived {
            removed,
            done: false,
        });
    }
    // Fewer than `limit`: no pairs are left, or the rest is locked. If all remaining pairs are locked, another step is
    // useless until their locks are released.
    let skipped = removed > 0 && any_left(&mut session, first).await?;
    let reached = frame.resolution().start_of(*reached.start());
    session
        .execute(PRUNE_ERASURES, &[&reached.as_microsecond()])
        .await?;
    drop(session);
    let trend_done = tend_trend(store, as_of.as_second(), limit).await?;
    Ok(Archived {
        removed,
        done: !skipped && trend_done,
    })
}

async fn any_left(session: &mut Session, first: i64) -> Result<bool, Error> {
    let rows = session.query(ANY_LEFT, &[&first]).await?;
    Ok(only(&rows)?.try_get(0)?)
}

/// Prunes and thins the trend. Returns whether nothing is left to do.
async fn tend_trend(store: &PostgresStore, now: i64, limit: i64) -> Result<bool, Error> {
    let mut session = store.writes.session().await?;
    let pruned = session
        .execute(PRUNE_TREND, &[&(now - KEPT), &limit])
        .await?;
    if pruned >= limit.unsigned_abs() {
        return Ok(false);
    }
    for _ in 0..HOURS_PER_STEP {
        let mut session = store.writes.session().await?;
        let rows = session.query(THINNED_UNTIL, &[]).await?;
        let Some(row) = rows.first() else {
            return Ok(true);
        };
        let until: i64 = row.try_get(0)?;
        if until + HOUR > now - FINE {
            return Ok(true);
        }
        session
            .execute(THIN_HOUR, &[&until, &(until + HOUR)])
            .await?;
    }
    Ok(false)
}
