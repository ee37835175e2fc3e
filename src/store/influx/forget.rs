//! Erasing one user. InfluxDB deletes by tag only, and the user is a field: so each point of theirs is
//! overwritten with a sentinel that no count includes.

use std::collections::{BTreeSet, HashMap};

use jiff::SignedDuration;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::InfluxStore;
use super::flux::{self, Range};
use super::line::{push_erased, push_erased_mark, segment_of_tag, slot_at};
use super::lines::Lines;
use crate::domain::{Segment, Timestamp, UserId};
use crate::store::StoreError;

/// How far ahead of `as_of` points are looked for: another instance's clock may be ahead, by less than this.
const AHEAD: SignedDuration = SignedDuration::from_hours(24);

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
    let frame = store.options.frame;
    let resolution = frame.resolution();
    let counted = Range::of(frame.full_window(), as_of, resolution);
    let searched = Range {
        start: counted.start,
        stop: counted.stop.saturating_add(AHEAD).unwrap_or(counted.stop),
    };
    let points = find_points(store, user, searched).await?;

    let mut slots = BTreeSet::new();
    let mut segments = BTreeSet::new();
    for (segment, nanos) in &points {
        let slot = slot_at(*nanos, resolution);
        slots.insert((segment.clone(), slot));
        if resolution.start_of(slot) < counted.stop {
            segments.insert(segment.clone());
        }
    }
    let mut marks = Vec::new();
    for (segment, slot) in &slots {
        push_erased_mark(body_for(&mut marks, store), segment, *slot, resolution);
        store.erasures.note(segment, resolution.start_of(*slot));
    }
    write_all(store, marks).await?;

    let mut sentinels = Vec::new();
    for (segment, nanos) in &points {
        push_erased(body_for(&mut sentinels, store), segment, *nanos);
    }
    write_all(store, sentinels).await?;
    Ok(segments.len() as u64)
}

async fn find_points(
    store: &InfluxStore,
    user: &UserId<'_>,
    range: Range,
) -> Result<Vec<(Segment, i64)>, StoreError> {
    let query = flux::points(&store.options.bucket, user, range);
    let points = store
        .rows(&query, |row| {
            let segment = segment_of_tag(row.get("segment")?);
            Ok(segment.zip(Some(row.nanos("_time")?)))
        })
        .await?;
    Ok(points.into_iter().flatten().collect())
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
        let deadline = Instant::now() + store.options.write_deadline;
        let refused = store
            .delivery
            .deliver(&store.options.bucket, body, deadline)
            .await?;
        if !refused.is_empty() {
            return Err(StoreError::Rejected(
                "InfluxDB refuses to overwrite points".into(),
            ));
        }
    }
    Ok(())
}
