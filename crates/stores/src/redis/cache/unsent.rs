//! Segments with notes that this instance could not send to Redis. Their `pending` is treated as unknown until the
//! instance has ended their epoch in Redis.

use std::collections::HashMap;

use parking_lot::Mutex;

use domain::Segment;

#[derive(Debug, Default)]
pub(super) struct Unsent(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// The step of `now` at which a note of the segment last failed to be sent.
    since: HashMap<Segment, u64>,
    now: u64,
}

/// A point in time, counted in calls of [`Unsent::add`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Step(u64);

impl Unsent {
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

    /// Removes segments whose notes failed up to `step`. Segments whose notes failed later stay.
    pub(super) fn sent(&self, segments: &[Segment], step: Step) {
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

    /// Starts to send notes of these segments. They are added as unsent unless [`Sending::done`] is called.
    pub(super) fn sending<'a>(&'a self, added: &'a [(Segment, u64)]) -> Sending<'a> {
        Sending {
            unsent: self,
            added,
        }
    }
}

/// A guard: a call that fails or is dropped midway adds its segments as unsent.
pub(super) struct Sending<'a> {
    unsent: &'a Unsent,
    added: &'a [(Segment, u64)],
}

impl Sending<'_> {
    pub(super) fn done(mut self) {
        self.added = &[];
    }
}

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        if !self.added.is_empty() {
            self.unsent
                .add(self.added.iter().map(|(segment, _)| segment));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_while_it_was_being_said_stays_unsaid() {
        let unsent = Unsent::default();
        let sports = Segment::new("sports").unwrap();
        let added = [(sports.clone(), 1)];
        unsent.sending(&added).done();
        assert!(!unsent.contains(&sports));
        drop(unsent.sending(&added));
        assert!(unsent.contains(&sports));

        let names = [sports.clone()];
        let step = unsent.add(names.iter());
        drop(unsent.sending(&added));
        unsent.sent(&names, step);
        assert!(unsent.contains(&sports));
        let step = unsent.add(names.iter());
        unsent.sent(&names, step);
        assert!(!unsent.contains(&sports));
    }
}
