//! The set of known segments, and the bound on how many there may be.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;

use super::PairError;
use domain::Segment;

/// Refuses new segments beyond a maximum, so that a mistaken client which sends, say, URLs as segments can't
/// fill memory. Each instance guards by itself, so several together may exceed the maximum a little.
///
/// A new segment takes a place when it is admitted, and keeps it only if its pairs were accepted: see [`Places`].
#[derive(Debug)]
pub struct SegmentGuard {
    maximum: usize,
    taken: RwLock<Taken>,
    generation: AtomicU64,
}

#[derive(Debug, Default)]
struct Taken {
    /// Each known segment with the generation in which it was last listed or confirmed.
    known: HashMap<Segment, u64>,
    /// New segments, none of them known, with the number of requests under way that hold a place for them.
    held: HashMap<Segment, usize>,
}

/// The places that the new segments of one request hold. They are given back when this is dropped, unless they were
/// [confirmed](Self::confirm): a body that is malformed or refused takes no place for good.
#[derive(Debug)]
pub struct Places {
    guard: Arc<SegmentGuard>,
    held: Vec<Segment>,
    /// Whether a listing began since one of the known segments was confirmed: it may lack them.
    is_listing_behind: bool,
}

impl SegmentGuard {
    /// A guard that admits at most `maximum` segments.
    pub fn new(maximum: usize) -> Self {
        Self {
            maximum,
            taken: RwLock::default(),
            generation: AtomicU64::new(0),
        }
    }

    /// Whether pairs of this segment were accepted here, or the store or the cache listed it.
    pub fn knows(&self, segment: &Segment) -> bool {
        self.taken.read().known.contains_key(segment)
    }

    /// Begins a listing of the store; what is confirmed from now on survives the [`settle`](Self::settle) that
    /// ends it.
    pub fn begin_listing(&self) -> u64 {
        self.generation.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Replaces what was known before the listing began by what was listed.
    pub fn settle(&self, listing: u64, listed: &[Segment]) {
        let mut taken = self.taken.write();
        for segment in listed {
            taken.held.remove(segment);
            taken.known.insert(segment.clone(), listing);
        }
        taken.known.retain(|_, generation| *generation >= listing);
    }
}

impl Places {
    /// No places held so far.
    pub fn new(guard: Arc<SegmentGuard>) -> Self {
        Self {
            guard,
            held: Vec::new(),
            is_listing_behind: false,
        }
    }

    /// The segment of this name, if it is known or there is a place for it, which is held from now on. A request
    /// asks once for each of its segments.
    pub fn admit(&mut self, name: &str) -> Result<Segment, PairError> {
        if let Some((segment, since)) = self.guard.taken.read().known.get_key_value(name) {
            self.is_listing_behind |= *since < self.guard.generation.load(Ordering::Relaxed);
            return Ok(segment.clone());
        }
        let segment = Segment::new(name).map_err(PairError::Segment)?;
        let maximum = self.guard.maximum;
        let mut taken = self.guard.taken.write();
        if taken.known.contains_key(name) {
            return Ok(segment);
        }
        let has_place = taken.held.contains_key(name);
        if !has_place && taken.known.len() + taken.held.len() >= maximum {
            return Err(PairError::TooManySegments { maximum });
        }
        *taken.held.entry(segment.clone()).or_default() += 1;
        self.held.push(segment.clone());
        Ok(segment)
    }

    /// Makes the segments of `accepted` known, whose pairs are kept by now.
    pub fn confirm(mut self, accepted: &[Segment]) {
        if self.held.is_empty() && !self.is_listing_behind {
            return;
        }
        let generation = self.guard.generation.load(Ordering::Relaxed);
        let held = std::mem::take(&mut self.held);
        let mut taken = self.guard.taken.write();
        taken.give_back(&held);
        for segment in accepted {
            taken.held.remove(segment);
            taken.known.insert(segment.clone(), generation);
        }
    }
}

impl Drop for Places {
    fn drop(&mut self) {
        if !self.held.is_empty() {
            self.guard.taken.write().give_back(&self.held);
        }
    }
}

impl Taken {
    fn give_back(&mut self, segments: &[Segment]) {
        for segment in segments {
            // Gone if it became known meanwhile.
            if let Some(requests) = self.held.get_mut(segment) {
                *requests -= 1;
                if *requests == 0 {
                    self.held.remove(segment);
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

    /// A request with pairs of these segments that is accepted, as far as they are admitted.
    fn accept(guard: &Arc<SegmentGuard>, names: &[&str]) -> Result<(), PairError> {
        let mut places = Places::new(Arc::clone(guard));
        let admitted: Result<Vec<_>, _> = names.iter().map(|name| places.admit(name)).collect();
        places.confirm(&admitted?);
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
        let mut refused = Places::new(Arc::clone(&guard));
        refused.admit("x").unwrap();
        refused.admit("y").unwrap();
        let mut other = Places::new(Arc::clone(&guard));
        other.admit("x").unwrap();
        assert_eq!(
            accept(&guard, &["a"]).unwrap_err().code(),
            "too_many_segments",
            "while they are under way the bound holds"
        );
        drop(refused);
        accept(&guard, &["a"]).unwrap();
        assert_eq!(
            accept(&guard, &["b"]).unwrap_err().code(),
            "too_many_segments",
            "another request still holds x"
        );
        let x = Segment::new("x").unwrap();
        assert!(!guard.knows(&x));
        other.confirm(std::slice::from_ref(&x));
        assert!(guard.knows(&x));
        let taken = guard.taken.read();
        assert!(taken.held.is_empty() && taken.known.len() == 2);
    }

    #[test]
    fn a_place_is_counted_once_however_it_becomes_known() {
        let guard = guard(2);
        let mut under_way = Places::new(Arc::clone(&guard));
        let a = under_way.admit("a").unwrap();
        let listing = guard.begin_listing();
        guard.settle(listing, std::slice::from_ref(&a));
        accept(&guard, &["a", "b"]).unwrap();
        drop(under_way);
        assert!(guard.knows(&a), "listed, whatever became of the request");
        let taken = guard.taken.read();
        assert!(taken.held.is_empty() && taken.known.len() == 2);
    }
}
