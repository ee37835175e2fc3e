//! Reads segments page by page while others write, for walks through all fingerprints.

use std::ops::Range;
use std::sync::atomic::AtomicU64;

use domain::Slot;

use super::entry::{Entry, Fingerprint};
use super::members::InWindow;
use super::page::Page;
use super::shared::Shared;

/// Entries between two calls of `should_stop`: about 10 microseconds.
const CHECKED: usize = 1 << 12;

/// The cost of a page, as a number of entries: its lock and cache misses.
const PAGE_OVERHEAD: usize = 32;

/// Why a walk ends early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    Cancelled,
    /// Entries of its window may have been removed, because the window of the present head is later.
    Outrun,
}

/// Fingerprints as numbers.
pub(super) type Stripe = Range<u64>;

/// Reads the entries of a window as of a slot, and asks from time to time whether to stop.
pub(super) struct Reader<'a> {
    head: &'a AtomicU64,
    window: u32,
    as_of: Slot,
    should_stop: &'a mut dyn FnMut() -> bool,
    /// Entries since `should_stop` was called.
    unchecked: usize,
}

impl<'a> Reader<'a> {
    /// `as_of` is at or before the head.
    pub(super) fn new(
        head: &'a AtomicU64,
        window: u32,
        as_of: Slot,
        should_stop: &'a mut dyn FnMut() -> bool,
    ) -> Self {
        Self {
            head,
            window,
            as_of,
            should_stop,
            unchecked: CHECKED,
        }
    }

    /// Calls `act` with the entries of a segment in a stripe, page by page in ascending order. Each user is in at most
    /// one of the calls, even if pages split and merge meanwhile.
    pub(super) fn each_page(
        &mut self,
        shared: &Shared,
        stripe: &Stripe,
        mut act: impl FnMut(&[Entry], InWindow),
    ) -> Result<(), Stop> {
        let mut from = Fingerprint::from_number(stripe.start);
        loop {
            let next = self.visit(shared, from, |page, in_window| {
                act(page.between(from, stripe.end), in_window);
                page.end(from)
            })?;
            match next {
                Some(next) if next.number() < stripe.end => from = next,
                _ => return Ok(()),
            }
        }
    }

    /// Calls `act` with the page of `from`, under the lock of the segment.
    pub(super) fn visit<T>(
        &mut self,
        shared: &Shared,
        from: Fingerprint,
        act: impl FnOnce(&Page, InWindow) -> T,
    ) -> Result<T, Stop> {
        let (window, as_of) = (self.window, self.as_of.number());
        let visited = shared.with(self.head, |members| {
            let in_window = members.in_window(window, as_of)?;
            let page = members.page(from);
            Some((page.len(), act(page, in_window)))
        });
        // A segment that was removed from the index had lost all its entries.
        let (len, result) = visited.flatten().ok_or(Stop::Outrun)?;
        self.spend(len + PAGE_OVERHEAD)?;
        Ok(result)
    }

    /// Notes work that takes as long as reading this many entries.
    pub(super) fn spend(&mut self, entries: usize) -> Result<(), Stop> {
        self.unchecked += entries;
        if self.unchecked < CHECKED {
            return Ok(());
        }
        self.unchecked = 0;
        if (self.should_stop)() {
            return Err(Stop::Cancelled);
        }
        Ok(())
    }
}
