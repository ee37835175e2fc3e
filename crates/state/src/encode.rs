//! Encodes a batch as records of the log.

use super::record::{self, PAIRS, RECEIVED, length, push_segment};
use domain::{Batch, FingerprintKey, Slot, Timestamp};
use index::{Entry, Fingerprint};
use wal::Fields;

/// Pairs per record. They fit even if each has a segment of its own with the longest name.
const RECORD_PAIRS: usize = 1 << 17;

/// A pair of the record that is being encoded.
struct Item {
    segment: usize,
    fingerprint: Fingerprint,
    slot: Slot,
}

/// Encodes `batch`, with users as fingerprints. Each record has one group per segment, so that the name is written once
/// and the index is locked once per segment.
pub fn records(batch: &Batch, key: FingerprintKey) -> Vec<Vec<u8>> {
    records_of(&[PAIRS], batch, key)
}

/// The same for a replica: the pairs were received at `at`.
pub fn received(batch: &Batch, key: FingerprintKey, at: Timestamp) -> Vec<Vec<u8>> {
    let mut head = vec![RECEIVED];
    head.extend_from_slice(&at.as_millisecond().to_le_bytes());
    records_of(&head, batch, key)
}

fn records_of(head: &[u8], batch: &Batch, key: FingerprintKey) -> Vec<Vec<u8>> {
    let mut pairs = batch.indexed();
    let mut records = Vec::with_capacity(batch.len().div_ceil(RECORD_PAIRS));
    let mut items = Vec::with_capacity(batch.len().min(RECORD_PAIRS));
    while pairs.len() > 0 {
        items.clear();
        let taken = pairs.by_ref().take(RECORD_PAIRS);
        items.extend(taken.map(|(segment, user, slot)| Item {
            segment,
            fingerprint: Fingerprint::of(&user, key),
            slot,
        }));
        records.push(record(head, batch, &items));
    }
    records
}

/// A copy of a record of received pairs in which no slot is after `latest`; `None` if there is none anyway.
///
/// # Errors
///
/// The bytes are no such record.
pub fn no_later_than(record: &[u8], latest: Slot) -> Result<Option<Vec<u8>>, String> {
    let mut fields = Fields::of(record);
    if fields.u8()? != RECEIVED {
        return Ok(None);
    }
    let received_at = fields.i64()?;
    let base = Slot::new(fields.u64()?);
    if base <= latest {
        return Ok(None);
    }
    let mut out = vec![RECEIVED];
    out.extend_from_slice(&received_at.to_le_bytes());
    out.extend_from_slice(&latest.number().to_le_bytes());
    let groups = fields.u32()?;
    out.extend_from_slice(&groups.to_le_bytes());
    let mut entries = Vec::new();
    for _ in 0..groups {
        push_segment(&mut out, &record::segment(&mut fields)?);
        record::entries(&mut fields, &mut entries)?;
        out.extend_from_slice(&length(entries.len()));
        for entry in &entries {
            let slot = entry.slot(base).min(latest);
            let entry = Entry::new(entry.fingerprint(), in_reach(slot, latest));
            out.extend_from_slice(&entry.to_bits().to_le_bytes());
        }
    }
    fields.end()?;
    Ok(Some(out))
}

/// Lays out all groups, then writes each entry to its place.
fn record(head: &[u8], batch: &Batch, items: &[Item]) -> Vec<u8> {
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
    let mut out = Vec::with_capacity(head.len() + 12 + names + items.len() * 8);
    out.extend_from_slice(head);
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

/// Clamps a slot to the range that 16 bits before the base can express. An older slot has expired with any window, and
/// so has the clamped one.
fn in_reach(slot: Slot, base: Slot) -> Slot {
    slot.max(Slot::new(base.number().saturating_sub(u64::from(u16::MAX))))
}
