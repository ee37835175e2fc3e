//! The users of one segment, each with the slot in which the user was last seen there.

use super::entry::{Entry, Fingerprint};
use super::flow::Flows;
use super::page::Page;
use super::pages::Pages;
use super::tally::{Frame, Tally};

/// Entries looked up together, so that their cache misses overlap.
const BLOCK: usize = 16;

/// The number of slots that 16 bits can distinguish.
const SPAN: u64 = 1 << 16;

/// The users of one segment. Call [`Members::advance`] with the head of the index before other methods.
#[derive(Debug)]
pub(super) struct Members {
    pages: Pages,
    tally: Tally,
    flows: Flows,
    frame: Frame,
    /// A lower bound of the slots of all entries. It is less than [`SPAN`] behind the head, so that the 16 bits of an
    /// entry stay unambiguous.
    floor: u64,
    /// No entry of this slot or a later one was removed for being expired.
    kept_from: u64,
    /// The head when the current sweep started.
    sweep_began: u64,
}

/// Which entries are in a window as of a slot at or before the head.
#[derive(Debug, Clone, Copy)]
pub(super) struct InWindow {
    frame: Frame,
    /// The ages before the head that are in the window, and those of slots after it.
    ages: u32,
}

/// The result of a call of [`Members::sweep`].
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Step {
    pub(super) examined: u64,
    pub(super) removed: u64,
    /// Where to continue; `None` when the segment is done.
    pub(super) next: Option<Fingerprint>,
    /// Whether the segment is done and has no entry left.
    pub(super) is_empty: bool,
}

impl Members {
    /// No users, as of `head`, which is that of `flows`.
    pub(super) fn new(window: u32, head: u64, flows: Flows) -> Self {
        Self {
            pages: Pages::new(),
            tally: Tally::new(),
            flows,
            frame: Frame { window, head },
            floor: head.saturating_sub(u64::from(window) - 1),
            kept_from: 0,
            sweep_began: head,
        }
    }

    pub(super) fn head(&self) -> u64 {
        self.frame.head
    }

    /// The number of users in the full window.
    pub(super) fn live(&self) -> u64 {
        self.tally.live()
    }

    /// Who entered and who left.
    pub(super) fn flows(&self) -> &Flows {
        &self.flows
    }

    pub(super) fn flows_mut(&mut self) -> &mut Flows {
        &mut self.flows
    }

    pub(super) fn into_flows(self) -> Flows {
        self.flows
    }

    /// Restores the counters of users who entered and left, up to a head that is not before that of these members. If it is
    /// before, it is unknown how many users left in between.
    pub(super) fn restore_flows(&mut self, flows: Flows) {
        let is_behind = flows.head() < self.frame.head;
        self.advance(flows.head());
        self.flows = flows;
        if is_behind {
            self.flows.advance(self.frame.head);
            self.flows.restart(self.frame.head + 1);
        }
    }

    /// Removes every user. They leave.
    pub(super) fn clear(&mut self) {
        self.flows.leave(self.frame.head, self.tally.live());
        let flows = self.flows.clone();
        *self = Self::new(self.frame.window, self.frame.head, flows);
    }

    /// The number of stored entries, expired ones included.
    pub(super) fn held(&self) -> u64 {
        self.pages.len() as u64
    }

    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>() + self.pages.bytes() + self.tally.bytes() + self.flows.bytes()
    }

    /// The number of users in the latest `window` slots.
    pub(super) fn count(&self, window: u32) -> u64 {
        if window >= self.frame.window {
            return self.tally.live();
        }
        self.tally.count(&self.pages, self.frame, window)
    }

    /// Advances the head. Users who leave the window no longer count. Their entries stay until a sweep. If their 16 bits
    /// would become ambiguous before, this call removes all expired entries at once. That takes one walk over the segment,
    /// if there was no sweep for more than [`SPAN`] less two windows, or if the time jumped.
    pub(super) fn advance(&mut self, head: u64) {
        let Some(slots) = head.checked_sub(self.frame.head).filter(|n| *n > 0) else {
            return;
        };
        let before = self.frame;
        self.frame.head = head;
        self.flows.advance(head);
        let flows = &mut self.flows;
        let leave = |slot, users| flows.leave(slot, users);
        self.tally.advance(&self.pages, before, slots, leave);
        if head - self.floor >= SPAN {
            if slots >= u64::from(before.window) {
                self.pages = Pages::new();
            } else {
                let window = u64::from(before.window) - slots;
                self.retain(|entry| u64::from(before.age(entry)) < window);
            }
            self.floor = self.window_start();
            self.kept_from = self.floor;
        }
        self.tally.adapt(&self.pages, self.frame);
    }

    /// Adds entries whose slots are relative to `base`, which is not after the head.
    pub(super) fn upsert(&mut self, entries: &[Entry], base: u64) {
        let lag = self.frame.head.saturating_sub(base);
        let before = self.live();
        for block in entries.chunks(BLOCK) {
            self.pages.prefetch(block);
            for entry in block {
                if let Some(age) = self.frame.age_in_window(*entry, base, lag) {
                    self.see(*entry, age);
                }
            }
        }
        self.flows.enter(self.live() - before);
        self.tally.adapt(&self.pages, self.frame);
    }

    /// The same as [`Members::upsert`], faster for many entries of ascending fingerprints.
    pub(super) fn load(&mut self, mut sorted: &[Entry], base: u64) {
        let lag = self.frame.head.saturating_sub(base);
        let before = self.live();
        while let Some((number, count)) = self.pages.prepare(sorted) {
            let (run, rest) = sorted.split_at(count);
            self.merge(number, run, base, lag);
            sorted = rest;
            self.tally.adapt(&self.pages, self.frame);
        }
        self.flows.enter(self.live() - before);
    }

    /// The last-seen slot of a user, if it is in the window.
    pub(super) fn last_seen(&self, fingerprint: Fingerprint) -> Option<u64> {
        let entry = self.pages.get(fingerprint)?;
        let seen = self.frame.holds(entry);
        seen.then(|| self.frame.head - u64::from(self.frame.age(entry)))
    }

    /// Erases a user. Returns whether the user was in the window.
    pub(super) fn erase(&mut self, fingerprint: Fingerprint) -> bool {
        let Some(entry) = self.pages.remove(fingerprint) else {
            return false;
        };
        let was_counted = self.frame.holds(entry);
        if was_counted {
            self.tally.remove(self.frame.age(entry));
            self.flows.leave(self.frame.head, 1);
        }
        was_counted
    }

    /// Appends the entries in the window from the page of `from`, starting with `from`. Returns the start of the next
    /// page.
    pub(super) fn read_page(&self, from: Fingerprint, out: &mut Vec<Entry>) -> Option<Fingerprint> {
        let page = self.page(from);
        let wanted = page.entries().iter().copied();
        out.extend(wanted.filter(|e| e.fingerprint() >= from && self.frame.holds(*e)));
        page.end(from)
    }

    /// The page whose range contains `from`.
    pub(super) fn page(&self, from: Fingerprint) -> &Page {
        self.pages.page(self.pages.locate(from))
    }

    /// The entries in the latest `window` slots as of `as_of`, which is at or before the head; entries of later slots are
    /// included. `None` if entries in that window may have been removed, because they are expired as of the head.
    pub(super) fn in_window(&self, window: u32, as_of: u64) -> Option<InWindow> {
        let end = as_of + 1;
        if self.kept_from > end.saturating_sub(u64::from(window)) {
            return None;
        }
        let ages = self.frame.head + u64::from(window) - as_of;
        Some(InWindow {
            frame: self.frame,
            ages: u32::try_from(ages).unwrap_or(u32::MAX),
        })
    }

    /// Removes expired entries page by page, from the page of `from` on, until about `limit` were examined. A
    /// sweep of the segment starts at [`Fingerprint::MIN`] and continues where the last call ended.
    pub(super) fn sweep(&mut self, from: Fingerprint, limit: u64) -> Step {
        if from == Fingerprint::MIN {
            self.sweep_began = self.frame.head;
        }
        let frame = self.frame;
        let mut step = Step {
            next: Some(from),
            ..Step::default()
        };
        while let Some(from) = step.next {
            if step.examined >= limit {
                return step;
            }
            let page = self.pages.sweep(from, |entry| frame.holds(entry));
            // An empty page counts as one entry, since it takes time as well.
            step.examined += page.examined.max(1) as u64;
            step.removed += page.removed as u64;
            if page.removed > 0 {
                self.kept_from = self.window_start();
            }
            step.next = page.next;
        }
        // Entries that expired since the start of the sweep may remain on pages that were swept before.
        let before_head = u64::from(self.frame.window) - 1;
        let oldest_left = self.sweep_began.saturating_sub(before_head);
        self.floor = self.floor.max(oldest_left);
        self.tally.adapt(&self.pages, self.frame);
        step.is_empty = self.held() == 0;
        step
    }

    /// Whether there is an expired entry, or no entry.
    pub(super) fn needs_sweep(&self) -> bool {
        self.held() > self.live() || self.held() == 0
    }

    /// Adds one entry that is in the window.
    fn see(&mut self, entry: Entry, age: u32) {
        let number = self.pages.locate(entry.fingerprint());
        let page = self.pages.page(number);
        match page.find(entry.fingerprint()) {
            Ok(position) => {
                let known = self.frame.age(page.entries()[position]);
                if self.tally.see_again(known, age, self.frame.window) {
                    self.pages.set(number, position, entry);
                }
            }
            Err(position) => {
                self.pages.insert(number, position, entry);
                self.tally.add(age);
            }
        }
    }

    /// Merges ascending entries into the page that they belong to.
    fn merge(&mut self, number: u32, run: &[Entry], base: u64, lag: u64) {
        let frame = self.frame;
        let tally = &mut self.tally;
        self.pages.rewrite(number, |held| {
            let mut merged = Page::with_capacity(held.len() + run.len());
            let mut held = held.into_iter().peekable();
            for entry in run {
                let Some(age) = frame.age_in_window(*entry, base, lag) else {
                    continue;
                };
                let fingerprint = entry.fingerprint();
                while let Some(known) = held.next_if(|known| known.fingerprint() <= fingerprint) {
                    merged.push(known);
                }
                match merged.last_mut() {
                    Some(known) if known.fingerprint() == fingerprint => {
                        if tally.see_again(frame.age(*known), age, frame.window) {
                            *known = *entry;
                        }
                    }
                    _ => {
                        tally.add(age);
                        merged.push(*entry);
                    }
                }
            }
            merged.extend(held);
            merged
        });
    }

    /// Removes every entry for which `keep` is false.
    fn retain(&mut self, keep: impl Fn(Entry) -> bool) {
        let mut next = Some(Fingerprint::MIN);
        while let Some(from) = next {
            next = self.pages.sweep(from, &keep).next;
        }
    }

    /// The first slot of the window.
    fn window_start(&self) -> u64 {
        let before_head = u64::from(self.frame.window) - 1;
        self.frame.head.saturating_sub(before_head)
    }
}

impl InWindow {
    pub(super) fn holds(self, entry: Entry) -> bool {
        self.frame.age(entry) < self.ages
    }

    /// How many slots before `as_of` an entry is; 0 if it is after it.
    pub(super) fn age(self, entry: Entry, as_of: u64) -> u32 {
        let after = u32::try_from(self.frame.head.saturating_sub(as_of)).unwrap_or(u32::MAX);
        self.frame.age(entry).saturating_sub(after)
    }
}
