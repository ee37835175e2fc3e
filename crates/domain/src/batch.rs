//! Packed batches of incoming pairs: one string holds all user ids, and each distinct segment is stored once.

use std::collections::HashMap;

use super::{InvalidSegment, Segment, Slot, UserId};

/// One user seen in one segment in one slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair<'a> {
    /// The user who was seen.
    pub user: UserId<'a>,
    /// The segment in which the user was seen.
    pub segment: &'a Segment,
    /// The slot in which the user was seen.
    pub slot: Slot,
}

/// Pairs in the order of arrival. Memory is allocated by doubling the buffers, not per pair.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    users: String,
    segments: Vec<Segment>,
    items: Vec<Item>,
}

#[derive(Debug, Clone, Copy)]
struct Item {
    user_end: usize,
    segment: u32,
    slot: Slot,
}

impl Batch {
    /// The number of pairs.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether the batch has no pairs.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The distinct segments, in the order of their first occurrence.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The pairs in the order of arrival.
    pub fn pairs(&self) -> impl ExactSizeIterator<Item = Pair<'_>> {
        self.indexed().map(|(segment, user, slot)| Pair {
            user,
            segment: &self.segments[segment],
            slot,
        })
    }

    /// The pairs as (index into [`Batch::segments`], user, slot), in the order of arrival.
    pub fn indexed(&self) -> impl ExactSizeIterator<Item = (usize, UserId<'_>, Slot)> {
        let mut start = 0;
        self.items.iter().map(move |item| {
            let user = UserId::trusted(&self.users[start..item.user_end]);
            start = item.user_end;
            (item.segment as usize, user, item.slot)
        })
    }
}

impl Batch {
    /// The pairs for which `keep` returns true, in the same order. `keep` gets the position and the pair.
    pub fn subset(&self, keep: impl Fn(usize, &Pair<'_>) -> bool) -> Self {
        let mut subset = BatchBuilder::default();
        for (position, pair) in self.pairs().enumerate() {
            if keep(position, &pair) {
                let segment = subset.admit(pair.segment.clone());
                subset.push(&pair.user, segment, pair.slot);
            }
        }
        subset.finish()
    }

    /// The pairs at `positions`, which must be ascending.
    pub fn at(&self, positions: &[usize]) -> Self {
        self.subset(|position, _| positions.binary_search(&position).is_ok())
    }
}

/// Builds a [`Batch`] pair by pair.
#[derive(Debug, Default)]
pub struct BatchBuilder {
    batch: Batch,
    known: HashMap<Segment, u32>,
    last: usize,
}

impl BatchBuilder {
    /// An empty builder with capacity for `pairs` pairs.
    pub fn with_capacity(pairs: usize) -> Self {
        let mut builder = Self::default();
        builder.batch.items.reserve(pairs);
        builder.batch.users.reserve(pairs * 8);
        builder
    }

    /// The index of `segment` in this batch, if the batch already has it.
    pub fn find(&mut self, segment: &str) -> Option<usize> {
        // Consecutive pairs often share a segment: compare with the last one before hashing.
        if self
            .batch
            .segments
            .get(self.last)
            .is_some_and(|last| last.as_str() == segment)
        {
            return Some(self.last);
        }
        self.last = *self.known.get(segment)? as usize;
        Some(self.last)
    }

    /// Adds `segment` to the batch's segments, unless it is there, and returns its index.
    pub fn admit(&mut self, segment: Segment) -> usize {
        if let Some(index) = self.find(segment.as_str()) {
            return index;
        }
        let index = self.batch.segments.len();
        self.batch.segments.push(segment.clone());
        // A batch is bounded by the size of a request, far below the range of u32.
        self.known
            .insert(segment, u32::try_from(index).unwrap_or(u32::MAX));
        index
    }

    /// Appends a pair; `segment` is an index that [`find`](Self::find) or [`admit`](Self::admit) returned.
    pub fn push(&mut self, user: &UserId<'_>, segment: usize, slot: Slot) {
        debug_assert!(segment < self.batch.segments.len());
        self.batch.users.push_str(user.as_str());
        let user_end = self.batch.users.len();
        self.batch.items.push(Item {
            user_end,
            segment: u32::try_from(segment).unwrap_or(u32::MAX),
            slot,
        });
    }

    /// Appends a pair whose segment is an unvalidated string.
    pub fn push_pair(
        &mut self,
        user: &UserId<'_>,
        segment: &str,
        slot: Slot,
    ) -> Result<(), InvalidSegment> {
        let index = match self.find(segment) {
            Some(index) => index,
            None => self.admit(Segment::new(segment)?),
        };
        self.push(user, index, slot);
        Ok(())
    }

    /// The number of pairs so far.
    pub fn len(&self) -> usize {
        self.batch.len()
    }

    /// Whether no pair was appended.
    pub fn is_empty(&self) -> bool {
        self.batch.is_empty()
    }

    /// The finished batch.
    pub fn finish(self) -> Batch {
        self.batch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_back_what_was_put_in() {
        let mut builder = BatchBuilder::default();
        let given = [
            ("u1", "a", 1),
            ("u2", "b", 2),
            ("ü3", "a", 3),
            ("u1", "a", 1),
        ];
        for (user, segment, slot) in given {
            builder
                .push_pair(&UserId::new(user).unwrap(), segment, Slot::new(slot))
                .unwrap();
        }
        assert!(
            builder
                .push_pair(&UserId::new("u").unwrap(), "", Slot::new(1))
                .is_err()
        );
        let batch = builder.finish();
        let seen: Vec<_> = batch
            .pairs()
            .map(|p| {
                (
                    p.user.as_str().to_owned(),
                    p.segment.as_str().to_owned(),
                    p.slot.number(),
                )
            })
            .collect();
        let given: Vec<_> = given
            .iter()
            .map(|(u, s, t)| (u.to_string(), s.to_string(), *t))
            .collect();
        assert_eq!(seen, given);
        assert_eq!(batch.segments().len(), 2);
        let some = batch.at(&[1, 3]);
        let users: Vec<_> = some.pairs().map(|pair| pair.user.into_owned()).collect();
        assert_eq!(users, ["u2", "u1"].map(|user| UserId::new(user).unwrap()));
        assert_eq!(batch.at(&[]).segments().len(), 0);
    }
}
