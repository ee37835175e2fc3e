//! The trend: past counts, one row per segment, window and second.

use std::collections::HashMap;

use super::PostgresStore;
use super::error::Error;
use super::record::segment_ids;
use domain::{Count, Segment, Timestamp, TrendPoint, Window};

const UPSERT: &str = "insert into trend (segment_id, window_seconds, at, users) \
    select segment_id, window_seconds, to_timestamp(at), users \
    from unnest($1::int4[], $2::int4[], $3::int8[], $4::int8[]) \
        as given (segment_id, window_seconds, at, users) \
    on conflict (segment_id, window_seconds, at) do update set users = excluded.users";

const READ: &str = "select extract(epoch from trend.at)::int8, trend.users \
    from trend join segments on segments.id = trend.segment_id \
    where segments.name = $1 and trend.window_seconds = $2 \
    and trend.at between to_timestamp($3::int8) and to_timestamp($4::int8) order by trend.at";

/// The seconds that both the database's timestamps and [`Timestamp`] can represent.
const SECONDS: std::ops::RangeInclusive<i64> = 0..=253_402_207_200;

/// Stores points in one transaction.
pub(super) async fn record(store: &PostgresStore, points: &[TrendPoint]) -> Result<(), Error> {
    // One statement may not update a row twice. The later point replaces the earlier one.
    let mut latest: HashMap<(&Segment, u64, i64), u64> = HashMap::new();
    for point in points {
        let at = point.count.as_of.as_second();
        latest.insert(
            (&point.segment, point.window.seconds(), at),
            point.count.users,
        );
    }
    let mut segments: Vec<Segment> = points.iter().map(|point| point.segment.clone()).collect();
    segments.sort_unstable();
    segments.dedup();
    let ids = segment_ids(store, &segments).await?;
    let mut rows: Vec<(i32, i32, i64, i64)> = latest
        .into_iter()
        .filter_map(|((segment, window, at), users)| {
            let place = segments.binary_search(segment).ok()?;
            Some((*ids.get(place)?, seconds(window), at, count(users)))
        })
        .collect();
    rows.sort_unstable();
    let segments: Vec<i32> = rows.iter().map(|row| row.0).collect();
    let windows: Vec<i32> = rows.iter().map(|row| row.1).collect();
    let instants: Vec<i64> = rows.iter().map(|row| row.2).collect();
    let users: Vec<i64> = rows.iter().map(|row| row.3).collect();
    let mut session = store.writes.session().await?;
    session
        .execute(UPSERT, &[&segments, &windows, &instants, &users])
        .await?;
    Ok(())
}

/// The points of `segment` and `window` with `from <= at <= to`, oldest first.
pub(super) async fn read(
    store: &PostgresStore,
    segment: &Segment,
    window: Window,
    from: Timestamp,
    to: Timestamp,
) -> Result<Vec<Count>, Error> {
    // Points have whole seconds.
    let from = from.as_second() + i64::from(from.subsec_nanosecond() > 0);
    let from = from.clamp(*SECONDS.start(), *SECONDS.end());
    let to = to.as_second().min(*SECONDS.end());
    let mut counts = Vec::new();
    let mut session = store.reads.session().await?;
    session
        .each_row(
            READ,
            &[&segment.as_str(), &seconds(window.seconds()), &from, &to],
            |row| {
                let invalid =
                    |_| Error::InvalidResponse("a timestamp of the trend out of range".to_owned());
                let users: i64 = row.try_get(1)?;
                counts.push(Count {
                    users: u64::try_from(users).unwrap_or(0),
                    as_of: Timestamp::from_second(row.try_get(0)?).map_err(invalid)?,
                });
                Ok(())
            },
        )
        .await?;
    Ok(counts)
}

/// A window has at most 2^15 slots of an hour.
fn seconds(window: u64) -> i32 {
    i32::try_from(window).unwrap_or(i32::MAX)
}

fn count(users: u64) -> i64 {
    i64::try_from(users).unwrap_or(i64::MAX)
}
