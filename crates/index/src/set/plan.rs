//! How to walk: the segments of an expression, and which of its sets are listed and which only checked.

use std::sync::Arc;

use domain::expression::{Expression, Set};

use crate::Index;
use crate::entry::FINGERPRINT_BITS;
use crate::shared::Shared;

/// Users listed at a time. Their fingerprints (32 KiB) and those that are left of them stay in the CPU's L2 cache.
const LISTED: u64 = 1 << 12;

/// Users listed at a time for each segment that is listed. Ranges that are too small for a page of a small segment
/// would read that page again and again.
const LISTED_PER_SEGMENT: u64 = 64;

/// An expression with its segments found.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) root: Part,
    /// Every segment, if a set of everybody may be listed.
    pub(super) all: Vec<Arc<Shared>>,
}

/// A set, and what it takes to list its users.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) users: Users,
    cost: Cost,
}

/// A set of users.
#[derive(Debug)]
pub(super) enum Users {
    /// Of a segment that the index does not have.
    Nobody,
    Segment(Arc<Shared>),
    /// Of any segment.
    Everybody,
    Or(Vec<Part>),
    /// Those in every set of `wanted`, which is not empty and begins with the set to list, and in no set of `unwanted`.
    And {
        wanted: Vec<Part>,
        unwanted: Vec<Part>,
    },
}

/// Estimates, as segments change meanwhile.
#[derive(Debug, Clone, Copy, Default)]
struct Cost {
    entries: u64,
    segments: u64,
}

impl Plan {
    pub(super) fn new(index: &Index, expression: &Expression) -> Self {
        let mut planner = Planner { index, all: None };
        let root = planner.part(expression.set());
        let all = planner.all.map(|(all, _)| all).unwrap_or_default();
        Self { root, all }
    }

    /// The number of bits of a fingerprint that vary within one range of the walk.
    pub(super) fn range_bits(&self) -> u32 {
        let Cost { entries, segments } = self.root.cost;
        let listed = LISTED.max(segments * LISTED_PER_SEGMENT);
        let ranges = (entries / listed).next_power_of_two();
        FINGERPRINT_BITS.saturating_sub(ranges.ilog2())
    }
}

struct Planner<'a> {
    index: &'a Index,
    all: Option<(Vec<Arc<Shared>>, Cost)>,
}

impl Planner<'_> {
    fn part(&mut self, set: &Set) -> Part {
        match set {
            Set::Segment(segment) => self.segment(segment.as_str()),
            Set::Everybody => self.everybody(),
            Set::Or(sets) => any_of(sets.iter().map(|set| self.part(set)).collect()),
            Set::And(sets) => self.all_of(sets),
            Set::Not(_) => self.all_of(std::slice::from_ref(set)),
        }
    }

    fn segment(&self, name: &str) -> Part {
        let found = self.index.find(name);
        // A segment that was removed meanwhile has no cost.
        let found = found.and_then(|shared| Some((cost(self.index, &shared)?, shared)));
        match found {
            Some((cost, shared)) => Part {
                users: Users::Segment(shared),
                cost,
            },
            None => Part {
                users: Users::Nobody,
                cost: Cost::default(),
            },
        }
    }

    fn everybody(&mut self) -> Part {
        let (_, cost) = self.all.get_or_insert_with(|| every_segment(self.index));
        Part {
            users: Users::Everybody,
            cost: *cost,
        }
    }

    fn all_of(&mut self, sets: &[Set]) -> Part {
        let (mut wanted, mut unwanted) = (Vec::new(), Vec::new());
        for set in sets {
            match set {
                Set::Not(set) => unwanted.push(self.part(set)),
                set => wanted.push(self.part(set)),
            }
        }
        if wanted.is_empty() {
            wanted.push(self.everybody());
        }
        wanted.sort_by_key(|part| part.cost.entries);
        let cost = wanted.first().map(|part| part.cost).unwrap_or_default();
        Part {
            users: Users::And { wanted, unwanted },
            cost,
        }
    }
}

fn any_of(parts: Vec<Part>) -> Part {
    let cost = parts
        .iter()
        .map(|part| part.cost)
        .fold(Cost::default(), Cost::plus);
    Part {
        users: Users::Or(parts),
        cost,
    }
}

fn every_segment(index: &Index) -> (Vec<Arc<Shared>>, Cost) {
    let all = index.each(|shared| Some((Arc::clone(shared), cost(index, shared)?)));
    let mut total = Cost::default();
    let mut segments = Vec::with_capacity(all.len());
    for (_, (shared, cost)) in all {
        total = total.plus(cost);
        segments.push(shared);
    }
    (segments, total)
}

/// `None` if the segment was removed from the index.
fn cost(index: &Index, shared: &Shared) -> Option<Cost> {
    let entries = shared.with(&index.head, |members| members.held())?;
    Some(Cost {
        entries,
        segments: 1,
    })
}

impl Cost {
    fn plus(self, other: Self) -> Self {
        Self {
            entries: self.entries + other.entries,
            segments: self.segments + other.segments,
        }
    }
}
