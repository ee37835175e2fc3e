//! The last-seen index: the latest slot of every (user, segment), in memory, and exact counts from it.
//!
//! It has no clock of its own: the **head**, the latest slot that any call passed, only moves forward. Counts
//! are as of the head. An entry is **expired** when its slot is outside the full window as of the head; it no
//! longer counts but stays until [`Index::sweep`] removes it or its user is seen again.
//!
//! Taking the latest slot is idempotent and commutative: entries may come late, repeatedly and in any order, and
//! a walk over pages during writes may be replayed on top of those writes.
//!
//! Layout: [`Index`] maps names to [`shared::Shared`] (a lock per segment), which holds
//! [`members::Members`]: [`pages::Pages`] of sorted entries, a [`tally::Tally`] of users per slot, and [`flow`]: who entered
//! and who left.
//!
//! [`set`] counts sets of users, [`overlap`] the users in common of all pairs of segments. Both walk through the pages of many
//! segments in step, with a [`reader::Reader`].

mod directory;
mod entry;
mod flow;
mod grouping;
#[cfg(test)]
mod histories;
mod members;
mod overlap;
mod page;
mod pages;
mod reader;
mod ring;
mod set;
mod shared;
mod sweep;
mod tally;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};

use domain::{Segment, Slot};

pub use entry::{Entry, FINGERPRINT_BITS, Fingerprint};
use flow::Former;
pub use flow::{FlowLayout, Flows, SavedFlows, TotalFlow};
use members::Members;
pub use overlap::{Between, GroupSizes, OverlapError, OverlapRings, Overlaps};
pub use set::{Cancelled, SetCount};
use shared::Shared;
use sweep::Cursor;
pub use sweep::Swept;

/// The longest window, in slots. An entry stores 16 bits of its slot; the rest of that range is the time
/// that a sweep has to remove expired entries.
const MAX_WINDOW: u32 = 1 << 15;

/// The maximum head, so that no sum of slots overflows.
const MAX_HEAD: u64 = u64::MAX / 2;

/// The users of every segment with their latest slots.
pub struct Index {
    window: u32,
    head: AtomicU64,
    segments: RwLock<HashMap<Segment, Arc<Shared>>>,
    cursor: Mutex<Cursor>,
    layout: FlowLayout,
    /// Locked after `segments`.
    former: Mutex<Former>,
}

/// The result of [`Index::read_page`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageRead {
    /// The slot that the entries' slots are relative to.
    pub base: Slot,
    /// Where the next page starts; `None` at the end.
    pub next: Option<Fingerprint>,
}

/// Statistics of the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Segments held, those with only expired entries included.
    pub segments: u64,
    /// Entries held, expired ones included.
    pub pairs: u64,
    /// The estimated memory, in bytes.
    pub bytes: u64,
}

impl Index {
    /// Creates an empty index. `full_window` is its full window in slots, clamped to 1..=32,768.
    pub fn new(full_window: u32) -> Self {
        let window = full_window.clamp(1, MAX_WINDOW);
        Self {
            window,
            head: AtomicU64::new(0),
            segments: RwLock::default(),
            cursor: Mutex::default(),
            layout: FlowLayout { window, step: 1 },
            former: Mutex::default(),
        }
    }

    /// Advances the head to `slot`; never moves it back. Segments follow at their next access.
    pub fn advance(&self, slot: Slot) {
        let slot = slot.number().min(MAX_HEAD);
        // A plain load first: most calls change nothing and should not contend for the cache line.
        if slot > self.head.load(Ordering::Acquire) {
            self.head.fetch_max(slot, Ordering::AcqRel);
        }
    }

    /// The latest slot that any call passed.
    pub fn head(&self) -> Slot {
        Slot::new(self.head.load(Ordering::Acquire))
    }

    /// Adds users of `segment`, each with a slot relative to `base`: in `(base - 65536, base]`. The latest
    /// slot of a user wins; entries that are expired as of the head are ignored. Advances the head to `base`.
    pub fn upsert(&self, segment: &Segment, entries: &[Entry], base: Slot) {
        self.insert(segment, entries, base, Members::upsert);
    }

    /// The same as [`upsert`](Self::upsert), much faster for many entries in ascending order, as at a restart.
    /// Pass as many entries as possible at once, at best the whole segment.
    pub fn load_sorted(&self, segment: &Segment, entries: &[Entry], base: Slot) {
        if entries.is_sorted() {
            self.insert(segment, entries, base, Members::load);
        } else {
            self.upsert(segment, entries, base);
        }
    }

    /// The number of users of `segment` in the latest `window` slots (at most the full window), and the slot
    /// as of which: `as_of` or the head, whichever is later. Advances the head to `as_of`.
    pub fn count(&self, segment: &str, window: u32, as_of: Slot) -> (u64, Slot) {
        self.advance(as_of);
        let head = self.head();
        let segments = self.segments.read();
        let Some(shared) = segments.get(segment) else {
            return (0, head);
        };
        if window >= self.window
            && let Some(live) = shared.published(head.number())
        {
            return (live, head);
        }
        let shared = Arc::clone(shared);
        drop(segments);
        shared
            .with(&self.head, |members| {
                (members.count(window), Slot::new(members.head()))
            })
            .unwrap_or((0, head))
    }

    /// The segments with users in the full window as of `as_of`, and the number of their users, sorted by name.
    pub fn segments(&self, as_of: Slot) -> Vec<(Segment, u64)> {
        self.advance(as_of);
        let head = self.head.load(Ordering::Acquire);
        let mut counts = self.each(|shared| {
            shared
                .published(head)
                .or_else(|| shared.with(&self.head, |members| members.live()))
                .filter(|users| *users > 0)
        });
        counts.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        counts
    }

    /// The segments of a user over the full window, with the slot in which the user was last seen, sorted by name.
    pub fn memberships(&self, fingerprint: Fingerprint, as_of: Slot) -> Vec<(Segment, Slot)> {
        self.advance(as_of);
        let mut found = self.each(|shared| {
            let last_seen = |members: &mut Members| members.last_seen(fingerprint);
            shared.with(&self.head, last_seen)?.map(Slot::new)
        });
        found.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        found
    }

    /// Erases a user from every segment. Returns the number of segments that had the user in the full window.
    pub fn erase(&self, fingerprint: Fingerprint, as_of: Slot) -> u64 {
        self.advance(as_of);
        let erased = self.each(|shared| {
            let erase = |members: &mut Members| members.erase(fingerprint);
            shared.with(&self.head, erase)?.then_some(())
        });
        erased.len() as u64
    }

    /// Erases a user from one segment. Returns whether the segment had the user in the full window.
    pub fn erase_in(&self, segment: &str, fingerprint: Fingerprint, as_of: Slot) -> bool {
        self.advance(as_of);
        let Some(shared) = self.find(segment) else {
            return false;
        };
        let erase = |members: &mut Members| members.erase(fingerprint);
        shared.with(&self.head, erase).is_some_and(|erased| erased)
    }

    /// Removes every user of a segment. They count as having left. Returns the number of its users in the full window.
    pub fn reset(&self, segment: &str) -> u64 {
        let Some(shared) = self.find(segment) else {
            return 0;
        };
        let empty = |members: &mut Members| {
            let users = members.live();
            members.clear();
            users
        };
        shared.with(&self.head, empty).unwrap_or(0)
    }

    /// Returns the current statistics.
    pub fn stats(&self) -> Stats {
        let each = self
            .each(|shared| shared.with(&self.head, |members| (members.held(), members.bytes())));
        let mut stats = Stats::default();
        for (segment, (held, bytes)) in each {
            stats.segments += 1;
            stats.pairs += held;
            let key = segment.as_str().len() + size_of::<Shared>();
            stats.bytes += (bytes + key) as u64;
        }
        stats
    }

    /// All segments held, sorted by name.
    pub fn segment_names(&self) -> Vec<Segment> {
        let mut names: Vec<Segment> = self.segments.read().keys().cloned().collect();
        names.sort_unstable();
        names
    }

    /// Appends to `out` the unexpired entries, ascending, of the page of `segment` that holds `from`, without
    /// those before `from`. Pages may split and merge between two calls: a walk that continues at
    /// [`PageRead::next`] visits each user once. `None` for an unknown segment.
    pub fn read_page(
        &self,
        segment: &str,
        from: Fingerprint,
        out: &mut Vec<Entry>,
    ) -> Option<PageRead> {
        self.find(segment)?.with(&self.head, |members| PageRead {
            next: members.read_page(from, out),
            base: Slot::new(members.head()),
        })
    }

    fn insert(
        &self,
        segment: &Segment,
        entries: &[Entry],
        base: Slot,
        how: impl Fn(&mut Members, &[Entry], u64),
    ) {
        self.advance(base);
        if entries.is_empty() {
            return;
        }
        let base = base.number().min(MAX_HEAD);
        loop {
            let shared = self.find_or_add(segment);
            let taken = shared.with(&self.head, |members| how(members, entries, base));
            // A sweep may have removed the empty segment meanwhile: then it is looked up again.
            if taken.is_some() {
                return;
            }
        }
    }

    fn find(&self, segment: &str) -> Option<Arc<Shared>> {
        self.segments.read().get(segment).map(Arc::clone)
    }

    fn find_or_add(&self, segment: &Segment) -> Arc<Shared> {
        if let Some(shared) = self.find(segment.as_str()) {
            return shared;
        }
        let head = self.head.load(Ordering::Acquire);
        let mut segments = self.segments.write();
        let shared = segments.entry(segment.clone()).or_insert_with(|| {
            let mut former = self.former.lock();
            let flows = former.take(segment.as_str(), self.layout, head);
            // A segment that was removed a moment ago may be ahead.
            let members = Members::new(self.window, flows.head(), flows);
            Arc::new(Shared::new(members))
        });
        Arc::clone(shared)
    }

    /// Calls `look` for each segment, without the lock on the map, so that new segments can be added meanwhile.
    fn each<T>(&self, look: impl Fn(&Arc<Shared>) -> Option<T>) -> Vec<(Segment, T)> {
        let all: Vec<(Segment, Arc<Shared>)> = {
            let segments = self.segments.read();
            let pairs = segments.iter();
            pairs
                .map(|(name, s)| (name.clone(), Arc::clone(s)))
                .collect()
        };
        let looked = all.into_iter().map(|(name, shared)| {
            let found = look(&shared);
            found.map(|found| (name, found))
        });
        looked.flatten().collect()
    }
}

impl fmt::Debug for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Index")
            .field("window", &self.window)
            .field("head", &self.head)
            .field("segments", &self.segments.read().len())
            .finish_non_exhaustive()
    }
}
