//! Tests of merges over a store in memory, with one and with several instances, compared with a naive model.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::ingest::Merges;
use domain::store::model::Model;
use domain::{ErasureScope, ManualClock, Slot};
use telemetry::Metrics;

const NOW: i64 = 1_800_000_000;

/// An instance over a shared store.
struct Instance {
    merger: Arc<Merger>,
    store: Arc<Model>,
    clock: Arc<ManualClock>,
    metrics: Arc<Metrics>,
}

impl Instance {
    fn on(store: &Arc<Model>, clock: &Arc<ManualClock>) -> Self {
        let minute = Duration::from_secs(60);
        let frame = TimeFrame::new(240 * 60 * minute, minute, Duration::ZERO).unwrap();
        let port = Arc::clone(store) as Arc<dyn PairStore>;
        let clock = Arc::clone(clock);
        let erasures = Erasures::new(Arc::clone(&port), &frame, clock.clone());
        let metrics = Arc::<Metrics>::default();
        let parts = MergerParts {
            frame,
            clock: clock.clone(),
            recorder: Arc::new(Recorder::new(Arc::clone(&port), None)),
            store: port,
            live: None,
            spool: None,
            erasures: Arc::new(erasures),
            metrics: Arc::clone(&metrics),
        };
        Self {
            merger: Arc::new(Merger::new(parts)),
            store: Arc::clone(store),
            clock,
            metrics,
        }
    }

    fn alone() -> Self {
        let clock = ManualClock::new(Timestamp::from_second(NOW).unwrap());
        Self::on(&Arc::default(), &Arc::new(clock))
    }

    fn merges(&self) -> &Merges {
        self.merger.parts.erasures.merges()
    }

    async fn poll(&self) {
        self.merger.parts.erasures.refresh(None).await.unwrap();
    }

    async fn merge(&self, from: &str, into: &str) -> Result<u64, MergeError> {
        self.merger.merge(user(from), &user(into)).await
    }

    /// Records a pair as the way in does.
    async fn pair(&self, name: &str, segment: &str, slot: u64) {
        let mut batch = BatchBuilder::default();
        batch
            .push_pair(&user(name), segment, Slot::new(slot))
            .unwrap();
        let batch = self.merges().apply(batch.finish());
        self.store.record(&batch).await.unwrap();
    }

    fn visits(&self) -> Visits {
        let pairs = self.store.pairs.lock();
        let mut visits = Visits::new();
        for ((segment, user), slot) in &*pairs {
            let of_user = visits.entry(user.clone()).or_default();
            of_user.insert(segment.clone(), slot.number());
        }
        visits
    }

    /// Does what waits, whatever is due.
    async fn complete_all(&self) {
        loop {
            let next = self.merger.waiting.lock().pop_front();
            let Some(next) = next else { return };
            self.merger.complete(&next).await.unwrap();
        }
    }
}

type Visits = BTreeMap<String, BTreeMap<String, u64>>;

fn user(name: &str) -> UserId<'static> {
    UserId::new(name.to_owned()).unwrap()
}

fn visits(of: &[(&str, &[(&str, u64)])]) -> Visits {
    let of_user = |visits: &[(&str, u64)]| {
        let owned = visits
            .iter()
            .map(|(name, slot)| ((*name).to_owned(), *slot));
        owned.collect()
    };
    let each = of
        .iter()
        .map(|(name, visits)| ((*name).to_owned(), of_user(visits)));
    each.collect()
}

#[tokio::test]
async fn the_later_visit_counts_and_a_repeated_merge_asks_nothing() {
    let one = Instance::alone();
    for (name, segment, slot) in [
        ("a", "x", 5),
        ("b", "x", 7),
        ("a", "y", 9),
        ("b", "y", 8),
        ("a", "z", 1),
        ("b", "w", 1),
    ] {
        one.pair(name, segment, slot).await;
    }
    assert_eq!(one.merge("a", "b").await.unwrap(), 3);
    let merged = visits(&[("b", &[("w", 1), ("x", 7), ("y", 9), ("z", 1)])]);
    assert_eq!(one.visits(), merged);
    let calls = one.store.calls.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(one.merge("a", "b").await.unwrap(), 0);
    let again = one.store.calls.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(again, calls, "no call of the store");
    assert!(matches!(
        one.merge("a", "a").await,
        Err(MergeError::SameUser)
    ));
    assert_eq!(one.metrics.ingest.merges.with(["moved"]).get(), 1);
    // The note is renewed while it is still in force.
    one.clock.advance(Duration::from_hours(121));
    assert_eq!(one.merge("a", "b").await.unwrap(), 0);
    let renewed = one.merges().of(&user("a")).unwrap().0;
    assert_eq!(renewed.at(), one.clock.now());
}

#[tokio::test]
async fn a_merge_that_failed_is_completed_when_it_is_repeated() {
    use std::sync::atomic::Ordering::Relaxed;
    for fails_at in 1..=4 {
        let mut one = Instance::alone();
        one.pair("a", "x", 5).await;
        one.pair("a", "y", 5).await;
        let store = Model {
            pairs: Mutex::new(one.store.pairs.lock().clone()),
            fails_each: fails_at,
            ..Model::default()
        };
        let clock = Arc::clone(&one.clock);
        one = Instance::on(&Arc::new(store), &clock);
        let failed = one.merge("a", "b").await;
        assert!(
            matches!(&failed, Err(MergeError::Store(StoreError::Unavailable(_)))),
            "call {fails_at}: {failed:?}"
        );
        let seen: BTreeSet<String> = one
            .visits()
            .into_values()
            .flat_map(BTreeMap::into_keys)
            .collect();
        assert_eq!(seen, ["x", "y"].map(String::from).into(), "nothing is lost");
        // The store works again, also for another process that knows nothing of the first attempt.
        let pairs = Mutex::new(one.store.pairs.lock().clone());
        let erased = Mutex::new(one.store.erased.lock().clone());
        let store = Model {
            pairs,
            erased,
            ..Model::default()
        };
        let other = Instance::on(&Arc::new(store), &clock);
        other.poll().await;
        other.merge("a", "b").await.unwrap();
        assert_eq!(other.visits(), visits(&[("b", &[("x", 5), ("y", 5)])]));
        assert!(other.store.calls.load(Relaxed) > 0);
    }
}

#[tokio::test(start_paused = true)]
async fn pairs_that_were_on_their_way_are_moved_later() {
    let store = Arc::<Model>::default();
    let clock = Arc::new(ManualClock::new(Timestamp::from_second(NOW).unwrap()));
    let [one, two] = [(); 2].map(|()| Instance::on(&store, &clock));
    let merger = Arc::clone(&one.merger);
    let task = tokio::spawn(async move { merger.keep_completing().await });
    one.pair("a", "x", 5).await;
    assert_eq!(one.merge("a", "b").await.unwrap(), 1);
    // The other instance does not know it yet.
    two.pair("a", "x", 9).await;
    two.pair("a", "y", 9).await;
    assert_eq!(one.visits().len(), 2, "counts twice for a while");
    sleep(AGAIN_AFTER + Duration::from_secs(1)).await;
    assert_eq!(one.visits(), visits(&[("b", &[("x", 9), ("y", 9)])]));
    let notes = store.erased.lock().clone();
    assert_eq!(
        notes.iter().map(Erasure::scope).collect::<Vec<_>>(),
        [ErasureScope::Merge, ErasureScope::Merged]
    );
    two.poll().await;
    two.pair("a", "z", 9).await;
    assert_eq!(one.visits().len(), 1);
    let calls = store.calls.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(two.merge("a", "b").await.unwrap(), 0);
    let again = store.calls.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(again, calls, "the note says that it is complete");
    task.abort();
}

#[tokio::test]
async fn opposite_merges_at_the_same_time_lose_nothing() {
    let store = Arc::<Model>::default();
    let clock = Arc::new(ManualClock::new(Timestamp::from_second(NOW).unwrap()));
    let [one, two] = [(); 2].map(|()| Instance::on(&store, &clock));
    one.pair("a", "x", 5).await;
    one.pair("b", "x", 5).await;
    let [a, b] = [user("a"), user("b")];
    // Both read and record before either erases.
    let notes = [(&one, &a, &b), (&two, &b, &a)].map(async |(it, from, into)| {
        let merge = it.merger.note(from, into).await.unwrap();
        let seen = store.memberships(from, clock.now()).await.unwrap();
        (it, from, into, merge, seen)
    });
    let notes = futures::future::join_all(notes).await;
    for (it, _, into, _, seen) in &notes {
        it.merger.record(into, seen).await.unwrap();
    }
    for (_, from, _, _, seen) in &notes {
        store.forget_seen(from, seen, clock.now()).await.unwrap();
    }
    assert!(one.visits().is_empty(), "the worst case: both are gone");
    for (it, from, into, merge, moved) in notes {
        it.poll().await;
        it.merger.wait_for(Waiting {
            from: from.clone(),
            merge,
            moved_to: into.clone(),
            moved,
            moved_at: clock.now(),
            due: Instant::now(),
        });
    }
    one.poll().await;
    one.complete_all().await;
    two.complete_all().await;
    let found = one.visits();
    assert_eq!(found.len(), 1, "one user: {found:?}");
    let found: Vec<_> = found.into_values().collect();
    assert_eq!(found, [[("x".to_owned(), 5)].into()]);
}

/// Found by `late_notes_lose_no_visit`: the pairs of a user were moved to the same user, and so erased.
#[tokio::test]
async fn merges_in_a_circle_on_two_instances_lose_nothing() {
    let store = Arc::<Model>::default();
    let clock = Arc::new(ManualClock::new(Timestamp::from_second(NOW).unwrap()));
    let [one, two] = [(); 2].map(|()| Instance::on(&store, &clock));
    let merges = [
        (&two, "b", "d"),
        (&one, "d", "a"),
        (&one, "a", "b"),
        (&two, "d", "b"),
        (&one, "b", "d"),
    ];
    one.pair("a", "x", 1).await;
    for (number, (it, from, into)) in merges.into_iter().enumerate() {
        clock.advance(Duration::from_secs(1));
        if number == 3 {
            one.poll().await;
        }
        it.merge(from, into).await.unwrap();
    }
    for it in [&one, &two, &one, &two] {
        it.poll().await;
        it.complete_all().await;
    }
    let found: Vec<_> = one.visits().into_values().collect();
    assert_eq!(found, [[("x".to_owned(), 1)].into()]);
}

/// The repeated merge was taken for one that was done.
#[tokio::test]
async fn a_merge_that_an_opposite_one_undid_is_done_again() {
    let [one, two] = instances();
    one.pair("a", "x", 5).await;
    assert_eq!(one.merge("a", "b").await.unwrap(), 1);
    one.clock.advance(Duration::from_secs(1));
    // The other instance has not read the note.
    assert_eq!(two.merge("b", "a").await.unwrap(), 1);
    one.poll().await;
    one.clock.advance(Duration::from_secs(1));
    assert_eq!(one.merge("a", "b").await.unwrap(), 1);
    assert_eq!(one.visits(), visits(&[("b", &[("x", 5)])]));
    two.poll().await;
    for it in [&one, &two] {
        it.complete_all().await;
        assert_eq!(it.merges().current(&user("a")), Some(user("b")));
        assert_eq!(it.visits(), visits(&[("b", &[("x", 5)])]));
    }
}

#[tokio::test]
async fn a_user_who_was_erased_does_not_come_back() {
    let one = Instance::alone();
    one.pair("a", "x", 5).await;
    one.merge("a", "b").await.unwrap();
    one.clock.advance(Duration::from_secs(1));
    let erasure = Erasure::of(&user("b"), one.clock.now());
    let erasures = &one.merger.parts.erasures;
    erasures.note_erasure(erasure).await.unwrap();
    one.store.forget(&user("b"), one.clock.now()).await.unwrap();
    one.merge("b", "c").await.unwrap();
    one.complete_all().await;
    assert!(one.visits().is_empty());
}

/// Who is who, and who was seen where.
#[derive(Debug, Default)]
struct Naive {
    became: BTreeMap<String, String>,
    visits: Visits,
}

impl Naive {
    fn current(&self, name: &str) -> String {
        let mut name = name.to_owned();
        while let Some(next) = self.became.get(&name) {
            name.clone_from(next);
        }
        name
    }

    fn pair(&mut self, name: &str, segment: &str, slot: u64) {
        let of_user = self.visits.entry(self.current(name)).or_default();
        let seen = of_user.entry(segment.to_owned()).or_insert(slot);
        *seen = slot.max(*seen);
    }

    fn merge(&mut self, from: &str, into: &str) {
        if from == into {
            return;
        }
        self.became.remove(from);
        if self.current(into) == from {
            self.became.remove(into);
        }
        self.became.insert(from.to_owned(), into.to_owned());
        for (segment, slot) in self.visits.remove(from).unwrap_or_default() {
            self.pair(into, &segment, slot);
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Pair(usize, usize, u64),
    Merge(usize, usize),
    Erase(usize),
    Complete,
}

const USERS: [&str; 5] = ["a", "b", "c", "d", "e"];
const SEGMENTS: [&str; 3] = ["x", "y", "z"];

fn steps() -> impl Strategy<Value = Vec<(usize, Step)>> {
    let step = prop_oneof![
        4 => (0..5_usize, 0..3_usize, 1..9_u64).prop_map(|(u, s, slot)| Step::Pair(u, s, slot)),
        3 => (0..5_usize, 0..5_usize).prop_map(|(from, into)| Step::Merge(from, into)),
        1 => (0..5_usize).prop_map(Step::Erase),
        1 => Just(Step::Complete),
    ];
    prop::collection::vec((0..2_usize, step), 1..40)
}

fn instances() -> [Instance; 2] {
    let store = Arc::<Model>::default();
    let clock = Arc::new(ManualClock::new(Timestamp::from_second(NOW).unwrap()));
    [(); 2].map(|()| Instance::on(&store, &clock))
}

fn block_on<F: Future>(future: F) -> F::Output {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build();
    runtime.unwrap().block_on(future)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// Two instances that read each other's notes at once are one naive model.
    #[test]
    fn counts_are_those_of_a_naive_model(steps in steps()) {
        block_on(async {
            let (both, mut naive) = (instances(), Naive::default());
            for (number, step) in steps {
                let it = &both[number];
                it.clock.advance(Duration::from_secs(1));
                match step {
                    Step::Pair(who, segment, slot) => {
                        naive.pair(USERS[who], SEGMENTS[segment], slot);
                        it.pair(USERS[who], SEGMENTS[segment], slot).await;
                    }
                    Step::Merge(from, into) => {
                        naive.merge(USERS[from], USERS[into]);
                        let _ = it.merge(USERS[from], USERS[into]).await;
                    }
                    Step::Erase(who) => {
                        naive.visits.remove(USERS[who]);
                        let erasure = Erasure::of(&user(USERS[who]), it.clock.now());
                        let erasures = &it.merger.parts.erasures;
                        erasures.note_erasure(erasure).await.unwrap();
                        it.store.forget(&user(USERS[who]), it.clock.now()).await.unwrap();
                    }
                    Step::Complete => it.complete_all().await,
                }
                for it in &both {
                    it.poll().await;
                }
                assert_eq!(it.visits(), naive.visits);
            }
        });
    }

    /// Two instances that learn each other's notes late: no visit is lost, and in the end all of a person's ids count once.
    #[test]
    fn late_notes_lose_no_visit(steps in steps()) {
        block_on(async {
            let both = instances();
            let mut seen: Vec<(usize, &str, u64)> = Vec::new();
            // Who is the same person.
            let mut person: [usize; 5] = std::array::from_fn(|user| user);
            for (number, step) in steps {
                let it = &both[number];
                it.clock.advance(Duration::from_secs(1));
                match step {
                    Step::Pair(who, segment, slot) => {
                        seen.push((who, SEGMENTS[segment], slot));
                        it.pair(USERS[who], SEGMENTS[segment], slot).await;
                    }
                    Step::Merge(from, into) if from != into => {
                        let (old, new) = (person[from], person[into]);
                        person = person.map(|it| if it == old { new } else { it });
                        it.merge(USERS[from], USERS[into]).await.unwrap();
                    }
                    Step::Complete => it.poll().await,
                    Step::Merge(..) | Step::Erase(_) => {}
                }
            }
            for _ in 0..2 {
                for it in &both {
                    it.poll().await;
                    it.complete_all().await;
                }
            }
            let found = both[0].visits();
            for (who, segment, slot) in seen {
                let same = (0..5).filter(|other| person[*other] == person[who]);
                let latest = same.filter_map(|other| found.get(USERS[other])?.get(segment)).max();
                assert!(latest >= Some(&slot), "{who} in {segment} at {slot}: {found:?}");
            }
        });
    }
}
