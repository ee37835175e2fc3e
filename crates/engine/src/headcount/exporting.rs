//! The users of a segment by name, page by page, in the order of their ids.
//!
//! Each page reads the whole segment from the store, and keeps only the first users after the previous page. So a page is bounded in
//! memory, the last id of a page is the place to continue, and no user is on two pages, whatever is written meanwhile.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use futures::TryStreamExt;

use domain::store::{PairStore, StoreError};
use domain::{Segment, Slot, TimeFrame, Window};

use super::Headcount;

/// Most pairs in a range of slots that is read at once from a store that does not stream, unless one slot has more.
const RANGE_PAIRS: u64 = 200_000;

/// A page of users: the ids as stored, with the slot of each one's last visit, in the order of the bytes of the ids.
pub type UsersPage = BTreeMap<Box<str>, Slot>;

impl Headcount {
    /// The first `most` users of `segment` over `window` whose id is greater than `after`. Fewer are the last page. A user who is
    /// in the window throughout the call is on the page with at least the last visit before it.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unsupported`] if the store does not keep user ids.
    pub async fn users_page(
        &self,
        segment: &Segment,
        window: Window,
        after: Option<&str>,
        most: usize,
    ) -> Result<UsersPage, StoreError> {
        let present = self.frame.resolution().slot_of(self.clock.now());
        let slots = window.slots_as_of(present);
        let mut page = Page {
            after,
            most,
            users: BTreeMap::new(),
        };
        let store = &*self.store;
        if store.streams() {
            page.read(store, segment, slots).await?;
            return Ok(page.users);
        }
        // The oldest first: a user who comes again meanwhile moves to a slot that is not read yet.
        let (mut start, last) = (*slots.start(), *slots.end());
        while start <= last {
            let end = self.fit(segment, start, last).await?;
            page.read(store, segment, start..=end).await?;
            start = Slot::new(end.number() + 1);
        }
        Ok(page.users)
    }

    /// The last slot of a range from `start` that fits into memory, or is a single slot.
    async fn fit(&self, segment: &Segment, start: Slot, last: Slot) -> Result<Slot, StoreError> {
        let (frame, mut end) = (&self.frame, last);
        while end > start {
            let Some(window) = window_between(frame, start, end) else {
                return Ok(end);
            };
            let as_of = frame.resolution().start_of(end);
            if self.store.count(segment, window, as_of).await?.users <= RANGE_PAIRS {
                return Ok(end);
            }
            end = Slot::new(start.number().midpoint(end.number()));
        }
        Ok(end)
    }
}

/// The window whose count as of `end` begins with `start`.
fn window_between(frame: &TimeFrame, start: Slot, end: Slot) -> Option<Window> {
    let slots = end.number() - start.number() + 1;
    let seconds = slots * u64::from(frame.resolution().seconds());
    frame.window(Duration::from_secs(seconds)).ok()
}

/// The smallest ids that were read so far.
struct Page<'a> {
    after: Option<&'a str>,
    most: usize,
    users: UsersPage,
}

impl Page<'_> {
    async fn read(
        &mut self,
        store: &dyn PairStore,
        segment: &Segment,
        slots: RangeInclusive<Slot>,
    ) -> Result<(), StoreError> {
        let mut batches = store.export_stream(segment, slots);
        while let Some(batch) = batches.try_next().await? {
            for pair in batch.pairs() {
                self.add(pair.user.as_str(), pair.slot);
            }
        }
        Ok(())
    }

    /// Adds a visit. A user who does not fit is never on this page later: the greatest id on it only gets smaller.
    fn add(&mut self, user: &str, slot: Slot) {
        if self.after.is_some_and(|after| user <= after) {
            return;
        }
        if let Some(last_seen) = self.users.get_mut(user) {
            *last_seen = slot.max(*last_seen);
            return;
        }
        let greatest = self.users.last_key_value();
        if self.users.len() < self.most || greatest.is_some_and(|(greatest, _)| user < &**greatest)
        {
            self.users.insert(user.into(), slot);
        }
        if self.users.len() > self.most {
            self.users.pop_last();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(after: Option<&str>, visits: &[(&str, u64)], most: usize) -> Vec<(String, u64)> {
        let mut page = Page {
            after,
            most,
            users: BTreeMap::new(),
        };
        for (user, slot) in visits {
            page.add(user, Slot::new(*slot));
        }
        let users = page.users.into_iter();
        users
            .map(|(user, slot)| (user.into(), slot.number()))
            .collect()
    }

    #[test]
    fn the_newest_visit_of_a_user_wins_in_any_order() {
        let mut visits = [("b", 3), ("a", 1), ("c", 2), ("b", 5), ("a", 4), ("b", 1)];
        for _ in 0..visits.len() {
            visits.rotate_left(1);
            let all = page(None, &visits, 9);
            assert_eq!(all, [("a".into(), 4), ("b".into(), 5), ("c".into(), 2)]);
        }
    }

    #[test]
    fn pages_are_disjoint_and_have_everybody() {
        let names: Vec<String> = (0..100).map(|n| format!("u{}", n * 37 % 100)).collect();
        let visits: Vec<_> = names.iter().map(|name| (name.as_str(), 7)).collect();
        let mut found: Vec<String> = Vec::new();
        loop {
            let next = page(found.last().map(String::as_str), &visits, 7);
            let is_last = next.len() < 7;
            found.extend(next.into_iter().map(|(user, _)| user));
            if is_last {
                break;
            }
        }
        let mut sorted = names.clone();
        sorted.sort();
        assert_eq!(found, sorted);
    }
}
