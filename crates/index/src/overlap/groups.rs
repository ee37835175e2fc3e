//! The groups into which segments divide all users: in all of them, in all but one, and so on to in none.

use std::collections::HashMap;

use domain::{Segment, Slot};

use super::visit::{self, UserAndSegment, Visit};
use super::walk::{self, Counters};
use super::{Between, OverlapError};
use crate::Index;
use crate::entry::Entry;
use crate::members::InWindow;
use crate::reader::Reader;

/// The number of users in each group that has any, by the segments that the group is in.
#[derive(Debug, Default)]
struct Groups(HashMap<u64, u64>);

impl Counters for Groups {
    type Visit = UserAndSegment;

    fn visit(&self, segment: u16, entry: Entry, _: InWindow) -> UserAndSegment {
        UserAndSegment::new(entry, segment)
    }

    fn count(&mut self, visits: &[UserAndSegment]) {
        let segments = visit::numbered(visits).iter();
        let group = segments.fold(0, |group, visit| group | 1 << visit.segment());
        *self.0.entry(group).or_default() += 1;
    }
}

/// The result of [`Index::group_sizes`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupSizes {
    /// The number of users in the smallest group; 0 if a group has nobody.
    pub smallest: u64,
    /// The number of distinct users of any segment.
    pub everybody: u64,
}

impl Index {
    /// The sizes of the groups into which `segments` (each once) divide the users of any segment, those who are in none of them
    /// included. `None` for 64 segments or more, which have more groups than there are users. `window`, `as_of`, `should_stop`
    /// and concurrent writes are as in [`overlaps`](Self::overlaps).
    pub fn group_sizes(
        &self,
        segments: &[Segment],
        window: u32,
        as_of: Slot,
        should_stop: &mut dyn FnMut() -> bool,
    ) -> Result<Option<GroupSizes>, OverlapError> {
        let Some(groups) = u32::try_from(segments.len())
            .ok()
            .and_then(|segments| 1_u64.checked_shl(segments))
        else {
            return Ok(None);
        };
        let window = window.min(self.window);
        self.sweep_overlaps(Between::These(segments), as_of, |plan, as_of| {
            let mut reader = Reader::new(&self.head, window, as_of, should_stop);
            let mut counters = Groups::default();
            walk::run(plan, &mut reader, &mut counters)?;
            let sizes = counters.0.into_values();
            let has_all = sizes.len() as u64 == groups;
            let (smallest, everybody) = sizes.fold((u64::MAX, 0), |(smallest, sum), size| {
                (size.min(smallest), sum + size)
            });
            let smallest = if has_all { smallest } else { 0 };
            Ok(Some(GroupSizes {
                smallest,
                everybody,
            }))
        })
    }
}
