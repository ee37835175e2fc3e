//! The users that segments have in common, over many windows: a ring of counters for each pair, by the earlier of the two
//! visits.

use domain::overlap::OverlapMatrix;
use domain::{Segment, Slot};

use super::plan::Plan;
use super::triangle::cell;

/// How the full window is divided. The last step is shorter if the window is not a multiple of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Steps {
    pub(super) slots: u32,
    window: u32,
    pub(super) number: usize,
}

/// The users that all segments have in common, over any window that is a multiple of a step: the result of
/// [`Index::overlap_rings`](crate::Index::overlap_rings).
#[derive(Debug)]
pub struct OverlapRings {
    /// Sorted by name.
    segments: Vec<Segment>,
    /// The number of each segment, in the same order.
    numbers: Vec<usize>,
    rings: Rings,
    /// The ring of everybody.
    everybody: Vec<u32>,
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
    pub(super) fn new(plan: &Plan, rings: Rings, everybody: Vec<u32>, as_of: Slot) -> Self {
        let segments = plan.names().to_vec();
        let numbers = (0..segments.len()).map(|position| plan.number(position));
        Self {
            numbers: numbers.collect(),
            segments,
            rings,
            everybody,
            as_of,
        }
    }

    /// The slot as of which they are counted.
    pub fn as_of(&self) -> Slot {
        self.as_of
    }

    /// The overlaps of all segments in the latest `window` slots. `None` if that is neither a multiple of the step nor the full
    /// window: [`Index::overlaps`](crate::Index::overlaps) counts it.
    pub fn matrix(&self, window: u32) -> Option<OverlapMatrix> {
        self.read(&self.segments, &self.numbers, window)
    }

    /// The same, of these segments. `None` also if one of them was not counted, because it had no users.
    pub fn matrix_of(&self, segments: &[Segment], window: u32) -> Option<OverlapMatrix> {
        let positions = segments.iter().map(|it| self.segments.binary_search(it));
        let numbers = positions.map(|position| Some(self.numbers[position.ok()?]));
        let numbers: Vec<usize> = numbers.collect::<Option<_>>()?;
        self.read(segments, &numbers, window)
    }

    fn read(&self, segments: &[Segment], numbers: &[usize], window: u32) -> Option<OverlapMatrix> {
        let steps = self.rings.steps.of(window)?;
        let everybody = sum_of(&self.everybody, steps);
        let matrix = OverlapMatrix::new(segments.to_vec(), everybody, |row, column| {
            self.rings.read(cell(numbers[row], numbers[column]), steps)
        });
        Some(matrix)
    }
}
