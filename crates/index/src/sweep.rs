//! The sweep: removes expired entries in bounded steps.

use std::sync::Arc;

use super::Index;
use super::entry::Fingerprint;
use super::shared::Shared;
use domain::{Segment, Slot};

/// Entries examined under one lock of a segment: about 20 microseconds.
const LOCKED: u64 = 2048;

/// How many entries a step may examine for each one that it may remove. It limits a sweep that finds few expired entries.
const EXAMINED_PER_REMOVED: u64 = 16;

/// The result of one step of [`Index::sweep`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Swept {
    /// Entries removed.
    pub removed: u64,
    /// Whether no expired entry was left.
    pub done: bool,
}

/// The position at which the next step continues.
#[derive(Debug, Default)]
pub(super) struct Cursor {
    /// The segments to sweep; the next one is at the end.
    queue: Vec<(Segment, Arc<Shared>)>,
    /// The position in that segment.
    from: Option<Fingerprint>,
}

impl Index {
    /// Removes about `limit` entries that are expired as of `as_of` (or the head, if later) and frees
    /// their memory. It holds a segment's lock for microseconds at a time, and removes segments without entries.
    /// Each step continues where the last one ended: call it until `done`. No count changes.
    ///
    /// If it is not called for long (more than 65,536 slots less the window), a segment drops all its expired entries
    /// at once at its next access: counts stay correct, but that call is slow.
    pub fn sweep(&self, as_of: Slot, limit: u64) -> Swept {
        self.advance(as_of);
        let limit = limit.max(1);
        let mut cursor = self.cursor.lock();
        let (mut removed, mut examined) = (0, 0);
        while removed < limit && examined < limit.saturating_mul(EXAMINED_PER_REMOVED) {
            if cursor.queue.is_empty() {
                cursor.queue = self.unswept();
            }
            let Some((segment, shared)) = cursor.queue.last() else {
                return Swept {
                    removed,
                    done: true,
                };
            };
            let from = cursor.from.unwrap_or(Fingerprint::MIN);
            let step = shared.with(&self.head, |members| members.sweep(from, LOCKED));
            // A retired segment has no entries left.
            let step = step.unwrap_or_default();
            removed += step.removed;
            examined += step.examined;
            if step.next.is_none() {
                if step.is_empty {
                    self.remove_if_empty(segment, shared);
                }
                cursor.queue.pop();
            }
            cursor.from = step.next;
        }
        Swept {
            removed,
            done: false,
        }
    }

    /// The segments that have an expired entry, or no entry.
    fn unswept(&self) -> Vec<(Segment, Arc<Shared>)> {
        self.each(|shared| {
            let needs_sweep = shared.with(&self.head, |members| members.needs_sweep())?;
            needs_sweep.then(|| Arc::clone(shared))
        })
    }

    /// Removes a segment without entries from the index. A concurrent writer finds it retired and adds it again.
    fn remove_if_empty(&self, segment: &Segment, shared: &Arc<Shared>) {
        let mut segments = self.segments.write();
        let is_listed = segments
            .get(segment.as_str())
            .is_some_and(|listed| Arc::ptr_eq(listed, shared));
        if is_listed && let Some(flows) = shared.retire() {
            segments.remove(segment.as_str());
            self.former.lock().put(segment.clone(), flows);
        }
    }
}
