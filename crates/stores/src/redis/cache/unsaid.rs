//! Segments of which this instance could not note something: until it could say so to Redis, it believes no
//! `pending` of theirs.

use std::collections::HashMap;

use parking_lot::Mutex;

use domain::Segment;

#[derive(Debug, Default)]
pub(super) struct Unsaid(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// When something of a segment became unsaid the last time, in steps of `now`.
    since: HashMap<Segment, u64>,
    now: u64,
}

/// The time up to which something is unsaid.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step(u64);

impl Unsaid {
    pub(super) fn contains(&self, segment: &Segment) -> bool {
        self.0.lock().since.contains_key(segment)
    }

    pub(super) fn add<'a>(&self, segments: impl Iterator<Item = &'a Segment>) -> Step {
        let mut inner = self.0.lock();
        inner.now += 1;
        let now = inner.now;
        inner
            .since
            .extend(segments.map(|segment| (segment.clone(), now)));
        Step(now)
    }

    /// What was unsaid up to `step` is said now; what came while it was being said is not.
    pub(super) fn said(&self, segments: &[Segment], step: Step) {
        let mut inner = self.0.lock();
        for segment in segments {
            if inner
                .since
                .get(segment)
                .is_some_and(|since| *since <= step.0)
            {
                inner.since.remove(segment);
            }
        }
    }

    /// Begins to say something of these segments. It is unsaid unless [`Saying::done`] is reached.
    pub(super) fn saying<'a>(&'a self, added: &'a [(Segment, u64)]) -> Saying<'a> {
        Saying {
            unsaid: self,
            added,
        }
    }
}

/// A guard, so that a call that fails or is dropped midway leaves its segments unsaid.
pub(super) struct Saying<'a> {
    unsaid: &'a Unsaid,
    added: &'a [(Segment, u64)],
}

impl Saying<'_> {
    pub(super) fn done(mut self) {
        self.added = &[];
    }
}

impl Drop for Saying<'_> {
    fn drop(&mut self) {
        if !self.added.is_empty() {
            self.unsaid
                .add(self.added.iter().map(|(segment, _)| segment));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_while_it_was_being_said_stays_unsaid() {
        let unsaid = Unsaid::default();
        let sports = Segment::new("sports").unwrap();
        let added = [(sports.clone(), 1)];
        unsaid.saying(&added).done();
        assert!(!unsaid.contains(&sports));
        drop(unsaid.saying(&added));
        assert!(unsaid.contains(&sports));

        let names = [sports.clone()];
        let step = unsaid.add(names.iter());
        drop(unsaid.saying(&added));
        unsaid.said(&names, step);
        assert!(unsaid.contains(&sports));
        let step = unsaid.add(names.iter());
        unsaid.said(&names, step);
        assert!(!unsaid.contains(&sports));
    }
}
