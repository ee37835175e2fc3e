//! What a walk collects: users in segments.

use super::plan::OTHER;
use crate::entry::Entry;
use crate::grouping::OfUser;

/// A user in a segment.
pub(super) trait Visit: OfUser {
    /// The number of the segment.
    fn segment(self) -> u16;
}

/// The fingerprint of a user and the number of a segment in one word; ordered by fingerprint first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct UserAndSegment(u64);

impl UserAndSegment {
    pub(super) fn new(entry: Entry, segment: u16) -> Self {
        Self(entry.fingerprint().aligned() | u64::from(segment))
    }
}

impl OfUser for UserAndSegment {
    fn key(self) -> u64 {
        self.0
    }
}

impl Visit for UserAndSegment {
    fn segment(self) -> u16 {
        self.0 as u16
    }
}

/// Those of a user's visits, in ascending order of segments, that are to segments with a number of their own.
pub(super) fn numbered<V: Visit>(visits: &[V]) -> &[V] {
    let mut numbered = visits;
    while let [before @ .., last] = numbered
        && last.segment() == OTHER
    {
        numbered = before;
    }
    numbered
}
