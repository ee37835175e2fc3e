//! Erasing one user: their points are found by name, whichever offset a version of this program gave them, and deleted
//! one by one.
//!
//! Where that can't be, since the token may not, the server does not answer, or there are too many for one request, they
//! are overwritten with a sentinel that no count includes. Its timestamp says the slot and, under the installation's key,
//! nothing of who it was; that of a point of version 0.1.0 is a public hash of the name. So an archive run deletes
//! sentinels.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use jiff::SignedDuration;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::InfluxStore;
use super::erase::{self, Point};
use super::error::Error;
use super::flux::{self, Range};
use super::line::{push_erased, push_erased_mark, segment_of_tag, slot_at};
use super::lines::Lines;
use super::query::Row;
use domain::store::{Archived, StoreError};
use domain::{Segment, Timestamp, UserId};

/// How far ahead of `as_of` points are looked for: another instance's clock may be ahead, by less than this.
const AHEAD: SignedDuration = SignedDuration::from_hours(24);

/// How long an expired point may stay beyond its shard: the server looks each half hour.
pub(super) const EXPIRY: Duration = Duration::from_hours(1);
/// The most points that are deleted before the user is told gone. More are overwritten first, since a delete takes tens of
/// milliseconds.
const DELETED_AT_ONCE: usize = 50;

/// The segments known to have something erased, each with the start of the latest slot in which it was.
///
/// A count that need not filter values takes a quarter less. So erasing notes its slots in a measurement of
/// their own *before* it overwrites anything, and a count looks there *after* its scan: a sentinel that the
/// scan could see has its note by then, whichever instance wrote it.
#[derive(Debug, Default)]
pub(super) struct Erasures(Mutex<HashMap<Segment, Timestamp>>);

impl Erasures {
    /// Whether something in `range` of `segment` is known to be erased.
    pub(super) fn known_in(&self, segment: &Segment, range: Range) -> bool {
        self.0
            .lock()
            .get(segment)
            .is_some_and(|latest| *latest >= range.start)
    }

    /// Notes that something was erased from the slot of `segment` that starts at `at`.
    pub(super) fn note(&self, segment: &Segment, at: Timestamp) {
        let mut known = self.0.lock();
        let latest = known.entry(segment.clone()).or_insert(at);
        *latest = at.max(*latest);
    }
}

/// Erases `user` and returns from how many segments of the full window.
pub(super) async fn forget(
    store: &InfluxStore,
    user: &UserId<'_>,
    as_of: Timestamp,
) -> Result<u64, StoreError> {
    let deadline = Instant::now() + store.options.delete_deadline;
    let resolution = store.options.frame.resolution();
    let counted = store.full_range(as_of);
    let points = find_points(store, user, searched(store, counted), None).await?;
    let is_counted = |nanos: i64| {
        let start = resolution.start_of(slot_at(nanos, resolution));
        counted.start <= start && start < counted.stop
    };
    let counted = points.iter().filter(|(_, nanos)| is_counted(*nanos));
    let segments: BTreeSet<&Segment> = counted.map(|(segment, _)| segment).collect();
    let lost = segments.len() as u64;

    let are_many = points.len() > DELETED_AT_ONCE;
    if are_many {
        // At once uncounted and without a name; the points themselves go one by one after that.
        overwrite(store, &points).await?;
    }
    let left = erase::delete(store, &points, deadline).await;
    if are_many {
        if !left.is_empty() {
            tracing::info!(
                points = left.len(),
                "points without a name are left: an archive run deletes them"
            );
        }
        return Ok(lost);
    }
    overwrite(store, &left).await?;
    let deleted: Vec<Point> = points
        .into_iter()
        .filter(|point| !left.contains(point))
        .collect();
    check_gone(store, user, &deleted).await?;
    Ok(lost)
}

/// Deletes points whose user was overwritten: about `limit` of them, within the deadline of one erasure. It returns how
/// many, and whether none is left.
pub(super) async fn sweep(
    store: &InfluxStore,
    as_of: Timestamp,
    limit: u64,
) -> Result<Archived, StoreError> {
    if !store.look(&store.fields).await?.has_erased {
        return Ok(Archived {
            removed: 0,
            done: true,
        });
    }
    let deadline = Instant::now() + store.options.delete_deadline;
    let range = searched(store, store.full_range(as_of));
    let bucket = &store.options.bucket;
    let points = store
        .rows_over(
            &store.fields,
            (range, store.shard),
            |range| flux::overwritten(bucket, range),
            read_point,
        )
        .await?;
    let points: Vec<Point> = points.into_iter().flatten().collect();
    let some = points
        .len()
        .min(usize::try_from(limit).unwrap_or(usize::MAX));
    let left = erase::delete(store, &points[..some], deadline).await;
    let removed = some - left.len();
    Ok(Archived {
        removed: removed as u64,
        // What can't be deleted now can't be deleted by asking again at once.
        done: removed == 0 || removed == points.len(),
    })
}

/// All that the bucket may hold: expired points stay for a while, and clocks of others may be ahead.
fn searched(store: &InfluxStore, counted: Range) -> Range {
    let kept = store.shard + EXPIRY;
    Range {
        start: counted.start.saturating_sub(kept).unwrap_or(counted.start),
        stop: counted.stop.saturating_add(AHEAD).unwrap_or(counted.stop),
    }
}

/// Puts the sentinel over points, and before that a note of where it will be.
async fn overwrite(store: &InfluxStore, points: &[Point]) -> Result<(), StoreError> {
    let resolution = store.options.frame.resolution();
    let slots = points
        .iter()
        .map(|(segment, nanos)| (segment.clone(), slot_at(*nanos, resolution)));
    let slots: BTreeSet<_> = slots.collect();
    let mut marks = Vec::new();
    for (segment, slot) in &slots {
        push_erased_mark(body_for(&mut marks, store), segment, *slot, resolution);
        store.erasures.note(segment, resolution.start_of(*slot));
    }
    write_all(store, marks).await?;
    let mut sentinels = Vec::new();
    for (segment, nanos) in points {
        push_erased(body_for(&mut sentinels, store), segment, *nanos);
    }
    write_all(store, sentinels).await
}

/// Overwrites those of `points` that still hold the user, whatever the server said of deleting them.
async fn check_gone(
    store: &InfluxStore,
    user: &UserId<'_>,
    points: &[Point],
) -> Result<(), StoreError> {
    let times = points.iter().map(|(_, nanos)| *nanos);
    let (Some(first), Some(last)) = (times.clone().min(), times.max()) else {
        return Ok(());
    };
    let second = |nanos: i64| Timestamp::from_second(nanos.div_euclid(1_000_000_000));
    let (Ok(start), Ok(stop)) = (second(first), second(last.saturating_add(1_000_000_000))) else {
        return Ok(());
    };
    let segments: BTreeSet<Segment> = points.iter().map(|(segment, _)| segment.clone()).collect();
    let segments: Vec<Segment> = segments.into_iter().collect();
    let found = find_points(store, user, Range { start, stop }, Some(&segments)).await?;
    // What was recorded meanwhile counts again.
    let left: Vec<Point> = found
        .into_iter()
        .filter(|point| points.contains(point))
        .collect();
    if !left.is_empty() {
        tracing::warn!(
            points = left.len(),
            "InfluxDB did not delete points: they are overwritten"
        );
    }
    overwrite(store, &left).await
}

async fn find_points(
    store: &InfluxStore,
    user: &UserId<'_>,
    range: Range,
    segments: Option<&[Segment]>,
) -> Result<Vec<Point>, StoreError> {
    let bucket = &store.options.bucket;
    let points = store
        .rows_over(
            &store.fields,
            (range, store.shard),
            |range| flux::points(bucket, user, range, segments),
            read_point,
        )
        .await?;
    Ok(points.into_iter().flatten().collect())
}

fn read_point(row: &Row<'_>) -> Result<Option<Point>, Error> {
    let segment = segment_of_tag(row.get("segment")?);
    Ok(segment.zip(Some(row.nanos("_time")?)))
}

/// The body that the next line goes to.
fn body_for<'a>(bodies: &'a mut Vec<Lines>, store: &InfluxStore) -> &'a mut Lines {
    let full = bodies
        .last()
        .is_none_or(|last| last.count() >= store.options.batch_pairs);
    if full {
        bodies.push(Lines::default());
    }
    let last = bodies.len() - 1;
    &mut bodies[last]
}

async fn write_all(store: &InfluxStore, bodies: Vec<Lines>) -> Result<(), StoreError> {
    for body in bodies {
        store.delivery.deliver(&store.options.bucket, body).await?;
    }
    Ok(())
}
