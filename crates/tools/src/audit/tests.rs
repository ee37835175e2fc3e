//! Audits of a model store and the in-process cache. Those of real ones are in `tests/it/audit.rs`.

use super::*;
use domain::ManualClock;
use domain::store::conformance::{batch, frame};
use domain::store::model::Model;
use stores::memory::MemoryCache;

struct Bench {
    clock: Arc<ManualClock>,
    store: Arc<Model>,
    other: Arc<Model>,
    cache: Arc<MemoryCache>,
    keeping: Keeping,
}

impl Bench {
    /// Three users of `s` whose slots are the oldest one, the next one and the present one of the window.
    fn new() -> Self {
        // A quarter past the hour.
        let start = Timestamp::from_second(1_800_000_900).unwrap();
        let bench = Self {
            clock: Arc::new(ManualClock::new(start)),
            store: Arc::default(),
            other: Arc::default(),
            cache: Arc::default(),
            keeping: Keeping {
                at_least: Duration::from_mins(15),
                dropped_in_groups_of: None,
            },
        };
        let pairs = [
            ("oldest", "s", bench.back(59)),
            ("old", "s", bench.back(58)),
            ("new", "s", bench.back(0)),
        ];
        bench.store.put(&batch(pairs));
        bench
    }

    fn back(&self, slots: u64) -> Slot {
        let present = frame(60).resolution().slot_of(self.clock.now());
        Slot::new(present.number() - slots)
    }

    /// Does the same as the refresher, but with any number of users.
    async fn refresh(&self, users: u64) {
        let count = Count {
            users,
            as_of: self.clock.now(),
        };
        let window = frame(60).full_window();
        let segment = segment();
        let put = self.cache.put(&segment, window, count);
        put.await.unwrap();
    }

    fn pass(&self, minutes: u64) {
        self.clock.advance(Duration::from_mins(minutes));
    }

    fn auditor(&self, against: bool) -> Auditor {
        Auditor::new(AuditorParts {
            frame: frame(60),
            window: frame(60).full_window(),
            clock: self.clock.clone(),
            store: self.store.clone(),
            keeping: self.keeping,
            cache: Some(self.cache.clone()),
            against: against.then(|| self.other.clone() as Arc<dyn PairStore>),
            retry: RetryPolicy::silent(Duration::ZERO),
        })
    }

    async fn verdict(&self) -> Verdict {
        let finding = self.auditor(false).audit(&segment()).await.unwrap();
        finding.verdict
    }
}

fn segment() -> Segment {
    Segment::new("s").unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_count_is_judged_by_who_left_and_who_was_seen() {
    let bench = Bench::new();
    assert_eq!(bench.verdict().await, Verdict::NotCached);
    bench.refresh(3).await;
    assert_eq!(bench.verdict().await, Verdict::Equal);
    bench.pass(1);
    assert_eq!(bench.verdict().await, Verdict::Left(1));
    bench.pass(1);
    assert_eq!(bench.verdict().await, Verdict::Left(2));
    bench.store.put(&batch([
        ("a", "s", bench.back(3)),
        ("b", "s", bench.back(0)),
        ("c", "s", bench.back(0)),
    ]));
    // The two, and one in the slot of the cached count.
    assert_eq!(bench.verdict().await, Verdict::Seen(3));
    bench.pass(1);
    let late = ["d", "e", "f", "g"].map(|user| (user, "s", bench.back(9)));
    bench.store.put(&batch(late));
    assert_eq!(
        bench.verdict().await,
        Verdict::TooLow(2),
        "users of earlier slots were not seen since"
    );
    bench.refresh(8).await;
    assert_eq!(bench.verdict().await, Verdict::Equal);
}

#[tokio::test(start_paused = true)]
async fn a_number_that_was_never_counted_is_found() {
    let bench = Bench::new();
    bench.refresh(4).await;
    assert_eq!(bench.verdict().await, Verdict::TooHigh(1));
    bench.pass(1);
    assert_eq!(bench.verdict().await, Verdict::TooHigh(1));
    bench.refresh(1).await;
    assert_eq!(bench.verdict().await, Verdict::TooLow(1));
}

#[tokio::test(start_paused = true)]
async fn what_may_have_been_removed_is_not_held_against_a_count() {
    let mut bench = Bench::new();
    bench.refresh(30).await;
    bench.pass(16);
    assert_eq!(
        bench.verdict().await,
        Verdict::LeftUnknown,
        "archived, perhaps"
    );
    let mut bench = {
        bench.keeping.at_least = Duration::from_hours(1);
        bench
    };
    assert!(matches!(bench.verdict().await, Verdict::TooHigh(_)));
    bench.keeping.dropped_in_groups_of = Some(Duration::from_mins(10));
    assert_eq!(
        bench.verdict().await,
        Verdict::LeftUnknown,
        "a group ended in between"
    );
    bench.pass(60);
    bench.keeping.dropped_in_groups_of = None;
    assert_eq!(
        bench.verdict().await,
        Verdict::LeftUnknown,
        "all slots are new"
    );
}

#[tokio::test(start_paused = true)]
async fn two_stores_agree_or_not() {
    let bench = Bench::new();
    bench.refresh(3).await;
    let look = async || bench.auditor(true).audit(&segment()).await.unwrap();
    let finding = look().await;
    assert!(!finding.is_explained());
    assert_eq!(finding.against.unwrap().users, 0);
    let own = [("of the other", "t", bench.back(0))];
    bench.other.put(&batch(own));
    for name in ["x", "y", "z"] {
        bench.other.put(&batch([(name, "s", bench.back(5))]));
    }
    assert!(
        look().await.is_explained(),
        "numbers are compared, not names"
    );
    let names = bench.auditor(true).segments().await.unwrap();
    assert_eq!(names, [segment(), Segment::new("t").unwrap()]);
}
