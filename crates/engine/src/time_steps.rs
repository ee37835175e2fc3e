//! Steps of time, for what is counted in each of them.

use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use domain::{Flow, Resolution, Slot, Timestamp};

/// Consecutive steps of time, aligned to the epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlowSteps {
    resolution: Resolution,
    /// Slots of a step.
    slots: u64,
    /// The numbers of the first step and of the last.
    pub(crate) numbers: RangeInclusive<u64>,
}

impl FlowSteps {
    /// The maximum number of steps of a request: more than the pixels of a chart.
    pub const MAX: u64 = 10_000;

    /// The steps from that of `from` to that of `to`. If there are more than [`MAX`](Self::MAX), the first ones are left
    /// out. `None` if a step is not a multiple of the resolution.
    pub fn new(
        from: Timestamp,
        to: Timestamp,
        step: Duration,
        resolution: Resolution,
    ) -> Option<Self> {
        let slot = u64::from(resolution.seconds());
        let seconds = step.as_secs();
        let is_whole = step.subsec_nanos() == 0 && seconds > 0 && seconds.is_multiple_of(slot);
        let steps = |slots| Self {
            resolution,
            slots,
            numbers: 0..=0,
        };
        let mut steps = is_whole.then(|| steps(seconds / slot))?;
        let last = steps.number(to);
        let first = steps.number(from).max((last + 1).saturating_sub(Self::MAX));
        steps.numbers = first..=last;
        Some(steps)
    }

    /// Whether the step of `from` is left out, because there are too many.
    pub fn omits(&self, from: Timestamp) -> bool {
        self.number(from) < *self.numbers.start()
    }

    /// The number of the step of an instant.
    pub(crate) fn number(&self, at: Timestamp) -> u64 {
        self.resolution.slot_of(at).number() / self.slots
    }

    pub(crate) fn start_of(&self, number: u64) -> Timestamp {
        let first = number.saturating_mul(self.slots);
        self.resolution.start_of(Slot::new(first))
    }

    /// The starts of the first step and of the last.
    pub fn begin(&self) -> RangeInclusive<Timestamp> {
        self.start_of(*self.numbers.start())..=self.start_of(*self.numbers.end())
    }

    /// The length of a step.
    pub fn length(&self) -> Duration {
        Duration::from_secs(self.slots * u64::from(self.resolution.seconds()))
    }

    /// The slots of each step.
    pub(crate) fn spans(&self) -> Vec<Range<Slot>> {
        let start = |number: u64| Slot::new(number.saturating_mul(self.slots));
        let numbers = self.numbers.clone();
        numbers
            .map(|number| start(number)..start(number + 1))
            .collect()
    }

    /// The users who entered and left after the step of `before`, until the end of the step of `at`. Without `before`, those
    /// in the step of `at`. `None` if that is not known, or if both are in one step.
    pub(crate) fn between(
        &self,
        flows: &[Option<Flow>],
        before: Option<Timestamp>,
        at: Timestamp,
    ) -> Option<Flow> {
        let last = self.number(at);
        let first = before.map_or(last, |before| self.number(before) + 1);
        let position = |number: u64| {
            let position = number.checked_sub(*self.numbers.start())?;
            usize::try_from(position).ok()
        };
        let steps = flows.get(position(first)?..=position(last)?)?;
        let mut steps = steps.iter().copied();
        let first = steps.next()??;
        steps.try_fold(first, |sum, flow| Some(sum.and(flow?)))
    }
}
