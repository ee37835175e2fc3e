//! The segments of a walk and their numbers.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::sync::Arc;

use domain::Segment;

use super::{Between, OverlapError};
use crate::Index;
use crate::entry::FINGERPRINT_BITS;
use crate::shared::Shared;
use domain::overlap::MAX_SEGMENTS;

/// The number of all segments whose users are only counted among everybody. It is greater than any other.
pub(super) const OTHER: u16 = u16::MAX;

/// Entries of a range: their visits (64 KiB) stay in the CPU's L2 cache.
const LISTED: u64 = 1 << 13;

/// Entries of a range for each segment. Ranges that are too small for some pages of a small segment would read these pages again
/// and again. Measured with 200 segments: 64 entries take a fifth longer than 256, although the visits of 256 are 400 KiB.
const LISTED_PER_SEGMENT: u64 = 256;

/// Segments by number, the largest first, so that the counters of the pairs with most users are close together.
#[derive(Debug)]
pub(super) struct Plan {
    names: Vec<Segment>,
    /// The number of the segment at each position of the result.
    numbers: Vec<u16>,
    /// Where to read, with the number.
    pub(super) sources: Vec<(u16, Arc<Shared>)>,
    entries: u64,
}

/// A segment of the result. One that the index does not have has no source.
struct Row {
    name: Segment,
    source: Option<Arc<Shared>>,
    entries: u64,
}

impl Plan {
    pub(super) fn new(index: &Index, between: Between<'_>) -> Result<Self, OverlapError> {
        let (mut rows, others) = match between {
            Between::All => (all_rows(index)?, Vec::new()),
            Between::These(names) => (named_rows(index, names)?, others(index, names)),
        };
        let mut order: Vec<usize> = (0..rows.len()).collect();
        order.sort_by_key(|position| Reverse(rows[*position].entries));
        let mut plan = Self {
            names: Vec::with_capacity(rows.len()),
            numbers: vec![0; rows.len()],
            sources: Vec::with_capacity(rows.len() + others.len()),
            entries: 0,
        };
        // Numbers are below `MAX_SEGMENTS`.
        for (number, position) in (0_u16..).zip(order) {
            plan.numbers[position] = number;
            plan.entries += rows[position].entries;
            let source = rows[position].source.take();
            plan.sources.extend(source.map(|shared| (number, shared)));
        }
        plan.names.extend(rows.into_iter().map(|row| row.name));
        for (shared, entries) in others {
            plan.entries += entries;
            plan.sources.push((OTHER, shared));
        }
        Ok(plan)
    }

    /// The number of segments of the result.
    pub(super) fn len(&self) -> usize {
        self.names.len()
    }

    /// The segments in the order of the result.
    pub(super) fn names(&self) -> &[Segment] {
        &self.names
    }

    /// The number of the segment at a position of the result.
    pub(super) fn number(&self, position: usize) -> usize {
        usize::from(self.numbers[position])
    }

    /// The number of bits of a fingerprint that vary within one range of the walk.
    pub(super) fn range_bits(&self) -> u32 {
        let listed = LISTED.max(self.sources.len() as u64 * LISTED_PER_SEGMENT);
        let ranges = (self.entries / listed).next_power_of_two();
        FINGERPRINT_BITS.saturating_sub(ranges.ilog2())
    }
}

/// The segments that have users, sorted by name.
fn all_rows(index: &Index) -> Result<Vec<Row>, OverlapError> {
    let found = index.each(|shared| {
        let numbers = shared.with(&index.head, |members| (members.live(), members.held()));
        let (live, held) = numbers?;
        (live > 0).then(|| (Arc::clone(shared), held))
    });
    check_number(found.len())?;
    let rows = found.into_iter().map(|(name, (shared, entries))| Row {
        name,
        source: Some(shared),
        entries,
    });
    let mut rows: Vec<Row> = rows.collect();
    rows.sort_unstable_by(|one, other| one.name.cmp(&other.name));
    Ok(rows)
}

fn named_rows(index: &Index, names: &[Segment]) -> Result<Vec<Row>, OverlapError> {
    check_number(names.len())?;
    let row = |name: &Segment| {
        let found = index.find(name.as_str());
        // A segment that was removed meanwhile has no entries.
        let found = found.and_then(|shared| Some((held(index, &shared)?, shared)));
        let (entries, source) = match found {
            Some((entries, shared)) => (entries, Some(shared)),
            None => (0, None),
        };
        Row {
            name: name.clone(),
            source,
            entries,
        }
    };
    Ok(names.iter().map(row).collect())
}

/// Every segment but the named ones, with the number of its entries.
fn others(index: &Index, names: &[Segment]) -> Vec<(Arc<Shared>, u64)> {
    let names: HashSet<&Segment> = names.iter().collect();
    let all = index.each(|shared| Some((Arc::clone(shared), held(index, shared)?)));
    let others = all.into_iter().filter(|(name, _)| !names.contains(name));
    others.map(|(_, other)| other).collect()
}

fn check_number(segments: usize) -> Result<(), OverlapError> {
    if segments > MAX_SEGMENTS {
        return Err(OverlapError::TooManySegments(segments));
    }
    Ok(())
}

/// The number of entries. `None` if the segment was removed from the index.
fn held(index: &Index, shared: &Shared) -> Option<u64> {
    shared.with(&index.head, |members| members.held())
}
