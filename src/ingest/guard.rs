//! The set of known segments, and the bound on how many there may be.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;

use super::PairError;
use crate::domain::Segment;

/// Refuses new segments beyond a maximum, so that a mistaken client which sends, say, URLs as segments can't
/// fill memory. Each instance guards by itself, so several together may exceed the maximum a little.
#[derive(Debug)]
pub struct SegmentGuard {
    maximum: usize,
    /// Each known segment with the generation in which it was last listed or admitted.
    known: RwLock<HashMap<Segment, u64>>,
    generation: AtomicU64,
}

impl SegmentGuard {
    /// A guard that admits at most `maximum` segments.
    pub fn new(maximum: usize) -> Self {
        Self {
            maximum,
            known: RwLock::default(),
            generation: AtomicU64::new(0),
        }
    }

    /// The segment of this name, admitted now if there is room.
    pub fn admit(&self, name: &str) -> Result<Segment, PairError> {
        if let Some((segment, _)) = self.known.read().get_key_value(name) {
            return Ok(segment.clone());
        }
        let segment = Segment::new(name).map_err(PairError::Segment)?;
        let mut known = self.known.write();
        if known.len() >= self.maximum && !known.contains_key(name) {
            return Err(PairError::TooManySegments {
                maximum: self.maximum,
            });
        }
        known.insert(segment.clone(), self.generation.load(Ordering::Relaxed));
        Ok(segment)
    }

    /// Whether a segment of this name is known here.
    pub fn knows(&self, name: &str) -> bool {
        self.known.read().contains_key(name)
    }

    /// Begins a listing of the store; what is admitted from now on survives the [`settle`](Self::settle) that
    /// ends it.
    pub fn begin_listing(&self) -> u64 {
        self.generation.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Replaces what was known before the listing began by what the store listed.
    pub fn settle(&self, listing: u64, listed: &[Segment]) {
        let mut known = self.known.write();
        for segment in listed {
            known.insert(segment.clone(), listing);
        }
        known.retain(|_, generation| *generation >= listing);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_only_what_is_new_beyond_the_maximum() {
        let guard = SegmentGuard::new(2);
        guard.admit("a").unwrap();
        guard.admit("b").unwrap();
        assert_eq!(guard.admit("c").unwrap_err().code(), "too_many_segments");
        assert_eq!(guard.admit("").unwrap_err().code(), "invalid_segment");
        guard.admit("a").unwrap();
    }

    #[test]
    fn a_listing_drops_what_expired_and_keeps_what_came_meanwhile() {
        let guard = SegmentGuard::new(2);
        guard.admit("gone").unwrap();
        let listing = guard.begin_listing();
        guard.admit("new").unwrap();
        guard.settle(listing, &[]);
        guard.admit("room").unwrap();
        assert_eq!(guard.admit("gone").unwrap_err().code(), "too_many_segments");
    }
}
