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
    let mut out = state::batch();
    let mut clamped = 0;
    for entry in entries {
        state::split(&entry.record, |record| {
            match state::no_later_than(record, latest)? {
                Some(changed) => {
                    clamped += 1;
                    state::join(&mut out, &changed);
                }
                None => state::join(&mut out, record),
            }
            Ok(())
        })?;
    }
    state::join(&mut out, &state::position(next));
    Ok((out, clamped))
}
