//! Removal of expired entries in bounded steps.

use std::sync::Arc;

use super::Index;
use super::entry::Fingerprint;
use super::shared::Shared;
use domain::{Segment, Slot};

/// Entries looked at under one lock of a segment: about 20 microseconds.
const LOCKED: u64 = 2048;

/// How many entries a step may look at for each that it may remove: also a sweep that finds little ends.
const LOOKED_AT_PER_REMOVED: u64 = 16;

/// What one step of [`Index::sweep`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Swept {
    /// Entries removed.
    pub removed: u64,
    /// Whether no expired entry was left.
    pub done: bool,
}

/// Where the next step goes on.
#[derive(Debug, Default)]
pub(super) struct Cursor {
    /// The segments to sweep, the next one last.
    queue: Vec<(Segment, Arc<Shared>)>,
    /// Where to go on in it.
    from: Option<Fingerprint>,
}

impl Index {
    /// Removes about `limit` entries that are expired as of `as_of` (or the head, if later) and gives back
    /// their memory, holding a segment's lock for microseconds at a time. Segments without entries go, too.
    /// Steps go on where the last one ended: call it until `done`. No count changes.
    ///
    /// If nobody calls it for long (more than 65,536 slots less the window), a segment drops what expired by
    /// itself, in one go, when it is next looked at: counts stay right, but that call is slow.
    pub fn sweep(&self, as_of: Slot, limit: u64) -> Swept {
        self.advance(as_of);
        let limit = limit.max(1);
        let mut cursor = self.cursor.lock();
        let (mut removed, mut looked_at) = (0, 0);
        while removed < limit && looked_at < limit.saturating_mul(LOOKED_AT_PER_REMOVED) {
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
            // A retired segment has nothing left.
            let step = step.unwrap_or_default();
            removed += step.removed;
            looked_at += step.examined;
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

    /// The segments that hold an expired entry or none at all.
    fn unswept(&self) -> Vec<(Segment, Arc<Shared>)> {
        self.each(|shared| {
            let needs_sweep = shared.with(&self.head, |members| members.needs_sweep())?;
            needs_sweep.then(|| Arc::clone(shared))
        })
    }

    /// Takes a segment without entries off the index. Whoever is about to write to it finds it retired and
    /// adds it again.
    fn remove_if_empty(&self, segment: &Segment, shared: &Arc<Shared>) {
        let mut segments = self.segments.write();
        let is_listed = segments
            .get(segment.as_str())
            .is_some_and(|listed| Arc::ptr_eq(listed, shared));
        if is_listed && shared.retire() {
            segments.remove(segment.as_str());
        }
    }
}
