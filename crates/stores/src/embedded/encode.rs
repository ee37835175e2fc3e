//! A batch as records of the log.

use super::identity::Identity;
use super::record::{PAIRS, length, push_segment};
use domain::{Batch, Slot};
use index::{Entry, Fingerprint};

/// Pairs per record. Even if each has a segment of its own with the longest name, they fit.
const RECORD_PAIRS: usize = 1 << 17;

/// A pair on its way into a record.
struct Item {
    segment: usize,
    fingerprint: Fingerprint,
    slot: Slot,
}

/// The records for `batch`, with users as fingerprints: per record one group for each segment, so that a name is
/// written once and the index is locked once for each.
pub(super) fn records(batch: &Batch, identity: &Identity) -> Vec<Vec<u8>> {
    let mut pairs = batch.indexed();
    let mut records = Vec::with_capacity(batch.len().div_ceil(RECORD_PAIRS));
    let mut items = Vec::with_capacity(batch.len().min(RECORD_PAIRS));
    while pairs.len() > 0 {
        items.clear();
        let taken = pairs.by_ref().take(RECORD_PAIRS);
        items.extend(taken.map(|(segment, user, slot)| Item {
            segment,
            fingerprint: identity.fingerprint(&user),
            slot,
        }));
        records.push(record(batch, &items));
    }
    records
}

/// Lays out all groups, then drops each entry into its place.
fn record(batch: &Batch, items: &[Item]) -> Vec<u8> {
    let segments = batch.segments();
    let mut lengths = vec![0_u32; segments.len()];
    let mut base = Slot::new(0);
    for item in items {
        lengths[item.segment] += 1;
        base = base.max(item.slot);
    }
    let groups = || segments.iter().zip(&lengths).filter(|(_, n)| **n > 0);
    let names: usize = groups()
        .map(|(segment, _)| segment.as_str().len() + 5)
        .sum();
    let mut out = Vec::with_capacity(13 + names + items.len() * 8);
    out.push(PAIRS);
    out.extend_from_slice(&base.number().to_le_bytes());
    out.extend_from_slice(&length(groups().count()));
    let mut next = vec![0; segments.len()];
    for ((segment, pairs), next) in segments.iter().zip(&lengths).zip(&mut next) {
        if *pairs == 0 {
            continue;
        }
        push_segment(&mut out, segment);
        out.extend_from_slice(&pairs.to_le_bytes());
        *next = out.len();
        out.resize(out.len() + *pairs as usize * 8, 0);
    }
    for item in items {
        let entry = Entry::new(item.fingerprint, in_reach(item.slot, base)).to_bits();
        let at = next[item.segment];
        out[at..at + 8].copy_from_slice(&entry.to_le_bytes());
        next[item.segment] = at + 8;
    }
    out
}

/// A slot so far before the base that 16 bits can't tell it has expired whatever the window: any expired slot
/// within reach says the same.
fn in_reach(slot: Slot, base: Slot) -> Slot {
    slot.max(Slot::new(base.number().saturating_sub(u64::from(u16::MAX))))
}
