//! Counts users by the step of the earlier of two visits.

use domain::Slot;

use super::increments::Increments;
use super::plan::Plan;
use super::rings::{OverlapRings, Rings, Steps};
use super::triangle::row_start;
use super::visit::{self, UserAndSegment, Visit};
use super::walk::Counters;
use crate::entry::Entry;
use crate::grouping::OfUser;
use crate::members::InWindow;

/// Counts rings during a walk.
#[derive(Debug)]
pub(super) struct RingCounters {
    rings: Rings,
    increments: Increments,
    everybody: Vec<u32>,
    as_of: u64,
}

/// A user in a segment, and the step of the last visit.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct SteppedVisit {
    visit: UserAndSegment,
    step: u32,
}

impl OfUser for SteppedVisit {
    fn key(self) -> u64 {
        self.visit.key()
    }
}

impl Visit for SteppedVisit {
    fn segment(self) -> u16 {
        self.visit.segment()
    }
}

impl RingCounters {
    pub(super) fn new(segments: usize, steps: Steps, as_of: Slot) -> Self {
        let counters = row_start(segments) * steps.number;
        Self {
            rings: Rings {
                steps,
                counters: vec![0; counters],
            },
            increments: Increments::new(counters),
            everybody: vec![0; steps.number],
            as_of: as_of.number(),
        }
    }

    pub(super) fn into_rings(mut self, plan: &Plan) -> OverlapRings {
        self.increments.finish(&mut self.rings.counters);
        for ring in self.rings.counters.chunks_mut(self.rings.steps.number) {
            add_up(ring);
        }
        add_up(&mut self.everybody);
        OverlapRings::new(plan, self.rings, self.everybody, Slot::new(self.as_of))
    }
}

impl Counters for RingCounters {
    type Visit = SteppedVisit;

    fn visit(&self, segment: u16, entry: Entry, in_window: InWindow) -> SteppedVisit {
        SteppedVisit {
            visit: UserAndSegment::new(entry, segment),
            step: in_window.age(entry, self.as_of) / self.rings.steps.slots,
        }
    }

    fn count(&mut self, visits: &[SteppedVisit]) {
        if let Some(latest) = visits.iter().map(|visit| visit.step).min() {
            let counter = &mut self.everybody[latest as usize];
            *counter = counter.saturating_add(1);
        }
        let visits = visit::numbered(visits);
        for (before, visit) in visits.iter().enumerate() {
            let row = row_start(usize::from(visit.segment()));
            for other in &visits[..=before] {
                let ring = self.rings.start(row + usize::from(other.segment()));
                let earlier = visit.step.max(other.step) as usize;
                self.increments
                    .add(&mut self.rings.counters, ring + earlier);
            }
        }
    }
}

/// Replaces each counter by the sum up to it.
fn add_up(ring: &mut [u32]) {
    let mut sum = 0_u32;
    for counter in ring {
        sum = sum.saturating_add(*counter);
        *counter = sum;
    }
}
