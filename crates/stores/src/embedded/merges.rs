//! Notes of merges, as properties: `merge/MICROSECONDS/HASH` and a letter has the mark of the merge. They contain no readable id.
//!
//! A new note removes a few that no window reaches any more.

use std::collections::BTreeMap;

use super::EmbeddedStore;
use domain::{Erasure, Timestamp};

const PREFIX: &str = "merge/";
/// Old notes that one new note removes, so that they do not grow in number.
const REMOVED_AT_ONCE: usize = 4;

impl EmbeddedStore {
    /// The record that notes a merge.
    pub(super) fn merge_note(&self, merge: &Erasure) -> Vec<u8> {
        let first = self.frame.full_window().slots_as_of(self.slot(merge.at()));
        let reached = self.frame.resolution().start_of(*first.start());
        let mut record = state::batch();
        {
            let properties = self.state().properties.lock();
            let old = properties.range(PREFIX.to_owned()..name_from(reached));
            for (name, _) in old.take(REMOVED_AT_ONCE) {
                state::join(&mut record, &state::property(name, None));
            }
        }
        let mark = merge.mark();
        // The note of a complete merge does not replace the other one, whichever comes first.
        let (at, scope) = (name_from(merge.at()), mark.get(..1).unwrap_or_default());
        let name = format!("{at}{:032x}{scope}", merge.hash());
        state::join(&mut record, &state::property(&name, Some(&mark)));
        record
    }
}

/// The beginning of the names of notes at `at`. All names of later notes come after it.
fn name_from(at: Timestamp) -> String {
    format!("{PREFIX}{:020}/", at.as_microsecond().max(0))
}

/// The merges at `since` or later.
pub(super) fn since(properties: &BTreeMap<String, String>, since: Timestamp) -> Vec<Erasure> {
    let notes = properties.range(name_from(since)..);
    let notes = notes.map_while(|(name, mark)| Some((name.strip_prefix(PREFIX)?, mark)));
    let merge = |(name, mark): (&str, &String)| {
        let at = name.split('/').next()?.parse().ok()?;
        Erasure::from_mark(mark, Timestamp::from_microsecond(at).ok()?)
    };
    notes.filter_map(merge).collect()
}
