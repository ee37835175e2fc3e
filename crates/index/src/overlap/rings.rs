//! The users that segments have in common, over many windows: a ring of counters for each pair, by the earlier of the two
//! visits.

use domain::overlap::{OverlapMatrix, PairOverlap};
use domain::{Segment, Slot};

use super::plan::Plan;
use super::triangle::{cell, row_start};

/// How the full window is divided. The last step is shorter if the window is not a multiple of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Steps {
    pub(super) slots: u32,
    window: u32,
    pub(super) number: usize,
}

/// The users that segments have in common, over any window that is a multiple of a step: the result of
/// [`Index::overlap_rings`](crate::Index::overlap_rings).
#[derive(Debug)]
pub struct OverlapRings {
    segments: Vec<Segment>,
    /// The number of each segment, in the same order.
    numbers: Vec<usize>,
    /// Positions in `segments`, sorted by name.
    by_name: Vec<usize>,
    rings: Rings,
    /// The ring of everybody, if they were counted.
    everybody: Option<Vec<u32>>,
    as_of: Slot,
}

/// Rings by cell of the triangle. The diagonal has the segments' own.
#[derive(Debug)]
pub(super) struct Rings {
    pub(super) steps: Steps,
    /// Ring by ring: at first the users of each step, at last those of the step and the later ones.
    pub(super) counters: Vec<u32>,
}

impl Steps {
    /// Steps of `slots` in the full window.
    pub(super) fn new(slots: u32, window: u32) -> Self {
        let slots = slots.clamp(1, window);
        Self {
            slots,
            window,
            number: window.div_ceil(slots) as usize,
        }
    }

    /// The memory of the rings of all pairs of this many segments.
    pub(super) fn bytes_of_pairs(self, segments: usize) -> usize {
        let pairs = row_start(segments) - segments;
        pairs.saturating_mul(self.number * size_of::<u32>())
    }

    /// The number of steps of a window, if it ends at one.
    fn of(self, window: u32) -> Option<usize> {
        if window >= self.window {
            return Some(self.number);
        }
        let ends_at_step = window.is_multiple_of(self.slots);
        ends_at_step.then_some((window / self.slots) as usize)
    }
}

impl Rings {
    /// The position of the first counter of a cell.
    pub(super) fn start(&self, cell: usize) -> usize {
        cell * self.steps.number
    }

    /// The users of a cell in the latest `steps`, once the counters are sums.
    fn read(&self, cell: usize, steps: usize) -> u64 {
        sum_of(&self.counters[self.start(cell)..], steps)
    }
}

fn sum_of(sums: &[u32], steps: usize) -> u64 {
    steps.checked_sub(1).map_or(0, |last| u64::from(sums[last]))
}

impl OverlapRings {
    pub(super) fn new(plan: &Plan, rings: Rings, everybody: Option<Vec<u32>>, as_of: Slot) -> Self {
        let segments = plan.names().to_vec();
        let numbers = (0..segments.len()).map(|position| plan.number(position));
        let numbers = numbers.collect();
        let mut by_name: Vec<usize> = (0..segments.len()).collect();
        by_name.sort_by_key(|position| &segments[*position]);
        Self {
            segments,
            numbers,
            by_name,
            rings,
            everybody,
            as_of,
        }
    }

    /// The segments.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The slot as of which they are counted.
    pub fn as_of(&self) -> Slot {
        self.as_of
    }

    /// The length of a step in slots.
    pub fn step(&self) -> u32 {
        self.rings.steps.slots
    }

    /// The estimated memory, in bytes.
    pub fn bytes(&self) -> usize {
        let everybody = self.everybody.as_ref().map_or(0, Vec::capacity);
        (self.rings.counters.capacity() + everybody) * size_of::<u32>()
    }

    /// The number of users in both segments in the latest `window` slots. `None` if that is neither a multiple of the step nor
    /// the full window, or for other segments: [`Index::overlaps`](crate::Index::overlaps) counts it.
    pub fn both(&self, a: &str, b: &str, window: u32) -> Option<u64> {
        let steps = self.rings.steps.of(window)?;
        let cell = cell(self.number(a)?, self.number(b)?);
        Some(self.rings.read(cell, steps))
    }

    /// The number of users of a segment in the latest `window` slots. `None` for other windows and segments.
    pub fn users(&self, segment: &str, window: u32) -> Option<u64> {
        self.both(segment, segment, window)
    }

    /// The number of distinct users of any segment in the latest `window` slots. `None` for other windows, or if they were not
    /// counted.
    pub fn everybody(&self, window: u32) -> Option<u64> {
        let steps = self.rings.steps.of(window)?;
        Some(sum_of(self.everybody.as_deref()?, steps))
    }

    /// All pairs that have a user in both segments in the latest `window` slots. `None` for other windows.
    pub fn pairs(&self, window: u32) -> Option<impl Iterator<Item = PairOverlap>> {
        let steps = self.rings.steps.of(window)?;
        let users = self.numbers.iter();
        let users = users.map(|number| self.rings.read(cell(*number, *number), steps));
        let users: Vec<u64> = users.collect();
        let all =
            (0..self.segments.len()).flat_map(|row| (0..row).map(move |column| (row, column)));
        Some(all.filter_map(move |(row, column)| {
            let both = self
                .rings
                .read(cell(self.numbers[row], self.numbers[column]), steps);
            let [one, other] = [column, row].map(|at| (&self.segments[at], users[at]));
            (both > 0).then(|| PairOverlap::new(one, other, both))
        }))
    }

    /// All overlaps in the latest `window` slots. `None` for other windows.
    pub fn matrix(&self, window: u32) -> Option<OverlapMatrix> {
        let steps = self.rings.steps.of(window)?;
        let everybody = self.everybody(window);
        let matrix = OverlapMatrix::new(self.segments.clone(), everybody, |row, column| {
            let cell = cell(self.numbers[row], self.numbers[column]);
            self.rings.read(cell, steps)
        });
        Some(matrix)
    }

    fn number(&self, name: &str) -> Option<usize> {
        let name_at = |position: &usize| self.segments[*position].as_str();
        let found = self.by_name.binary_search_by(|at| name_at(at).cmp(name));
        Some(self.numbers[self.by_name[found.ok()?]])
    }
}
