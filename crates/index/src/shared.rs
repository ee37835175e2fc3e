//! A segment's members behind a lock, and their number beside it.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::members::Members;

/// No head is this late; it marks a count that is being replaced.
const UNPUBLISHED: u64 = u64::MAX;

/// One segment. Its full-window count can be read without the lock as long as the head stands still.
#[derive(Debug)]
pub(super) struct Shared {
    /// The head as of which `live` is right.
    as_of: AtomicU64,
    live: AtomicU64,
    /// `None` once the segment was taken off the index: whoever still holds it looks it up again.
    members: Mutex<Option<Members>>,
}

impl Shared {
    pub(super) fn new(window: u32, head: u64) -> Self {
        Self {
            as_of: AtomicU64::new(UNPUBLISHED),
            live: AtomicU64::new(0),
            members: Mutex::new(Some(Members::new(window, head))),
        }
    }

    /// The full-window count as of `head`, if it was published.
    pub(super) fn published(&self, head: u64) -> Option<u64> {
        if self.as_of.load(Ordering::Acquire) != head {
            return None;
        }
        let live = self.live.load(Ordering::Acquire);
        // A writer that moves on to a later head first marks `as_of`. If `live` is of a later head, then the
        // mark is visible here; `as_of` only ever grows, so it can't have come back to `head`.
        (self.as_of.load(Ordering::Relaxed) == head).then_some(live)
    }

    /// Locks the members, brings them to the latest head, and publishes their number afterwards. `None` when
    /// the segment was taken off the index.
    pub(super) fn with<T>(
        &self,
        head: &AtomicU64,
        act: impl FnOnce(&mut Members) -> T,
    ) -> Option<T> {
        let mut guard = self.members.lock();
        let members = guard.as_mut()?;
        // Under the lock, so that the members' head never goes back.
        members.advance(head.load(Ordering::Acquire));
        let result = act(members);
        self.publish(members);
        Some(result)
    }

    /// Empties the lock if there are no members; whether it is empty.
    pub(super) fn retire(&self) -> bool {
        let mut guard = self.members.lock();
        if guard.as_ref().is_some_and(|members| members.held() > 0) {
            return false;
        }
        *guard = None;
        true
    }

    fn publish(&self, members: &Members) {
        if self.as_of.load(Ordering::Relaxed) == members.head() {
            self.live.store(members.live(), Ordering::Release);
            return;
        }
        self.as_of.store(UNPUBLISHED, Ordering::Release);
        self.live.store(members.live(), Ordering::Release);
        self.as_of.store(members.head(), Ordering::Release);
    }
}
