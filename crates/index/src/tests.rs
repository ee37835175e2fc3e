//! Compares the index with a naive model, and tests it with threads.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const SEGMENTS: [&str; 3] = ["a", "b", "c"];
const USERS: u32 = 3000;

/// A user's fingerprint: a third of the users share their first bits.
fn fingerprint(user: u32) -> Fingerprint {
    if user.is_multiple_of(3) {
        return Fingerprint::from_number(u64::from(user));
    }
    Fingerprint::new(u64::from(user + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

fn segment(name: &str) -> Segment {
    Segment::new(name).unwrap()
}

/// The latest slot of each (segment, user), and the head.
#[derive(Default)]
struct Model {
    window: u64,
    head: u64,
    latest: HashMap<(&'static str, u32), u64>,
}

impl Model {
    fn record(&mut self, name: &'static str, user: u32, slot: u64) {
        if slot + self.window > self.head {
            let latest = self.latest.entry((name, user)).or_default();
            *latest = slot.max(*latest);
        }
    }

    fn count(&self, name: &str, window: u64) -> u64 {
        let pairs = self.latest.iter();
        let counted = pairs.filter(|((n, _), slot)| *n == name && **slot + window > self.head);
        counted.count() as u64
    }
}

#[derive(Debug, Clone)]
enum Step {
    /// Every `stride`-th user from `first` on, `users` in total, seen up to `spread` slots apart.
    Upsert {
        name: usize,
        first: u32,
        users: u32,
        stride: u32,
        age: u64,
        spread: u64,
        lag: u64,
        sorted: bool,
    },
    Advance(u64),
    Sweep(u64),
    SweepAll,
    Erase(u32),
    Reload,
}

fn step(window: u64) -> impl Strategy<Value = Step> {
    let ages = prop_oneof![3 => Just(0), 3 => 0..window + 2, 1 => 0..65_000_u64];
    let users = prop_oneof![4 => 1..20_u32, 2 => 1..900_u32];
    let spread = prop_oneof![Just(0), 0..4_u64, 0..window];
    let slots = prop_oneof![
        4 => 0..3_u64,
        2 => 0..window,
        1 => 0..140_000_u64,
        1 => Just(65_536),
        1 => (1..5_u64).prop_map(|n| n << 32),
        1 => 0..9_000_000_u64,
    ];
    let lag = prop_oneof![3 => Just(0_u64), 1 => 0..window + 2];
    let upsert = (
        0..3_usize,
        0..USERS,
        users,
        1..9_u32,
        ages,
        spread,
        lag,
        any::<bool>(),
    )
        .prop_map(
            |(name, first, users, stride, age, spread, lag, sorted)| Step::Upsert {
                name,
                first,
                users,
                stride,
                age,
                spread,
                lag,
                sorted,
            },
        );
    prop_oneof![
        8 => upsert,
        4 => slots.prop_map(Step::Advance),
        2 => (1..2000_u64).prop_map(Step::Sweep),
        1 => Just(Step::SweepAll),
        1 => (0..USERS).prop_map(Step::Erase),
        1 => Just(Step::Reload),
    ]
}

fn sweep_all(index: &Index, as_of: Slot) {
    while !index.sweep(as_of, 500).done {}
}

/// Copies an index as a snapshot and a restart would.
fn reload(index: &Index, window: u32) -> Index {
    let copy = Index::new(window);
    for name in index.segment_names() {
        let mut next = Some(Fingerprint::MIN);
        while let Some(from) = next {
            let mut page = Vec::new();
            let read = index.read_page(name.as_str(), from, &mut page).unwrap();
            assert!(page.is_sorted());
            copy.load_sorted(&name, &page, read.base);
            next = read.next;
        }
    }
    copy.advance(index.head());
    copy
}

fn check(index: &Index, model: &Model) {
    let as_of = Slot::new(model.head);
    let window = model.window;
    let mut listed = Vec::new();
    for name in SEGMENTS {
        for part in [1, 2, window / 3, window - 1, window + 5] {
            let part = part.max(1);
            let expected = model.count(name, part.min(window));
            assert_eq!(index.count(name, part as u32, as_of), (expected, as_of));
        }
        listed.push((segment(name), model.count(name, window)));
    }
    listed.retain(|(_, users)| *users > 0);
    assert_eq!(index.segments(as_of), listed);
    let live: u64 = listed.iter().map(|(_, users)| users).sum();
    let stats = index.stats();
    assert!(stats.pairs >= live && stats.bytes >= 8 * stats.pairs);
}

fn run(window: u32, head: u64, steps: Vec<Step>) {
    let mut index = Index::new(window);
    let mut model = Model {
        window: u64::from(window),
        head,
        ..Model::default()
    };
    index.advance(Slot::new(head));
    for step in steps {
        match step {
            Step::Upsert {
                name,
                first,
                users,
                stride,
                age,
                spread,
                lag,
                sorted,
            } => {
                // A base behind or ahead of the head.
                let base = if lag == 1 {
                    model.head + 1
                } else {
                    model.head.saturating_sub(lag)
                };
                model.head = model.head.max(base);
                let mut entries = Vec::new();
                for i in 0..users {
                    let user = (first + i * stride) % USERS;
                    let age = (age + u64::from(i) % (spread + 1)).min(65_535);
                    if age <= base {
                        entries.push(Entry::new(fingerprint(user), Slot::new(base - age)));
                        model.record(SEGMENTS[name], user, base - age);
                    }
                }
                if sorted {
                    entries.sort_unstable();
                    index.load_sorted(&segment(SEGMENTS[name]), &entries, Slot::new(base));
                } else {
                    index.upsert(&segment(SEGMENTS[name]), &entries, Slot::new(base));
                }
            }
            Step::Advance(slots) => {
                model.head += slots;
                index.advance(Slot::new(model.head));
            }
            Step::Sweep(limit) => {
                let before = index.stats().pairs;
                let swept = index.sweep(Slot::new(model.head), limit);
                assert_eq!(index.stats().pairs, before - swept.removed);
            }
            Step::SweepAll => {
                sweep_all(&index, Slot::new(model.head));
                let segments = index.segments(Slot::new(model.head));
                let live: u64 = segments.iter().map(|(_, users)| users).sum();
                assert_eq!(index.stats().pairs, live);
                assert_eq!(index.segment_names().len(), segments.len());
            }
            Step::Erase(user) => {
                let as_of = Slot::new(model.head);
                let mut expected = Vec::new();
                for name in SEGMENTS {
                    let slot = model.latest.remove(&(name, user));
                    let slot = slot.filter(|slot| slot + model.window > model.head);
                    expected.extend(slot.map(|slot| (segment(name), Slot::new(slot))));
                }
                assert_eq!(index.memberships(fingerprint(user), as_of), expected);
                assert_eq!(index.erase(fingerprint(user), as_of), expected.len() as u64);
                assert_eq!(index.memberships(fingerprint(user), as_of), []);
            }
            Step::Reload => index = reload(&index, window),
        }
        check(&index, &model);
    }
}

/// A window, a head just before a wrap-around, and steps that fit the window.
fn story() -> impl Strategy<Value = (u32, u64, Vec<Step>)> {
    let windows =
        prop_oneof![3 => 1..9_u32, 2 => 250..700_u32, 1 => Just(20_160), 1 => Just(MAX_WINDOW)];
    let heads = prop_oneof![
        0..3_u64,
        65_530..65_540_u64,
        (1..400_u64).prop_map(|n| (n << 16) - 3)
    ];
    (windows, heads).prop_flat_map(|(window, head)| {
        let steps = vec(step(u64::from(window)), 1..40);
        (Just(window), Just(head), steps)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn agrees_with_the_model((window, head, steps) in story()) {
        run(window, head, steps);
    }
}

#[test]
fn a_user_leaves_when_the_slot_leaves_the_window() {
    let index = Index::new(3);
    let entry = Entry::new(fingerprint(1), Slot::new(70_000));
    index.upsert(&segment("a"), &[entry], Slot::new(70_000));
    for (as_of, users) in [(70_000, 1), (70_002, 1), (70_003, 0), (70_000 + 65_536, 0)] {
        assert_eq!(
            index.count("a", 3, Slot::new(as_of)),
            (users, Slot::new(as_of))
        );
    }
    assert_eq!(index.count("a", 3, Slot::new(1)).1, Slot::new(135_536));
    assert_eq!(index.count("unknown", 3, Slot::new(1)).0, 0);
}

#[test]
fn nobody_sweeps_for_years() {
    let index = Index::new(MAX_WINDOW);
    let mut expected = BTreeMap::new();
    for round in 0..400_u64 {
        let head = round * 4_001;
        let user = (round % 150) as u32;
        let entry = Entry::new(fingerprint(user), Slot::new(head));
        index.upsert(&segment("a"), &[entry], Slot::new(head));
        expected.insert(user, head);
        let live = expected
            .values()
            .filter(|slot| **slot + u64::from(MAX_WINDOW) > head);
        assert_eq!(
            index.count("a", MAX_WINDOW, Slot::new(0)).0,
            live.count() as u64
        );
    }
}

#[test]
fn time_passes_in_the_middle_of_a_sweep() {
    let window = 100;
    let flows = Flows::new(FlowLayout { window, step: 1 }, 1000, 0);
    let mut members = Members::new(window, 1000, flows);
    let users: Vec<Entry> = (0..2000)
        .map(|user| Entry::new(fingerprint(user), Slot::new(1000 - u64::from(user % 50))))
        .collect();
    members.upsert(&users, 1000);
    members.advance(1050);
    // No entry has expired yet on the pages that this call visits.
    let began = members.sweep(Fingerprint::MIN, 500);
    assert!(began.removed == 0 && began.next.is_some());
    members.advance(1099);
    let ended = members.sweep(began.next.unwrap(), u64::MAX);
    assert!(ended.removed > 0 && ended.next.is_none());
    assert!(members.needs_sweep());
    // Entries that the sweep missed would appear as seen in these slots.
    for slot in (1099..1099 + (1 << 16)).step_by(149) {
        members.advance(slot);
        let expected = users
            .iter()
            .filter(|e| e.slot(Slot::new(1000)).number() + 100 > slot);
        assert_eq!(members.count(window), expected.count() as u64);
        let seen = (0..2000).filter(|user| members.last_seen(fingerprint(*user)).is_some());
        assert_eq!(seen.count() as u64, members.count(window));
    }
}

#[test]
fn an_entry_that_breaks_the_contract_is_ignored() {
    let index = Index::new(MAX_WINDOW);
    let from_the_future = Entry::new(fingerprint(1), Slot::new(65_535));
    index.upsert(&segment("a"), &[from_the_future], Slot::new(5));
    index.load_sorted(&segment("a"), &[from_the_future], Slot::new(5));
    assert_eq!(
        index.count("a", MAX_WINDOW, Slot::new(0)),
        (0, Slot::new(5))
    );
    assert_eq!(index.memberships(fingerprint(1), Slot::new(5)), []);
}

#[test]
fn a_segment_that_is_being_removed_takes_new_users() {
    let index = Index::new(1);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                index.sweep(index.head(), 1);
            }
        });
        for slot in (1..20_000).map(Slot::new) {
            index.upsert(&segment("a"), &[Entry::new(fingerprint(1), slot)], slot);
            let counted = index.count("a", 1, slot);
            if counted != (1, slot) {
                stop.store(true, Ordering::Relaxed);
            }
            assert_eq!(counted, (1, slot));
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn pages_join_when_users_leave() {
    let index = Index::new(10);
    let everyone: Vec<Entry> = (0..200_000_u64)
        .map(|user| user.wrapping_mul(0x9e37_79b9_7f4a_7c15))
        .map(|hash| Entry::new(Fingerprint::new(hash), Slot::new(100)))
        .collect();
    index.upsert(&segment("a"), &everyone, Slot::new(100));
    let full = index.stats();
    assert!(full.bytes < 11 * full.pairs, "{full:?}");
    index.upsert(&segment("a"), &seen_again(&everyone[..500]), Slot::new(105));
    sweep_all(&index, Slot::new(112));
    let left = index.stats();
    assert_eq!(left.pairs, 500);
    assert!(left.bytes < 100_000, "{left:?}");
    let mut walked = Vec::new();
    let mut next = Some(Fingerprint::MIN);
    while let Some(from) = next {
        next = index.read_page("a", from, &mut walked).unwrap().next;
    }
    let mut expected = seen_again(&everyone[..500]);
    expected.sort_unstable();
    assert_eq!(walked, expected);
    index.upsert(&segment("a"), &expected, Slot::new(105));
    assert_eq!(index.stats().pairs, 500);
    sweep_all(&index, Slot::new(120));
    assert_eq!(index.stats(), Stats::default());
}

fn seen_again(entries: &[Entry]) -> Vec<Entry> {
    let again = entries
        .iter()
        .map(|e| Entry::new(e.fingerprint(), Slot::new(105)));
    again.collect()
}

#[test]
fn nothing_is_lost_between_threads() {
    const WRITERS: u64 = 3;
    const USERS: u64 = 30_000;
    let index = Index::new(5);
    let stop = AtomicBool::new(false);
    let names = ["busy", "other", "rare"].map(segment);
    let user = |user: u64| Fingerprint::new(user.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (index, names) = (&index, &names);
                scope.spawn(move || {
                    for round in 0..30 {
                        let slot = Slot::new(65_530 + round);
                        for batch in 0..USERS / 1000 {
                            // Overlapping users: all threads write every third batch.
                            let owner = if batch % 3 == 0 { 0 } else { writer };
                            let first = owner * USERS + batch * 1000;
                            let users = first..first + 1000;
                            let entries: Vec<Entry> =
                                users.map(|u| Entry::new(user(u), slot)).collect();
                            index.upsert(&names[(batch % 2) as usize], &entries, slot);
                        }
                        if round % 7 == 0 {
                            // A segment with few users, which is removed and added again.
                            index.upsert(&names[2], &[Entry::new(user(writer), slot)], slot);
                        }
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                index.sweep(index.head(), 5_000);
                let (users, _) = index.count("busy", 5, index.head());
                assert!(users <= WRITERS * USERS);
            }
        });
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let mut next = Some(Fingerprint::MIN);
                let mut walked = Vec::new();
                while let Some(from) = next {
                    let read = index.read_page("busy", from, &mut walked);
                    next = read.and_then(|read| read.next);
                }
                assert!(walked.is_sorted_by_key(|entry| entry.fingerprint()));
            }
        });
        for writer in writers {
            writer.join().unwrap();
        }
        stop.store(true, Ordering::Relaxed);
    });
    // Of 30 batches of each parity, all threads write 5.
    let each = (USERS / 1000).div_ceil(2) - 5;
    let expected = (5 + each * WRITERS) * 1000;
    for name in ["busy", "other"] {
        assert_eq!(index.count(name, 5, index.head()).0, expected);
    }
    assert_eq!(index.count("rare", 5, Slot::new(65_530 + 29)).0, WRITERS);
    sweep_all(&index, index.head());
    assert_eq!(index.stats().pairs, 2 * expected + WRITERS);
    let later = Slot::new(65_530 + 40);
    assert_eq!(index.segments(later), []);
    sweep_all(&index, later);
    assert_eq!(index.stats(), Stats::default());
}
