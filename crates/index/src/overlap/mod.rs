//! Counts of the users that segments have in common, of all pairs at once.
//!
//! A walk goes through the space of fingerprints range by range. In each range, [`walk`] collects the visits of all
//! segments, a [`Grouping`](super::grouping::Grouping) brings those of a user together, and the counters of all pairs of the user's segments are
//! incremented: once in [`triangle`], or in the ring step of the earlier visit by [`ring_counters`]. So each entry is read once, not
//! once for each pair. [`plan`] finds the segments and numbers them.

mod groups;
mod increments;
mod plan;
mod ring_counters;
mod rings;
#[cfg(test)]
mod tests;
mod triangle;
mod visit;
mod walk;

use std::fmt;

use domain::overlap::{MAX_SEGMENTS, OverlapMatrix};
use domain::{Segment, Slot};

use super::Index;
use super::reader::{Reader, Stop};
use super::set::Cancelled;
pub use groups::GroupSizes;
use plan::Plan;
use ring_counters::RingCounters;
pub use rings::OverlapRings;
use triangle::Triangle;

/// The segments whose overlaps are counted.
#[derive(Debug, Clone, Copy)]
pub enum Between<'a> {
    /// All that have users in the full window, sorted by name.
    All,
    /// These. One that the index does not have has no users. The others are read as well, for the users of any segment.
    These(&'a [Segment]),
}

/// The result of [`Index::overlaps`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overlaps {
    /// The number of users in both segments of each pair, and of each segment.
    pub matrix: OverlapMatrix,
    /// The slot as of which they are counted.
    pub as_of: Slot,
}

/// Why there is no answer about the users of segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OverlapError {
    /// The caller stopped it.
    Cancelled,
    /// There are more than [`MAX_SEGMENTS`] segments: this many. Name those of interest.
    TooManySegments(usize),
}

impl fmt::Display for OverlapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cancelled => f.write_str("the count of overlaps was cancelled"),
            Self::TooManySegments(segments) => write!(
                f,
                "overlaps are counted of at most {MAX_SEGMENTS} segments at once, and these are {segments}"
            ),
        }
    }
}

impl std::error::Error for OverlapError {}

impl From<Cancelled> for OverlapError {
    fn from(_: Cancelled) -> Self {
        Self::Cancelled
    }
}

impl Index {
    /// The number of users in both segments of every pair, where a user is in a segment if seen there in the latest `window`
    /// slots (at most the full window), and the slot as of which: `as_of` or the head, whichever is later. Advances the head to
    /// `as_of`. A segment that is named twice has two rows.
    ///
    /// It takes one walk over the entries of the segments, in time proportional to their number and to the sum of the square
    /// of each user's segments. It calls `should_stop` at the start and then every few thousand entries, and returns
    /// [`OverlapError::Cancelled`] once that returns true. A walk holds a lock of one segment for the time of one page, so
    /// writers wait for microseconds. It allocates 16 bytes for each pair of segments, and for each entry in a range of some
    /// thousand entries, and of 64 entries for each segment.
    ///
    /// Writes may go on meanwhile. Users for whom no pair is written and who are not erased between the call and its return are
    /// counted exactly as of the returned slot. Another user is looked up in each segment at some time between the call and
    /// the return, once, before or after a write, and counted in all pairs of the segments where the user was found. So no two
    /// segments ever have more users in common than one of them has, or than there are. A visit after the returned slot counts
    /// as one in it.
    ///
    /// If the time moves on during a walk, and a sweep removes entries that the walk may still need, it starts again, as of the
    /// present head. `should_stop` bounds that as well.
    pub fn overlaps(
        &self,
        between: Between<'_>,
        window: u32,
        as_of: Slot,
        should_stop: &mut dyn FnMut() -> bool,
    ) -> Result<Overlaps, OverlapError> {
        let window = window.min(self.window);
        self.sweep_overlaps(between, as_of, |plan, as_of| {
            let mut reader = Reader::new(&self.head, window, as_of, should_stop);
            let mut counters = Triangle::new(plan.len());
            walk::run(plan, &mut reader, &mut counters)?;
            let matrix = counters.into_matrix(plan);
            Ok(Overlaps { matrix, as_of })
        })
    }

    /// Counts overlaps for every window that is a multiple of `step` slots (clamped to 1 and the full window), and for the full
    /// window, to be read at once: for each pair a ring of counters, one per step back from the slot as of which, of the users
    /// whose earlier visit of the two is in that step. At a step of an hour, two weeks of 200 segments take 27 MB, and an
    /// eighth more during the call.
    ///
    /// A counter has 32 bits and saturates: an index with as many users in one segment has 50 GB. Otherwise it is as
    /// [`overlaps`](Self::overlaps) of all segments.
    pub fn overlap_rings(
        &self,
        step: u32,
        as_of: Slot,
        should_stop: &mut dyn FnMut() -> bool,
    ) -> Result<OverlapRings, OverlapError> {
        let steps = rings::Steps::new(step, self.window);
        self.sweep_overlaps(Between::All, as_of, |plan, as_of| {
            let mut reader = Reader::new(&self.head, self.window, as_of, should_stop);
            let mut counters = RingCounters::new(plan.len(), steps, as_of);
            walk::run(plan, &mut reader, &mut counters)?;
            Ok(counters.into_rings(plan))
        })
    }

    /// Calls `count` with a plan and the slot as of which, until no sweep of expired entries outruns it.
    fn sweep_overlaps<T>(
        &self,
        between: Between<'_>,
        as_of: Slot,
        mut count: impl FnMut(&Plan, Slot) -> Result<T, Stop>,
    ) -> Result<T, OverlapError> {
        self.advance(as_of);
        loop {
            let as_of = self.head();
            let plan = Plan::new(self, between)?;
            if self.head() != as_of {
                // The plan may lack a segment whose users were in the window and have expired since.
                continue;
            }
            match count(&plan, as_of) {
                Ok(counted) => return Ok(counted),
                Err(Stop::Cancelled) => return Err(OverlapError::Cancelled),
                Err(Stop::Outrun) => {}
            }
        }
    }
}
