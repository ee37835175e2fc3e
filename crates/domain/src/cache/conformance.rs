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

use super::{Cached, CountCache, LockToken, PendingMark};
use crate::store::conformance::HOSTILE_NAMES;
use crate::{Count, Segment, TimeFrame, Timestamp, Window};

/// A TTL so long that nothing expires during a check.
const LONG: Duration = Duration::from_secs(60);
/// How long a check waits for something with a TTL of 30 ms to expire.
const EXPIRY_TIMEOUT: Duration = Duration::from_secs(10);

/// Runs every check.
pub async fn check_cache(new: impl AsyncFn() -> Arc<dyn CountCache>) {
    check_empty(&*new().await).await;
    check_put_and_get(&*new().await).await;
    check_only_newer_counts_are_kept(&*new().await).await;
    check_pending(&*new().await).await;
    check_gaps(&*new().await).await;
    check_marks_of_a_former_life(&*new().await).await;
    check_known_segments(&*new().await).await;
    check_remove_segment(&*new().await).await;
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

async fn pending(cache: &dyn CountCache, segment: &Segment) -> Option<u64> {
    cache.get(segment, hour()).await.unwrap().unwrap().pending
}

/// Puts a count, and checks that `put` and a later `get` return the same.
async fn keep(
    cache: &dyn CountCache,
    segment: &Segment,
    window: Window,
    count: Count,
    mark: PendingMark,
) {
    let kept = cache.put(segment, window, count, mark).await.unwrap();
    assert!(kept.is_some(), "a put leaves a count");
    assert_eq!(kept, cache.get(segment, window).await.unwrap());
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
    cache.add_pending(&[]).await.unwrap();
    cache.mark_pending_unknown(&[]).await.unwrap();
    assert_eq!(cache.get_many(&[], hour()).await.unwrap(), []);
    cache.remove_segment(&unknown).await.unwrap();
    cache.mark(&unknown).await.unwrap();
    assert!(
        names(cache).await.is_empty(),
        "a mark makes no segment known"
    );
}

/// `get` returns what was put, separately for each segment and window, to the microsecond.
pub async fn check_put_and_get(cache: &dyn CountCache) {
    let (sports, news) = (segment("sports"), segment("news"));
    let mark = cache.mark(&sports).await.unwrap();
    keep(cache, &sports, hour(), count(u64::MAX, 1), mark).await;
    keep(cache, &sports, minutes(7), count(0, 2), mark).await;
    let mark = cache.mark(&news).await.unwrap();
    keep(cache, &news, hour(), count(3, 3), mark).await;
    for (segment, window, count) in [
        (&sports, hour(), count(u64::MAX, 1)),
        (&sports, minutes(7), count(0, 2)),
        (&news, hour(), count(3, 3)),
    ] {
        let expected = Cached {
            count,
            pending: Some(0),
        };
        assert_eq!(cache.get(segment, window).await.unwrap(), Some(expected));
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
    let mark = cache.mark(&sports).await.unwrap();
    for (put, kept) in [
        (count(10, 0), count(10, 0)),
        (count(9, -1), count(10, 0)),
        (count(8, -1_000_000_000), count(10, 0)),
        (count(7, 1), count(7, 1)),
        (count(6, 1), count(6, 1)),
    ] {
        keep(cache, &sports, hour(), put, mark).await;
        assert_eq!(
            cache.get(&sports, hour()).await.unwrap().unwrap().count,
            kept
        );
    }
    // The mark of an ignored count must not apply to the stored count.
    cache.add_pending(&[(sports.clone(), 4)]).await.unwrap();
    let later = cache.mark(&sports).await.unwrap();
    keep(cache, &sports, hour(), count(5, 0), later).await;
    assert_eq!(
        pending(cache, &sports).await,
        Some(4),
        "the mark of an ignored count"
    );
}

/// `pending` is the number of pairs noted since the mark; each window has its own mark.
pub async fn check_pending(cache: &dyn CountCache) {
    let (sports, news) = (segment("sports"), segment("news"));
    let before = cache.mark(&sports).await.unwrap();
    cache
        .add_pending(&[(sports.clone(), 2), (news.clone(), 40)])
        .await
        .unwrap();
    let between = cache.mark(&sports).await.unwrap();
    assert_eq!(
        between.noted - before.noted,
        2,
        "a mark counts the noted pairs"
    );
    cache.add_pending(&[(sports.clone(), 3)]).await.unwrap();
    keep(cache, &sports, hour(), count(1, 0), before).await;
    keep(cache, &sports, minutes(7), count(1, 0), between).await;
    assert_eq!(
        pending(cache, &sports).await,
        Some(5),
        "pairs noted since the mark"
    );
    let short = cache.get(&sports, minutes(7)).await.unwrap().unwrap();
    assert_eq!(short.pending, Some(3), "each window has its own mark");

    let mark = cache.mark(&sports).await.unwrap();
    keep(cache, &sports, hour(), count(2, 1), mark).await;
    assert_eq!(
        pending(cache, &sports).await,
        Some(0),
        "a put subtracts the pairs that its query could see"
    );
    cache
        .add_pending(&[(sports.clone(), 1), (sports.clone(), 1)])
        .await
        .unwrap();
    assert_eq!(
        pending(cache, &sports).await,
        Some(2),
        "a segment may be named twice in a call"
    );
}

/// A gap makes `pending` unknown until a put whose mark was taken later.
pub async fn check_gaps(cache: &dyn CountCache) {
    let (sports, news) = (segment("sports"), segment("news"));
    for (index, name) in [&sports, &news].into_iter().enumerate() {
        let mark = cache.mark(name).await.unwrap();
        keep(cache, name, hour(), count(index as u64, 0), mark).await;
    }
    let early = cache.mark(&sports).await.unwrap();
    cache
        .mark_pending_unknown(&[sports.clone(), segment("only marked")])
        .await
        .unwrap();
    assert_eq!(
        pending(cache, &sports).await,
        None,
        "a gap makes pending unknown"
    );
    assert_eq!(
        pending(cache, &news).await,
        Some(0),
        "and that of no other segment"
    );
    assert!(
        names(cache).await.contains("only marked"),
        "a segment with a gap is known"
    );

    keep(cache, &sports, hour(), count(2, 1), early).await;
    assert_eq!(
        pending(cache, &sports).await,
        None,
        "a mark from before the gap can't repair it"
    );
    cache.add_pending(&[(sports.clone(), 5)]).await.unwrap();
    assert_eq!(pending(cache, &sports).await, None, "nor can later notes");
    let late = cache.mark(&sports).await.unwrap();
    keep(cache, &sports, hour(), count(3, 2), late).await;
    assert_eq!(
        pending(cache, &sports).await,
        Some(0),
        "a mark from after the gap repairs it"
    );
}

/// A mark from before the counters were removed never makes `pending` a number.
pub async fn check_marks_of_a_former_life(cache: &dyn CountCache) {
    let sports = segment("sports");
    cache.add_pending(&[(sports.clone(), 5)]).await.unwrap();
    let former = cache.mark(&sports).await.unwrap();
    keep(cache, &sports, hour(), count(0, 0), former).await;
    cache.remove_segment(&sports).await.unwrap();
    cache.add_pending(&[(sports.clone(), 5)]).await.unwrap();
    keep(cache, &sports, hour(), count(0, 1), former).await;
    assert_eq!(
        pending(cache, &sports).await,
        None,
        "equal counters of another epoch"
    );

    let foreign = PendingMark {
        epoch: former.epoch.wrapping_add(u64::MAX / 2),
        ..former
    };
    keep(cache, &sports, hour(), count(0, 2), foreign).await;
    assert_eq!(pending(cache, &sports).await, None, "a foreign mark");
    let now = cache.mark(&sports).await.unwrap();
    keep(cache, &sports, hour(), count(0, 3), now).await;
    assert_eq!(
        pending(cache, &sports).await,
        Some(0),
        "a mark of this epoch"
    );
}

/// The known segments are the listed ones, the noted ones, and those with users.
pub async fn check_known_segments(cache: &dyn CountCache) {
    cache
        .add_pending(&[(segment("noted"), 1), (segment("nothing"), 0)])
        .await
        .unwrap();
    let mark = cache.mark(&segment("counted")).await.unwrap();
    keep(cache, &segment("counted"), hour(), count(1, 0), mark).await;
    keep(cache, &segment("nobody"), hour(), count(0, 0), mark).await;
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
    cache.add_pending(&[(segment("later"), 1)]).await.unwrap();
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

/// A segment with users or recent notes can't be removed; any other segment can.
pub async fn check_remove_segment(cache: &dyn CountCache) {
    let gone = segment("gone");
    cache
        .add_pending(&[(gone.clone(), 1), (segment("other"), 1)])
        .await
        .unwrap();
    let mark = cache.mark(&gone).await.unwrap();
    keep(cache, &gone, minutes(7), count(0, 0), mark).await;
    keep(cache, &gone, hour(), count(2, 0), mark).await;
    cache.remove_segment(&gone).await.unwrap();
    assert!(
        names(cache).await.contains("gone"),
        "a segment with users stays"
    );

    keep(cache, &gone, hour(), count(0, 1), mark).await;
    cache.add_pending(&[(gone.clone(), 1)]).await.unwrap();
    let later = cache.mark(&gone).await.unwrap();
    keep(cache, &gone, minutes(7), count(0, 1), later).await;
    cache.remove_segment(&gone).await.unwrap();
    assert!(
        names(cache).await.contains("gone"),
        "a segment noted since stays"
    );

    keep(cache, &gone, hour(), count(0, 2), later).await;
    cache
        .mark_pending_unknown(std::slice::from_ref(&gone))
        .await
        .unwrap();
    cache.remove_segment(&gone).await.unwrap();
    assert!(
        names(cache).await.contains("gone"),
        "a segment with a gap stays"
    );

    let mark = cache.mark(&gone).await.unwrap();
    keep(cache, &gone, hour(), count(0, 3), mark).await;
    cache.remove_segment(&gone).await.unwrap();
    let known = names(cache).await;
    assert!(!known.contains("gone"), "a segment without users goes");
    assert!(known.contains("other"), "and no other segment with it");
    assert_eq!(
        cache.get(&gone, hour()).await.unwrap(),
        None,
        "its counts go"
    );
    assert_eq!(
        cache.get(&gone, minutes(7)).await.unwrap(),
        None,
        "of every window"
    );
    cache.remove_segment(&gone).await.unwrap();

    cache.add_pending(&[(gone.clone(), 1)]).await.unwrap();
    assert!(
        names(cache).await.contains("gone"),
        "a removed segment may come back"
    );
}

/// Names that are known to break escaping are returned unchanged and do not collide.
pub async fn check_hostile_names(cache: &dyn CountCache) {
    let more = [
        "{",
        "}",
        "{}",
        "a}b{c",
        "%7B",
        "%7b",
        "%257B",
        "}{tag}",
        "a:pending",
        "lock",
    ];
    let all: Vec<_> = HOSTILE_NAMES
        .iter()
        .chain(&more)
        .map(|name| segment(name))
        .collect();
    for (index, name) in all.iter().enumerate() {
        cache.add_pending(&[(name.clone(), 1)]).await.unwrap();
        let mark = cache.mark(name).await.unwrap();
        keep(cache, name, hour(), count(index as u64, 0), mark).await;
        cache
            .add_pending(&[(name.clone(), index as u64)])
            .await
            .unwrap();
    }
    for (index, name) in all.iter().enumerate() {
        let number = index as u64;
        let expected = Cached {
            count: count(number, 0),
            pending: Some(number),
        };
        assert_eq!(
            cache.get(name, hour()).await.unwrap(),
            Some(expected),
            "{name}"
        );
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
        let mark = cache.mark(name).await.unwrap();
        keep(cache, name, hour(), count(index as u64, 0), mark).await;
    }
    let notes: Vec<_> = all.iter().map(|name| (name.clone(), 2)).collect();
    cache.add_pending(&notes).await.unwrap();
    let many = cache.get_many(&all, hour()).await.unwrap();
    assert_eq!(many.len(), all.len());
    for (index, got) in many.into_iter().enumerate() {
        let users = index as u64;
        let expected = index.is_multiple_of(7).then(|| Cached {
            count: count(users, 0),
            pending: Some(2),
        });
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
    one.add_pending(&[(sports.clone(), 1)]).await.unwrap();
    let mark = one.mark(&sports).await.unwrap();
    one.put(&sports, hour(), count(1, 0), mark).await.unwrap();
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

/// Concurrent `add_pending` calls lose nothing.
pub async fn check_concurrent_notes(cache: Arc<dyn CountCache>) {
    let sports = segment("sports");
    let mark = cache.mark(&sports).await.unwrap();
    keep(&*cache, &sports, hour(), count(0, 0), mark).await;
    let notes = (0..8).map(|_| async {
        for _ in 0..25 {
            cache
                .add_pending(&[(segment("sports"), 2), (segment("news"), 1)])
                .await
                .unwrap();
        }
    });
    futures::future::join_all(notes).await;
    assert_eq!(
        pending(&*cache, &sports).await,
        Some(400),
        "no note is lost"
    );
}

/// Runs `script`, one step per byte, through `clients` of one cache and compares them with a model of the true count.
/// Checks after each step that `users + pending` is never below that count. `forget` makes the cache lose all data.
pub async fn check_scenario(clients: &[&dyn CountCache], script: &[u8], forget: impl AsyncFn()) {
    let segment = segment("sports");
    let mut model = Model::default();
    for &byte in script {
        let client = clients[usize::from(byte >> 4) % clients.len()];
        model.step(client, &segment, byte & 0xf, &forget).await;
        for reader in clients {
            model.check(*reader, &segment).await;
        }
    }
    // In any state, one refresh without concurrent writes makes everything known again.
    let refresher = clients[0];
    model.note_all(refresher, &segment).await;
    let mark = refresher.mark(&segment).await.unwrap();
    refresher
        .put(&segment, hour(), model.count(), mark)
        .await
        .unwrap();
    for reader in clients {
        let cached = reader.get(&segment, hour()).await.unwrap().unwrap();
        assert_eq!(
            cached,
            Cached {
                count: model.count(),
                pending: Some(0)
            },
            "after a refresh"
        );
    }
}

/// The true state of one segment that only gains users. Each pair is a new user: the worst case.
#[derive(Debug, Default)]
struct Model {
    /// The users that a count by the store finds.
    stored: u64,
    /// Pairs that are stored, but neither noted nor acknowledged yet.
    unnoted: Vec<u64>,
    /// The acknowledged pairs.
    acknowledged: u64,
    marks: Vec<PendingMark>,
    counts: Vec<(Count, PendingMark)>,
    instant: i64,
}

impl Model {
    async fn step(
        &mut self,
        client: &dyn CountCache,
        segment: &Segment,
        step: u8,
        forget: &impl AsyncFn(),
    ) {
        match step {
            0..=2 => {
                self.stored += u64::from(step) + 1;
                self.unnoted.push(u64::from(step) + 1);
            }
            3..=6 => {
                if let Some(pairs) = self.unnoted.pop() {
                    client
                        .add_pending(&[(segment.clone(), pairs)])
                        .await
                        .unwrap();
                    self.acknowledged += pairs;
                }
            }
            7 => {
                if let Some(pairs) = self.unnoted.pop() {
                    client
                        .mark_pending_unknown(std::slice::from_ref(segment))
                        .await
                        .unwrap();
                    self.acknowledged += pairs;
                }
            }
            8..=9 => self.marks.push(client.mark(segment).await.unwrap()),
            10..=11 => {
                if let Some(mark) = self.marks.pop() {
                    self.instant += 1;
                    self.counts.push((self.count(), mark));
                }
            }
            12..=13 => {
                if let Some((count, mark)) = self.counts.pop() {
                    client.put(segment, hour(), count, mark).await.unwrap();
                }
            }
            14 => client.remove_segment(segment).await.unwrap(),
            _ => forget().await,
        }
    }

    fn count(&self) -> Count {
        count(self.stored, self.instant)
    }

    async fn note_all(&mut self, client: &dyn CountCache, segment: &Segment) {
        for pairs in self.unnoted.drain(..) {
            client
                .add_pending(&[(segment.clone(), pairs)])
                .await
                .unwrap();
        }
        self.instant += 1;
    }

    async fn check(&self, reader: &dyn CountCache, segment: &Segment) {
        let Some(cached) = reader.get(segment, hour()).await.unwrap() else {
            return;
        };
        assert!(cached.count.users <= self.stored, "a count from nowhere");
        let Some(pending) = cached.pending else {
            return;
        };
        let bound = cached.count.users + pending;
        assert!(
            bound >= self.acknowledged,
            "{bound} is below {}: {self:?}",
            self.acknowledged
        );
    }
}
