//! Counts of sets of users: in two segments, in any of several, in one and not in another.
//!
//! A walk goes through the space of fingerprints range by range. In each range, [`walk`] lists the users of the
//! smallest set and drops those whom the other sets exclude, page by page; pages without a candidate are skipped.
//! [`plan`] finds the segments and decides which set is listed, [`sorted`] has the steps on sorted users.

mod plan;
mod sorted;
#[cfg(test)]
mod tests;
mod walk;

use std::fmt;

use domain::Slot;
use domain::expression::{Expression, Set};

use super::Index;
use super::reader::Stop;
use plan::Plan;
use walk::Walk;

/// The result of [`Index::count_set`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SetCount {
    /// The number of users.
    pub users: u64,
    /// The slot as of which they are counted.
    pub as_of: Slot,
}

/// The caller of [`Index::count_set`] stopped it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cancelled;

impl fmt::Display for Cancelled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the count of a set of users was cancelled")
    }
}

impl std::error::Error for Cancelled {}

impl Index {
    /// The number of users in the set that `expression` means, where a user is in a segment if seen there in the
    /// latest `window` slots (at most the full window), and the slot as of which: `as_of` or the head, whichever is
    /// later. Advances the head to `as_of`. A segment that the index does not have has no users.
    ///
    /// A count of one segment is read as by [`count`](Self::count). Any other takes a walk over the entries of the
    /// segments, in time proportional to their number (for AND: to the number of the smallest operand, if the others
    /// are much larger). It calls `should_stop` at the start and then every few thousand entries, and returns
    /// [`Cancelled`] once that returns true. A walk holds a lock of one segment for the time of one page, so writers
    /// wait for microseconds. It allocates about 8 bytes for each user in a range of some thousand users, and of 64
    /// users for each listed segment.
    ///
    /// Writes may go on meanwhile. Users for whom no pair is written and who are not erased between the call and its
    /// return are counted exactly as of the returned slot. For another user, each occurrence of a name in the expression
    /// is looked up at some time between the call and the return: before or after a write, each independently of the
    /// others, so that `a NOT a` may count a user who joins `a` meanwhile. A visit after the returned slot counts as
    /// one in it.
    ///
    /// If the time moves on during a walk, and a sweep removes entries that the walk may still need, it starts
    /// again, as of the present head. `should_stop` bounds that as well.
    pub fn count_set(
        &self,
        expression: &Expression,
        window: u32,
        as_of: Slot,
        should_stop: &mut dyn FnMut() -> bool,
    ) -> Result<SetCount, Cancelled> {
        if let Set::Segment(segment) = expression.set() {
            let (users, as_of) = self.count(segment.as_str(), window, as_of);
            return Ok(SetCount { users, as_of });
        }
        self.advance(as_of);
        let window = window.min(self.window);
        loop {
            let as_of = self.head();
            let plan = Plan::new(self, expression);
            if self.head() != as_of {
                // The plan may lack a segment whose users were in the window and have expired since.
                continue;
            }
            let walk = Walk::new(self, &plan, window, as_of, should_stop);
            match walk.count() {
                Ok(users) => return Ok(SetCount { users, as_of }),
                Err(Stop::Cancelled) => return Err(Cancelled),
                Err(Stop::Outrun) => {}
            }
        }
    }
}
