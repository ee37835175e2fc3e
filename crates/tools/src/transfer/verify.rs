//! Verifies that the target has the users of the source: compares the counts of both sides as of one instant.
//!
//! Without concurrent writes the two counts of a segment must be equal. A target with *more* users had pairs of its own,
//! or the source has erased or hidden some; according to the counts, no user of the source is missing. A segment with
//! *fewer* users in the target is copied again completely, and checked against a lower bound that holds in spite of
//! writes to the source:
//!
//! > Let at most D slots pass from an instant T1 to T2. Every user who is in the source at T1, and whose latest slot is
//! > not among the D oldest slots of the window, is in the window as of T2 too. The count over the window less D slots,
//! > taken at T1, is the number of these users. A copy that starts after T1 reads them all, in the same slot or a later
//! > one. So the target must count at least as many as of T2.
//!
//! A target that reaches this bound is only behind a source that is being written to. A target below it lacks users.
//! (A target in InfluxDB hides users who share a point, an embedded one users who share a fingerprint;
//! `docs/concepts/exactness.md` says how few these are.)

use std::time::Duration;

use futures::stream::{self, StreamExt, TryStreamExt};

use super::{Step, Transfer, TransferError};
use domain::store::{PairStore, StoreError};
use domain::{Count, Segment, Timestamp, Window};

/// How often a segment that lacks users is copied again. Slots that pass during a copy loosen the bound.
const ROUNDS: usize = 3;
/// The time that the bound allows for the first round; each further round allows four times as much.
const FIRST_ROUND: Duration = Duration::from_secs(30);

/// A segment on both sides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compared {
    /// The segment.
    pub segment: Segment,
    /// Users in the source.
    pub source: u64,
    /// Users in the target, as of the same slot.
    pub target: u64,
    /// The result of the comparison.
    pub comparison: Comparison,
}

/// How two counts of a segment compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Comparison {
    /// The counts are equal.
    Equal,
    /// The target has more users.
    More,
    /// The target has all users that the source had when the last copy started; the source has new ones since.
    Behind,
    /// The target lacks users.
    Less,
}

impl Transfer {
    /// Compares every segment of both sides.
    pub(super) async fn compare_all(&self) -> Result<Vec<Compared>, TransferError> {
        let now = self.parts.clock.now();
        let mut segments = self.segments().await?;
        let theirs = self.retry(async || self.parts.target.segments(now).await);
        segments.extend(theirs.await.map_err(TransferError::Target)?);
        segments.sort_unstable();
        segments.dedup();
        self.observer()
            .begins(Step::Comparing, segments.len() as u64);
        let compared = stream::iter(segments).map(|segment| async move {
            let compared = self.compare(segment).await;
            self.observer().moved(1, 0);
            compared
        });
        let mut compared: Vec<_> = compared
            .buffer_unordered(self.parts.parallelism.max(1))
            .try_collect()
            .await?;
        compared.sort_unstable_by(|a: &Compared, b| a.segment.cmp(&b.segment));
        Ok(compared)
    }

    async fn compare(&self, segment: Segment) -> Result<Compared, TransferError> {
        let window = self.parts.frame.full_window();
        let mut counts = self.count_both(&segment, window).await?;
        let mut is_behind = false;
        let mut allowed = FIRST_ROUND;
        for _ in 0..ROUNDS {
            if counts.target >= counts.source {
                break;
            }
            let began = self.parts.clock.now();
            let floors = self.floors(&segment, allowed, began).await?;
            self.copy_segment(&segment, self.oldest(), None).await?;
            counts = self.count_both(&segment, window).await?;
            let passed =
                (self.slot_of(counts.as_of).number()).saturating_sub(self.slot_of(began).number());
            is_behind = floors
                .iter()
                .find(|floor| passed <= floor.slots)
                .is_some_and(|floor| counts.target >= floor.users);
            if passed == 0 {
                // No slot has passed, so the bound is exact.
                break;
            }
            allowed *= 4;
        }
        let comparison = match (counts.target.cmp(&counts.source), is_behind) {
            (std::cmp::Ordering::Equal, _) => Comparison::Equal,
            (std::cmp::Ordering::Greater, _) => Comparison::More,
            (std::cmp::Ordering::Less, true) => Comparison::Behind,
            (std::cmp::Ordering::Less, false) => Comparison::Less,
        };
        Ok(Compared {
            segment,
            source: counts.source,
            target: counts.target,
            comparison,
        })
    }

    /// The lower bounds for the target when no slot, one slot, or as many slots as in `time` have passed.
    async fn floors(
        &self,
        segment: &Segment,
        time: Duration,
        as_of: Timestamp,
    ) -> Result<[Floor; 3], TransferError> {
        let slot = u64::from(self.parts.frame.resolution().seconds());
        // One more, because the time may start in the middle of a slot.
        let most = time.as_secs() / slot + 1;
        Ok([
            self.floor(segment, 0, as_of).await?,
            self.floor(segment, 1, as_of).await?,
            self.floor(segment, most, as_of).await?,
        ])
    }

    /// The number of users of the source who will still be in the window when `slots` slots have passed.
    async fn floor(
        &self,
        segment: &Segment,
        slots: u64,
        as_of: Timestamp,
    ) -> Result<Floor, TransferError> {
        let frame = &self.parts.frame;
        let left = u64::from(frame.full_window().slots()).saturating_sub(slots);
        let length = Duration::from_secs(left * u64::from(frame.resolution().seconds()));
        let Ok(window) = frame.window(length) else {
            // All slots of the window may have left.
            return Ok(Floor { slots, users: 0 });
        };
        let counted = self.count_in(&*self.parts.source, segment, window, as_of);
        let users = counted.await.map_err(TransferError::Source)?.users;
        Ok(Floor { slots, users })
    }

    /// Counts both sides as of one slot.
    async fn count_both(&self, segment: &Segment, window: Window) -> Result<Both, TransferError> {
        let mut as_of = self.parts.clock.now();
        loop {
            let (source, target) = futures::join!(
                self.count_in(&*self.parts.source, segment, window, as_of),
                self.count_in(&*self.parts.target, segment, window, as_of),
            );
            let source = source.map_err(TransferError::Source)?;
            let target = target.map_err(TransferError::Target)?;
            let latest = source.as_of.max(target.as_of);
            if self.slot_of(source.as_of) == self.slot_of(target.as_of) {
                return Ok(Both {
                    source: source.users,
                    target: target.users,
                    as_of: latest,
                });
            }
            // A store that has seen a later instant counts as of that one, so both are counted again as of it.
            self.parts.clock.not_before(latest);
            as_of = self.parts.clock.now().max(latest);
        }
    }

    async fn count_in(
        &self,
        store: &dyn PairStore,
        segment: &Segment,
        window: Window,
        as_of: Timestamp,
    ) -> Result<Count, StoreError> {
        self.retry(async || store.count(segment, window, as_of).await)
            .await
    }
}

/// A lower bound for the users of the target.
struct Floor {
    /// The bound holds if at most this number of slots has passed.
    slots: u64,
    users: u64,
}

struct Both {
    source: u64,
    target: u64,
    /// The instant of both counts; only its slot matters.
    as_of: Timestamp,
}
