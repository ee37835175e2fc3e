//! Questions that take a walk over the index: counts of sets of users, and overlaps.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::available_parallelism;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout_at};

use super::State;
use domain::overlap::{Overlap, OverlapMatrix, TopOverlaps, TopQuestion};
use domain::store::StoreError;
use domain::{Expression, Floor, Segment, SetCount, Slot, TimeFrame, Timestamp, Window};
use index::{Between, Cancelled, Index, OverlapError, OverlapRings};

/// The longest time for one answer, with the wait for other questions. Far more than a walk over a hundred million pairs takes.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How long the rings of overlaps are used after they were counted, if that took little time.
const RINGS_KEPT: Duration = Duration::from_secs(10);
/// Otherwise this many times as long as it took, so that at most a part of one core in so many counts them.
const RINGS_KEPT_TIMES: u32 = 10;
/// The steps of rings, in seconds: the first is used with which the rings of all pairs fit into memory. People ask for windows
/// of hours and days.
const RING_STEPS: [u32; 3] = [3_600, 86_400, 604_800];
/// The maximum memory of the rings: hours of two weeks for 400 segments, and days for 2,000.
const MAX_RING_BYTES: usize = 128 << 20;

/// Answers questions on threads for blocking work. At most half of the cores work on them, so that pairs and counts
/// are taken and served meanwhile.
#[derive(Debug)]
pub struct Questions {
    state: Arc<State>,
    frame: TimeFrame,
    permits: Arc<Semaphore>,
    rings: Mutex<Option<Kept>>,
}

/// The overlaps of all pairs over many windows, and until when they are used.
#[derive(Debug, Clone)]
struct Kept {
    rings: Arc<OverlapRings>,
    as_of: Timestamp,
    until: Instant,
    /// How many segments a replica had emptied before, because it lacked some of their users.
    resets: u64,
}

/// Tells the walk to stop, once the caller has gone.
#[derive(Debug)]
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Questions {
    pub(super) fn new(state: Arc<State>, frame: TimeFrame) -> Self {
        let cores = available_parallelism().map_or(1, usize::from);
        Self {
            state,
            frame,
            permits: Arc::new(Semaphore::new(cores.div_ceil(2))),
            rings: Mutex::default(),
        }
    }

    /// The number of users in the set that `expression` means, unless `floor` withholds it; see [`Index::count_set`].
    ///
    /// # Errors
    ///
    /// [`StoreError::Busy`] if other questions take all the time, and [`StoreError::Timeout`] if this one takes longer
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
        let counted = self.answer(move |index, should_stop| {
            let counted = index.count_set(&expression, window, slot, should_stop)?;
            let is_shown =
                !floor.is_on() || is_shown(index, &expression, window, floor, should_stop)?;
            Ok((is_shown.then_some(counted.users), counted.as_of))
        });
        let (users, counted) = counted.await?;
        Ok(SetCount {
            users,
            as_of: self.counted_as_of(as_of, counted),
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
            && let Some(matrix) = read(&kept.rings, segments, window)
        {
            let as_of = kept.as_of;
            return Ok(Overlap { matrix, as_of });
        }
        let segments = segments.to_vec();
        let counted = self.answer(move |index, should_stop| {
            tolerated(index.overlaps(
                Between::TheseAndEverybody(&segments),
                window,
                slot,
                should_stop,
            ))
        });
        let counted = counted.await??;
        Ok(Overlap {
            matrix: counted.matrix,
            as_of: self.counted_as_of(as_of, counted.as_of),
        })
    }

    /// The pairs of all segments that are asked for. The overlaps of all pairs and windows are counted at once, and kept for a few
    /// seconds; with `fresh` they are counted anew.
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
        let kept = if fresh { None } else { self.kept() };
        let kept = match kept {
            Some(kept) => kept,
            None => self.count_rings(as_of).await?,
        };
        let (window, slot, kept_as_of) = (window.slots(), self.slot(as_of), kept.as_of);
        let counted = self.answer(move |index, should_stop| {
            if let Some(everybody) = kept.rings.everybody(window)
                && let Some(pairs) = kept.rings.pairs(window)
            {
                return Ok(Ok((question.answer(pairs, everybody), everybody, None)));
            }
            let counted = tolerated(index.overlaps(Between::All, window, slot, should_stop))?;
            Ok(counted.map(|counted| {
                let everybody = counted.matrix.everybody().unwrap_or(0);
                let pairs = question.answer(counted.matrix.pairs(), everybody);
                (pairs, everybody, Some(counted.as_of))
            }))
        });
        let (pairs, everybody, counted) = counted.await??;
        Ok(TopOverlaps {
            pairs,
            everybody,
            as_of: counted.map_or(kept_as_of, |counted| self.counted_as_of(as_of, counted)),
        })
    }

    async fn count_rings(&self, as_of: Timestamp) -> Result<Kept, StoreError> {
        let resets = self.state.following.lock().resets;
        let (frame, slot) = (self.frame, self.slot(as_of));
        let counted = self.answer(move |index, should_stop| {
            let began = Instant::now();
            let step = ring_step(index.stats().segments, &frame);
            let rings = index.overlap_rings(Between::All, step, MAX_RING_BYTES, slot, should_stop);
            Ok(tolerated(rings)?.map(|rings| (rings, began.elapsed())))
        });
        let (rings, took) = counted.await??;
        let kept = Kept {
            as_of: self.counted_as_of(as_of, rings.as_of()),
            rings: Arc::new(rings),
            until: Instant::now() + RINGS_KEPT.max(took * RINGS_KEPT_TIMES),
            resets,
        };
        *self.rings.lock() = Some(kept.clone());
        Ok(kept)
    }

    /// The rings that were counted recently.
    fn kept(&self) -> Option<Kept> {
        let resets = self.state.following.lock().resets;
        let mut kept = self.rings.lock();
        let is_usable = kept
            .as_ref()
            .is_some_and(|kept| kept.resets == resets && Instant::now() < kept.until);
        if !is_usable {
            *kept = None;
        }
        kept.clone()
    }

    fn slot(&self, instant: Timestamp) -> Slot {
        self.frame.resolution().slot_of(instant)
    }

    /// The instant of an answer that was asked for as of `asked`, and is as of `counted`, the same slot or a later one.
    fn counted_as_of(&self, asked: Timestamp, counted: Slot) -> Timestamp {
        match counted == self.slot(asked) {
            true => asked,
            false => asked.max(self.frame.resolution().start_of(counted)),
        }
    }

    /// Runs `walk` on a thread of its own. It stops soon after this future is dropped, or at the timeout.
    async fn answer<T, W>(&self, walk: W) -> Result<T, StoreError>
    where
        T: Send + 'static,
        W: FnOnce(&Index, &mut dyn FnMut() -> bool) -> Result<T, Cancelled> + Send + 'static,
    {
        let deadline = Instant::now() + TIMEOUT;
        let permit = timeout_at(deadline, Arc::clone(&self.permits).acquire_owned()).await;
        let Ok(Ok(permit)) = permit else {
            return Err(StoreError::Busy(
                "other questions about sets of users take all the time".to_owned(),
            ));
        };
        let stopped = Arc::new(AtomicBool::new(false));
        let stop = StopOnDrop(Arc::clone(&stopped));
        let state = Arc::clone(&self.state);
        let walking = spawn_blocking(move || {
            let _permit = permit;
            let mut should_stop = || stopped.load(Ordering::Relaxed) || Instant::now() >= deadline;
            walk(&state.index, &mut should_stop)
        });
        let walked = walking.await;
        drop(stop);
        match walked {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(Cancelled)) => Err(StoreError::Timeout(format!(
                "the question takes more than {} s",
                TIMEOUT.as_secs()
            ))),
            Err(error) => Err(StoreError::Unavailable(error.to_string())),
        }
    }
}

/// Whether `floor` allows to show the answer for a set: see [`Floor`].
fn is_shown(
    index: &Index,
    expression: &Expression,
    window: u32,
    floor: Floor,
    should_stop: &mut dyn FnMut() -> bool,
) -> Result<bool, Cancelled> {
    let segments: Vec<Segment> = expression.segments().into_iter().cloned().collect();
    let head = index.head();
    let smallest = index.smallest_group(&segments, window, head, should_stop)?;
    if floor.hides_group(smallest) {
        return Ok(false);
    }
    if !expression.needs_every_segment() {
        return Ok(true);
    }
    // Everybody without the users of a segment whose count is shown.
    let everybody = index.smallest_group(&[], window, head, should_stop)?;
    let counts = index.segments(head).into_iter();
    let mut shown = counts.filter(|(_, users)| !floor.hides_group(*users));
    Ok(shown.all(|(_, users)| !floor.hides_beside(users, everybody)))
}

/// Tells a question that is refused from one that was cancelled.
fn tolerated<T>(counted: Result<T, OverlapError>) -> Result<Result<T, StoreError>, Cancelled> {
    match counted {
        Ok(counted) => Ok(Ok(counted)),
        Err(OverlapError::Cancelled) => Err(Cancelled),
        Err(error @ OverlapError::TooManySegments(_)) => {
            Ok(Err(StoreError::Rejected(error.to_string())))
        }
    }
}

/// What was counted for all segments, for these. `None` if a segment or the window is not among it.
fn read(rings: &OverlapRings, segments: &[Segment], window: u32) -> Option<OverlapMatrix> {
    let everybody = rings.everybody(window)?;
    let mut rows = Vec::with_capacity(segments.len());
    for (number, segment) in segments.iter().enumerate() {
        let others = segments.iter().take(number + 1);
        let row = others.map(|other| rings.both(segment.as_str(), other.as_str(), window));
        rows.push(row.collect::<Option<Vec<u64>>>()?);
    }
    let both = |row: usize, column: usize| rows[row][column];
    Some(OverlapMatrix::new(segments.to_vec(), Some(everybody), both))
}

/// The length of a step in slots.
fn ring_step(segments: u64, frame: &TimeFrame) -> u32 {
    let window = frame.full_window().slots();
    let pairs = segments.saturating_mul(segments) / 2;
    let steps = RING_STEPS.map(|seconds| seconds.div_ceil(frame.resolution().seconds()));
    let fitting = steps.into_iter().find(|step| {
        let counters = u64::from(window.div_ceil(*step)).saturating_mul(pairs);
        counters.saturating_mul(size_of::<u32>() as u64) <= MAX_RING_BYTES as u64
    });
    fitting.unwrap_or(window)
}

#[cfg(test)]
mod tests {
    use super::*;

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
