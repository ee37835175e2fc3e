//! Writing: pairs become rows of `pairs`, at their latest slot.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::PostgresStore;
use super::error::Error;
use super::options::PostgresOptions;
use super::rows::{Columns, PairRow, sorted};
use super::session::Session;
use super::stats::Counters;
use domain::{Batch, Segment};

const FIND_SEGMENTS: &str = "select given.place::int4, segments.id \
    from unnest($1::text[]) with ordinality as given (name, place) \
    join segments on segments.name = given.name";

const MAKE_SEGMENTS: &str =
    "insert into segments (name) select unnest($1::text[]) on conflict (name) do nothing";

/// A row that is not behind stays as it is: no new version of it, and no new entries in two indexes.
const UPSERT: &str = "insert into pairs (segment_id, user_id, seen_slot) \
    select * from unnest($1::int4[], $2::text[], $3::int8[]) \
    on conflict (segment_id, user_id) do update set seen_slot = excluded.seen_slot \
    where pairs.seen_slot < excluded.seen_slot";

/// Pause before the second try; each further one may be twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(20);

/// Records `batch`, `batch_pairs` rows at a time, each time in a transaction of its own.
pub(super) async fn record(store: &PostgresStore, batch: &Batch) -> Result<(), Error> {
    if batch.is_empty() {
        return Ok(());
    }
    let mut tries = Tries::new(&store.options, &store.counters);
    let ids = loop {
        match segment_ids(store, batch.segments()).await {
            Ok(ids) => break ids,
            Err(error) => tries.after(error).await?,
        }
    };
    let rows = sorted(batch, &ids);
    for some in rows.chunks(store.options.batch_pairs.max(1)) {
        let mut tries = Tries::new(&store.options, &store.counters);
        while let Err(error) = upsert(store, some).await {
            tries.after(error).await?;
        }
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

/// The id of each segment; those that are new get one. Nothing remembers ids between calls: a database that was
/// restored from a backup may have given them to other segments.
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
        // In the same order everywhere, so that two who make the same ones don't wait in a circle.
        missing.sort_unstable();
        session.execute(MAKE_SEGMENTS, &[&missing]).await?;
        ids = find(&mut session, &names).await?;
    }
    let all: Option<Vec<i32>> = ids.into_iter().collect();
    all.ok_or_else(|| Error::Nonsense("a segment that was made is not there".to_owned()))
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

/// Counts the tries of one write and paces them.
pub(super) struct Tries<'a> {
    counters: &'a Counters,
    left: u32,
    pause: Duration,
    deadline: Instant,
}

impl<'a> Tries<'a> {
    pub(super) fn new(options: &PostgresOptions, counters: &'a Counters) -> Self {
        Self {
            counters,
            left: options.write_attempts.saturating_sub(1),
            pause: FIRST_PAUSE,
            deadline: Instant::now() + options.write_timeout,
        }
    }

    /// Waits for the next try, or gives `error` back when there had better be none.
    pub(super) async fn after(&mut self, error: Error) -> Result<(), Error> {
        let pause = self.pause.mul_f64(0.5 + fastrand::f64());
        let too_late = Instant::now() + pause >= self.deadline;
        if self.left == 0 || too_late || !error.is_worth_repeating() {
            return Err(error);
        }
        tracing::debug!(%error, "a write to Postgres is tried again");
        self.counters.retried();
        self.left -= 1;
        self.pause *= 2;
        sleep(pause).await;
        Ok(())
    }
}
