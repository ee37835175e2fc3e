//! The pairs, erasures and trend points that are recorded in each store.

use std::time::Duration;

use domain::store::PairStore;
use domain::{
    Batch, BatchBuilder, Count, Erasure, Segment, Slot, Timestamp, TrendPoint, UserId, Window,
};

use crate::support::two_weeks;

/// The segments: a plain name, and a name that every syntax has to escape.
pub const SEGMENTS: [&str; 2] = ["sports", "a b,c=d\"e\\f{🏀}%7B*"];
/// The users of both segments. The first user is erased after all pairs are recorded.
pub const USERS: [&str; 6] = [
    "gone",
    "in  ner",
    "a,b=c d",
    "{tag}:*?",
    "Юля🙂",
    "qu\"o\\te",
];
/// The age of each user's pair in hours. The last two are outside a window of a day.
const AGES: [u64; 6] = [1, 0, 2, 23, 30, 13 * 24];

/// The instant of the recording.
pub fn now() -> Timestamp {
    "2026-11-29T12:00:30Z".parse().unwrap()
}

fn slot(hours: u64) -> Slot {
    let at = now() - Duration::from_hours(hours);
    two_weeks().resolution().slot_of(at)
}

pub fn user(name: &str) -> UserId<'_> {
    UserId::new(name).unwrap()
}

pub fn segment(name: &str) -> Segment {
    Segment::new(name).unwrap()
}

pub fn day() -> Window {
    two_weeks().window(Duration::from_hours(24)).unwrap()
}

/// The users of a segment. The second segment has every other user.
fn users_of(segment: usize) -> impl Iterator<Item = usize> {
    (0..USERS.len()).filter(move |user| segment == 0 || user.is_multiple_of(2))
}

/// The pairs of one segment.
pub fn batch(segment: usize) -> Batch {
    let mut batch = BatchBuilder::default();
    for index in users_of(segment) {
        batch
            .push_pair(&user(USERS[index]), SEGMENTS[segment], slot(AGES[index]))
            .unwrap();
    }
    batch.finish()
}

fn points() -> Vec<TrendPoint> {
    let point = |minutes: u64, users| TrendPoint {
        segment: segment(SEGMENTS[1]),
        window: day(),
        count: Count {
            users,
            as_of: now() - Duration::from_mins(minutes),
        },
    };
    vec![point(10, 7), point(5, 9)]
}

/// Records all data. `between` is called in the middle.
pub async fn record(store: &dyn PairStore, between: impl AsyncFnOnce()) {
    store.record(&batch(0)).await.unwrap();
    store.record_trend(&points()[..1]).await.unwrap();
    between().await;
    store.record(&batch(1)).await.unwrap();
    store.record_trend(&points()[1..]).await.unwrap();
    let erased = user(USERS[0]);
    store
        .note_erasure(&Erasure::of(&erased, now()))
        .await
        .unwrap();
    assert_eq!(store.forget(&erased, now()).await.unwrap(), 2);
}

/// Reads all data and checks it.
pub async fn check(store: &dyn PairStore) {
    let full = two_weeks().full_window();
    let mut names = SEGMENTS.map(str::to_owned);
    names.sort();
    let segments = store.segments(now()).await.unwrap();
    let listed: Vec<_> = segments.iter().map(ToString::to_string).collect();
    assert_eq!(listed, names);
    for (window, expected) in [(full, [5, 2]), (day(), [3, 1])] {
        for (name, users) in SEGMENTS.into_iter().zip(expected) {
            let count = store.count(&segment(name), window, now()).await.unwrap();
            assert_eq!(count.users, users, "{name} over {} slots", window.slots());
        }
    }
    let found = store.memberships(&user(USERS[2]), now()).await.unwrap();
    let found: Vec<_> = found
        .iter()
        .map(|it| (it.segment.to_string(), it.last_seen))
        .collect();
    assert_eq!(found, names.map(|name| (name, slot(AGES[2]))));
    let erased = store.memberships(&user(USERS[0]), now()).await.unwrap();
    assert!(erased.is_empty(), "the erased user is found: {erased:?}");
    let trend = store
        .trend(&segment(SEGMENTS[1]), day(), Timestamp::UNIX_EPOCH, now())
        .await
        .unwrap();
    let trend: Vec<_> = trend.iter().map(|it| (it.users, it.as_of)).collect();
    let expected: Vec<_> = points()
        .iter()
        .map(|it| (it.count.users, it.count.as_of))
        .collect();
    assert_eq!(trend, expected);
    if !store.is_live() {
        let noted = store
            .erasures(now() - Duration::from_mins(1))
            .await
            .unwrap();
        assert!(
            noted.iter().any(|it| it.is_of(&user(USERS[0]))),
            "{noted:?}"
        );
    }
}
