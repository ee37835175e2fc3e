//! Random histories of an index beside a naive model, for tests of walks over many segments.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use domain::{Segment, Slot};
use proptest::collection::vec;
use proptest::prelude::*;

use super::{Entry, Fingerprint, Index};

pub(super) const SEGMENTS: [&str; 4] = ["a", "b", "front page", "rare"];
const USERS: u64 = 4_000;

pub(super) fn segment(name: &str) -> Segment {
    Segment::new(name).unwrap()
}

/// A user's fingerprint: every fifth shares its first bits with others.
pub(super) fn fingerprint(user: u64) -> Fingerprint {
    if user.is_multiple_of(5) {
        return Fingerprint::from_number(user);
    }
    Fingerprint::new((user + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

pub(super) fn never_stop() -> bool {
    false
}

/// The slot of the last visit of each user to each segment.
#[derive(Debug, Default)]
pub(super) struct Model(BTreeMap<Fingerprint, BTreeMap<&'static str, u64>>);

impl Model {
    pub(super) fn see(&mut self, segment: &'static str, user: Fingerprint, slot: u64) {
        let visits = self.0.entry(user).or_default();
        let latest = visits.entry(segment).or_default();
        *latest = slot.max(*latest);
    }

    fn erase(&mut self, user: Fingerprint) {
        self.0.remove(&user);
    }

    /// Calls `act` with the segments of each user who is in any.
    pub(super) fn each(&self, window: u32, as_of: u64, mut act: impl FnMut(&[&str])) {
        for visits in self.0.values() {
            let visits = visits.iter();
            let within = visits.filter(|(_, slot)| **slot + u64::from(window) > as_of);
            let segments: Vec<&str> = within.map(|(segment, _)| *segment).collect();
            if !segments.is_empty() {
                act(&segments);
            }
        }
    }

    /// The number of users whose segments `has` accepts.
    pub(super) fn count(&self, window: u32, as_of: u64, has: impl Fn(&[&str]) -> bool) -> u64 {
        let mut users = 0;
        self.each(window, as_of, |segments| users += u64::from(has(segments)));
        users
    }
}

/// A step of a history; `Q` is a question that is asked in between.
#[derive(Debug, Clone)]
pub(super) enum Step<Q> {
    /// Every `stride`-th user from `first` on, last seen up to `spread` slots before the head.
    See {
        segment: usize,
        first: u64,
        users: u64,
        stride: u64,
        spread: u64,
    },
    Advance(u64),
    Erase(u64),
    Sweep(u64),
    Ask(Q),
}

fn step<Q: fmt::Debug + Clone>(
    window: u64,
    questions: impl Strategy<Value = Q>,
) -> impl Strategy<Value = Step<Q>> {
    let users = prop_oneof![1..20_u64, 1..400_u64, 1..USERS];
    let spread = prop_oneof![Just(1), 1..=window + 3];
    let see = (0..SEGMENTS.len(), 0..USERS, users, 1..6_u64, spread);
    let see = see.prop_map(|(segment, first, users, stride, spread)| Step::See {
        segment,
        first,
        users,
        stride,
        spread,
    });
    let slots = prop_oneof![4 => 0..3_u64, 3 => 0..window, 1 => 0..70_000_u64];
    prop_oneof![
        6 => see,
        2 => slots.prop_map(Step::Advance),
        2 => (0..USERS).prop_map(Step::Erase),
        1 => (1..3_000_u64).prop_map(Step::Sweep),
        8 => questions.prop_map(Step::Ask),
    ]
}

/// A window and steps that fit it.
pub(super) fn story<Q: fmt::Debug + Clone + 'static>(
    questions: impl Strategy<Value = Q> + 'static,
) -> impl Strategy<Value = (u32, Vec<Step<Q>>)> {
    let questions = questions.boxed();
    let window = prop_oneof![1..9_u32, 20..400_u32, Just(20_160)];
    window.prop_flat_map(move |window| {
        let step = step(u64::from(window), questions.clone());
        (Just(window), vec(step, 1..40))
    })
}

/// Plays a history. Calls `ask` with each question, and once more with the last one, and with the index, the model and the
/// head.
pub(super) fn play<Q>(
    window: u32,
    steps: Vec<Step<Q>>,
    last: Q,
    ask: impl Fn(Q, &Index, &Model, u64),
) {
    let index = Index::new(window);
    let mut model = Model::default();
    let mut head = 100_000;
    index.advance(Slot::new(head));
    for step in steps {
        match step {
            Step::See {
                segment: number,
                first,
                users,
                stride,
                spread,
            } => {
                let mut entries = Vec::new();
                for number_of_user in 0..users {
                    let user = fingerprint((first + number_of_user * stride) % USERS);
                    let slot = head - number_of_user % spread;
                    entries.push(Entry::new(user, Slot::new(slot)));
                    model.see(SEGMENTS[number], user, slot);
                }
                index.upsert(&segment(SEGMENTS[number]), &entries, Slot::new(head));
            }
            Step::Advance(slots) => head += slots,
            Step::Erase(user) => {
                model.erase(fingerprint(user));
                index.erase(fingerprint(user), Slot::new(head));
            }
            Step::Sweep(limit) => {
                index.sweep(Slot::new(head), limit);
            }
            Step::Ask(asked) => ask(asked, &index, &model, head),
        }
    }
    ask(last, &index, &model, head);
}

/// Users with random fingerprints, ascending: `shared` that every seed has, and others.
pub(super) fn population(seed: u64, shared: u64, others: u64, slot: Slot) -> Vec<Entry> {
    let mix = |number: u64| (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let hash = |number: u64| mix(mix(number) ^ (mix(number) >> 29));
    let own = (0..others).map(|user| hash((seed << 32) + user));
    let hashes = (0..shared).map(hash).chain(own);
    let mut entries: Vec<Entry> = hashes
        .map(|hash| Entry::new(Fingerprint::new(hash), slot))
        .collect();
    entries.sort_unstable();
    entries
}

/// Users who stay as they are, with last visits all over the window, in overlapping parts of three segments; and two
/// segments that don't change at all, of these users, and of these and others.
pub(super) fn settled(index: &Index, window: u64, head: u64) -> Model {
    let mut model = Model::default();
    for (number, name) in ["a", "b", "c"].into_iter().enumerate() {
        let number = number as u64;
        let users = (0..40_000).filter(|user| (user + number) % 5 < 3);
        let entries: Vec<Entry> = users
            .map(|user| {
                let slot = head - (user * 7 + number * 13) % window;
                model.see(name, settled_user(user), slot);
                Entry::new(settled_user(user), Slot::new(slot))
            })
            .collect();
        index.upsert(&segment(name), &entries, Slot::new(head));
    }
    for (name, users) in [("settled", 40_000), ("many", 120_000)] {
        let slot = Slot::new(head);
        let users = (0..users).map(settled_user);
        let mut entries: Vec<Entry> = users.map(|user| Entry::new(user, slot)).collect();
        entries.sort_unstable();
        for entry in &entries {
            model.see(name, entry.fingerprint(), head);
        }
        index.load_sorted(&segment(name), &entries, slot);
    }
    model
}

fn settled_user(user: u64) -> Fingerprint {
    Fingerprint::new((2 * user + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

fn passing_user(user: u64) -> Fingerprint {
    Fingerprint::new((2 * user + 2).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// Fills the segments with passing users and erases them again, so that pages split and join.
pub(super) fn come_and_go(index: &Index, stop: &AtomicBool) {
    let mut round = 0;
    while !stop.load(Ordering::Relaxed) {
        let head = index.head();
        let name = ["a", "b", "c"][round % 3];
        let users = (0..3_000).map(|user| passing_user((round as u64 * 1_000 + user) % 20_000));
        let entries: Vec<Entry> = users.map(|user| Entry::new(user, head)).collect();
        index.upsert(&segment(name), &entries, head);
        for entry in &entries[..500] {
            index.erase(entry.fingerprint(), head);
        }
        round += 1;
    }
}

/// Moves the time on by less than a window of `slots`, and removes expired users meanwhile.
pub(super) fn let_time_pass(index: &Index, slots: u64, stop: &AtomicBool) {
    let head = index.head().number();
    for later in 1..slots {
        for _ in 0..20 {
            index.sweep(Slot::new(head + later), 500);
            if stop.load(Ordering::Relaxed) {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
