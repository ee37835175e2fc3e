//! Random pairs: users in segments of unequal size, seen in the latest slots.

use std::time::Duration;

use domain::{Batch, BatchBuilder, Slot, TimeFrame, Timestamp, UserId};

/// The number of segments; `segment-0` is the largest.
pub const SEGMENTS: u64 = 200;
/// The number of pairs in a regular batch.
pub const BATCH: usize = 5_000;
/// Slots in a day.
pub const DAY: u64 = 1_440;

/// The default settings: a window of two weeks, and slots of a minute.
pub fn frame() -> TimeFrame {
    let (day, minute) = (Duration::from_hours(24), Duration::from_secs(60));
    TimeFrame::new(14 * day, minute, 5 * minute).unwrap()
}

/// The current slot.
pub fn present() -> u64 {
    frame().resolution().slot_of(Timestamp::now()).number()
}

/// One user, in one segment, in one slot.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    pub user: u64,
    pub segment: u64,
    pub slot: u64,
}

/// Users picked at random, segment n with a weight of 1/(n+1), so that some are large.
#[derive(Debug)]
pub struct Traffic {
    random: fastrand::Rng,
    users: u64,
    latest: u64,
    slots: u64,
}

impl Traffic {
    /// Pairs of `users` users, seen in the last `slots` slots. The seed is fixed.
    pub fn new(users: u64, slots: u64) -> Self {
        Self {
            random: fastrand::Rng::with_seed(1),
            users,
            latest: present(),
            slots,
        }
    }

    /// Other pairs with the same distribution.
    pub fn seeded(mut self, seed: u64) -> Self {
        self.random = fastrand::Rng::with_seed(seed);
        self
    }

    /// The same pairs, seen `slots` slots earlier.
    pub fn earlier(mut self, slots: u64) -> Self {
        self.latest -= slots;
        self
    }

    /// A batch of pairs.
    pub fn batch(&mut self, pairs: usize) -> Batch {
        batch(self.by_ref().take(pairs))
    }

    /// Batches of the regular size, with at least this many pairs in total.
    pub fn batches(&mut self, pairs: u64) -> Vec<Batch> {
        let batches = usize::try_from(pairs).unwrap().div_ceil(BATCH);
        (0..batches).map(|_| self.batch(BATCH)).collect()
    }
}

/// An infinite iterator.
impl Iterator for Traffic {
    type Item = Seen;

    fn next(&mut self) -> Option<Seen> {
        Some(Seen {
            user: self.random.u64(..self.users),
            segment: zipf(&mut self.random),
            slot: self.latest - self.random.u64(..self.slots),
        })
    }
}

/// A random segment number; low numbers are more frequent.
pub fn zipf(random: &mut fastrand::Rng) -> u64 {
    let segment = ((SEGMENTS + 1) as f64).powf(random.f64()) - 1.0;
    (segment as u64).min(SEGMENTS - 1)
}

/// The pairs as the service would pass them to a store.
pub fn batch(seen: impl IntoIterator<Item = Seen>) -> Batch {
    let mut batch = BatchBuilder::with_capacity(BATCH);
    for Seen {
        user,
        segment,
        slot,
    } in seen
    {
        let user = UserId::new(format!("u{user}")).unwrap();
        let segment = format!("segment-{segment}");
        batch.push_pair(&user, &segment, Slot::new(slot)).unwrap();
    }
    batch.finish()
}
