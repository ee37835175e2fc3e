//! The conformance suite of [`CountCache`], for every adapter and decorator.
//!
//! Each check gets an empty cache and panics with a description of the first violation.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "a conformance check fails by panicking, like a test"
)]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::{CountCache, LockToken};
use crate::store::conformance::HOSTILE_NAMES;
use crate::{Count, Segment, TimeFrame, Timestamp, Window};

/// A TTL so long that nothing expires during a check.
const LONG: Duration = Duration::from_secs(60);
/// How long a check waits for something with a TTL of 30 ms to expire.
const EXPIRY_TIMEOUT: Duration = Duration::from_secs(10);

/// Runs every check but [`check_removal`].
pub async fn check_cache(new: impl AsyncFn() -> Arc<dyn CountCache>) {
    check_empty(&*new().await).await;
    check_put_and_get(&*new().await).await;
    check_only_newer_counts_are_kept(&*new().await).await;
    check_known_segments(&*new().await).await;
    check_hostile_names(&*new().await).await;
    check_get_many(&*new().await).await;
    check_lock(&*new().await).await;
    check_lock_expires(&*new().await).await;
    check_last_run(&*new().await).await;
    check_caches_are_apart(&*new().await, &*new().await).await;
    check_concurrent_notes(new().await).await;
}

fn segment(name: &str) -> Segment {
    Segment::new(name).unwrap()
}

fn frame() -> TimeFrame {
    let minute = Duration::from_secs(60);
    TimeFrame::new(minute * 60, minute, minute).unwrap()
}

fn hour() -> Window {
    frame().full_window()
}

fn minutes(number: u64) -> Window {
    frame().window(Duration::from_secs(60 * number)).unwrap()
}

/// A count as of `micros` after a fixed instant in the past.
fn count(users: u64, micros: i64) -> Count {
    let as_of = Timestamp::from_microsecond(1_700_000_000_123_456 + micros).unwrap();
    Count { users, as_of }
}

async fn names(cache: &dyn CountCache) -> BTreeSet<String> {
    let listed = cache.segments().await.unwrap().names;
    for name in listed.iter().take(100) {
        assert!(cache.knows(name).await.unwrap(), "{name} is listed");
    }
    assert!(!cache.knows(&segment("never named")).await.unwrap());
    let names: BTreeSet<_> = listed.iter().map(|name| name.as_str().to_owned()).collect();
    assert_eq!(names.len(), listed.len(), "a known segment is listed once");
    names
}

/// Puts a count, and checks that `put` and a later `get` return the same.
async fn keep(cache: &dyn CountCache, segment: &Segment, window: Window, count: Count) {
    let kept = cache.put(segment, window, count).await.unwrap();
    assert_eq!(cache.get(segment, window).await.unwrap(), Some(kept));
}

/// An empty cache knows nothing, and accepts calls with empty lists.
pub async fn check_empty(cache: &dyn CountCache) {
    cache.ping().await.unwrap();
    let unknown = segment("unknown");
    assert_eq!(
        cache.get(&unknown, hour()).await.unwrap(),
        None,
        "an unknown count"
    );
    let known = cache.segments().await.unwrap();
    assert!(known.names.is_empty(), "no known segments");
    assert!(!known.complete, "an empty list is not complete");
    assert_eq!(known.complete_for, Duration::ZERO);
    cache.note_segments(&[]).await.unwrap();
    assert_eq!(cache.get_many(&[], hour()).await.unwrap(), []);
    cache.remove_segment(&unknown).await.unwrap();
    assert!(names(cache).await.is_empty(), "still no known segments");
}

/// `get` returns what was put, separately for each segment and window, to the microsecond.
pub async fn check_put_and_get(cache: &dyn CountCache) {
    let (sports, news) = (segment("sports"), segment("news"));
    let puts = [
        (&sports, hour(), count(u64::MAX, 1)),
        (&sports, minutes(7), count(0, 2)),
        (&news, hour(), count(3, 3)),
    ];
    for (segment, window, count) in puts {
        keep(cache, segment, window, count).await;
    }
    for (segment, window, count) in puts {
        assert_eq!(cache.get(segment, window).await.unwrap(), Some(count));
    }
    assert_eq!(
        cache.get(&news, minutes(7)).await.unwrap(),
        None,
        "another window is unknown"
    );
}

/// A count older than the stored one changes nothing; a count as of the same instant replaces it.
pub async fn check_only_newer_counts_are_kept(cache: &dyn CountCache) {
    let sports = segment("sports");
    for (put, kept) in [
        (count(10, 0), count(10, 0)),
        (count(9, -1), count(10, 0)),
        (count(8, -1_000_000_000), count(10, 0)),
        (count(7, 1), count(7, 1)),
        (count(6, 1), count(6, 1)),
    ] {
        keep(cache, &sports, hour(), put).await;
        assert_eq!(cache.get(&sports, hour()).await.unwrap(), Some(kept));
    }
}

/// The known segments are the listed ones, the noted ones, and those with users.
pub async fn check_known_segments(cache: &dyn CountCache) {
    let noted = segment("noted");
    cache.note_segments(&[noted.clone(), noted]).await.unwrap();
    keep(cache, &segment("counted"), hour(), count(1, 0)).await;
    keep(cache, &segment("nobody"), hour(), count(0, 0)).await;
    let known = names(cache).await;
    assert!(
        known.contains("noted") && known.contains("counted"),
        "{known:?}"
    );
    assert!(
        !known.contains("nobody") && !cache.knows(&segment("nobody")).await.unwrap(),
        "a count without users makes no segment known"
    );
    assert!(
        !cache.segments().await.unwrap().complete,
        "the list was not marked as complete"
    );

    let listed = [segment("listed"), segment("noted")];
    cache.complete_segments(&listed, LONG).await.unwrap();
    let known = cache.segments().await.unwrap();
    assert!(known.complete, "the list is complete now");
    assert!(
        !known.complete_for.is_zero() && known.complete_for <= LONG,
        "and for how long: {:?}",
        known.complete_for
    );
    cache.note_segments(&[segment("later")]).await.unwrap();
    let known = names(cache).await;
    for name in ["noted", "counted", "listed", "later"] {
        assert!(
            known.contains(name),
            "{name} is missing: listing adds and removes nothing"
        );
    }
    assert!(
        cache.segments().await.unwrap().complete,
        "a later note keeps the list complete"
    );

    let many: Vec<_> = (0..2_500)
        .map(|index| segment(&format!("many {index}")))
        .collect();
    cache
        .complete_segments(&many, Duration::from_millis(30))
        .await
        .unwrap();
    assert_eq!(
        names(cache).await.len(),
        known.len() + many.len(),
        "a long list is complete"
    );
    let expired = tokio::time::timeout(EXPIRY_TIMEOUT, async {
        while cache.segments().await.unwrap().complete {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    expired
        .await
        .unwrap_or_else(|_| panic!("the completeness of the list did not expire"));
}

/// A segment without users is removed once it was not noted for [`KEEP_NOTED`](super::KEEP_NOTED), and no other segment.
/// `time_passes` makes that time pass for the cache.
pub async fn check_removal(cache: &dyn CountCache, time_passes: impl AsyncFn()) {
    let (gone, other) = (segment("gone"), segment("other"));
    let is_listed = async || names(cache).await.contains("gone");
    cache.note_segments(&[gone.clone(), other]).await.unwrap();
    time_passes().await;
    cache.remove_segment(&gone).await.unwrap();
    assert!(is_listed().await, "a segment without a count stays");
    keep(cache, &gone, minutes(7), count(0, 0)).await;
    keep(cache, &gone, hour(), count(2, 0)).await;
    time_passes().await;
    cache.remove_segment(&gone).await.unwrap();
    assert!(is_listed().await, "a segment with users stays");

    keep(cache, &gone, hour(), count(0, 1)).await;
    let again = std::slice::from_ref(&gone);
    cache.note_segments(again).await.unwrap();
    cache.remove_segment(&gone).await.unwrap();
    assert!(is_listed().await, "a segment that was just noted stays");
    let kept = cache.get(&gone, hour()).await.unwrap();
    assert_eq!(kept, Some(count(0, 1)), "and so do its counts");

    time_passes().await;
    cache.remove_segment(&gone).await.unwrap();
    assert!(!is_listed().await, "a segment without users goes");
    assert!(
        names(cache).await.contains("other"),
        "and no other segment with it"
    );
    for window in [hour(), minutes(7)] {
        let kept = cache.get(&gone, window).await.unwrap();
        assert_eq!(kept, None, "its counts go");
    }
    cache.remove_segment(&gone).await.unwrap();

    cache.note_segments(again).await.unwrap();
    assert!(is_listed().await, "a removed segment may come back");
}

/// Names that are known to break escaping are returned unchanged and do not collide.
pub async fn check_hostile_names(cache: &dyn CountCache) {
    let more = [
        "{", "}", "{}", "a}b{c", "%7B", "%7b", "%257B", "}{tag}", "a:counts", "lock",
    ];
    let all: Vec<_> = HOSTILE_NAMES
        .iter()
        .chain(&more)
        .map(|name| segment(name))
        .collect();
    for (index, name) in all.iter().enumerate() {
        cache
            .note_segments(std::slice::from_ref(name))
            .await
            .unwrap();
        keep(cache, name, hour(), count(index as u64, 0)).await;
    }
    for (index, name) in all.iter().enumerate() {
        let kept = cache.get(name, hour()).await.unwrap();
        assert_eq!(kept, Some(count(index as u64, 0)), "{name}");
    }
    let expected = all.iter().map(|name| name.as_str().to_owned()).collect();
    assert_eq!(names(cache).await, expected, "names come back as they were");
}

/// `get_many` returns the same as `get` for each segment, in the requested order.
pub async fn check_get_many(cache: &dyn CountCache) {
    let all: Vec<_> = (0..700)
        .map(|index| segment(&format!("s{index}")))
        .collect();
    for (index, name) in all.iter().enumerate().step_by(7) {
        keep(cache, name, hour(), count(index as u64, 0)).await;
    }
    let many = cache.get_many(&all, hour()).await.unwrap();
    assert_eq!(many.len(), all.len());
    for (index, got) in many.into_iter().enumerate() {
        let expected = index.is_multiple_of(7).then(|| count(index as u64, 0));
        assert_eq!(got, expected, "s{index}");
    }
}

/// One token holds the lock until it is released.
pub async fn check_lock(cache: &dyn CountCache) {
    let (holder, other) = (LockToken::random(), LockToken::random());
    assert!(cache.lock(&holder, LONG).await.unwrap(), "a free lock");
    assert!(!cache.lock(&other, LONG).await.unwrap(), "a held lock");
    assert!(
        cache.lock(&holder, LONG).await.unwrap(),
        "its holder extends it"
    );
    cache.unlock(&other).await.unwrap();
    assert!(
        !cache.lock(&other, LONG).await.unwrap(),
        "only its holder can release it"
    );
    cache.unlock(&holder).await.unwrap();
    cache.unlock(&holder).await.unwrap();
    assert!(cache.lock(&other, LONG).await.unwrap(), "a released lock");
    cache.unlock(&other).await.unwrap();
}

/// The cache knows how long ago the latest refresh started.
pub async fn check_last_run(cache: &dyn CountCache) {
    assert_eq!(cache.last_run().await.unwrap(), None, "no run yet");
    let (minute, hour) = (Duration::from_mins(1), Duration::from_hours(1));
    let ago = async || cache.last_run().await.unwrap().unwrap();
    cache.note_run(hour).await.unwrap();
    assert!(ago().await >= hour, "a run an hour ago");
    cache.note_run(minute).await.unwrap();
    let later = ago().await;
    assert!(later >= minute && later < hour, "a later one: {later:?}");
    cache.note_run(hour).await.unwrap();
    assert!(ago().await < hour, "an earlier one changes nothing");
    let ages = Duration::from_hours(24 * 365);
    cache.note_run(ages).await.unwrap();
    assert!(
        ago().await < hour,
        "nor does one older than the cache keeps"
    );
}

/// A lock that was not released expires, and its former holder can't extend or release the next holder's lock.
pub async fn check_lock_expires(cache: &dyn CountCache) {
    let short = Duration::from_millis(30);
    let (former, next) = (LockToken::random(), LockToken::random());
    assert!(cache.lock(&former, short).await.unwrap());
    let taken = tokio::time::timeout(EXPIRY_TIMEOUT, async {
        while !cache.lock(&next, LONG).await.unwrap() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    taken
        .await
        .unwrap_or_else(|_| panic!("the lock did not expire"));
    assert!(
        !cache.lock(&former, LONG).await.unwrap(),
        "a lock that another token holds is not extended"
    );
    cache.unlock(&former).await.unwrap();
    assert!(
        !cache.lock(&former, LONG).await.unwrap(),
        "the next holder's lock stays"
    );
    assert!(cache.lock(&next, LONG).await.unwrap());
    cache.unlock(&next).await.unwrap();
}

/// Two separately created caches share nothing.
pub async fn check_caches_are_apart(one: &dyn CountCache, other: &dyn CountCache) {
    let sports = segment("sports");
    one.put(&sports, hour(), count(1, 0)).await.unwrap();
    let (token, others) = (LockToken::random(), LockToken::random());
    assert!(one.lock(&token, LONG).await.unwrap());
    one.note_run(Duration::ZERO).await.unwrap();
    assert_eq!(other.last_run().await.unwrap(), None);
    assert_eq!(other.get(&sports, hour()).await.unwrap(), None);
    assert!(names(other).await.is_empty());
    assert!(other.lock(&others, LONG).await.unwrap());
    other.unlock(&others).await.unwrap();
    one.unlock(&token).await.unwrap();
}

/// Concurrent notes lose nothing.
pub async fn check_concurrent_notes(cache: Arc<dyn CountCache>) {
    let notes = (0..8).map(|writer| {
        let cache = Arc::clone(&cache);
        async move {
            for index in 0..25 {
                let own = segment(&format!("s{writer} {index}"));
                cache.note_segments(&[segment("all"), own]).await.unwrap();
            }
        }
    });
    futures::future::join_all(notes).await;
    assert_eq!(names(&*cache).await.len(), 201, "no note is lost");
}
