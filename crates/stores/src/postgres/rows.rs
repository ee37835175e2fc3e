//! Converts a batch to rows: each (segment, user) once with its latest slot, in the order of the primary key.

use domain::{Batch, UserId};

/// One row of `pairs`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PairRow<'a> {
    pub(super) segment: i32,
    pub(super) user: UserId<'a>,
    pub(super) slot: i64,
}

/// Rows as column arrays, the parameters of one statement.
pub(super) struct Columns<'a> {
    pub(super) segments: Vec<i32>,
    pub(super) users: Vec<&'a str>,
    pub(super) slots: Vec<i64>,
}

/// The rows of `batch`; `ids` has an id for each of its segments.
///
/// Duplicates are removed, because one statement may not update a row twice. The order is that of the primary key, because
/// statements that lock rows in the same order can't deadlock.
pub(super) fn sorted<'a>(batch: &'a Batch, ids: &[i32]) -> Vec<PairRow<'a>> {
    let mut rows: Vec<PairRow<'a>> = batch
        .indexed()
        .filter_map(|(segment, user, slot)| {
            Some(PairRow {
                segment: *ids.get(segment)?,
                user,
                slot: number(slot.number()),
            })
        })
        .collect();
    rows.sort_unstable_by(|a, b| {
        let keys = (a.segment, a.user.as_str()).cmp(&(b.segment, b.user.as_str()));
        keys.then(b.slot.cmp(&a.slot))
    });
    // Of rows with equal keys, the first one stays, which has the latest slot.
    rows.dedup_by(|later, first| later.segment == first.segment && later.user == first.user);
    rows
}

/// A slot's number as the database stores it.
pub(super) fn number(slot: u64) -> i64 {
    i64::try_from(slot).unwrap_or(i64::MAX)
}

impl<'a> Columns<'a> {
    /// The columns of `rows`.
    pub(super) fn of(rows: &'a [PairRow<'_>]) -> Self {
        Self {
            segments: rows.iter().map(|row| row.segment).collect(),
            users: rows.iter().map(|row| row.user.as_str()).collect(),
            slots: rows.iter().map(|row| row.slot).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::{BatchBuilder, Slot};

    #[test]
    fn each_pair_is_there_once_at_its_latest_slot_in_order_of_the_key() {
        let mut batch = BatchBuilder::default();
        for (user, segment, slot) in [
            ("é", "b", 5),
            ("z", "b", 1),
            ("u", "a", 7),
            ("u", "a", 9),
            ("u", "a", 8),
            ("u", "b", 2),
        ] {
            let user = UserId::new(user).unwrap();
            batch.push_pair(&user, segment, Slot::new(slot)).unwrap();
        }
        let batch = batch.finish();
        // "b" came first, but has the larger id.
        let rows = sorted(&batch, &[20, 10]);
        let seen: Vec<_> = rows
            .iter()
            .map(|row| (row.segment, row.user.as_str(), row.slot))
            .collect();
        assert_eq!(
            seen,
            [(10, "u", 9), (20, "u", 2), (20, "z", 1), (20, "é", 5)],
            "bytes decide, as with the collation C"
        );
        assert_eq!(Columns::of(&rows).users, ["u", "u", "z", "é"]);
    }
}
