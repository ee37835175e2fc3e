//! Counts the users of a segment within a window: with a scan of all entries while there are few, with a ring of
//! counters once there are many.

use super::entry::Entry;
use super::pages::Pages;
use super::ring::Ring;

/// A segment with more entries than this gets a ring. A ring for two weeks in minutes takes up to 22 KiB, too much for
/// 10,000 small segments. A scan of this many entries takes about a microsecond.
const MANY: usize = 2048;

/// The number of a segment's users. Ages are slots before the head.
#[derive(Debug)]
pub(super) enum Tally {
    /// The number of users in the full window. Counts of shorter windows scan the entries.
    Few(u64),
    Many(Ring),
}

/// The window, and the head that ages are relative to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frame {
    pub(super) window: u32,
    pub(super) head: u64,
}

impl Frame {
    /// The age of a stored entry: slots before the head.
    pub(super) fn age(self, entry: Entry) -> u32 {
        u32::from((self.head as u16).wrapping_sub(entry.slot16()))
    }

    /// Whether a stored entry is in the window.
    pub(super) fn holds(self, entry: Entry) -> bool {
        self.age(entry) < self.window
    }

    /// The age of an entry whose slot is relative to `base`, which is `lag` slots before the head. `None` if the slot is
    /// before the window, or before slot 0.
    pub(super) fn age_in_window(self, entry: Entry, base: u64, lag: u64) -> Option<u32> {
        let age = u64::from((base as u16).wrapping_sub(entry.slot16())) + lag;
        (age < u64::from(self.window) && age <= self.head).then_some(age as u32)
    }

    fn count(self, pages: &Pages, window: u32) -> u64 {
        let mut users = 0;
        for run in pages.runs() {
            users += run.iter().filter(|e| self.age(**e) < window).count();
        }
        users as u64
    }
}

impl Tally {
    pub(super) fn new() -> Self {
        Self::Few(0)
    }

    /// The number of users in the full window.
    pub(super) fn live(&self) -> u64 {
        match self {
            Self::Few(live) => *live,
            Self::Many(ring) => ring.live(),
        }
    }

    /// The number of users in a shorter window.
    pub(super) fn count(&self, pages: &Pages, frame: Frame, window: u32) -> u64 {
        match self {
            Self::Few(_) => frame.count(pages, window),
            Self::Many(ring) => ring.count(window),
        }
    }

    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Few(_) => 0,
            Self::Many(ring) => ring.bytes(),
        }
    }

    /// Adds a user who was not in the window.
    pub(super) fn add(&mut self, age: u32) {
        match self {
            Self::Few(live) => *live += 1,
            Self::Many(ring) => ring.add(age),
        }
    }

    /// Updates a user whose entry has the age `known` (maybe expired) and who was now seen at `age`. Returns whether
    /// `age` is the later slot.
    pub(super) fn see_again(&mut self, known: u32, age: u32, window: u32) -> bool {
        let is_news = age < known;
        if known >= window {
            self.add(age);
        } else if let (Self::Many(ring), true) = (self, is_news) {
            ring.remove(known);
            ring.add(age);
        }
        is_news
    }

    /// Removes a user in the window.
    pub(super) fn remove(&mut self, age: u32) {
        match self {
            Self::Few(live) => *live -= 1,
            Self::Many(ring) => ring.remove(age),
        }
    }

    /// Follows the head, which advances by `slots` from that of `before`. Calls `leave` with each slot in which users leave the window,
    /// and their number. No entry of `pages` may be older than 65,535 slots.
    pub(super) fn advance(
        &mut self,
        pages: &Pages,
        before: Frame,
        slots: u64,
        mut leave: impl FnMut(u64, u64),
    ) {
        let window = u64::from(before.window);
        let leaves_at = |age: u32| before.head + window - u64::from(age);
        match self {
            Self::Few(0) => {}
            Self::Few(live) => {
                for entry in pages.runs().flatten() {
                    let age = before.age(*entry);
                    if before.holds(*entry) && leaves_at(age) <= before.head + slots {
                        leave(leaves_at(age), 1);
                        *live -= 1;
                    }
                }
            }
            Self::Many(ring) => {
                let oldest = before.window - slots.min(window) as u32;
                for age in (oldest..before.window).rev() {
                    match ring.at(age) {
                        0 => {}
                        users => leave(leaves_at(age), users),
                    }
                }
                match slots < window {
                    true => ring.advance(slots),
                    false => *ring = Ring::new(before.window),
                }
            }
        }
    }

    /// Creates or drops the ring, depending on the number of entries.
    pub(super) fn adapt(&mut self, pages: &Pages, frame: Frame) {
        match self {
            Self::Few(_) if pages.len() > MANY => {
                let mut ring = Ring::new(frame.window);
                for entry in pages.runs().flatten() {
                    if frame.holds(*entry) {
                        ring.add(frame.age(*entry));
                    }
                }
                *self = Self::Many(ring);
            }
            Self::Many(ring) if pages.len() < MANY / 2 => *self = Self::Few(ring.live()),
            _ => {}
        }
    }
}
