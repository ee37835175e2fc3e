//! The window of a count.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use jiff::Timestamp;

use super::{Resolution, Segment, Slot};

/// The windows of the segments that have one of their own. Cloning is cheap.
pub type OwnWindows = Arc<HashMap<Segment, Window>>;

/// A whole number of slots, at least one and at most the configured window.
///
/// [`TimeFrame::window`](super::TimeFrame::window) creates it, since it has the resolution and the maximum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Window {
    slots: u32,
    resolution: Resolution,
}

impl Window {
    pub(super) fn new(slots: u32, resolution: Resolution) -> Self {
        Self { slots, resolution }
    }

    /// The window's length in slots.
    pub fn slots(self) -> u32 {
        self.slots
    }

    /// The window's length in seconds.
    pub fn seconds(self) -> u64 {
        u64::from(self.slots) * u64::from(self.resolution.seconds())
    }

    /// The slots that a count as of `as_of` covers, both ends inclusive.
    pub fn slots_as_of(self, as_of: Slot) -> RangeInclusive<Slot> {
        let first = as_of.number().saturating_sub(u64::from(self.slots) - 1);
        Slot::new(first)..=as_of
    }

    /// The first instant that a count as of `as_of` covers.
    pub fn start_as_of(self, as_of: Timestamp) -> Timestamp {
        let slots = self.slots_as_of(self.resolution.slot_of(as_of));
        self.resolution.start_of(*slots.start())
    }

    /// The length of a slot.
    pub fn resolution(self) -> Resolution {
        self.resolution
    }
}
