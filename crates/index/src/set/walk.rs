//! The walk over the pages of a plan's segments.

use std::ops::Range;
use std::sync::atomic::AtomicU64;

use domain::Slot;

use super::plan::{Part, Plan, Users};
use super::sorted;
use crate::entry::{FINGERPRINT_BITS, Fingerprint};
use crate::members::InWindow;
use crate::page::Page;
use crate::shared::Shared;

/// Entries between two calls of `should_stop`: about 10 microseconds.
const CHECKED: usize = 1 << 12;

/// A page takes as long as this many entries, for its lock and cache misses.
const PAGE_OVERHEAD: usize = 32;

/// Why a walk ends early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    Cancelled,
    /// Entries of its window may have been removed, because the window of the present head is later.
    Outrun,
}

/// Ascending, each user once.
type Found = Result<Vec<Fingerprint>, Stop>;

/// Fingerprints as numbers.
type Stripe = Range<u64>;

pub(super) struct Walk<'a> {
    head: &'a AtomicU64,
    plan: &'a Plan,
    window: u32,
    as_of: Slot,
    should_stop: &'a mut dyn FnMut() -> bool,
    /// Entries since `should_stop` was called.
    unchecked: usize,
}

impl<'a> Walk<'a> {
    pub(super) fn new(
        head: &'a AtomicU64,
        plan: &'a Plan,
        window: u32,
        as_of: Slot,
        should_stop: &'a mut dyn FnMut() -> bool,
    ) -> Self {
        Self {
            head,
            plan,
            window,
            as_of,
            should_stop,
            unchecked: CHECKED,
        }
    }

    /// The number of users in the set.
    pub(super) fn count(mut self) -> Result<u64, Stop> {
        let bits = self.plan.range_bits();
        let mut users = 0;
        for number in 0..1_u64 << (FINGERPRINT_BITS - bits) {
            let stripe = number << bits..(number + 1) << bits;
            users += self.list(&self.plan.root, &stripe)?.len() as u64;
        }
        Ok(users)
    }

    /// The users of a set in a stripe.
    fn list(&mut self, part: &Part, stripe: &Stripe) -> Found {
        let mut found = Vec::new();
        match &part.users {
            Users::Nobody => self.spend(0)?,
            Users::Segment(shared) => self.list_segment(shared, stripe, &mut found)?,
            Users::Everybody => {
                for shared in &self.plan.all {
                    self.list_segment(shared, stripe, &mut found)?;
                }
                sorted::merge_runs(&mut found);
            }
            Users::Or(parts) => {
                for part in parts {
                    found.append(&mut self.list(part, stripe)?);
                }
                sorted::merge_runs(&mut found);
            }
            Users::And { wanted, unwanted } => {
                let [smallest, others @ ..] = wanted.as_slice() else {
                    return Ok(found);
                };
                let users = self.list(smallest, stripe)?;
                return self.restrict(users, others, unwanted);
            }
        }
        Ok(found)
    }

    /// Those of `users` who are in a set.
    fn keep(&mut self, part: &Part, users: &[Fingerprint]) -> Found {
        match &part.users {
            Users::Nobody => Ok(Vec::new()),
            Users::Segment(shared) => self.keep_in_segment(shared, users),
            // Each of them was found in a segment.
            Users::Everybody => Ok(users.to_vec()),
            Users::Or(parts) => {
                let outside = self.remove(users.to_vec(), parts)?;
                Ok(sorted::without(users, &outside))
            }
            Users::And { wanted, unwanted } => self.restrict(users.to_vec(), wanted, unwanted),
        }
    }

    /// Those of `users` who are in every set of `wanted` and in no set of `unwanted`.
    fn restrict(
        &mut self,
        mut users: Vec<Fingerprint>,
        wanted: &[Part],
        unwanted: &[Part],
    ) -> Found {
        for part in wanted {
            if users.is_empty() {
                break;
            }
            users = self.keep(part, &users)?;
        }
        self.remove(users, unwanted)
    }

    /// Those of `users` who are in none of the sets.
    fn remove(&mut self, mut users: Vec<Fingerprint>, parts: &[Part]) -> Found {
        for part in parts {
            if users.is_empty() {
                break;
            }
            let inside = self.keep(part, &users)?;
            users = sorted::without(&users, &inside);
        }
        Ok(users)
    }

    fn list_segment(
        &mut self,
        shared: &Shared,
        stripe: &Stripe,
        found: &mut Vec<Fingerprint>,
    ) -> Result<(), Stop> {
        let mut from = Fingerprint::from_number(stripe.start);
        loop {
            let next = self.visit(shared, from, |page, in_window| {
                sorted::append(page.between(from, stripe.end), in_window, found);
                page.end(from)
            })?;
            match next {
                Some(next) if next.number() < stripe.end => from = next,
                _ => return Ok(()),
            }
        }
    }

    fn keep_in_segment(&mut self, shared: &Shared, users: &[Fingerprint]) -> Found {
        let mut candidates = Vec::with_capacity(users.len());
        let mut rest = users;
        // Pages without one of `users` are not visited.
        while let Some(first) = rest.first() {
            let done = self.visit(shared, *first, |page, in_window| {
                let here = sorted::number_before(rest, page.end(*first));
                sorted::append_candidates(page, &rest[..here], in_window, &mut candidates);
                here
            })?;
            rest = &rest[done..];
        }
        Ok(sorted::intersect(users, &candidates))
    }

    /// Calls `act` with the page of `from`, under the lock of the segment.
    fn visit<T>(
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

    /// Asks from time to time whether to stop.
    fn spend(&mut self, entries: usize) -> Result<(), Stop> {
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
