//! Compares the counters with a naive model.

use std::collections::{BTreeMap, HashMap};

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::{Entry, Fingerprint};

const NAMES: [&str; 2] = ["a", "b"];
const USERS: u32 = 5_000;

/// Every user's last visit, who is counted, and what happened in each slot.
#[derive(Default)]
struct Model {
    window: u64,
    head: u64,
    last: HashMap<(&'static str, u32), u64>,
    happened: BTreeMap<(&'static str, u64), Flow>,
}

impl Model {
    fn note(&mut self, name: &'static str, slot: u64, entered: u64, left: u64) {
        let flow = self.happened.entry((name, slot)).or_default();
        *flow = flow.and(Flow { entered, left });
    }

    fn advance(&mut self, head: u64) {
        let head = head.max(self.head);
        let leaving: Vec<_> = self
            .last
            .iter()
            .filter(|(_, last)| **last + self.window <= head)
            .map(|(user, last)| (*user, *last + self.window))
            .collect();
        for (user, slot) in leaving {
            self.last.remove(&user);
            self.note(user.0, slot, 0, 1);
        }
        self.head = head;
    }

    fn see(&mut self, name: &'static str, user: u32, slot: u64) {
        if slot + self.window <= self.head {
            return;
        }
        match self.last.get_mut(&(name, user)) {
            Some(last) => *last = slot.max(*last),
            None => {
                self.last.insert((name, user), slot);
                self.note(name, self.head, 1, 0);
            }
        }
    }

    fn erase(&mut self, user: u32) {
        for name in NAMES {
            if self.last.remove(&(name, user)).is_some() {
                self.note(name, self.head, 0, 1);
            }
        }
    }

    fn clear(&mut self, name: &'static str) {
        for user in 0..USERS {
            if self.last.remove(&(name, user)).is_some() {
                self.note(name, self.head, 0, 1);
            }
        }
    }

    fn users(&self, name: &str) -> u64 {
        self.last.keys().filter(|(n, _)| *n == name).count() as u64
    }

    fn between(&self, name: &'static str, from: u64, to: u64) -> Flow {
        if from >= to {
            return Flow::default();
        }
        let happened = self.happened.range((name, from)..(name, to));
        happened.fold(Flow::default(), |sum, (_, flow)| sum.and(*flow))
    }
}

#[derive(Debug, Clone)]
enum Step {
    See {
        name: usize,
        first: u32,
        users: u32,
        age: u64,
        spread: u64,
        sorted: bool,
    },
    Advance(u64),
    Sweep(u64),
    Erase(u32),
    Clear(usize),
    /// A snapshot and a restart, in which the entries come back before the counters.
    Reload,
    Restart,
}

fn step(window: u64) -> impl Strategy<Value = Step> {
    let see = (
        0..2_usize,
        0..USERS,
        prop_oneof![4 => 1..20_u32, 1 => 1..4_000_u32],
        prop_oneof![3 => Just(0), 2 => 0..window + 2],
        prop_oneof![2 => Just(0), 1 => 0..4_u64, 1 => 0..window],
        any::<bool>(),
    )
        .prop_map(|(name, first, users, age, spread, sorted)| Step::See {
            name,
            first,
            users,
            age,
            spread,
            sorted,
        });
    let slots =
        prop_oneof![4 => 0..3_u64, 3 => 0..window + 2, 1 => 0..3_000_u64, 1 => 0..140_000_u64];
    prop_oneof![
        8 => see,
        6 => slots.prop_map(Step::Advance),
        2 => prop_oneof![Just(10_u64), Just(1_000_000)].prop_map(Step::Sweep),
        1 => (0..USERS).prop_map(Step::Erase),
        1 => (0..2_usize).prop_map(Step::Clear),
        2 => Just(Step::Reload),
        1 => Just(Step::Restart),
    ]
}

fn fingerprint(user: u32) -> Fingerprint {
    Fingerprint::new(u64::from(user + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

fn reload(index: &Index, layout: FlowLayout) -> Index {
    let copy = Index::new(layout.window).with_flow_steps(layout.step);
    for name in index.segment_names() {
        let mut next = Some(Fingerprint::MIN);
        while let Some(from) = next {
            let mut page = Vec::new();
            let read = index.read_page(name.as_str(), from, &mut page).unwrap();
            copy.load_sorted(&name, &page, read.base);
            next = read.next;
        }
    }
    let (flows, since) = index.flows();
    let saved: Vec<_> = flows
        .iter()
        .map(|(name, flows)| (name.clone(), flows.saved()))
        .collect();
    copy.restore_flows(&saved, since);
    copy
}

/// What the counters must know of the time before the head.
fn check(index: &Index, model: &Model, layout: FlowLayout, since: u64, random: &[(u64, u64)]) {
    let (head, step) = (model.head, u64::from(layout.step));
    let end = head + 1;
    let slots_from = end.saturating_sub(u64::from(SLOTS)).max(since);
    let oldest_step = (head / step).saturating_sub(u64::from(layout.steps()) - 1);
    let steps_from = (oldest_step * step).max(since.next_multiple_of(step));
    let mut known = vec![(slots_from, end), (slots_from, slots_from + 1), (head, end)];
    known.push((head, head + 500));
    if steps_from <= head {
        known.extend([(steps_from, end), (steps_from, head / step * step)]);
        known.push((steps_from, (steps_from + step).min(end)));
        // From the start of a step to any of the slots.
        known.push((steps_from, slots_from.next_multiple_of(step).max(head)));
    }
    let somewhere = random.iter().map(|(from, length)| {
        let from = end.saturating_sub(*from);
        (from, from + length)
    });
    let spans: Vec<(u64, u64)> = known.iter().copied().chain(somewhere).collect();
    for name in NAMES {
        let asked: Vec<_> = spans
            .iter()
            .map(|(from, to)| Slot::new(*from)..Slot::new(*to))
            .collect();
        let flows = index.flow(name, &asked, Slot::new(head));
        for (position, ((from, to), flow)) in spans.iter().zip(flows).enumerate() {
            let expected = model.between(name, *from, *to);
            match flow {
                Some(flow) => assert_eq!(flow, expected, "{name} {from}..{to} as of {head}"),
                None => assert!(
                    position >= known.len() || *from < since,
                    "{name} {from}..{to} is unknown as of {head}, since {since}, {layout:?}"
                ),
            }
            assert!(flow.is_none() || *from >= since);
        }
        let (users, _) = index.count(name, layout.window, Slot::new(head));
        assert_eq!(users, model.users(name));
    }
}

type Story = (FlowLayout, u64, Vec<(Step, Vec<(u64, u64)>)>);

fn run((layout, head, steps): Story) {
    let mut index = Index::new(layout.window).with_flow_steps(layout.step);
    let mut model = Model {
        window: u64::from(layout.window),
        head,
        ..Model::default()
    };
    let mut since = 0;
    index.advance(Slot::new(head));
    for (step, random) in steps {
        match step {
            Step::See {
                name,
                first,
                users,
                age,
                spread,
                sorted,
            } => {
                let mut entries = Vec::new();
                for i in 0..users {
                    let age = (age + u64::from(i) % (spread + 1)).min(65_535);
                    let user = (first + i) % USERS;
                    if age <= model.head {
                        let slot = model.head - age;
                        entries.push(Entry::new(fingerprint(user), Slot::new(slot)));
                        model.see(NAMES[name], user, slot);
                    }
                }
                let (name, base) = (Segment::new(NAMES[name]).unwrap(), Slot::new(model.head));
                if sorted {
                    entries.sort_unstable();
                    index.load_sorted(&name, &entries, base);
                } else {
                    index.upsert(&name, &entries, base);
                }
            }
            Step::Advance(slots) => {
                model.advance(model.head + slots);
                // Segments follow at their next access.
                index.advance(Slot::new(model.head));
            }
            Step::Sweep(limit) => {
                index.sweep(Slot::new(model.head), limit);
            }
            Step::Erase(user) => {
                index.erase(fingerprint(user), Slot::new(model.head));
                model.erase(user);
            }
            Step::Clear(name) => {
                index.reset(NAMES[name]);
                model.clear(NAMES[name]);
            }
            Step::Reload => index = reload(&index, layout),
            Step::Restart => {
                since = model.head + 1;
                index.restart_flows(Slot::new(since));
            }
        }
        check(&index, &model, layout, since, &random);
    }
}

fn story() -> impl Strategy<Value = Story> {
    let windows = prop_oneof![2 => 1..9_u32, 2 => 250..700_u32, 2 => 2_000..6_000_u32];
    let layouts = (windows, 1..80_u32).prop_map(|(window, step)| FlowLayout {
        window,
        step: step.min(window),
    });
    let heads = prop_oneof![0..3_u64, 65_530..65_540_u64, 1_000_000..1_000_100_u64];
    (layouts, heads).prop_flat_map(|(layout, head)| {
        let window = u64::from(layout.window);
        let spans = vec((0..window + 2_000, 0..window), 0..6);
        let steps = vec((step(window), spans), 1..40);
        (Just(layout), Just(head), steps)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn agrees_with_the_model(story in story()) {
        run(story);
    }
}

fn one_flow(index: &Index, name: &str, span: Range<u64>, as_of: u64) -> Option<Flow> {
    let span = Slot::new(span.start)..Slot::new(span.end);
    index.flow(name, &[span], Slot::new(as_of))[0]
}

fn see(index: &Index, user: u32, slot: u64, head: u64) {
    let entry = Entry::new(fingerprint(user), Slot::new(slot));
    index.upsert(&Segment::new("a").unwrap(), &[entry], Slot::new(head));
}

#[test]
fn a_late_pair_enters_when_it_is_taken_in() {
    let index = Index::new(100);
    see(&index, 1, 940, 1_000);
    let (entered, left) = (1, 0);
    assert_eq!(
        one_flow(&index, "a", 1_000..1_001, 1_000),
        Some(Flow { entered, left })
    );
    assert_eq!(
        one_flow(&index, "a", 940..1_000, 1_000),
        Some(Flow::default())
    );
    // An earlier visit of a user who is counted changes nothing; the last one decides when the user leaves.
    see(&index, 1, 930, 1_010);
    let (entered, left) = (0, 1);
    assert_eq!(
        one_flow(&index, "a", 1_001..1_040, 1_050),
        Some(Flow::default())
    );
    assert_eq!(
        one_flow(&index, "a", 1_040..1_041, 1_050),
        Some(Flow { entered, left })
    );
    // Who left comes back, although the pair is late.
    see(&index, 1, 1_000, 1_060);
    let (entered, left) = (1, 1);
    assert_eq!(
        one_flow(&index, "a", 1_001..1_061, 1_060),
        Some(Flow { entered, left })
    );
}

#[test]
fn a_segment_that_was_removed_keeps_its_counters() {
    let index = Index::new(10);
    see(&index, 1, 100, 100);
    while !index.sweep(Slot::new(120), 100).done {}
    assert_eq!(index.segment_names(), []);
    let (entered, left) = (1, 1);
    assert_eq!(
        one_flow(&index, "a", 100..121, 120),
        Some(Flow { entered, left })
    );
    see(&index, 2, 121, 121);
    assert_eq!(
        one_flow(&index, "a", 100..122, 121),
        Some(Flow { entered: 2, left })
    );
    assert_eq!(one_flow(&index, "b", 0..122, 121), Some(Flow::default()));
}

#[test]
fn counters_of_removed_segments_are_bounded_and_say_what_they_forgot() {
    let index = Index::new(10);
    let removed = 1_002;
    for number in 0..removed {
        let slot = Slot::new(100 + number * 20);
        let entry = Entry::new(fingerprint(1), slot);
        let name = Segment::new(&format!("s{number}")).unwrap();
        index.upsert(&name, &[entry], slot);
        while !index.sweep(Slot::new(slot.number() + 15), 100).done {}
    }
    let head = 100 + removed * 20;
    let last = format!("s{}", removed - 1);
    let (entered, left) = (1, 1);
    let flow = one_flow(&index, &last, head - 100..head, head);
    assert_eq!(flow, Some(Flow { entered, left }));
    assert_eq!(one_flow(&index, "s0", 100..head, head), None);
    assert_eq!(one_flow(&index, "s1", 100..head, head), None);
    assert_eq!(
        one_flow(&index, "s0", head - 100..head, head),
        Some(Flow::default())
    );
}

#[test]
fn totals_grow_with_every_change() {
    let index = Index::new(10);
    let as_of = Slot::new(111);
    assert_eq!(index.total_flow("a", Slot::new(99)), None);
    see(&index, 1, 100, 100);
    see(&index, 2, 105, 105);
    let flow = Flow {
        entered: 2,
        left: 1,
    };
    let users = 1;
    let expected = TotalFlow { users, flow, as_of };
    assert_eq!(index.total_flow("a", as_of), Some(expected));
    index.begin_totals();
    let flow = Flow::default();
    let expected = TotalFlow { users, flow, as_of };
    assert_eq!(index.total_flow("a", as_of), Some(expected));
    see(&index, 3, 111, 111);
    index.restart_flow("a", Slot::new(112));
    let users = 2;
    let expected = TotalFlow { users, flow, as_of };
    assert_eq!(index.total_flow("a", as_of), Some(expected));
}
