//! The walk over the pages of a plan's segments.

use domain::Slot;

use super::plan::{Part, Plan, Users};
use super::sorted;
use crate::Index;
use crate::entry::{FINGERPRINT_BITS, Fingerprint};
use crate::grouping::Grouping;
use crate::reader::{Reader, Stop, Stripe};
use crate::shared::Shared;

/// Ascending, each user once.
type Found = Result<Vec<Fingerprint>, Stop>;

/// More lists than this are sorted together instead of being united one after another.
const UNITED: usize = 3;

pub(super) struct Walk<'a> {
    plan: &'a Plan,
    reader: Reader<'a>,
    /// The number of bits of a fingerprint that vary within a stripe.
    bits: u32,
    grouping: Grouping<Fingerprint>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(
        index: &'a Index,
        plan: &'a Plan,
        window: u32,
        as_of: Slot,
        should_stop: &'a mut dyn FnMut() -> bool,
    ) -> Self {
        Self {
            plan,
            reader: Reader::new(&index.head, window, as_of, should_stop),
            bits: plan.range_bits(),
            grouping: Grouping::default(),
        }
    }

    /// The number of users in the set.
    pub(super) fn count(mut self) -> Result<u64, Stop> {
        let bits = self.bits;
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
            Users::Nobody => self.reader.spend(0)?,
            Users::Segment(shared) => self.list_segment(shared, stripe, &mut found)?,
            Users::Everybody if self.plan.all.len() <= UNITED => {
                for shared in &self.plan.all {
                    let mut users = Vec::new();
                    self.list_segment(shared, stripe, &mut users)?;
                    found = sorted::unite(&found, &users);
                }
            }
            Users::Everybody => {
                for shared in &self.plan.all {
                    self.list_segment(shared, stripe, &mut found)?;
                }
                self.sort(&mut found);
            }
            Users::Or(parts) if parts.len() <= UNITED => {
                for part in parts {
                    found = sorted::unite(&found, &self.list(part, stripe)?);
                }
            }
            Users::Or(parts) => {
                for part in parts {
                    found.append(&mut self.list(part, stripe)?);
                }
                self.sort(&mut found);
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

    /// Sorts users of a stripe, and removes repeated ones.
    fn sort(&mut self, users: &mut Vec<Fingerprint>) {
        let sorted = self.grouping.sort(users, self.bits);
        let mut len = 0;
        for (at, user) in sorted.iter().enumerate() {
            users[len] = *user;
            len += usize::from(sorted.get(at + 1) != Some(user));
        }
        users.truncate(len);
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
        self.reader.each_page(shared, stripe, |entries, in_window| {
            sorted::append(entries, in_window, found);
        })
    }

    fn keep_in_segment(&mut self, shared: &Shared, users: &[Fingerprint]) -> Found {
        let mut candidates = Vec::with_capacity(users.len());
        let mut rest = users;
        // Pages without one of `users` are not visited.
        while let Some(first) = rest.first() {
            let done = self.reader.visit(shared, *first, |page, in_window| {
                let here = sorted::number_before(rest, page.end(*first));
                sorted::append_candidates(page, &rest[..here], in_window, &mut candidates);
                here
            })?;
            rest = &rest[done..];
        }
        Ok(sorted::intersect(users, &candidates))
    }
}
