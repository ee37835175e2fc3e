//! The set of known segments, and the limit on their number.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;

use super::PairError;
use domain::Segment;

/// Refuses new segments beyond a maximum, so that a faulty client that sends, for example, URLs as segments can't fill
/// memory. Each instance has its own guard, so several instances together may exceed the maximum a little.
///
/// An admitted new segment counts as reserved. It becomes known only if its pairs are accepted: see [`Reservation`].
#[derive(Debug)]
pub struct SegmentGuard {
    maximum: usize,
    segments: RwLock<Segments>,
    generation: AtomicU64,
}

#[derive(Debug, Default)]
struct Segments {
    /// Each known segment with the generation in which it was last listed or confirmed.
    known: HashMap<Segment, u64>,
    /// New segments that are not known yet, with the number of requests in progress that reserve them.
    reserved: HashMap<Segment, usize>,
}

/// The new segments that one request reserves. Dropping this releases them unless they were
/// [confirmed](Self::confirm), so that a malformed or refused body does not add segments.
#[derive(Debug)]
pub struct Reservation {
    guard: Arc<SegmentGuard>,
    held: Vec<Segment>,
    /// Whether a listing began after one of the known segments was last confirmed. The list may lack such a segment.
    is_listing_behind: bool,
}

impl SegmentGuard {
    /// The maximum number of segments.
    pub fn maximum(&self) -> usize {
        self.maximum
    }

    /// Creates a guard that admits at most `maximum` segments.
    pub fn new(maximum: usize) -> Self {
        Self {
            maximum,
            segments: RwLock::default(),
            generation: AtomicU64::new(0),
        }
    }

    /// Whether this process accepted pairs of the segment, or the store or the cache listed it.
    pub fn knows(&self, segment: &Segment) -> bool {
        self.segments.read().known.contains_key(segment)
    }

    /// Removes a segment that was deleted from the known ones.
    pub(crate) fn forget(&self, segment: &Segment) {
        self.segments.write().known.remove(segment);
    }

    /// Begins a listing, and returns its number. Segments that are confirmed from now on survive the
    /// [`settle`](Self::settle) that ends it.
    pub(crate) fn begin_listing(&self) -> u64 {
        self.generation.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Ends the listing: replaces the segments known before it began by the listed ones.
    pub fn settle(&self, listing: u64, listed: &[Segment]) {
        let mut segments = self.segments.write();
        for segment in listed {
            segments.reserved.remove(segment);
            segments.known.insert(segment.clone(), listing);
        }
        segments
            .known
            .retain(|_, generation| *generation >= listing);
    }
}

impl Reservation {
    /// Creates an empty reservation.
    pub fn new(guard: Arc<SegmentGuard>) -> Self {
        Self {
            guard,
            held: Vec::new(),
            is_listing_behind: false,
        }
    }

    /// Returns the segment of this name if it is known, or reserves it if the maximum allows another one. A request
    /// must call this once for each of its segments.
    pub fn admit(&mut self, name: &str) -> Result<Segment, PairError> {
        if let Some((segment, since)) = self.guard.segments.read().known.get_key_value(name) {
            self.is_listing_behind |= *since < self.guard.generation.load(Ordering::Relaxed);
            return Ok(segment.clone());
        }
        let segment = Segment::new(name).map_err(PairError::Segment)?;
        let maximum = self.guard.maximum;
        let mut segments = self.guard.segments.write();
        if segments.known.contains_key(name) {
            return Ok(segment);
        }
        let is_reserved = segments.reserved.contains_key(name);
        if !is_reserved && segments.known.len() + segments.reserved.len() >= maximum {
            return Err(PairError::TooManySegments { maximum });
        }
        *segments.reserved.entry(segment.clone()).or_default() += 1;
        self.held.push(segment.clone());
        Ok(segment)
    }

    /// Makes the `accepted` segments known, whose pairs are recorded now, and releases the others.
    pub fn confirm(mut self, accepted: &[Segment]) {
        if self.held.is_empty() && !self.is_listing_behind {
            return;
        }
        let generation = self.guard.generation.load(Ordering::Relaxed);
        let held = std::mem::take(&mut self.held);
        let mut segments = self.guard.segments.write();
        segments.release(&held);
        for segment in accepted {
            segments.reserved.remove(segment);
            segments.known.insert(segment.clone(), generation);
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if !self.held.is_empty() {
            self.guard.segments.write().release(&self.held);
        }
    }
}

impl Segments {
    fn release(&mut self, names: &[Segment]) {
        for segment in names {
            // It is missing if the segment became known meanwhile.
            if let Some(requests) = self.reserved.get_mut(segment) {
                *requests -= 1;
                if *requests == 0 {
                    self.reserved.remove(segment);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(maximum: usize) -> Arc<SegmentGuard> {
        Arc::new(SegmentGuard::new(maximum))
    }

    /// A request that is accepted if all its segments are admitted.
    fn accept(guard: &Arc<SegmentGuard>, names: &[&str]) -> Result<(), PairError> {
        let mut reservation = Reservation::new(Arc::clone(guard));
        let admitted: Result<Vec<_>, _> =
            names.iter().map(|name| reservation.admit(name)).collect();
        reservation.confirm(&admitted?);
        Ok(())
    }

    #[test]
    fn refuses_only_what_is_new_beyond_the_maximum() {
        let guard = guard(2);
        accept(&guard, &["a", "b"]).unwrap();
        let code = |names: &[&str]| accept(&guard, names).unwrap_err().code();
        assert_eq!(code(&["c"]), "too_many_segments");
        assert_eq!(code(&[""]), "invalid_segment");
        accept(&guard, &["a"]).unwrap();
    }

    #[test]
    fn a_listing_drops_what_expired_and_keeps_what_came_meanwhile() {
        let guard = guard(2);
        accept(&guard, &["gone"]).unwrap();
        let listing = guard.begin_listing();
        accept(&guard, &["new"]).unwrap();
        guard.settle(listing, &[]);
        accept(&guard, &["room"]).unwrap();
        assert_eq!(
            accept(&guard, &["gone"]).unwrap_err().code(),
            "too_many_segments"
        );
    }

    #[test]
    fn a_request_that_comes_to_nothing_gives_its_places_back() {
        let guard = guard(2);
        let mut refused = Reservation::new(Arc::clone(&guard));
        refused.admit("x").unwrap();
        refused.admit("y").unwrap();
        let mut other = Reservation::new(Arc::clone(&guard));
        other.admit("x").unwrap();
        assert_eq!(
            accept(&guard, &["a"]).unwrap_err().code(),
            "too_many_segments",
            "reserved segments count towards the maximum"
        );
        drop(refused);
        accept(&guard, &["a"]).unwrap();
        assert_eq!(
            accept(&guard, &["b"]).unwrap_err().code(),
            "too_many_segments",
            "another request still reserves x"
        );
        let x = Segment::new("x").unwrap();
        assert!(!guard.knows(&x));
        other.confirm(std::slice::from_ref(&x));
        assert!(guard.knows(&x));
        let segments = guard.segments.read();
        assert!(segments.reserved.is_empty() && segments.known.len() == 2);
    }

    #[test]
    fn a_place_is_counted_once_however_it_becomes_known() {
        let guard = guard(2);
        let mut under_way = Reservation::new(Arc::clone(&guard));
        let a = under_way.admit("a").unwrap();
        let listing = guard.begin_listing();
        guard.settle(listing, std::slice::from_ref(&a));
        accept(&guard, &["a", "b"]).unwrap();
        drop(under_way);
        assert!(
            guard.knows(&a),
            "it was listed, whatever the result of the request"
        );
        let segments = guard.segments.read();
        assert!(segments.reserved.is_empty() && segments.known.len() == 2);
    }
}
