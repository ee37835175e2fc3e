//! Encodes a batch as records of the log.

use super::Subject;
use super::record::{self, PAIRS, RECEIVED, STORED, length, push_segment};
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

/// The same, for pairs from the store: they were read when the replica knew of `erasures` erasures.
pub fn stored(batch: &Batch, key: FingerprintKey, erasures: u64) -> Vec<Vec<u8>> {
    let mut head = vec![STORED];
    head.extend_from_slice(&erasures.to_le_bytes());
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

/// Checks a record that should have received pairs. A log must have no record that can't be applied: it would stop, for good.
///
/// # Errors
///
/// The bytes are no such record.
pub fn check_received(record: &[u8]) -> Result<(), String> {
    let mut fields = Fields::of(record);
    let kind = fields.u8()?;
    if kind != RECEIVED {
        return Err(format!("unknown record kind {kind}"));
    }
    fields.i64()?;
    fields.u64()?;
    for _ in 0..fields.u32()? {
        record::segment(&mut fields)?;
        let entries = fields.u32()? as usize;
        fields.bytes(entries.checked_mul(8).ok_or("too many entries")?)?;
    }
    fields.end()
}

/// A copy of a record of received or stored pairs in which no slot is after `latest`, and its latest slot before that; `None` if there is
/// none anyway.
///
/// # Errors
///
/// The bytes are no such record.
pub fn no_later_than(record: &[u8], latest: Slot) -> Result<Option<(Vec<u8>, Slot)>, String> {
    let mut fields = Fields::of(record);
    let kind = fields.u8()?;
    if kind != RECEIVED && kind != STORED {
        return Ok(None);
    }
    let since = fields.u64()?;
    let base = Slot::new(fields.u64()?);
    if base <= latest {
        return Ok(None);
    }
    let mut out = vec![kind];
    out.extend_from_slice(&since.to_le_bytes());
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
    Ok(Some((out, base)))
}

/// The pairs of `subject` in a record of pairs that were received after `after`, in unix milliseconds, as a record; `None` if
/// there are none.
///
/// # Errors
///
/// The bytes are no such record.
pub fn pairs_of(record: &[u8], subject: &Subject, after: i64) -> Result<Option<Vec<u8>>, String> {
    let mut fields = Fields::of(record);
    if fields.u8()? != RECEIVED || fields.i64()? <= after {
        return Ok(None);
    }
    fields.u64()?;
    let (mut groups, mut pairs, mut entries) = (0_usize, Vec::new(), Vec::new());
    for _ in 0..fields.u32()? {
        let segment = record::segment(&mut fields)?;
        record::entries(&mut fields, &mut entries)?;
        entries.retain(|entry| subject.has(&segment, entry.fingerprint()));
        if entries.is_empty() {
            continue;
        }
        groups += 1;
        push_segment(&mut pairs, &segment);
        pairs.extend_from_slice(&length(entries.len()));
        for entry in &entries {
            pairs.extend_from_slice(&entry.to_bits().to_le_bytes());
        }
    }
    if groups == 0 {
        return Ok(None);
    }
    // The kind, the time of receipt and the base.
    let mut out = record.get(..17).unwrap_or_default().to_vec();
    out.extend_from_slice(&length(groups));
    out.extend_from_slice(&pairs);
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

#[cfg(test)]
mod tests {
    use super::*;
    use domain::{BatchBuilder, Segment, UserId};

    #[test]
    fn the_pairs_of_one_user_are_found_in_a_record() {
        let (key, user) = (FingerprintKey::new([7; 16]), |n: u32| {
            UserId::new(format!("u{n}")).unwrap()
        });
        let mut batch = BatchBuilder::default();
        for (n, segment, slot) in [(1, "a", 90), (2, "a", 91), (2, "b", 80), (3, "c", 99)] {
            batch.push_pair(&user(n), segment, Slot::new(slot)).unwrap();
        }
        let at = Timestamp::from_millisecond(5_000).unwrap();
        let record = &received(&batch.finish(), key, at)[0];
        let subject = |n: u32| Subject::User(Fingerprint::of(&user(n), key));
        let found = |n: u32, after: i64| pairs_of(record, &subject(n), after);

        let mut alone = BatchBuilder::default();
        alone.push_pair(&user(2), "a", Slot::new(91)).unwrap();
        alone.push_pair(&user(2), "b", Slot::new(80)).unwrap();
        let state = |record: &[u8]| {
            let state = crate::State::new(frame(100));
            let at = wal::Position { file: 1, offset: 0 };
            state.apply(at, record, &mut Vec::new()).unwrap();
            let memberships = |n| {
                state
                    .index
                    .memberships(Fingerprint::of(&user(n), key), Slot::new(99))
            };
            (1..4).map(memberships).collect::<Vec<_>>()
        };
        let expected = state(&received(&alone.finish(), key, at)[0]);
        assert_eq!(state(&found(2, 4_999).unwrap().unwrap()), expected);
        assert_eq!(found(2, 5_000), Ok(None), "it was not received later");
        assert_eq!(found(4, 0), Ok(None), "an unknown user");
        assert_eq!(
            pairs_of(&crate::erased(&subject(2), at), &subject(2), 0),
            Ok(None)
        );
        let cut = &record[..record.len() - 3];
        assert!(pairs_of(cut, &subject(2), 0).is_err());

        let only = |segment: &str, users: &[(u32, u64)]| {
            let mut pairs = BatchBuilder::default();
            for (n, slot) in users {
                let slot = Slot::new(*slot);
                pairs.push_pair(&user(*n), segment, slot).unwrap();
            }
            state(&received(&pairs.finish(), key, at)[0])
        };
        let a = Segment::new("a").unwrap();
        let of_segment = pairs_of(record, &Subject::Segment(a.clone()), 0);
        let expected = only("a", &[(1, 90), (2, 91)]);
        assert_eq!(state(&of_segment.unwrap().unwrap()), expected);
        let pair = Subject::Pair(a, Fingerprint::of(&user(2), key));
        let of_pair = pairs_of(record, &pair, 0).unwrap().unwrap();
        assert_eq!(state(&of_pair), only("a", &[(2, 91)]));
    }

    use domain::store::conformance::frame;
}
