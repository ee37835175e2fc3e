//! How many users a segment has within the window: by a look at every entry while they are few, by a ring of
//! counters once they are many.

use super::entry::Entry;
use super::pages::Pages;
use super::ring::Ring;

/// A segment with more entries than this gets a ring. A ring of two weeks of minutes takes up to 22 KiB,
/// which ten thousand small segments should not; to look at this many entries takes about a microsecond.
const MANY: usize = 2048;

/// The count of a segment's users. Ages are slots before the head.
#[derive(Debug)]
pub(super) enum Tally {
    /// The number of users in the full window; shorter windows are counted when asked for.
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
    /// How many slots before the head a held entry was seen.
    pub(super) fn age(self, entry: Entry) -> u32 {
        u32::from((self.head as u16).wrapping_sub(entry.slot16()))
    }

    /// Whether a held entry is in the window.
    pub(super) fn holds(self, entry: Entry) -> bool {
        self.age(entry) < self.window
    }

    /// How many slots before the head an entry was seen whose slot is relative to a base `lag` slots before
    /// the head; `None` when that is before the window, or before the first slot.
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

    /// A user came who was not in the window.
    pub(super) fn add(&mut self, age: u32) {
        match self {
            Self::Few(live) => *live += 1,
            Self::Many(ring) => ring.add(age),
        }
    }

    /// A user whose entry is of age `known`, maybe expired, was seen at `age`; whether that is news.
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

    /// A user of the window was erased.
    pub(super) fn remove(&mut self, age: u32) {
        match self {
            Self::Few(live) => *live -= 1,
            Self::Many(ring) => ring.remove(age),
        }
    }

    /// The head moved on by `slots`, to `frame.head`. What `pages` holds must not be older than 65,535 slots.
    pub(super) fn advance(&mut self, pages: &Pages, frame: Frame, slots: u64) {
        match self {
            Self::Few(live) => *live = frame.count(pages, frame.window),
            Self::Many(ring) if slots >= u64::from(frame.window) => *ring = Ring::new(frame.window),
            Self::Many(ring) => ring.advance(slots),
        }
    }

    /// Gets a ring or drops it when the number of entries calls for it.
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
