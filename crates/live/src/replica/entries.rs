//! Turns entries of a feed into one record of the replica's log.

use domain::Slot;
use domain::feed::{Cursor, Entry};

/// The record that applies `entries` and notes the position after them, and how many of their records had pairs after `latest`.
///
/// # Errors
///
/// An entry is no list of records: another program wrote to the feed.
pub(super) fn record(
    entries: &[Entry],
    next: &Cursor,
    latest: Slot,
) -> Result<(Vec<u8>, u64), String> {
    let mut parts: Vec<Vec<u8>> = Vec::new();
    let mut clamped = 0;
    for entry in entries {
        let mut joined = entry.record.as_slice();
        while !joined.is_empty() {
            let (length, rest) = joined
                .split_first_chunk::<4>()
                .ok_or("an entry ends early")?;
            let length = u32::from_le_bytes(*length) as usize;
            let (record, rest) = rest.split_at_checked(length).ok_or("an entry ends early")?;
            match state::no_later_than(record, latest)? {
                Some(changed) => {
                    clamped += 1;
                    parts.push(with_length(&changed));
                }
                None => parts.push(with_length(record)),
            }
            joined = rest;
        }
    }
    parts.push(with_length(&state::position(next)));
    let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    Ok((state::batch(&parts), clamped))
}

fn with_length(record: &[u8]) -> Vec<u8> {
    let length = u32::try_from(record.len()).unwrap_or(u32::MAX);
    let mut out = length.to_le_bytes().to_vec();
    out.extend_from_slice(record);
    out
}
