//! The conformance suite of [`PublishedCounts`], for every adapter.
//!
//! Each check gets an empty board and panics with a description of the first violation.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "a conformance check fails by panicking, like a test"
)]

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{
    Board, Fence, LastTick, Position, PublishError, PublishedCounts, Tick, Update, UsersPerWindow,
};
use crate::feed::Token;
use crate::store::conformance::HOSTILE_NAMES;
use crate::{Segment, Timestamp};

/// Longer than any check takes.
const LONG: Duration = Duration::from_secs(3600);
/// A time to live that is soon over.
const SHORT: Duration = Duration::from_millis(50);
/// The segments of a large board.
const MANY: u64 = 5_000;
/// Two publishers.
const ONE: u64 = 0xfedc_ba98_7654_3210;
const TWO: u64 = 2;

/// Runs every check that needs no loss. `wait` lets this much time pass for the board.
pub async fn check_published(
    new: impl AsyncFn() -> Arc<dyn PublishedCounts>,
    wait: impl AsyncFn(Duration),
) {
    check_empty(&*new().await).await;
    check_lock(&*new().await).await;
    check_lock_expires(&*new().await, &wait).await;
    check_ticks(&*new().await).await;
    check_changes(&*new().await).await;
    check_quiet_ticks(&*new().await).await;
    check_revisions(&*new().await).await;
    check_two_publishers(&*new().await, &wait).await;
    check_as_of(&*new().await).await;
    check_age(&*new().await, &wait).await;
    check_hostile_names(&*new().await).await;
    check_large_counts(&*new().await).await;
    check_many_segments(&*new().await).await;
    check_changes_are_bounded(&*new().await).await;
    check_a_follower_has_the_board(&*new().await).await;
}

/// Checks that losses are noticed. `save` saves the state, `restore` returns to it, and `empty` loses everything.
pub async fn check_losses(
    board: &dyn PublishedCounts,
    save: impl AsyncFn(),
    restore: impl AsyncFn(),
    empty: impl AsyncFn(),
) {
    let fence = acquire(board, ONE).await;
    publish_all(
        board,
        fence,
        &[replacing(1, &[("a", 1)]), changing(2, &[("a", 2)])],
    )
    .await;
    let kept = load(board).await;
    save().await;
    publish_all(
        board,
        fence,
        &[changing(3, &[("a", 3)]), changing(4, &[("b", 4)])],
    )
    .await;
    let lost = load(board).await;
    restore().await;

    // A reader at a lost tick notices, and a reader before it goes on.
    expect_lost(board, &lost.position).await;
    let (changed, _, position) = follow(board, &kept.position).await;
    assert_eq!((changed.len(), position), (0, kept.position));
    assert_eq!(load(board).await.counts, kept.counts);
    // The publisher notices, with changes or without.
    for tick in [changing(5, &[("c", 5)]), quiet(5)] {
        let refused = board.publish(fence, &tick).await;
        assert_eq!(
            refused,
            Err(PublishError::Fenced),
            "{tick:?} follows a lost tick"
        );
    }
    assert_eq!(
        load(board).await.counts,
        kept.counts,
        "nothing was published"
    );

    // The publisher did not get the response to tick 3 and repeats it: the revision is used again.
    publish_all(
        board,
        fence,
        &[changing(3, &[("a", 33)]), changing(4, &[("b", 44)])],
    )
    .await;
    expect_lost(board, &lost.position).await;
    let (changed, ..) = follow(board, &kept.position).await;
    assert_eq!(changed, counts(&[("a", 33), ("b", 44)]));

    // All counts are published again, with the same fence.
    assert_eq!(acquire(board, ONE).await, fence);
    publish_all(
        board,
        fence,
        &[replacing(6, &[("a", 3), ("b", 4), ("c", 5)])],
    )
    .await;
    for position in [kept.position, lost.position] {
        expect_lost(board, &position).await;
    }
    let before = load(board).await;
    assert_eq!(before.counts, counts(&[("a", 3), ("b", 4), ("c", 5)]));

    empty().await;
    assert_eq!(board.load().await.unwrap(), None);
    expect_lost(board, &before.position).await;
    for tick in [quiet(7), changing(7, &[("a", 7)]), replacing(7, &[])] {
        let refused = board.publish(fence, &tick).await;
        assert_eq!(refused, Err(PublishError::Fenced), "the fence is lost");
    }
    let renewed = acquire(board, ONE).await;
    assert!(renewed > fence, "{renewed} follows {fence} after a loss");
    let refused = board.publish(renewed, &quiet(7)).await;
    assert_eq!(refused, Err(PublishError::Fenced), "the board is lost");
    publish_all(board, renewed, &[replacing(8, &[("a", 8)])]).await;
    expect_lost(board, &before.position).await;
    assert_eq!(load(board).await.counts, counts(&[("a", 8)]));
}

type Counts = HashMap<Segment, UsersPerWindow>;

fn segment(name: &str) -> Segment {
    Segment::new(name).unwrap()
}

/// Counts over an hour.
fn counts(counts: &[(&str, u64)]) -> Counts {
    let counts = counts.iter();
    counts
        .map(|&(name, users)| (segment(name), vec![(3_600, users)]))
        .collect()
}

fn as_of(revision: u64) -> Timestamp {
    let micros = 1_800_000_000_000_007 + i64::try_from(revision).unwrap() * 200_000;
    Timestamp::from_microsecond(micros).unwrap()
}

fn quiet(revision: u64) -> Tick {
    Tick {
        revision,
        as_of: as_of(revision),
        address: "http://10.0.0.1:8080".to_owned(),
        window: 1_209_600,
        complete: true,
        changed: Vec::new(),
        replaces_all: false,
    }
}

fn changing(revision: u64, changed: &[(&str, u64)]) -> Tick {
    Tick {
        changed: counts(changed).into_iter().collect(),
        ..quiet(revision)
    }
}

fn replacing(revision: u64, changed: &[(&str, u64)]) -> Tick {
    Tick {
        replaces_all: true,
        ..changing(revision, changed)
    }
}

async fn acquire(board: &dyn PublishedCounts, owner: u64) -> Fence {
    let fence = board.acquire(owner, LONG).await.unwrap();
    fence.unwrap_or_else(|| panic!("owner {owner} must get the lock"))
}

async fn publish_all(board: &dyn PublishedCounts, fence: Fence, ticks: &[Tick]) {
    for tick in ticks {
        board.publish(fence, tick).await.unwrap();
    }
}

async fn load(board: &dyn PublishedCounts) -> Board {
    board.load().await.unwrap().unwrap()
}

async fn follow(board: &dyn PublishedCounts, after: &Position) -> (Counts, LastTick, Position) {
    match board.follow(after).await.unwrap() {
        Update::Changes {
            changed,
            tick,
            position,
        } => {
            let segments = changed.len();
            let merged: Counts = changed.into_iter().collect();
            assert_eq!(merged.len(), segments, "a segment occurs twice");
            (merged, tick, position)
        }
        Update::Lost => panic!("{after:?} must not be lost"),
    }
}

async fn expect_lost(board: &dyn PublishedCounts, after: &Position) {
    let update = board.follow(after).await.unwrap();
    assert_eq!(update, Update::Lost, "{after:?} must be lost");
}

/// An empty board has no counts, no positions and no fence.
pub async fn check_empty(board: &dyn PublishedCounts) {
    assert_eq!(board.load().await.unwrap(), None);
    let nowhere = Position {
        fence: Fence::from_number(1),
        revision: 1,
        token: Token::random(),
    };
    expect_lost(board, &nowhere).await;
    board.release(ONE).await.unwrap();
    let unknown = board.publish(nowhere.fence, &replacing(1, &[])).await;
    assert_eq!(unknown, Err(PublishError::Fenced));
    // An acquired lock publishes nothing.
    acquire(board, ONE).await;
    assert_eq!(board.load().await.unwrap(), None);
}

/// One owner holds the lock, and each new one has a higher fence.
pub async fn check_lock(board: &dyn PublishedCounts) {
    let first = acquire(board, ONE).await;
    assert_eq!(acquire(board, ONE).await, first, "renewing keeps the fence");
    assert_eq!(board.acquire(TWO, LONG).await.unwrap(), None);
    board.release(TWO).await.unwrap();
    assert_eq!(
        board.acquire(TWO, LONG).await.unwrap(),
        None,
        "only the holder releases"
    );
    board.release(ONE).await.unwrap();
    assert_eq!(
        acquire(board, ONE).await,
        first,
        "no other owner came between"
    );
    board.release(ONE).await.unwrap();
    let second = acquire(board, TWO).await;
    assert!(second > first);
    assert_eq!(board.acquire(ONE, LONG).await.unwrap(), None);
    board.release(TWO).await.unwrap();
    let third = acquire(board, ONE).await;
    assert!(third > second, "a former owner is a new holder");
}

/// The lock expires unless it is renewed.
pub async fn check_lock_expires(board: &dyn PublishedCounts, wait: &impl AsyncFn(Duration)) {
    let first = board.acquire(ONE, SHORT).await.unwrap().unwrap();
    assert_eq!(acquire(board, ONE).await, first);
    wait(SHORT * 2).await;
    assert_eq!(
        board.acquire(TWO, LONG).await.unwrap(),
        None,
        "it was renewed"
    );
    // Renewing may also shorten it.
    board.acquire(ONE, SHORT).await.unwrap();
    wait(SHORT * 2).await;
    let second = acquire(board, TWO).await;
    assert!(second > first);
    assert_eq!(board.acquire(ONE, LONG).await.unwrap(), None);
}

/// A reader sees what was published.
pub async fn check_ticks(board: &dyn PublishedCounts) {
    let fence = acquire(board, ONE).await;
    let first = Tick {
        address: String::new(),
        complete: false,
        ..replacing(1, &[("a", 1), ("b", 2)])
    };
    board.publish(fence, &first).await.unwrap();
    let loaded = load(board).await;
    assert_eq!(loaded.counts, counts(&[("a", 1), ("b", 2)]));
    let LastTick {
        owner,
        as_of: at,
        address,
        window,
        complete,
        age: _,
    } = loaded.tick;
    assert_eq!(
        (owner, at, &*address, window, complete),
        (ONE, as_of(1), "", 1_209_600, false),
        "the tick as it was published"
    );
    assert_eq!(
        (loaded.position.fence, loaded.position.revision),
        (fence, 1)
    );

    let second = Tick {
        address: "héadcount \r\n:1 {live}".to_owned(),
        window: 604_800,
        ..changing(2, &[("b", 3), ("c", 0)])
    };
    board.publish(fence, &second).await.unwrap();
    let loaded = load(board).await;
    assert_eq!(loaded.counts, counts(&[("a", 1), ("b", 3), ("c", 0)]));
    assert_eq!(loaded.tick.address, second.address);
    assert_eq!(loaded.tick.window, second.window);
    assert_eq!((loaded.tick.as_of, loaded.tick.complete), (as_of(2), true));

    // A replaced board has only the new segments, also if there are none.
    publish_all(board, fence, &[replacing(3, &[("d", 4)])]).await;
    assert_eq!(load(board).await.counts, counts(&[("d", 4)]));
    publish_all(board, fence, &[replacing(4, &[])]).await;
    assert_eq!(load(board).await.counts, counts(&[]));
    publish_all(board, fence, &[changing(5, &[("e", 5)])]).await;
    assert_eq!(load(board).await.counts, counts(&[("e", 5)]));
}

/// A follower gets the changes since its position, merged.
pub async fn check_changes(board: &dyn PublishedCounts) {
    let fence = acquire(board, ONE).await;
    let first = replacing(1, &[("a", 1), ("b", 1), ("c", 1)]);
    publish_all(board, fence, &[first]).await;
    let start = load(board).await.position;
    let (changed, tick, position) = follow(board, &start).await;
    assert_eq!((changed.len(), position), (0, start));
    assert_eq!((tick.owner, tick.as_of), (ONE, as_of(1)));

    publish_all(board, fence, &[changing(2, &[("a", 2), ("d", 2)])]).await;
    let (changed, _, second) = follow(board, &start).await;
    assert_eq!(changed, counts(&[("a", 2), ("d", 2)]));
    assert_eq!((second.fence, second.revision), (fence, 2));
    assert_eq!(load(board).await.position, second);

    let removing = Tick {
        changed: vec![(segment("b"), Vec::new()), (segment("a"), vec![(60, 3)])],
        ..quiet(3)
    };
    publish_all(board, fence, &[removing, changing(4, &[("d", 4)])]).await;
    let windows = |changed: &Counts, name: &str| changed.get(name).cloned();
    for (from, expected) in [(start, 3), (second, 3)] {
        let (changed, tick, position) = follow(board, &from).await;
        assert_eq!(changed.len(), expected);
        assert_eq!(windows(&changed, "a"), Some(vec![(60, 3)]));
        assert_eq!(windows(&changed, "b"), Some(vec![]), "it was removed");
        assert_eq!(windows(&changed, "d"), Some(vec![(3_600, 4)]));
        assert_eq!((tick.as_of, position.revision), (as_of(4), 4));
    }
    let loaded = load(board).await;
    let mut names: Vec<_> = loaded.counts.keys().map(Segment::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["a", "c", "d"]);

    // Of a segment that occurs twice, the later one counts.
    let twice = Tick {
        changed: vec![
            (segment("a"), vec![(60, 7)]),
            (segment("a"), Vec::new()),
            (segment("c"), Vec::new()),
            (segment("c"), vec![(60, 8)]),
        ],
        ..quiet(5)
    };
    publish_all(board, fence, &[twice]).await;
    let (changed, ..) = follow(board, &loaded.position).await;
    let counts = load(board).await.counts;
    assert_eq!(windows(&changed, "a"), Some(vec![]));
    assert_eq!(windows(&counts, "a"), None);
    for counts in [&changed, &counts] {
        assert_eq!(windows(counts, "c"), Some(vec![(60, 8)]));
    }

    // A replaced board must be loaded again, and so must a position with another token or beyond the end.
    let last = load(board).await.position;
    let others = [
        Position {
            token: Token::random(),
            ..last
        },
        Position {
            revision: last.revision + 1,
            ..last
        },
    ];
    for other in others {
        expect_lost(board, &other).await;
    }
    publish_all(board, fence, &[replacing(6, &[])]).await;
    expect_lost(board, &last).await;
}

/// A tick without changes moves `as_of` and no position.
pub async fn check_quiet_ticks(board: &dyn PublishedCounts) {
    let fence = acquire(board, ONE).await;
    publish_all(board, fence, &[replacing(1, &[("a", 1)])]).await;
    let start = load(board).await;
    for revision in 2..=20 {
        let tick = Tick {
            address: format!("address {revision}"),
            complete: revision % 2 == 0,
            ..quiet(revision)
        };
        board.publish(fence, &tick).await.unwrap();
        let (changed, last, position) = follow(board, &start.position).await;
        assert_eq!((changed.len(), position), (0, start.position));
        assert_eq!((last.as_of, last.address), (tick.as_of, tick.address));
        assert_eq!(last.complete, tick.complete);
    }
    let loaded = load(board).await;
    assert_eq!(loaded.counts, start.counts);
    assert_eq!(loaded.position, start.position);
    publish_all(board, fence, &[changing(21, &[("a", 2)])]).await;
    let (changed, ..) = follow(board, &start.position).await;
    assert_eq!(changed, counts(&[("a", 2)]));
}

/// Each tick follows the former one; repeating the newest changes nothing.
pub async fn check_revisions(board: &dyn PublishedCounts) {
    let fence = acquire(board, ONE).await;
    let fenced = Err(PublishError::Fenced);
    let without_board = board.publish(fence, &changing(1, &[("a", 1)])).await;
    assert_eq!(without_board, fenced, "the first tick must replace all");
    // The first tick may have any number.
    let first = replacing(7, &[("a", 1)]);
    let second = changing(8, &[("a", 2)]);
    publish_all(board, fence, &[first.clone(), first.clone()]).await;
    let start = load(board).await.position;
    publish_all(board, fence, &[second.clone(), second.clone()]).await;
    let (_, _, position) = follow(board, &start).await;
    publish_all(board, fence, &[second]).await;
    let (changed, _, repeated) = follow(board, &position).await;
    assert_eq!((changed.len(), repeated), (0, position));

    for late in [changing(10, &[("a", 3)]), quiet(10), quiet(7), first] {
        let refused = board.publish(fence, &late).await;
        assert_eq!(refused, fenced, "tick {} after tick 8", late.revision);
    }
    assert_eq!(load(board).await.counts, counts(&[("a", 2)]));
    // A publisher that does not know what was published replaces all.
    publish_all(board, fence, &[replacing(20, &[("a", 20)]), quiet(21)]).await;
    assert_eq!(load(board).await.counts, counts(&[("a", 20)]));
}

/// A publisher that paused while its lock expired publishes nothing.
pub async fn check_two_publishers(board: &dyn PublishedCounts, wait: &impl AsyncFn(Duration)) {
    let old = board.acquire(ONE, SHORT).await.unwrap().unwrap();
    publish_all(board, old, &[replacing(1, &[("a", 1)])]).await;
    wait(SHORT * 2).await;
    // Without another owner, an expired lock does not matter.
    publish_all(board, old, &[changing(2, &[("a", 2)])]).await;
    let before = load(board).await;

    let new = acquire(board, TWO).await;
    assert!(new > old);
    let refused = [
        quiet(3),
        changing(3, &[("a", 3)]),
        replacing(3, &[("a", 3)]),
    ];
    for tick in &refused {
        let fenced = board.publish(old, tick).await;
        assert_eq!(fenced, Err(PublishError::Fenced), "{tick:?}");
    }
    // The board is still the one of the former publisher.
    let (changed, tick, _) = follow(board, &before.position).await;
    assert_eq!((changed.len(), tick.owner), (0, ONE));
    for tick in &refused[..2] {
        let unreplaced = board.publish(new, tick).await;
        assert_eq!(unreplaced, Err(PublishError::Fenced), "{tick:?}");
    }
    // A new publisher numbers its ticks independently.
    publish_all(
        board,
        new,
        &[replacing(1, &[("a", 9)]), changing(2, &[("b", 9)])],
    )
    .await;
    expect_lost(board, &before.position).await;
    for tick in &refused {
        let fenced = board.publish(old, tick).await;
        assert_eq!(fenced, Err(PublishError::Fenced), "{tick:?}");
    }
    let loaded = load(board).await;
    assert_eq!(loaded.counts, counts(&[("a", 9), ("b", 9)]));
    assert_eq!(loaded.tick.owner, TWO);
}

/// The board takes `as_of` as it is, to the microsecond.
pub async fn check_as_of(board: &dyn PublishedCounts) {
    let at = |micros| Timestamp::from_microsecond(micros).unwrap();
    let times = [
        at(1_800_000_000_123_457),
        at(0),
        at(-1),
        at(4_000_000_000_000_001),
    ];
    for (owner, time) in (10..).zip(times) {
        let fence = acquire(board, owner).await;
        let first = Tick {
            as_of: time,
            ..replacing(1, &[("a", owner)])
        };
        board.publish(fence, &first).await.unwrap();
        let loaded = load(board).await;
        assert_eq!((loaded.tick.as_of, loaded.tick.owner), (time, owner));
        board.release(owner).await.unwrap();
    }
}

/// The age of a tick is the time since it was published.
pub async fn check_age(board: &dyn PublishedCounts, wait: &impl AsyncFn(Duration)) {
    let fence = acquire(board, ONE).await;
    publish_all(board, fence, &[replacing(1, &[("a", 1)])]).await;
    wait(SHORT).await;
    let loaded = load(board).await;
    assert!(loaded.tick.age >= SHORT, "{:?}", loaded.tick.age);
    let (_, tick, _) = follow(board, &loaded.position).await;
    assert!(tick.age >= loaded.tick.age);

    let began = Instant::now();
    publish_all(board, fence, &[quiet(2)]).await;
    for age in [
        load(board).await.tick.age,
        follow(board, &loaded.position).await.1.age,
    ] {
        let most = began.elapsed() + Duration::from_millis(20);
        assert!(age <= most, "{age:?} after a tick exceeds {most:?}");
    }
}

/// Names come back byte by byte.
pub async fn check_hostile_names(board: &dyn PublishedCounts) {
    let long = "é".repeat(64);
    let more = [&long, "1:2,3:4", "a b  c", ":", "#", "x\u{2028}x"];
    let names: Vec<&str> = HOSTILE_NAMES.iter().copied().chain(more).collect();
    let users: Vec<(&str, u64)> = names.iter().copied().zip(1..).collect();
    let fence = acquire(board, ONE).await;
    publish_all(board, fence, &[replacing(1, &users)]).await;
    let loaded = load(board).await;
    assert_eq!(loaded.counts, counts(&users));

    let users: Vec<(&str, u64)> = names.iter().copied().zip(1_000..).collect();
    publish_all(board, fence, &[changing(2, &users)]).await;
    let (changed, _, position) = follow(board, &loaded.position).await;
    assert_eq!(changed, counts(&users));
    assert_eq!(load(board).await.counts, counts(&users));

    let removed = names.iter().map(|name| (segment(name), Vec::new()));
    let removing = Tick {
        changed: removed.collect(),
        ..quiet(3)
    };
    board.publish(fence, &removing).await.unwrap();
    let (changed, ..) = follow(board, &position).await;
    assert_eq!(changed.len(), names.len());
    assert!(changed.values().all(Vec::is_empty));
    assert_eq!(load(board).await.counts, counts(&[]));
}

/// Counts and windows keep all their digits, and windows their order.
pub async fn check_large_counts(board: &dyn PublishedCounts) {
    let users = vec![
        (1, 0),
        (60, 1 << 53),
        (3_600, (1 << 53) - 1),
        (86_400, (1 << 53) + 1),
        (30, u64::MAX),
        (u64::MAX, 7),
    ];
    let tick = Tick {
        changed: vec![(segment("a"), users.clone())],
        ..replacing(1, &[])
    };
    let fence = acquire(board, ONE).await;
    board.publish(fence, &tick).await.unwrap();
    let loaded = load(board).await;
    assert_eq!(loaded.counts[&segment("a")], users);
    let tick = Tick {
        revision: 2,
        replaces_all: false,
        ..tick
    };
    board.publish(fence, &tick).await.unwrap();
    let (changed, ..) = follow(board, &loaded.position).await;
    assert_eq!(changed[&segment("a")], users);
}

/// Many segments can be published, changed, removed and loaded at once.
pub async fn check_many_segments(board: &dyn PublishedCounts) {
    let all = |users: u64| -> Vec<(Segment, UsersPerWindow)> {
        let windows = |n| vec![(3_600, n * users), (86_400, n * users + 1)];
        (0..MANY)
            .map(|n| (segment(&format!("segment number {n}")), windows(n)))
            .collect()
    };
    let tick = |revision, changed| Tick {
        changed,
        ..quiet(revision)
    };
    let fence = acquire(board, ONE).await;
    let first = Tick {
        replaces_all: true,
        ..tick(1, all(1))
    };
    board.publish(fence, &first).await.unwrap();
    let mut loaded = load(board).await;
    assert!(loaded.counts == all(1).into_iter().collect(), "all counts");

    board
        .publish(fence, &tick(2, all(1_000_000)))
        .await
        .unwrap();
    let (changed, _, position) = follow(board, &loaded.position).await;
    let expected: Counts = all(1_000_000).into_iter().collect();
    assert!(changed == expected, "all changes");
    loaded = load(board).await;
    assert!(loaded.counts == expected, "all changed counts");
    assert_eq!(loaded.position, position);

    let removed = all(1).into_iter().map(|(segment, _)| (segment, Vec::new()));
    board
        .publish(fence, &tick(3, removed.collect()))
        .await
        .unwrap();
    let (changed, ..) = follow(board, &position).await;
    assert_eq!(changed.len() as u64, MANY);
    assert_eq!(load(board).await.counts, counts(&[]));
}

/// The board keeps the changes of a bounded number of ticks.
pub async fn check_changes_are_bounded(board: &dyn PublishedCounts) {
    let fence = acquire(board, ONE).await;
    publish_all(board, fence, &[replacing(1, &[])]).await;
    let start = load(board).await.position;
    let mut recent = start;
    for revision in 2..=1_600 {
        let tick = changing(revision, &[("a", revision)]);
        board.publish(fence, &tick).await.unwrap();
        if revision == 800 {
            recent = load(board).await.position;
        }
    }
    expect_lost(board, &start).await;
    let (changed, _, position) = follow(board, &recent).await;
    assert_eq!(changed, counts(&[("a", 1_600)]));
    assert_eq!(position.revision, 1_600);
    assert_eq!(load(board).await.counts, changed);
}

/// A follower that applies every update has the same counts as the board.
pub async fn check_a_follower_has_the_board(board: &dyn PublishedCounts) {
    let mut random = fastrand::Rng::with_seed(7);
    let fence = acquire(board, ONE).await;
    publish_all(board, fence, &[replacing(1, &[])]).await;
    let mut held = load(board).await;
    for revision in 2..=300 {
        let mut changed = Vec::new();
        for _ in 0..random.usize(0..4) {
            let name = HOSTILE_NAMES[random.usize(0..6)];
            let windows = (0..random.u64(0..3)).map(|n| (60 * (n + 1), random.u64(..)));
            let users: UsersPerWindow = windows.collect();
            changed.push((segment(name), users));
        }
        let tick = Tick {
            changed,
            replaces_all: random.u8(0..50) == 0,
            ..quiet(revision)
        };
        board.publish(fence, &tick).await.unwrap();
        if random.bool() {
            continue;
        }
        match board.follow(&held.position).await.unwrap() {
            Update::Lost => held = load(board).await,
            Update::Changes {
                changed, position, ..
            } => {
                held.counts.extend(changed);
                held.counts.retain(|_, users| !users.is_empty());
                held.position = position;
            }
        }
        let loaded = load(board).await;
        assert_eq!(held.counts, loaded.counts, "after tick {revision}");
        assert_eq!(held.position, loaded.position);
    }
}
