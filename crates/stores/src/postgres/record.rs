//! Writes: pairs become rows of the table `pairs`, with their latest slot.

use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use tokio::time::Instant;

use super::PostgresStore;
use super::error::Error;
use super::rows::{Columns, PairRow, sorted};
use super::session::Session;
use domain::{Batch, Segment};

const FIND_SEGMENTS: &str = "select given.place::int4, segments.id \
    from unnest($1::text[]) with ordinality as given (name, place) \
    join segments on segments.name = given.name";

const MAKE_SEGMENTS: &str =
    "insert into segments (name) select unnest($1::text[]) on conflict (name) do nothing";

/// A row that already has this slot or a later one is not updated, which saves a new row version and entries in two
/// indexes.
const UPSERT: &str = "insert into pairs (segment_id, user_id, seen_slot) \
    select * from unnest($1::int4[], $2::text[], $3::int8[]) \
    on conflict (segment_id, user_id) do update set seen_slot = excluded.seen_slot \
    where pairs.seen_slot < excluded.seen_slot";

/// The delay before the first retry. It doubles with each further retry. Jitter adds up to the same amount.
const FIRST_DELAY: Duration = Duration::from_millis(20);

/// Records `batch` in chunks of `batch_pairs` rows, each in its own transaction.
pub(super) async fn record(store: &PostgresStore, batch: &Batch) -> Result<(), Error> {
    if batch.is_empty() {
        return Ok(());
    }
    let ids = with_retries(store, || segment_ids(store, batch.segments())).await?;
    let rows = sorted(batch, &ids);
    for some in rows.chunks(store.options.batch_pairs.max(1)) {
        with_retries(store, || upsert(store, some)).await?;
    }
    Ok(())
}

async fn upsert(store: &PostgresStore, rows: &[PairRow<'_>]) -> Result<(), Error> {
    let columns = Columns::of(rows);
    let mut session = store.writes.session().await?;
    session
        .execute(UPSERT, &[&columns.segments, &columns.users, &columns.slots])
        .await?;
    Ok(())
}

/// The id of each segment. Inserts segments that are missing. Ids are not cached between calls: a database that was
/// restored from a backup may assign them to other segments.
pub(super) async fn segment_ids(
    store: &PostgresStore,
    segments: &[Segment],
) -> Result<Vec<i32>, Error> {
    let names: Vec<&str> = segments.iter().map(Segment::as_str).collect();
    let mut session = store.writes.session().await?;
    let mut ids = find(&mut session, &names).await?;
    if ids.contains(&None) {
        let missing = names.iter().zip(&ids).filter(|(_, id)| id.is_none());
        let mut missing: Vec<&str> = missing.map(|(name, _)| *name).collect();
        // All instances insert in the same order, so that two of them can't deadlock on the same segments.
        missing.sort_unstable();
        session.execute(MAKE_SEGMENTS, &[&missing]).await?;
        ids = find(&mut session, &names).await?;
    }
    let all: Option<Vec<i32>> = ids.into_iter().collect();
    all.ok_or_else(|| Error::InvalidResponse("an inserted segment is missing".to_owned()))
}

async fn find(session: &mut Session, names: &[&str]) -> Result<Vec<Option<i32>>, Error> {
    let mut ids = vec![None; names.len()];
    for row in session.query(FIND_SEGMENTS, &[&names]).await? {
        let place: i32 = row.try_get(0)?;
        let found = usize::try_from(place - 1).ok();
        if let Some(id) = found.and_then(|index| ids.get_mut(index)) {
            *id = Some(row.try_get(1)?);
        }
    }
    Ok(ids)
}

/// Retries a write until it succeeds, fails with an error that is not worth a retry, or uses up its attempts or its time.
pub(super) async fn with_retries<T, F>(
    store: &PostgresStore,
    write: impl FnMut() -> F,
) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    let deadline = Instant::now() + store.options.write_timeout;
    let delays = ExponentialBuilder::new()
        .with_min_delay(FIRST_DELAY)
        .without_max_delay()
        .with_max_times(store.options.write_attempts.saturating_sub(1) as usize)
        .with_jitter();
    write
        .retry(delays)
        .when(Error::is_retryable)
        .adjust(|_, delay| delay.filter(|delay| Instant::now() + *delay < deadline))
        .notify(|error, _| {
            tracing::debug!(%error, "retrying a failed write to Postgres");
            store.counters.retried();
        })
        .await
}
