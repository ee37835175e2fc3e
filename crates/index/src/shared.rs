//! The members of a segment behind a lock, and their number outside of it.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::flow::Flows;
use super::members::Members;

/// Marks a count that is being replaced. No head has this value.
const UNPUBLISHED: u64 = u64::MAX;

/// One segment. Its full-window count can be read without the lock as long as the head does not change.
#[derive(Debug)]
pub(super) struct Shared {
    /// The head as of which `live` is correct.
    as_of: AtomicU64,
    live: AtomicU64,
    /// `None` once the segment was removed from the index: a caller that still holds it must look it up again.
    members: Mutex<Option<Members>>,
}

impl Shared {
    pub(super) fn new(members: Members) -> Self {
        Self {
            as_of: AtomicU64::new(UNPUBLISHED),
            live: AtomicU64::new(0),
            members: Mutex::new(Some(members)),
        }
    }

    /// The full-window count as of `head`, if it was published.
    pub(super) fn published(&self, head: u64) -> Option<u64> {
        if self.as_of.load(Ordering::Acquire) != head {
            return None;
        }
        let live = self.live.load(Ordering::Acquire);
        // A writer marks `as_of` before it publishes a count of a later head. If `live` is of a later head, then the
        // mark is visible here. `as_of` only ever grows, so it can't have returned to `head`.
        (self.as_of.load(Ordering::Relaxed) == head).then_some(live)
    }

    /// Locks the members, advances them to the latest head, calls `act`, and publishes their number. `None` if
    /// the segment was removed from the index.
    pub(super) fn with<T>(
        &self,
        head: &AtomicU64,
        act: impl FnOnce(&mut Members) -> T,
    ) -> Option<T> {
        let mut guard = self.members.lock();
        let members = guard.as_mut()?;
        // The head is read under the lock, so that the members' head never moves back.
        members.advance(head.load(Ordering::Acquire));
        let result = act(members);
        self.publish(members);
        Some(result)
    }

    /// Retires the segment if it has no members. Returns who entered and left if it is retired.
    pub(super) fn retire(&self) -> Option<Flows> {
        let mut guard = self.members.lock();
        let retired = guard.take_if(|members| members.held() == 0)?;
        Some(retired.into_flows())
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
