//! Erases one user. Their points are found by user id, whichever timestamp a version of this program gave them, and
//! deleted one by one.
//!
//! If points can't be deleted, they are overwritten with a sentinel that no count includes. That is the case if the token
//! lacks the permission, the server does not respond, or there are too many points for one request. A sentinel's timestamp
//! reveals the slot but, thanks to the installation's key, not the user. The timestamp of a point of version 0.1.0 is a
//! public hash of the user id, so an archive run deletes sentinels.

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
use domain::{Membership, Segment, Slot, Timestamp, UserId};

/// How far ahead of `as_of` the search for points extends. Another instance's clock may be ahead, by less than this.
const AHEAD: SignedDuration = SignedDuration::from_hours(24);

/// How long an expired point may outlive its shard: the server checks every half hour.
pub(super) const EXPIRY: Duration = Duration::from_hours(1);
/// The maximum number of points that are deleted without overwriting them first. With more points, the user is overwritten
/// first, because a delete takes tens of milliseconds.
const DELETED_AT_ONCE: usize = 50;

/// The segments known to have overwritten points, each with the start of the latest slot that has one.
///
/// A count without a filter on values is a quarter cheaper. So an erasure writes markers of its slots to a separate
/// measurement *before* it overwrites anything, and a count reads that measurement *after* its scan. By then, every
/// sentinel that the scan could see has its marker, whichever instance wrote it.
#[derive(Debug, Default)]
pub(super) struct Erasures(Mutex<HashMap<Segment, Timestamp>>);

impl Erasures {
    /// Whether `segment` is known to have overwritten points in `range`.
    pub(super) fn known_in(&self, segment: &Segment, range: Range) -> bool {
        self.0
            .lock()
            .get(segment)
            .is_some_and(|latest| *latest >= range.start)
    }

    /// Notes overwritten points in the slot of `segment` that starts at `at`.
    pub(super) fn note(&self, segment: &Segment, at: Timestamp) {
        let mut known = self.0.lock();
        let latest = known.entry(segment.clone()).or_insert(at);
        *latest = at.max(*latest);
    }
}

/// Erases `user`, from `segments` if they are given, and returns the number of affected segments within the full window.
pub(super) async fn forget(
    store: &InfluxStore,
    user: &UserId<'_>,
    segments: Option<&[Segment]>,
    as_of: Timestamp,
) -> Result<u64, StoreError> {
    let searched = searched(store, store.full_range(as_of));
    let points = find_points(store, user, searched, segments).await?;
    erase(store, user, points, as_of).await
}

/// Erases `user` from the segments of `seen`, except from one in which the user was seen later.
pub(super) async fn forget_seen(
    store: &InfluxStore,
    user: &UserId<'_>,
    seen: &[Membership],
    as_of: Timestamp,
) -> Result<u64, StoreError> {
    let resolution = store.options.frame.resolution();
    let mut latest: HashMap<&Segment, Slot> = HashMap::new();
    for it in seen {
        latest.insert(&it.segment, it.last_seen);
    }
    let searched = searched(store, store.full_range(as_of));
    let mut points = find_points(store, user, searched, None).await?;
    for (segment, nanos) in &points {
        // All points of a segment stay if one of them is later: a segment has its user or does not.
        if latest
            .get(segment)
            .is_some_and(|latest| slot_at(*nanos, resolution) > *latest)
        {
            latest.remove(segment);
        }
    }
    points.retain(|(segment, _)| latest.contains_key(segment));
    erase(store, user, points, as_of).await
}

/// Erases these points of `user`, and returns the number of their segments within the full window.
async fn erase(
    store: &InfluxStore,
    user: &UserId<'_>,
    points: Vec<Point>,
    as_of: Timestamp,
) -> Result<u64, StoreError> {
    let deadline = Instant::now() + store.options.delete_deadline;
    let resolution = store.options.frame.resolution();
    let counted = store.full_range(as_of);
    let is_counted = |nanos: i64| {
        let start = resolution.start_of(slot_at(nanos, resolution));
        counted.start <= start && start < counted.stop
    };
    let counted = points.iter().filter(|(_, nanos)| is_counted(*nanos));
    let segments: BTreeSet<&Segment> = counted.map(|(segment, _)| segment).collect();
    let lost = segments.len() as u64;

    let are_many = points.len() > DELETED_AT_ONCE;
    if are_many {
        // Overwriting removes the user from counts and from the points at once. Deleting the points one by one follows.
        overwrite(store, &points).await?;
    }
    let left = erase::delete(store, &points, deadline).await;
    if are_many {
        if !left.is_empty() {
            tracing::info!(
                points = left.len(),
                "points without a user id remain until an archive run deletes them"
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

/// Removes a segment from both buckets. Returns the number of its users within the full window.
pub(super) async fn drop_segment(
    store: &InfluxStore,
    segment: &Segment,
    as_of: Timestamp,
) -> Result<u64, StoreError> {
    let counted = store.full_range(as_of);
    let users = store
        .count_users(std::slice::from_ref(segment), counted)
        .await?;
    let stop = searched(store, counted).stop;
    erase::delete_segment(store, segment, stop).await?;
    Ok(users.get(segment).copied().unwrap_or(0))
}

/// Deletes about `limit` points whose user was overwritten, within the deadline of one erasure. Returns how many it
/// deleted, and whether it is done.
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
        // If nothing could be deleted, an immediate retry would not help.
        done: removed == 0 || removed == points.len(),
    })
}

/// Every range that the bucket may have points in: expired points stay for a while, and other clocks may be ahead.
fn searched(store: &InfluxStore, counted: Range) -> Range {
    let kept = store.shard + EXPIRY;
    Range {
        start: counted.start.saturating_sub(kept).unwrap_or(counted.start),
        stop: counted.stop.saturating_add(AHEAD).unwrap_or(counted.stop),
    }
}

/// Writes markers for the slots of `points`, and then overwrites the points with the sentinel.
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

/// Verifies that `points` are deleted, and overwrites those that still hold the user, whatever the server reported.
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
    // Pairs recorded in the meantime count again and must stay.
    let left: Vec<Point> = found
        .into_iter()
        .filter(|point| points.contains(point))
        .collect();
    if !left.is_empty() {
        tracing::warn!(
            points = left.len(),
            "InfluxDB reported points as deleted that still exist; overwriting them"
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

/// The body for the next line. Starts a new one if the last body is full.
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
