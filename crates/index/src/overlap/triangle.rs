//! One counter for each pair of segments.

use domain::overlap::OverlapMatrix;

use super::plan::Plan;
use super::visit::{self, UserAndSegment, Visit};
use super::walk::Counters;
use crate::entry::Entry;
use crate::members::InWindow;

/// The number of users in both segments of each pair, and of each segment, by the numbers of the plan.
#[derive(Debug)]
pub(super) struct Triangle {
    /// Row by row, each up to the diagonal.
    cells: Vec<u64>,
    everybody: u64,
}

/// The number of cells before the row of a segment: also of all cells, if there are this many segments.
pub(super) fn row_start(segment: usize) -> usize {
    segment * (segment + 1) / 2
}

/// The cell of two segments.
pub(super) fn cell(some: usize, other: usize) -> usize {
    row_start(some.max(other)) + some.min(other)
}

impl Triangle {
    pub(super) fn new(segments: usize) -> Self {
        Self {
            cells: vec![0; row_start(segments)],
            everybody: 0,
        }
    }

    pub(super) fn into_matrix(self, plan: &Plan) -> OverlapMatrix {
        OverlapMatrix::new(plan.names().to_vec(), self.everybody, |row, column| {
            self.cells[cell(plan.number(row), plan.number(column))]
        })
    }
}

impl Counters for Triangle {
    type Visit = UserAndSegment;

    fn visit(&self, segment: u16, entry: Entry, _: InWindow) -> UserAndSegment {
        UserAndSegment::new(entry, segment)
    }

    fn count(&mut self, visits: &[UserAndSegment]) {
        self.everybody += 1;
        let visits = visit::numbered(visits);
        for (before, visit) in visits.iter().enumerate() {
            let segment = usize::from(visit.segment());
            let start = row_start(segment);
            let row = &mut self.cells[start..=start + segment];
            // Ascending, so all of these are in the row.
            for other in &visits[..=before] {
                row[usize::from(other.segment())] += 1;
            }
        }
    }
}
