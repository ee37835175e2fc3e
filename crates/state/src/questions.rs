//! Questions that take a walk over the index: counts of sets of users, and overlaps.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, timeout_at};

use super::State;
use super::walks::{Walks, busy};
use domain::overlap::{Overlap, TopOverlaps, TopQuestion};
use domain::store::StoreError;
use domain::{Expression, Floor, Segment, SetCount, Slot, TimeFrame, Timestamp, Window};
use index::{Between, Index, OverlapError, OverlapRings};

/// How long the rings of overlaps are used after they were counted, if that took little time.
const RINGS_KEPT: Duration = Duration::from_secs(10);
/// Otherwise, they are used for this many times as long as the count took, which bounds the CPU time of counting them.
const RINGS_KEPT_TIMES: u32 = 10;
/// The steps of rings, in seconds: the first is used with which the rings of all pairs fit into memory. People ask for windows
/// of hours and days.
const RING_STEPS: [u32; 3] = [3_600, 86_400, 604_800];
/// The maximum memory of the rings: hours of two weeks for 400 segments, and days for 2,000.
const MAX_RING_BYTES: u64 = 128 << 20;

/// Answers questions on threads of their own.
#[derive(Debug)]
pub struct Questions {
    state: Arc<State>,
    frame: TimeFrame,
    walks: Walks,
    rings: Mutex<Option<Kept>>,
    /// Locked while the rings are counted.
    counting: tokio::sync::Mutex<()>,
}

/// The overlaps of all pairs over many windows, and until when they are used.
#[derive(Debug, Clone)]
struct Kept {
    rings: Arc<OverlapRings>,
    as_of: Timestamp,
    /// They have every pair that was recorded before.
    began: Instant,
    until: Instant,
    /// How many segments a replica had emptied before, because it lacked some of their users.
    resets: u64,
}

impl Questions {
    pub(super) fn new(state: Arc<State>, frame: TimeFrame) -> Self {
        Self {
            walks: Walks::new(Arc::clone(&state)),
            state,
            frame,
            rings: Mutex::default(),
            counting: tokio::sync::Mutex::default(),
        }
    }

    /// The number of users in the set that `expression` means, unless `floor` withholds it; see [`Index::count_set`].
    ///
    /// # Errors
    ///
    /// [`StoreError::Busy`] if too many other requests are running, and [`StoreError::Timeout`] if this one takes longer
    /// than ten seconds.
    pub async fn count_set(
        &self,
        expression: &Expression,
        window: Window,
        floor: Floor,
        as_of: Timestamp,
    ) -> Result<SetCount, StoreError> {
        let expression = expression.clone();
        let (window, slot) = (window.slots(), self.slot(as_of));
        let counted = self
            .walks
            .run(Walks::deadline(), move |index, should_stop| {
                let counted = index.count_set(&expression, window, slot, should_stop)?;
                let is_shown =
                    !floor.is_on() || is_shown(index, &expression, window, floor, should_stop)?;
                Ok((is_shown.then_some(counted.users), counted.as_of))
            });
        let (users, counted) = counted.await?;
        Ok(SetCount {
            users,
            as_of: self.frame.resolution().counted_as_of(as_of, counted),
        })
    }

    /// The users in common of each pair of `segments`, with the users of any segment. It is read from what was counted for all
    /// segments a few seconds ago, if that is there, unless it must be `fresh`.
    ///
    /// # Errors
    ///
    /// Those of [`count_set`](Self::count_set), and [`StoreError::Rejected`] for more than
    /// [`MAX_SEGMENTS`](domain::overlap::MAX_SEGMENTS) segments.
    pub async fn overlap(
        &self,
        segments: &[Segment],
        window: Window,
        fresh: bool,
        as_of: Timestamp,
    ) -> Result<Overlap, StoreError> {
        let (window, slot) = (window.slots(), self.slot(as_of));
        if !fresh
            && let Some(kept) = self.kept()
            && let Some(matrix) = kept.rings.matrix_of(segments, window)
        {
            let as_of = kept.as_of;
            return Ok(Overlap { matrix, as_of });
        }
        let segments = segments.to_vec();
        let counted = self
            .walks
            .run(Walks::deadline(), move |index, should_stop| {
                index.overlaps(Between::These(&segments), window, slot, should_stop)
            });
        let counted = counted.await?;
        Ok(Overlap {
            matrix: counted.matrix,
            as_of: self.frame.resolution().counted_as_of(as_of, counted.as_of),
        })
    }

    /// The pairs of all segments that are asked for. The overlaps of all pairs and of windows of whole hours are counted at once, and
    /// kept for a few seconds; with `fresh` they are counted anew. For another window they are counted each time.
    ///
    /// # Errors
    ///
    /// Those of [`overlap`](Self::overlap).
    pub async fn top_overlaps(
        &self,
        question: TopQuestion,
        window: Window,
        fresh: bool,
        as_of: Timestamp,
    ) -> Result<TopOverlaps, StoreError> {
        let (deadline, slot, resolution) =
            (Walks::deadline(), self.slot(as_of), self.frame.resolution());
        let step = ring_step(self.state.index.stats().segments, &self.frame);
        let has_ring = window == self.frame.full_window() || window.slots().is_multiple_of(step);
        let kept = match has_ring {
            true => Some(self.rings(step, fresh, as_of, deadline).await?),
            false => None,
        };
        let answered = self.walks.run(deadline, move |index, should_stop| {
            let window = window.slots();
            let read = kept.and_then(|kept| Some((kept.rings.matrix(window)?, kept.as_of)));
            let (matrix, as_of) = match read {
                Some(read) => read,
                None => {
                    let counted = index.overlaps(Between::All, window, slot, should_stop)?;
                    let as_of = resolution.counted_as_of(as_of, counted.as_of);
                    (counted.matrix, as_of)
                }
            };
            let everybody = matrix.everybody();
            let pairs = question.answer(matrix.pairs(), everybody);
            Ok(TopOverlaps {
                pairs,
                everybody,
                as_of,
            })
        });
        answered.await
    }

    /// The rings: those that were counted a few seconds ago, or for a `fresh` answer since this call. Concurrent calls share them.
    async fn rings(
        &self,
        step: u32,
        fresh: bool,
        as_of: Timestamp,
        deadline: Instant,
    ) -> Result<Kept, StoreError> {
        let asked = Instant::now();
        let usable = || self.kept().filter(|kept| !fresh || kept.began >= asked);
        if let Some(kept) = usable() {
            return Ok(kept);
        }
        let Ok(_counting) = timeout_at(deadline, self.counting.lock()).await else {
            return Err(busy());
        };
        if let Some(kept) = usable() {
            return Ok(kept);
        }
        let (began, slot) = (Instant::now(), self.slot(as_of));
        let resets = self.state.following.lock().resets;
        let counted = self.walks.run(deadline, move |index, should_stop| {
            index.overlap_rings(step, slot, should_stop)
        });
        let rings = counted.await?;
        let kept = Kept {
            as_of: self.frame.resolution().counted_as_of(as_of, rings.as_of()),
            rings: Arc::new(rings),
            began,
            until: Instant::now() + RINGS_KEPT.max(began.elapsed() * RINGS_KEPT_TIMES),
            resets,
        };
        *self.rings.lock() = Some(kept.clone());
        Ok(kept)
    }

    /// The rings that were counted recently.
    fn kept(&self) -> Option<Kept> {
        let resets = self.state.following.lock().resets;
        let mut kept = self.rings.lock();
        drop(kept.take_if(|kept| kept.resets != resets || Instant::now() >= kept.until));
        kept.clone()
    }

    fn slot(&self, instant: Timestamp) -> Slot {
        self.frame.resolution().slot_of(instant)
    }
}

/// Whether `floor` allows the count of a set: see [`Floor`].
fn is_shown(
    index: &Index,
    expression: &Expression,
    window: u32,
    floor: Floor,
    should_stop: &mut dyn FnMut() -> bool,
) -> Result<bool, OverlapError> {
    let segments: Vec<Segment> = expression.segments().into_iter().cloned().collect();
    let head = index.head();
    let Some(groups) = index.group_sizes(&segments, window, head, should_stop)? else {
        return Ok(false);
    };
    if floor.hides_group(groups.smallest) || !expression.needs_every_segment() {
        return Ok(!floor.hides_group(groups.smallest));
    }
    // Everybody without the users of a segment whose count is shown.
    let names = index.segment_names().into_iter();
    let counts = names.map(|name| index.count(name.as_str(), window, head).0);
    let mut shown = counts.filter(|users| !floor.hides_group(*users));
    Ok(shown.all(|users| !floor.hides_beside(users, groups.everybody)))
}

/// The length of a step in slots.
fn ring_step(segments: u64, frame: &TimeFrame) -> u32 {
    let window = frame.full_window().slots();
    let pairs = segments.saturating_mul(segments) / 2;
    let steps = RING_STEPS.map(|seconds| seconds.div_ceil(frame.resolution().seconds()));
    let fitting = steps.into_iter().find(|step| {
        let counters = u64::from(window.div_ceil(*step)).saturating_mul(pairs);
        counters.saturating_mul(size_of::<u32>() as u64) <= MAX_RING_BYTES
    });
    fitting.unwrap_or(window)
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::overlap::OverlapOrder;
    use index::{Entry, Fingerprint};

    const HEAD: u64 = 100_000;

    /// Questions about two weeks of minutes. Each segment has these users, and a slot before the head in which they were seen.
    fn questions(segments: &[(&str, std::ops::Range<u64>, u64)]) -> Questions {
        let [window, slot] = [14 * 86_400, 60].map(Duration::from_secs);
        let frame = TimeFrame::new(window, slot, slot).unwrap();
        let questions = Questions::new(Arc::new(State::new(frame)), frame);
        for (name, users, ago) in segments {
            record(&questions, name, users.clone(), *ago);
        }
        questions
    }

    fn record(questions: &Questions, segment: &str, users: std::ops::Range<u64>, ago: u64) {
        let slot = Slot::new(HEAD - ago);
        let entry = |user: u64| Entry::new(Fingerprint::new(user << 16), slot);
        let entries: Vec<Entry> = users.map(entry).collect();
        let segment = Segment::new(segment).unwrap();
        questions.state.index.upsert(&segment, &entries, slot);
    }

    fn now() -> Timestamp {
        Timestamp::from_second(HEAD as i64 * 60).unwrap()
    }

    fn minutes(questions: &Questions, minutes: u64) -> Window {
        let window = Duration::from_secs(minutes * 60);
        questions.frame.window(window).unwrap()
    }

    #[tokio::test]
    async fn a_floor_compares_counts_over_the_window_of_the_question() {
        // Over a day, all but 5 of 105 users are in "a"; over two weeks, 300 more.
        let questions = questions(&[
            ("a", 0..400, 10_000),
            ("a", 0..100, 10),
            ("b", 400..405, 10),
        ]);
        let everybody: Expression = "*".parse().unwrap();
        let full = questions.frame.full_window();
        for (window, floor, users) in [
            (minutes(&questions, 1_440), 5, Some(105)),
            (minutes(&questions, 1_440), 6, None),
            (full, 6, None),
            (full, 5, Some(405)),
        ] {
            let counted = questions.count_set(&everybody, window, Floor::of(floor), now());
            assert_eq!(counted.await.unwrap().users, users, "{floor}");
        }
    }

    fn top() -> TopQuestion {
        TopQuestion {
            order: OverlapOrder::Both,
            limit: 10,
            at_least: 1,
            floor: Floor::default(),
            reach: domain::Reach::default(),
        }
    }

    #[tokio::test]
    async fn rings_are_counted_for_the_windows_that_they_have_only() {
        let questions = questions(&[("a", 0..10, 70), ("b", 0..8, 10)]);
        for (window, both, is_kept) in [
            (75, 8, false),
            (65, 0, false),
            (60, 0, true),
            (120, 8, true),
        ] {
            let window = minutes(&questions, window);
            let answered = questions.top_overlaps(top(), window, false, now());
            let pairs = answered.await.unwrap().pairs;
            assert_eq!(pairs.first().map_or(0, |pair| pair.both), both);
            assert_eq!(questions.kept().is_some(), is_kept, "{window:?}");
        }
    }

    #[tokio::test]
    async fn concurrent_questions_share_rings_that_are_fresh_enough() {
        let questions = questions(&[("a", 0..10, 0), ("b", 0..8, 0)]);
        let full = questions.frame.full_window();
        let rings = async |fresh| {
            let counted = questions.rings(60, fresh, now(), Walks::deadline());
            counted.await.unwrap().rings
        };
        let (one, two) = tokio::join!(rings(false), rings(false));
        assert!(Arc::ptr_eq(&one, &two));
        record(&questions, "b", 8..10, 0);
        // The rings of the first may lack what was recorded before the others asked.
        let (first, second, third) = tokio::join!(rings(true), rings(true), rings(true));
        assert!(!Arc::ptr_eq(&one, &first) && !Arc::ptr_eq(&first, &second));
        assert!(Arc::ptr_eq(&second, &third) && Arc::ptr_eq(&third, &rings(false).await));
        let matrix = third.matrix(full.slots()).unwrap();
        assert_eq!(matrix.both(0, 1), 10);
    }

    #[test]
    fn rings_fit_into_memory() {
        let frame = |window: u64, resolution: u64| {
            let [window, resolution] = [window, resolution].map(Duration::from_secs);
            TimeFrame::new(window, resolution, resolution).unwrap()
        };
        let two_weeks = frame(14 * 86_400, 60);
        for (segments, step) in [(0, 60), (200, 60), (440, 60), (460, 1_440), (2_000, 1_440)] {
            assert_eq!(ring_step(segments, &two_weeks), step, "{segments}");
        }
        assert_eq!(ring_step(200, &frame(28_800, 1)), 3_600);
        // A step is at least a slot.
        assert_eq!(ring_step(10, &frame(400 * 86_400, 3_600)), 1);
        let years = frame(1_200 * 86_400, 3_600);
        assert_eq!(ring_step(2_000, &years), years.full_window().slots());
    }
}
