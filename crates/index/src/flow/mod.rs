//! Counters of users who entered and left a segment, beside the ring of last visits.
//!
//! A user enters in the slot that is the head when their pair is recorded. A user leaves in the first slot as of which their
//! last visit is not in the full window any more. So two counts, as of two slots, differ by exactly the users who entered
//! and left in the slots after the first one, up to the second one.
//!
//! Each of the latest slots has counters of its own, and so has each step of the full window.

mod former;
mod steps;
#[cfg(test)]
mod tests;

use std::ops::Range;

use parking_lot::Mutex;

use domain::{Flow, Segment, Slot};

use super::Index;
use super::members::Members;
pub(super) use former::Former;
use steps::Steps;

/// Slots with counters of their own: a day of minutes.
const SLOTS: u32 = 1_440;

/// What the counters cover.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlowLayout {
    /// The full window, in slots.
    pub window: u32,
    /// The length of a step, in slots.
    pub step: u32,
}

/// The counters of one segment.
#[derive(Debug, Clone)]
pub struct Flows {
    layout: FlowLayout,
    /// Everything from the start of this slot on is counted.
    since: u64,
    head: u64,
    slots: Steps,
    steps: Steps,
    /// The total since the counters are in memory, or were restarted.
    total: Flow,
}

/// The counters of one segment, for files.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SavedFlows {
    /// Everything from the start of this slot on is counted.
    pub since: u64,
    /// The slot that ages are relative to.
    pub head: u64,
    /// Users who entered and left in slots, by age of the slot.
    pub slots: Vec<(u32, Flow)>,
    /// Users who entered and left in steps, by age of the step.
    pub steps: Vec<(u32, Flow)>,
}

/// The result of [`Index::total_flow`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TotalFlow {
    /// The number of users in the full window.
    pub users: u64,
    /// Who entered and left.
    pub flow: Flow,
    /// The slot as of which that is.
    pub as_of: Slot,
}

impl FlowLayout {
    /// Steps of the full window, and the one that the head is in.
    fn steps(self) -> u32 {
        self.window.div_ceil(self.step) + 1
    }
}

impl Flows {
    pub(super) fn new(layout: FlowLayout, head: u64, since: u64) -> Self {
        Self {
            layout,
            since,
            head,
            slots: Steps::new(1, SLOTS, head),
            steps: Steps::new(layout.step, layout.steps(), head),
            total: Flow::default(),
        }
    }

    pub(super) fn head(&self) -> u64 {
        self.head
    }

    pub(super) fn bytes(&self) -> usize {
        self.slots.bytes() + self.steps.bytes()
    }

    /// Forgets what happened before `since`, and begins the total at 0.
    pub(super) fn restart(&mut self, since: u64) {
        *self = Self::new(self.layout, self.head, since);
    }

    /// Follows the head.
    pub(super) fn advance(&mut self, head: u64) {
        self.head = self.head.max(head);
        self.slots.advance(self.head);
        self.steps.advance(self.head);
    }

    /// Counts users who enter in the slot of the head.
    pub(super) fn enter(&mut self, users: u64) {
        let (entered, left) = (users, 0);
        self.add(self.head, Flow { entered, left });
    }

    /// Counts users who left in a slot.
    pub(super) fn leave(&mut self, slot: u64, users: u64) {
        let (entered, left) = (0, users);
        self.add(slot, Flow { entered, left });
    }

    fn add(&mut self, slot: u64, flow: Flow) {
        if flow != Flow::default() {
            self.slots.add(slot, flow);
            self.steps.add(slot, flow);
            self.total = self.total.and(flow);
        }
    }

    /// The users who entered and left from the start of slot `from` to the start of slot `to`; `None` if that is not known.
    fn between(&self, from: u64, to: u64) -> Option<Flow> {
        if from < self.since {
            return None;
        }
        let end = self.head + 1;
        let to = to.min(end);
        if from >= to {
            return Some(Flow::default());
        }
        let exactly = |steps: &Steps, from, to| steps.between(from, to, end);
        exactly(&self.slots, from, to)
            .or_else(|| exactly(&self.steps, from, to))
            .or_else(|| {
                let step = u64::from(self.layout.step);
                let last = to / step * step;
                let whole = exactly(&self.steps, from, last).filter(|_| from < last)?;
                Some(whole.and(exactly(&self.slots, last, to)?))
            })
    }

    /// The counters, for files.
    pub fn saved(&self) -> SavedFlows {
        SavedFlows {
            since: self.since,
            head: self.head,
            slots: self.slots.by_age().collect(),
            steps: self.steps.by_age().collect(),
        }
    }

    fn restored(layout: FlowLayout, saved: &SavedFlows) -> Self {
        let head = saved.head.min(super::MAX_HEAD);
        let mut flows = Self::new(layout, head, saved.since);
        for (steps, by_age) in [
            (&mut flows.slots, &saved.slots),
            (&mut flows.steps, &saved.steps),
        ] {
            for (age, flow) in by_age {
                steps.add_at(u64::from(*age), *flow);
            }
        }
        flows
    }
}

impl Index {
    /// Sets the length of the steps in which users who entered and left are counted over the full window, in slots: at first it is
    /// a slot. It drops all counters.
    #[must_use]
    pub fn with_flow_steps(mut self, slots: u32) -> Self {
        let step = slots.clamp(1, self.window);
        self.layout = FlowLayout {
            window: self.window,
            step,
        };
        self.former = Mutex::default();
        self
    }

    /// What the counters of who entered and left cover.
    pub fn flow_layout(&self) -> FlowLayout {
        self.layout
    }

    /// How many users entered and left `segment` over the full window in each of `spans`, from the start of its first slot to the
    /// start of the slot after it. Slots after `as_of`, or after the head if that is later, have zero. `None` for a span
    /// that begins before the counters do, or whose slots share their counters with others. A segment that the index does
    /// not have had no users. Advances the head to `as_of`.
    pub fn flow(&self, segment: &str, spans: &[Range<Slot>], as_of: Slot) -> Vec<Option<Flow>> {
        self.advance(as_of);
        let read = |flows: &Flows| {
            let spans = spans.iter();
            let between = spans.map(|span| flows.between(span.start.number(), span.end.number()));
            between.collect()
        };
        let read_live = |members: &mut Members| read(members.flows());
        let live = self
            .find(segment)
            .and_then(|shared| shared.with(&self.head, read_live));
        live.unwrap_or_else(|| {
            let head = self.head().number();
            read(&self.former.lock().copy(segment, self.layout, head))
        })
    }

    /// The count of `segment` over the full window as of `as_of`, or the head if that is later, and how many users entered and
    /// left since the index has its counters in memory, or since [`begin_totals`](Self::begin_totals) or a restart. `None` for a segment that the index does not have. Advances the
    /// head to `as_of`.
    pub fn total_flow(&self, segment: &str, as_of: Slot) -> Option<TotalFlow> {
        self.advance(as_of);
        let total = |members: &mut Members| TotalFlow {
            users: members.live(),
            flow: members.flows().total,
            as_of: Slot::new(members.head()),
        };
        self.find(segment)?.with(&self.head, total)
    }

    /// Begins the totals of [`total_flow`](Self::total_flow) at 0: those of a log that was replayed belong to a former process.
    pub fn begin_totals(&self) {
        self.former.lock().begin_totals();
        let all: Vec<_> = self.segments.read().values().cloned().collect();
        for shared in all {
            let begin = |members: &mut Members| members.flows_mut().total = Flow::default();
            shared.with(&self.head, begin);
        }
    }

    /// Forgets who entered and left `segment` before the start of `since`, and begins its total at 0.
    pub fn restart_flow(&self, segment: &str, since: Slot) {
        if let Some(shared) = self.find(segment) {
            let restart = |members: &mut Members| members.flows_mut().restart(since.number());
            shared.with(&self.head, restart);
        }
    }

    /// The same, for all segments and those to come.
    pub fn restart_flows(&self, since: Slot) {
        self.begin_flows(since);
        let all: Vec<_> = self.segments.read().values().cloned().collect();
        for shared in all {
            let restart = |members: &mut Members| members.flows_mut().restart(since.number());
            shared.with(&self.head, restart);
        }
    }

    /// A segment that is added later had no users since `since`. Whether it had users before is unknown.
    pub fn begin_flows(&self, since: Slot) {
        self.former.lock().restart(since.number());
    }

    /// For segments that are added later: the slot since which their users are counted.
    pub fn flows_since(&self) -> Slot {
        Slot::new(self.former.lock().since())
    }

    /// A copy of all counters: those of each segment, those of segments that were removed, and the slot since which other
    /// segments are known to have had no users.
    pub fn flows(&self) -> (Vec<(Segment, Flows)>, Slot) {
        let mut all = self.each(|shared| {
            shared.with(&self.head, |members: &mut Members| members.flows().clone())
        });
        let head = self.head().number();
        let former = self.former.lock();
        all.extend(former.all(head));
        (all, Slot::new(former.since()))
    }

    /// Restores counters that [`flows`](Self::flows) returned in an earlier process. The entries must be those of that
    /// instant, and the head must not be later. Advances the head to that of the counters.
    pub fn restore_flows(&self, all: &[(Segment, SavedFlows)], since: Slot) {
        self.restart_flows(since);
        let mut head = 0;
        for (segment, saved) in all {
            let flows = Flows::restored(self.layout, saved);
            head = head.max(flows.head);
            match self.find(segment.as_str()) {
                Some(shared) => {
                    let restore = |members: &mut Members| members.restore_flows(flows);
                    shared.with(&self.head, restore);
                }
                None => self.former.lock().put(segment.clone(), flows),
            }
        }
        self.advance(Slot::new(head));
    }
}
