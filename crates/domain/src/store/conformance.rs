//! The conformance suite of [`PairStore`], for every adapter and decorator.
//!
//! A check gets a factory of empty stores and panics with a description of the first violation. Time comes from the
//! check, so that a store needs only a [`TimeFrame`] and instants.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "a conformance check fails by panicking, like a test"
)]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use super::{PROPERTY_NAME_BYTES, PROPERTY_VALUE_BYTES, PairStore, StoreError};
use crate::{
    Batch, BatchBuilder, Count, Erasure, Expression, Floor, Membership, Segment, Slot, TimeFrame,
    Timestamp, TrendPoint, UserId, Window,
};

/// Creates empty stores for the checks.
#[async_trait::async_trait]
pub trait Factory: Send + Sync {
    /// An empty store with this frame. Stores created earlier may still be open.
    async fn empty(&self, frame: TimeFrame) -> Arc<dyn PairStore>;

    /// The instant at which the checks start. Stores whose server has its own clock need the current time.
    fn start(&self) -> Timestamp {
        Timestamp::now()
    }

    /// Whether the store accepts an `as_of` ahead of the server's clock.
    fn time_travels(&self) -> bool {
        true
    }
}

/// Names that are known to break escaping.
pub const HOSTILE_NAMES: &[&str] = &[
    "plain",
    "two words",
    "comma,equals=",
    "quote\"s 'n' ticks`",
    "back\\slash\\\\es",
    "${jndi} $1 %s {}",
    "../../etc/passwd",
    "%2F%00",
    "Спорт",
    "عربى",
    "🏀🏳️‍🌈",
    "<script>alert(1)</script>",
    "{tag}:colon|pipe*star?",
    "#comment",
    "-dash",
    "0",
    "nul'); DROP TABLE pairs;--",
];

/// Runs every check.
pub async fn check_store(factory: &dyn Factory) {
    check_empty(factory).await;
    check_distinct(factory).await;
    check_windows(factory).await;
    check_hostile_names(factory).await;
    check_count_many(factory).await;
    check_sets(factory).await;
    check_memberships_and_forget(factory).await;
    check_forget_in_and_drop(factory).await;
    check_forget_seen(factory).await;
    check_erasure_notes(factory).await;
    check_fingerprint_key(factory).await;
    check_properties(factory).await;
    check_archive_changes_no_count(factory).await;
    check_trend(factory).await;
    check_export(factory).await;
    check_concurrent_writers(factory).await;
    if factory.time_travels() {
        check_against_model(factory).await;
    }
    check_close(factory).await;
}

/// A frame of one-minute slots.
pub fn frame(slots: u64) -> TimeFrame {
    TimeFrame::new(
        Duration::from_secs(60 * slots),
        Duration::from_secs(60),
        Duration::from_secs(300),
    )
    .unwrap()
}

fn segment(name: &str) -> Segment {
    Segment::new(name).unwrap()
}

fn user(name: &str) -> UserId<'_> {
    UserId::new(name).unwrap()
}

/// A batch of pairs, each as user, segment and slot.
pub fn batch<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str, Slot)>) -> Batch {
    let mut builder = BatchBuilder::default();
    for (name, segment, slot) in pairs {
        builder.push_pair(&user(name), segment, slot).unwrap();
    }
    builder.finish()
}

fn back(slot: Slot, slots: u64) -> Slot {
    Slot::new(slot.number() - slots)
}

fn minutes(window: u64, frame: &TimeFrame) -> Window {
    frame.window(Duration::from_secs(60 * window)).unwrap()
}

async fn users(store: &dyn PairStore, name: &str, window: Window, as_of: Timestamp) -> u64 {
    let count = store.count(&segment(name), window, as_of).await.unwrap();
    assert!(
        count.as_of >= as_of,
        "a count must not be as of an instant before the requested one"
    );
    if store.is_live() {
        let now = store.count_now(&segment(name), window, as_of).unwrap();
        assert_eq!(now.users, count.users, "count_now must equal count");
    }
    count.users
}

/// An empty store returns 0 and lists nothing.
pub async fn check_empty(factory: &dyn Factory) {
    let frame = frame(60);
    let store = factory.empty(frame).await;
    let now = factory.start();
    store.ping().await.unwrap();
    assert_eq!(
        users(&*store, "unknown", frame.full_window(), now).await,
        0,
        "unknown segment"
    );
    assert_eq!(store.segments(now).await.unwrap(), [], "no segments");
    assert_eq!(store.memberships(&user("nobody"), now).await.unwrap(), []);
    assert_eq!(store.forget(&user("nobody"), now).await.unwrap(), 0);
    store.record(&Batch::default()).await.unwrap();
    store.record_trend(&[]).await.unwrap();
    store.close().await.unwrap();
}

/// Duplicates, order and retries change nothing; users are distinct per segment.
pub async fn check_distinct(factory: &dyn Factory) {
    let frame = frame(60);
    let store = factory.empty(frame).await;
    let now = factory.start();
    let present = frame.resolution().slot_of(now);
    let first = batch([
        ("u1", "a", present),
        ("u1", "a", present),
        ("u2", "a", back(present, 3)),
        ("u2", "b", back(present, 1)),
        ("u1", "a", back(present, 5)),
    ]);
    store.record(&first).await.unwrap();
    store.record(&first).await.unwrap();
    store
        .record(&batch([
            ("u2", "a", back(present, 9)),
            ("u3", "a", back(present, 1)),
        ]))
        .await
        .unwrap();
    let full = frame.full_window();
    assert_eq!(
        users(&*store, "a", full, now).await,
        3,
        "distinct users of a"
    );
    assert_eq!(
        users(&*store, "b", full, now).await,
        1,
        "distinct users of b"
    );
    assert_eq!(
        users(&*store, "a", minutes(1, &frame), now).await,
        1,
        "only u1 in this slot"
    );
    assert_eq!(
        users(&*store, "a", minutes(2, &frame), now).await,
        2,
        "u1 and u3"
    );
    assert_eq!(
        users(&*store, "a", minutes(4, &frame), now).await,
        3,
        "the latest slot of u2 counts"
    );
    assert_eq!(
        store.segments(now).await.unwrap(),
        [segment("a"), segment("b")]
    );
    store.close().await.unwrap();
}

/// Recorded erasures are returned, each with its instant, until no window reaches them. A live store keeps only merges.
pub async fn check_erasure_notes(factory: &dyn Factory) {
    let store = factory.empty(frame(60)).await;
    let now = factory.start();
    // Erasures have a precision of microseconds.
    let begin = Timestamp::from_second(now.as_second() - 60).unwrap();
    let at = |second: u64| begin + Duration::from_secs(second);
    // Two in the same instant, and two of the same user.
    let mut noted: Vec<Erasure> = [("u1", 0), ("u2", 10), ("u3", 10), ("u1", 20)]
        .map(|(name, second)| Erasure::of(&user(name), at(second)))
        .to_vec();
    noted.push(Erasure::of_segment(&segment("s"), at(15)));
    noted.push(Erasure::of_pair(&segment("s"), &user("u1"), at(15)));
    let merge = Erasure::of_merge(&user("u4"), &user(HOSTILE_NAMES[0]), 1, at(16));
    let merges = [
        merge.completed(),
        merge,
        Erasure::of_merge(&user("u5"), &user(&"x".repeat(256)), 1, at(5)),
    ];
    noted.extend(merges.iter().cloned());
    for erasure in &noted {
        store.note_erasure(erasure).await.unwrap();
    }
    // A repeated call is harmless.
    store.note_erasure(&noted[0]).await.unwrap();
    store.archive(now, 100).await.unwrap();
    {
        if store.is_live() {
            noted = merges.to_vec();
        }
        noted.sort();
        for since in [0, 10, 11, 21] {
            let mut found = store.erasures(at(since)).await.unwrap();
            found.sort();
            found.dedup();
            let expected = noted.iter().filter(|it| it.at() >= at(since));
            let since = at(since);
            assert!(found.iter().eq(expected), "since {since}: {found:?}");
        }
    }
    store.close().await.unwrap();
}

/// Concurrent and later calls return one key. A store without a key always reports that.
pub async fn check_fingerprint_key(factory: &dyn Factory) {
    let store = factory.empty(frame(60)).await;
    let at_once = futures::future::join(store.fingerprint_key(), store.fingerprint_key());
    let (first, second) = at_once.await;
    let third = store.fingerprint_key().await;
    match first {
        Ok(key) => {
            assert_eq!(second.unwrap(), key, "concurrent calls return one key");
            assert_eq!(third.unwrap(), key, "a later call returns the same key");
        }
        Err(StoreError::Unsupported(_)) => {
            for again in [second, third] {
                assert!(
                    matches!(again, Err(StoreError::Unsupported(_))),
                    "a store without a key never has one, not {again:?}"
                );
            }
        }
        Err(error) => panic!("a store that works has a key or none: {error}"),
    }
    store.close().await.unwrap();
}

/// Properties are returned by prefix, replaced, and removed. Archiving keeps them. Invalid ones are refused.
pub async fn check_properties(factory: &dyn Factory) {
    let store = factory.empty(frame(60)).await;
    let found = match store.properties("").await {
        Err(StoreError::Unsupported(_)) => {
            let refused = store.set_property("a", Some("1")).await;
            assert!(
                matches!(refused, Err(StoreError::Unsupported(_))),
                "a store without properties never has one, not {refused:?}"
            );
            return store.close().await.unwrap();
        }
        found => found.unwrap(),
    };
    assert_eq!(found, BTreeMap::new(), "an empty store has no properties");
    let mut expected = BTreeMap::new();
    for name in HOSTILE_NAMES {
        for prefix in ["p/", "p%", "q_"] {
            let value = format!("{{\"of\":{name:?}}}");
            let name = format!("{prefix}{name}");
            store.set_property(&name, Some(&value)).await.unwrap();
            expected.insert(name, value);
        }
    }
    let long = "n".repeat(PROPERTY_NAME_BYTES);
    let longest = "é".repeat(PROPERTY_VALUE_BYTES / 2);
    for value in ["", " ", &longest] {
        store.set_property(&long, Some(value)).await.unwrap();
    }
    expected.insert(long.clone(), longest.clone());
    check_properties_of(&*store, &expected).await;

    for name in ["p/plain", "p/plain", "p/never set"] {
        store.set_property(name, None).await.unwrap();
        expected.remove(name);
    }
    store.archive(factory.start(), 100).await.unwrap();
    check_properties_of(&*store, &expected).await;
    store.set_property("p/plain", Some("again")).await.unwrap();
    expected.insert("p/plain".to_owned(), "again".to_owned());

    let too_long = "n".repeat(PROPERTY_NAME_BYTES + 1);
    let too_large = "v".repeat(PROPERTY_VALUE_BYTES + 1);
    for (name, value) in [
        ("", "v"),
        (too_long.as_str(), "v"),
        ("n", too_large.as_str()),
        ("line\n", "v"),
        ("n", "nul\0"),
    ] {
        let refused = store.set_property(name, Some(value)).await;
        assert!(
            matches!(refused, Err(StoreError::Rejected(_))),
            "{name:?} = {value:?} gives {refused:?}"
        );
    }
    let writes = ["1", "2", "3"].map(|value| store.set_property("at once", Some(value)));
    for written in futures::future::join_all(writes).await {
        written.unwrap();
    }
    let won = store.properties("at once").await.unwrap();
    assert_eq!(won.len(), 1, "one value remains: {won:?}");
    store.set_property("at once", None).await.unwrap();
    check_properties_of(&*store, &expected).await;
    store.close().await.unwrap();
    let closed = store.set_property("n", Some("v")).await;
    assert!(matches!(closed, Err(StoreError::Closed)), "{closed:?}");
}

async fn check_properties_of(store: &dyn PairStore, expected: &BTreeMap<String, String>) {
    for prefix in ["", "p", "p/", "p%", "q_", "q_Спорт", "n", "\\", "P"] {
        let mut within = expected.clone();
        within.retain(|name, _| name.starts_with(prefix));
        let found = store.properties(prefix).await.unwrap();
        assert_eq!(found, within, "the properties under {prefix:?}");
    }
}

/// A pair counts if and only if `slot(T) - N < s <= slot(T)`.
pub async fn check_windows(factory: &dyn Factory) {
    let frame = frame(60);
    let store = factory.empty(frame).await;
    let now = factory.start();
    let present = frame.resolution().slot_of(now);
    let names: Vec<String> = (0..60).map(|age| format!("u{age}")).collect();
    let pairs = names
        .iter()
        .zip(0..)
        .map(|(name, age)| (name.as_str(), "s", back(present, age)));
    store.record(&batch(pairs)).await.unwrap();
    for window in [1, 2, 7, 59, 60] {
        let counted = users(&*store, "s", minutes(window, &frame), now).await;
        assert_eq!(counted, window, "one user a slot over {window} slots");
    }
    if factory.time_travels() {
        for ahead in [1, 2, 30, 59, 60, 61] {
            let later = frame
                .resolution()
                .start_of(Slot::new(present.number() + ahead));
            let counted = users(&*store, "s", frame.full_window(), later).await;
            assert_eq!(counted, 60_u64.saturating_sub(ahead), "{ahead} slots later");
        }
        let gone = frame.leaves_at(present);
        assert_eq!(
            store.segments(gone).await.unwrap(),
            [],
            "an expired segment is not listed"
        );
    }
    store.close().await.unwrap();
}

/// Valid names never collide.
pub async fn check_hostile_names(factory: &dyn Factory) {
    let frame = frame(60);
    let store = factory.empty(frame).await;
    let now = factory.start();
    let present = frame.resolution().slot_of(now);
    let long_segment = "é".repeat(64);
    let long_user = "x".repeat(256);
    let mut segments: Vec<&str> = HOSTILE_NAMES.to_vec();
    segments.push(&long_segment);
    let mut names: Vec<&str> = HOSTILE_NAMES.to_vec();
    names.extend([&long_user, " outer ", "trailing\\", "\u{feff}bom"]);
    // The n-th segment has the first n + 1 users.
    let pairs = segments.iter().enumerate().flat_map(|(index, segment)| {
        names[..=index]
            .iter()
            .map(move |name| (*name, *segment, present))
    });
    store.record(&batch(pairs)).await.unwrap();
    for (index, name) in segments.iter().enumerate() {
        let counted = users(&*store, name, frame.full_window(), now).await;
        assert_eq!(counted, index as u64 + 1, "users of {name:?}");
    }
    let listed: BTreeSet<String> = store
        .segments(now)
        .await
        .unwrap()
        .iter()
        .map(|s| s.as_str().to_owned())
        .collect();
    assert_eq!(
        listed,
        segments.iter().map(|s| (*s).to_owned()).collect(),
        "listed segments"
    );
    for name in names.iter().take(segments.len()) {
        assert!(
            !store
                .memberships(&user(name), now)
                .await
                .unwrap()
                .is_empty(),
            "{name:?} is somewhere"
        );
    }
    store.close().await.unwrap();
}

/// [`PairStore::count_many`] returns the same counts as a call for each segment, in the requested order.
pub async fn check_count_many(factory: &dyn Factory) {
    let frame = frame(60);
    let store = factory.empty(frame).await;
    let now = factory.start();
    let present = frame.resolution().slot_of(now);
    assert!(store.counts_at_once() >= 1, "at least one at a time");
    // More segments than any store counts at once. The n-th segment has users in n % 7 slots, so that some have none.
    let more: Vec<String> = (0..30).map(|n| format!("segment {n}")).collect();
    let mut names: Vec<&str> = HOSTILE_NAMES.to_vec();
    names.extend(more.iter().map(String::as_str));
    let pairs = names.iter().enumerate().flat_map(|(index, name)| {
        let slots = 0..index as u64 % 7;
        slots.map(move |age| (HOSTILE_NAMES[age as usize], *name, back(present, age * 3)))
    });
    store.record(&batch(pairs)).await.unwrap();
    // One segment is requested twice, and one does not exist.
    let mut asked: Vec<Segment> = names.iter().rev().map(|name| segment(name)).collect();
    asked.extend([segment("unknown"), segment(names[6])]);
    check_counts_of(&*store, &asked, &frame, now).await;
    store.forget(&user(HOSTILE_NAMES[1]), now).await.unwrap();
    check_counts_of(&*store, &asked, &frame, now).await;
    let none = store.count_many(&[], frame.full_window(), now).await;
    assert_eq!(none.unwrap(), [], "no segments have no counts");
    store.close().await.unwrap();
}

async fn check_counts_of(
    store: &dyn PairStore,
    asked: &[Segment],
    frame: &TimeFrame,
    now: Timestamp,
) {
    for window in [minutes(1, frame), minutes(7, frame), frame.full_window()] {
        let counted = store.count_many(asked, window, now).await.unwrap();
        assert_eq!(counted.len(), asked.len(), "one count a segment");
        for (segment, count) in asked.iter().zip(counted) {
            assert!(count.as_of >= now, "{segment} as of an earlier instant");
            let alone = users(store, segment.as_str(), window, now).await;
            assert_eq!(count.users, alone, "users of {segment} over {window:?}");
        }
    }
}

/// A store that counts sets of users counts every user once, within the window; any other store returns `Unsupported`.
pub async fn check_sets(factory: &dyn Factory) {
    let frame = frame(60);
    let store = factory.empty(frame).await;
    let now = factory.start();
    let slot = frame.resolution().slot_of(now);
    let seen = [
        ("u1", "a", slot),
        ("u2", "a", back(slot, 30)),
        ("u2", "two words", slot),
        ("u3", "two words", slot),
        ("u3", "c", back(slot, 30)),
        ("u4", "c", slot),
        ("u4", "a", slot),
    ];
    store.record(&batch(seen)).await.unwrap();
    let counts = async |text: &str, window| {
        let expression = Expression::parse(text).unwrap();
        store
            .count_set(&expression, window, Floor::default(), now)
            .await
    };
    let (full, short) = (frame.full_window(), minutes(10, &frame));
    if let Err(StoreError::Unsupported(_)) = counts("*", full).await {
        return;
    }
    for (text, in_full, in_short) in [
        ("a", 3, 2),
        ("*", 4, 4),
        ("unknown", 0, 0),
        ("a AND \"two words\"", 1, 0),
        ("a OR \"two words\"", 4, 4),
        ("a NOT \"two words\"", 2, 2),
        ("NOT a", 1, 2),
        ("a AND (c OR \"two words\") NOT unknown", 2, 1),
    ] {
        for (window, users) in [(full, in_full), (short, in_short)] {
            let count = counts(text, window).await.unwrap();
            assert_eq!(
                count.users,
                Some(users),
                "{text} over {} s",
                window.seconds()
            );
            assert!(count.as_of >= now);
        }
    }
}

/// A user's segments are found. Erasure removes that user alone from all of them. Later pairs count again.
pub async fn check_memberships_and_forget(factory: &dyn Factory) {
    let frame = frame(60);
    let store = factory.empty(frame).await;
    let now = factory.start();
    let present = frame.resolution().slot_of(now);
    let pairs = [
        ("gone", "b", back(present, 2)),
        ("gone", "a", present),
        ("gone", "b", back(present, 7)),
        ("stays", "a", present),
    ];
    store.record(&batch(pairs)).await.unwrap();
    let found: Vec<_> = store
        .memberships(&user("gone"), now)
        .await
        .unwrap()
        .into_iter()
        .map(|membership| (membership.segment, membership.last_seen))
        .collect();
    assert_eq!(
        found,
        [(segment("a"), present), (segment("b"), back(present, 2))]
    );
    assert_eq!(
        store.forget(&user("gone"), now).await.unwrap(),
        2,
        "erased from a and b"
    );
    assert_eq!(store.memberships(&user("gone"), now).await.unwrap(), []);
    assert_eq!(
        store.forget(&user("gone"), now).await.unwrap(),
        0,
        "erased already"
    );
    assert_eq!(
        users(&*store, "a", frame.full_window(), now).await,
        1,
        "the other user stays"
    );
    assert_eq!(users(&*store, "b", frame.full_window(), now).await, 0);
    assert_eq!(store.segments(now).await.unwrap(), [segment("a")]);
    store
        .record(&batch([
            ("gone", "b", back(present, 2)),
            ("gone", "a", present),
        ]))
        .await
        .unwrap();
    assert_eq!(
        users(&*store, "b", frame.full_window(), now).await,
        1,
        "seen again, counted again"
    );
    assert_eq!(users(&*store, "a", frame.full_window(), now).await, 2);
    store.close().await.unwrap();
}

/// A user is erased from one segment, or a segment from the store, and nothing else changes. Later pairs count again. A store
/// that does not support this always reports that.
pub async fn check_forget_in_and_drop(factory: &dyn Factory) {
    let frame = frame(60);
    let store = factory.empty(frame).await;
    let now = factory.start();
    let present = frame.resolution().slot_of(now);
    let (full, short) = (frame.full_window(), minutes(5, &frame));
    let windows = [full, short];
    match store.drop_segment(&segment("none"), &windows, now).await {
        Err(StoreError::Unsupported(_)) => {
            let refused = store.forget_in(&segment("s"), &user("u"), now).await;
            assert!(
                matches!(refused, Err(StoreError::Unsupported(_))),
                "a store that can't drop a segment can't erase from one, not {refused:?}"
            );
            return store.close().await.unwrap();
        }
        dropped => assert_eq!(dropped.unwrap(), 0, "an unknown segment has no users"),
    }
    let names = ["u1", "u2", "u3", HOSTILE_NAMES[3]];
    let pairs: Vec<_> = HOSTILE_NAMES
        .iter()
        .flat_map(|segment| {
            names
                .iter()
                .zip(0..)
                .map(move |(name, age)| (*name, *segment, back(present, 9 * age)))
        })
        .collect();
    store.record(&batch(pairs.iter().copied())).await.unwrap();
    let second = Timestamp::from_second(now.as_second()).unwrap();
    let points = HOSTILE_NAMES.iter().flat_map(|name| {
        windows.map(|window| TrendPoint {
            segment: segment(name),
            window,
            count: Count {
                users: 4,
                as_of: second,
            },
        })
    });
    store
        .record_trend(&points.collect::<Vec<_>>())
        .await
        .unwrap();

    for (index, name) in HOSTILE_NAMES.iter().enumerate() {
        let forget = async |who: &str| -> bool {
            store
                .forget_in(&segment(name), &user(who), now)
                .await
                .unwrap()
        };
        assert!(forget(names[3]).await, "{name:?} had the user");
        assert!(!forget(names[3]).await, "the user is erased already");
        assert!(!forget("nobody").await);
        assert_eq!(users(&*store, name, full, now).await, 3, "{name:?}");
        let found = store.memberships(&user(names[3]), now).await.unwrap();
        assert_eq!(found.len(), HOSTILE_NAMES.len() - index - 1);
    }
    let again = (names[3], HOSTILE_NAMES[0], back(present, 27));
    store.record(&batch([again])).await.unwrap();
    assert_eq!(users(&*store, HOSTILE_NAMES[0], full, now).await, 4);
    assert!(
        store
            .forget_in(&segment(HOSTILE_NAMES[0]), &user(names[3]), now)
            .await
            .unwrap()
    );

    let trend = async |name: &str, window| -> usize {
        let found = store.trend(&segment(name), window, second, now).await;
        found.unwrap().len()
    };
    for (index, name) in HOSTILE_NAMES.iter().enumerate() {
        let dropped = store.drop_segment(&segment(name), &windows, now).await;
        assert_eq!(dropped.unwrap(), 3, "users of {name:?}");
        let dropped = store.drop_segment(&segment(name), &windows, now).await;
        assert_eq!(dropped.unwrap(), 0, "{name:?} is gone already");
        for window in [full, short] {
            assert_eq!(users(&*store, name, window, now).await, 0, "{name:?}");
            assert_eq!(trend(name, window).await, 0, "the trend of {name:?}");
        }
        for other in &HOSTILE_NAMES[index + 1..] {
            assert_eq!(users(&*store, other, full, now).await, 3, "{other:?}");
        }
        if let Some(other) = HOSTILE_NAMES.get(index + 1) {
            assert_eq!(trend(other, short).await, 1, "the trend of {other:?}");
        }
    }
    assert_eq!(store.segments(now).await.unwrap(), []);
    assert_eq!(store.memberships(&user("u1"), now).await.unwrap(), []);
    // The same pairs again.
    store.record(&batch(pairs.iter().copied())).await.unwrap();
    for name in HOSTILE_NAMES {
        assert_eq!(users(&*store, name, full, now).await, 4, "{name:?} again");
    }
    store.close().await.unwrap();
}

/// A user is erased from the given segments unless seen there later, and from no others. A store that does not support this always
/// reports that.
pub async fn check_forget_seen(factory: &dyn Factory) {
    let frame = frame(60);
    let store = factory.empty(frame).await;
    let now = factory.start();
    let present = frame.resolution().slot_of(now);
    let (full, hostile) = (frame.full_window(), HOSTILE_NAMES[3]);
    if let Err(StoreError::Unsupported(_)) = store.forget_seen(&user("u"), &[], now).await {
        return store.close().await.unwrap();
    }
    let mut pairs: Vec<_> = HOSTILE_NAMES
        .iter()
        .flat_map(|segment| ["u1", hostile].map(|user| (user, *segment, back(present, 3))))
        .collect();
    store.record(&batch(pairs.iter().copied())).await.unwrap();
    let seen = store.memberships(&user(hostile), now).await.unwrap();
    assert_eq!(seen.len(), HOSTILE_NAMES.len());
    // Seen again in two of the segments, once in the same slot, and for the first time in another one.
    let [first, second] = [HOSTILE_NAMES[0], HOSTILE_NAMES[1]];
    pairs = vec![
        (hostile, first, back(present, 2)),
        (hostile, second, back(present, 3)),
        (hostile, "new", back(present, 4)),
    ];
    store.record(&batch(pairs.iter().copied())).await.unwrap();
    let erased = store.forget_seen(&user(hostile), &seen, now).await;
    assert_eq!(erased.unwrap(), HOSTILE_NAMES.len() as u64 - 1);
    let left = store.memberships(&user(hostile), now).await.unwrap();
    let mut expected =
        [(first, back(present, 2)), ("new", back(present, 4))].map(|(name, slot)| Membership {
            segment: segment(name),
            last_seen: slot,
        });
    expected.sort_by(|a, b| a.segment.cmp(&b.segment));
    assert_eq!(left, expected);
    for name in HOSTILE_NAMES {
        let users = users(&*store, name, full, now).await;
        assert_eq!(users, 1 + u64::from(*name == first), "{name:?}");
    }
    assert_eq!(
        store.forget_seen(&user(hostile), &seen, now).await.unwrap(),
        0
    );
    assert_eq!(store.forget_seen(&user("u1"), &[], now).await.unwrap(), 0);
    store.close().await.unwrap();
}

/// Archiving removes only pairs that no window reaches, and needs a finite number of steps.
pub async fn check_archive_changes_no_count(factory: &dyn Factory) {
    let frame = frame(60);
    let store = factory.empty(frame).await;
    let now = factory.start();
    let present = frame.resolution().slot_of(now);
    let names: Vec<String> = (0..3000).map(|n| format!("u{n}")).collect();
    let pairs = names.iter().enumerate().map(|(n, name)| {
        (
            name.as_str(),
            if n % 2 == 0 { "a" } else { "b" },
            back(present, n as u64 % 60),
        )
    });
    store.record(&batch(pairs)).await.unwrap();
    let as_of = if factory.time_travels() {
        frame
            .resolution()
            .start_of(Slot::new(present.number() + 30))
    } else {
        now
    };
    let before = [
        users(&*store, "a", frame.full_window(), as_of).await,
        users(&*store, "b", minutes(17, &frame), as_of).await,
    ];
    let mut steps = 0;
    while !store.archive(as_of, 100).await.unwrap().done {
        steps += 1;
        assert!(steps < 10_000, "archiving must come to an end");
    }
    assert_eq!(
        store.archive(as_of, 100).await.unwrap().removed,
        0,
        "nothing is left to remove"
    );
    let after = [
        users(&*store, "a", frame.full_window(), as_of).await,
        users(&*store, "b", minutes(17, &frame), as_of).await,
    ];
    assert_eq!(before, after, "archiving changes no count");
    store.close().await.unwrap();
}

/// Trend points are returned in order, by segment and window, at most one per second.
pub async fn check_trend(factory: &dyn Factory) {
    let frame = frame(60);
    let store = factory.empty(frame).await;
    let now = Timestamp::from_second(factory.start().as_second()).unwrap();
    let at = |back: i64| Timestamp::from_second(now.as_second() - back).unwrap();
    let point = |name: &str, window: Window, back: i64, users: u64| TrendPoint {
        segment: segment(name),
        window,
        count: Count {
            users,
            as_of: at(back),
        },
    };
    let (full, short) = (frame.full_window(), minutes(5, &frame));
    let points = [
        point("a", full, 120, 7),
        point("a", full, 60, 8),
        point("a", short, 60, 3),
        point("b c,=\"", full, 60, 1),
    ];
    store.record_trend(&points).await.unwrap();
    store
        .record_trend(&[point("a", full, 60, 9), point("a", full, 0, 10)])
        .await
        .unwrap();
    let read = async |name: &str, window, from, to| -> Vec<(i64, u64)> {
        let counts = store
            .trend(&segment(name), window, at(from), at(to))
            .await
            .unwrap();
        counts
            .iter()
            .map(|c| (now.as_second() - c.as_of.as_second(), c.users))
            .collect()
    };
    assert_eq!(
        read("a", full, 120, 0).await,
        [(120, 7), (60, 9), (0, 10)],
        "both ends belong"
    );
    assert_eq!(read("a", full, 119, 1).await, [(60, 9)]);
    assert_eq!(
        read("a", short, 3600, 0).await,
        [(60, 3)],
        "windows are kept apart"
    );
    assert_eq!(read("b c,=\"", full, 3600, 0).await, [(60, 1)]);
    assert_eq!(read("unknown", full, 3600, 0).await, []);
    store.close().await.unwrap();
}

/// An export returns every pair in the requested slots and no others, with its user id and at least its latest slot. A
/// store that does not support exports always reports that.
pub async fn check_export(factory: &dyn Factory) {
    let frame = frame(60);
    let store = factory.empty(frame).await;
    let now = factory.start();
    let present = frame.resolution().slot_of(now);
    let all = back(present, 59)..=present;
    let exported = match store.export(&segment("unknown"), all.clone()).await {
        Err(StoreError::Unsupported(_)) => return check_export_is_refused(&*store, all).await,
        exported => exported.unwrap(),
    };
    assert!(exported.is_empty(), "an unknown segment has no pairs");

    let long_user = "x".repeat(256);
    let mut names: Vec<&str> = HOSTILE_NAMES.to_vec();
    names.extend([&long_user, " outer ", "trailing\\", "\u{feff}bom"]);
    let ages = [0, 1, 7, 30, 59];
    let mut latest: BTreeMap<(&str, &str), Slot> = BTreeMap::new();
    let mut pairs = Vec::new();
    for (n, (name, segment)) in names
        .iter()
        .flat_map(|name| HOSTILE_NAMES.iter().map(move |segment| (*name, *segment)))
        .enumerate()
    {
        // Seen once, or twice with the second time earlier or later.
        for age in &ages[n % 5..(n % 5 + 1 + n % 2).min(5)] {
            let slot = back(present, *age);
            pairs.push((name, segment, slot));
            let known = latest.entry((segment, name)).or_insert(slot);
            *known = slot.max(*known);
        }
    }
    store.record(&batch(pairs.iter().copied())).await.unwrap();
    let recorded: BTreeSet<_> = pairs.iter().copied().collect();

    for name in HOSTILE_NAMES {
        let whole = exported_from(&*store, name, all.clone()).await;
        for (user, slot) in &whole {
            assert!(
                recorded.contains(&(user.as_str(), *name, *slot)),
                "an exported pair of {name:?} was recorded"
            );
        }
        for ((_, user), slot) in latest
            .range((*name, "")..)
            .take_while(|((s, _), _)| s == name)
        {
            assert!(
                whole.contains(&((*user).to_owned(), *slot)),
                "the latest slot of {user:?} in {name:?} is exported"
            );
        }
        let mut parts = BTreeSet::new();
        for (youngest, oldest) in [(31, 59), (30, 30), (8, 29), (1, 7), (0, 0)] {
            let slots = back(present, oldest)..=back(present, youngest);
            parts.append(&mut exported_from(&*store, name, slots).await);
        }
        assert_eq!(
            parts, whole,
            "ranges of slots neither overlap nor leave gaps"
        );
    }

    store.forget(&user(names[1]), now).await.unwrap();
    let left = exported_from(&*store, names[0], all.clone()).await;
    assert!(
        left.iter().all(|(user, _)| user != names[1]),
        "an erased user is not exported"
    );
    store.close().await.unwrap();
    let closed = store.export(&segment(names[0]), all).await;
    assert!(matches!(closed, Err(StoreError::Closed)), "{closed:?}");
}

async fn check_export_is_refused(store: &dyn PairStore, slots: RangeInclusive<Slot>) {
    let pair = [("u", "s", *slots.end())];
    store.record(&batch(pair)).await.unwrap();
    let refused = store.export(&segment("s"), slots).await;
    assert!(
        matches!(refused, Err(StoreError::Unsupported(_))),
        "a store that can't export never can, not {refused:?}"
    );
    store.close().await.unwrap();
}

async fn exported_from(
    store: &dyn PairStore,
    name: &str,
    slots: RangeInclusive<Slot>,
) -> BTreeSet<(String, Slot)> {
    let exported = store.export(&segment(name), slots.clone()).await.unwrap();
    let mut pairs = BTreeSet::new();
    for pair in exported.pairs() {
        assert_eq!(
            pair.segment.as_str(),
            name,
            "pairs of the requested segment"
        );
        assert!(slots.contains(&pair.slot), "from the requested slots");
        pairs.insert((pair.user.as_str().to_owned(), pair.slot));
    }
    pairs
}

/// Concurrent writers lose no pair.
pub async fn check_concurrent_writers(factory: &dyn Factory) {
    let frame = frame(60);
    let store = factory.empty(frame).await;
    let now = factory.start();
    let present = frame.resolution().slot_of(now);
    let writes = (0..16).map(|writer| {
        let store = Arc::clone(&store);
        async move {
            for round in 0..5 {
                // Half of each writer's users are also its neighbour's.
                let names: Vec<String> = (0..100)
                    .map(|n| format!("u{}", (writer * 50 + n) * 5 + round))
                    .collect();
                let pairs = names.iter().map(|name| (name.as_str(), "s", present));
                store.record(&batch(pairs)).await.unwrap();
            }
        }
    });
    futures::future::join_all(writes).await;
    // Writers 0..16 cover 850 values of n, each in five rounds.
    assert_eq!(users(&*store, "s", frame.full_window(), now).await, 850 * 5);
    store.close().await.unwrap();
}

/// In a long random run with moving time, the counts equal those of a naive model, at many instants and windows.
pub async fn check_against_model(factory: &dyn Factory) {
    let frame = frame(48);
    let store = factory.empty(frame).await;
    let mut random = fastrand::Rng::with_seed(7);
    let mut now = factory.start();
    let mut model: BTreeMap<String, HashMap<String, Slot>> = BTreeMap::new();
    for round in 0..60 {
        let present = frame.resolution().slot_of(now);
        let mut builder = BatchBuilder::default();
        for _ in 0..random.usize(1..200) {
            let name = HOSTILE_NAMES[random.usize(..6)];
            let who = format!("u{}", random.u32(..400));
            let slot = back(present, random.u64(..48));
            builder.push_pair(&user(&who), name, slot).unwrap();
            let latest = model
                .entry(name.to_owned())
                .or_default()
                .entry(who)
                .or_insert(slot);
            *latest = slot.max(*latest);
        }
        store.record(&builder.finish()).await.unwrap();
        if round % 7 == 0 {
            let who = format!("u{}", random.u32(..400));
            store.forget(&user(&who), now).await.unwrap();
            for members in model.values_mut() {
                members.remove(&who);
            }
        }
        if round % 5 == 0 {
            store.archive(now, 50).await.unwrap();
        }
        now += jiff::SignedDuration::from_secs(60 * random.i64(0..6) + random.i64(0..60));
        let present = frame.resolution().slot_of(now);
        for (name, members) in &model {
            for window in [1, 13, 47, 48] {
                let window = minutes(window, &frame);
                let reached = window.slots_as_of(present);
                let expected = members
                    .values()
                    .filter(|slot| reached.contains(slot))
                    .count();
                let counted = users(&*store, name, window, now).await;
                assert_eq!(
                    counted, expected as u64,
                    "round {round}: {name:?} over {window:?}"
                );
            }
        }
    }
    store.close().await.unwrap();
}

/// A closed store returns [`StoreError::Closed`].
pub async fn check_close(factory: &dyn Factory) {
    let frame = frame(60);
    let store = factory.empty(frame).await;
    let now = factory.start();
    store.close().await.unwrap();
    let error = store
        .record(&batch([("u", "s", frame.resolution().slot_of(now))]))
        .await;
    let Err(StoreError::Closed) = error else {
        panic!("a closed store must return Closed, not {error:?}");
    };
}
