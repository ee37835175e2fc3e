//! How many users entered and left in each of the latest steps of time.

use super::super::ring::Ring;
use domain::Flow;

/// Counters of a number of steps, each of as many slots. Steps are aligned to slot 0.
///
/// A step is identified by its **age**, its distance before the step of the head.
#[derive(Debug, Clone)]
pub(super) struct Steps {
    /// Slots of a step.
    length: u64,
    /// The number of steps.
    count: u32,
    /// The number of the step of the head.
    latest: u64,
    entered: Ring,
    left: Ring,
}

impl Steps {
    pub(super) fn new(length: u32, count: u32, head: u64) -> Self {
        let length = u64::from(length.max(1));
        Self {
            length,
            count,
            latest: head / length,
            entered: Ring::new(count),
            left: Ring::new(count),
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.entered.bytes() + self.left.bytes()
    }

    /// Follows the head.
    pub(super) fn advance(&mut self, head: u64) {
        let steps = (head / self.length).saturating_sub(self.latest);
        self.latest += steps;
        if steps >= u64::from(self.count) {
            self.entered = Ring::new(self.count);
            self.left = Ring::new(self.count);
        } else {
            self.entered.advance(steps);
            self.left.advance(steps);
        }
    }

    /// Counts users who entered and left in a slot at or before the head, if its step is among the latest ones.
    pub(super) fn add(&mut self, slot: u64, flow: Flow) {
        let age = self.latest.saturating_sub(slot / self.length);
        self.add_at(age, flow);
    }

    /// Counts users who entered and left in the step of this age.
    pub(super) fn add_at(&mut self, age: u64, flow: Flow) {
        let Some(age) = u32::try_from(age).ok().filter(|age| *age < self.count) else {
            return;
        };
        if flow.entered > 0 {
            self.entered.add_many(age, flow.entered);
        }
        if flow.left > 0 {
            self.left.add_many(age, flow.left);
        }
    }

    /// The users who entered and left from slot `from` up to slot `to`, exclusive. `end` is the slot after the head, which
    /// ends the current step. `None` if the steps are not kept any more, or do not begin and end at these slots.
    pub(super) fn between(&self, from: u64, to: u64, end: u64) -> Option<Flow> {
        let is_whole = |slot: u64| slot.is_multiple_of(self.length);
        if !is_whole(from) || !(is_whole(to) || to == end) {
            return None;
        }
        let to = to.div_ceil(self.length);
        let from = from / self.length;
        let since = |step: u64| u32::try_from((self.latest + 1).saturating_sub(step)).ok();
        let (longer, shorter) = (since(from)?, since(to)?);
        (longer <= self.count).then(|| Flow {
            entered: self.entered.count(longer) - self.entered.count(shorter),
            left: self.left.count(longer) - self.left.count(shorter),
        })
    }

    /// The steps in which something happened, by age.
    pub(super) fn by_age(&self) -> impl Iterator<Item = (u32, Flow)> {
        let each = (0..self.count).map(|age| {
            let (entered, left) = (self.entered.at(age), self.left.at(age));
            (age, Flow { entered, left })
        });
        each.filter(|(_, flow)| *flow != Flow::default())
    }
}
