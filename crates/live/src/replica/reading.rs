//! Reads of a replica: counts of segments and of sets, lists and memberships, as of an instant.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use super::{Counts, MAX_AGE, MAX_HELD, NEVER, Replica};
use domain::overlap::{Overlap, TopOverlaps, TopQuestion};
use domain::store::StoreError;
use domain::{
    Count, Expression, Floor, Flow, Membership, OwnWindows, Segment, SetCount, Slot, Timestamp,
    UserId, Window,
};
use index::Fingerprint;
use state::Questions;

impl Replica {
    /// The instant as of which counts are exact; `None` before the end of the feed was reached, and while it was last reached
    /// longer than [`MAX_AGE`] ago. While the replica waits for entries that the feed lost, the instant stays for a minute.
    pub fn as_of(&self) -> Option<Timestamp> {
        let is_current = self.is_within(&self.reached, MAX_AGE);
        let is_current = is_current && self.is_within(&self.advanced, MAX_HELD);
        let as_of = *self.as_of.borrow();
        is_current
            .then(|| Timestamp::from_microsecond(as_of).ok())
            .flatten()
    }

    fn is_within(&self, at: &AtomicI64, time: Duration) -> bool {
        let at = at.load(Ordering::Acquire);
        let time = i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        at != NEVER && self.elapsed() - at <= time
    }

    /// Waits until counts include everything that was answered before `instant` by the clock of the feed.
    pub async fn wait_for(&self, instant: Timestamp) {
        let wanted = instant.as_microsecond();
        let mut as_of = self.as_of.subscribe();
        // The sender lives as long as this replica.
        let _ = as_of.wait_for(|as_of| *as_of >= wanted).await;
    }

    /// The count of a segment; `None` if the replica can't tell now, because it is not current, or did not read the
    /// segment from the store yet.
    pub fn count(&self, segment: &Segment, window: Window) -> Option<Count> {
        let count = self.counted(segment, window, self.as_of()?)?;
        // Afterwards, because the segment may just have been emptied.
        let is_read = self.state().following.lock().has_read(segment);
        is_read.then_some(count)
    }

    /// The number of users in the set that `expression` means, unless `floor` withholds it; `None` if the replica is not
    /// current, or has not read each of the segments from the store yet.
    ///
    /// # Errors
    ///
    /// See [`Questions`].
    pub async fn count_set(
        &self,
        expression: &Expression,
        window: Window,
        floor: Floor,
    ) -> Result<Option<SetCount>, StoreError> {
        // With a floor, the answer depends on all users.
        let needs_all = expression.needs_every_segment() || floor.is_on();
        let segments = expression.segments();
        let segments = if needs_all { None } else { Some(&segments[..]) };
        self.answer(
            segments,
            |questions, as_of| questions.count_set(expression, window, floor, as_of),
            |count| count.as_of,
        )
        .await
    }

    /// The users in common of each pair of `segments`; `None` if the replica can't tell now. See [`count_set`](Self::count_set).
    pub async fn overlap(
        &self,
        segments: &[Segment],
        window: Window,
        fresh: bool,
    ) -> Result<Option<Overlap>, StoreError> {
        self.answer(
            None,
            |questions, as_of| questions.overlap(segments, window, fresh, as_of),
            |overlap| overlap.as_of,
        )
        .await
    }

    /// The pairs of all segments that are asked for; `None` if the replica can't tell now. See [`count_set`](Self::count_set).
    pub async fn top_overlaps(
        &self,
        question: TopQuestion,
        window: Window,
        fresh: bool,
    ) -> Result<Option<TopOverlaps>, StoreError> {
        self.answer(
            None,
            |questions, as_of| questions.top_overlaps(question, window, fresh, as_of),
            |top| top.as_of,
        )
        .await
    }

    /// The answer to a question about `segments`, or about all of them; `None` if the replica can't tell now.
    async fn answer<'a, T, F>(
        &'a self,
        segments: Option<&[&Segment]>,
        ask: impl FnOnce(&'a Questions, Timestamp) -> F,
        as_of: impl Fn(&T) -> Timestamp,
    ) -> Result<Option<T>, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let Some(asked) = self.as_of() else {
            return Ok(None);
        };
        let resets = self.state().following.lock().resets;
        let answer = ask(self.durable.questions(), asked).await?;
        // Afterwards, because a segment may just have been emptied.
        let following = self.state().following.lock();
        let is_read = match segments {
            None => following.has_read_all(),
            Some(segments) => segments.iter().all(|segment| following.has_read(segment)),
        };
        // While entries of the feed are missing, counts of a later slot are unknown.
        let is_ahead = self.slot(as_of(&answer)) > self.slot(asked) && self.is_held();
        Ok((is_read && following.resets == resets && !is_ahead).then_some(answer))
    }

    /// How many users entered and left a segment in each of `spans`; see [`PairStore::flow`](domain::store::PairStore::flow).
    /// `None` if the replica can't tell now.
    pub fn flow(&self, segment: &Segment, spans: &[Range<Slot>]) -> Option<Vec<Option<Flow>>> {
        let as_of = self.slot(self.as_of()?);
        let flow = self.state().index.flow(segment.as_str(), spans, as_of);
        self.has_read(segment).then_some(flow)
    }

    /// The count of a segment over the full window, and how many users entered and left it since the replica has it in memory;
    /// `None` if the replica can't tell now.
    pub fn total_flow(&self, segment: &Segment) -> Option<(Count, Flow)> {
        let as_of = self.as_of()?;
        let index = &self.state().index;
        let total = index.total_flow(segment.as_str(), self.slot(as_of))?;
        let as_of = self.counted_as_of(as_of, total.as_of)?;
        let users = total.users;
        self.has_read(segment)
            .then_some((Count { users, as_of }, total.flow))
    }

    fn has_read(&self, segment: &Segment) -> bool {
        self.state().following.lock().has_read(segment)
    }

    /// Every segment with users over `window`, sorted by name; `None` if the replica can't tell now.
    pub fn list(&self, window: Window) -> Option<Vec<(Segment, Count)>> {
        let counts = self.counts(&[window]).filter(|counts| counts.complete)?;
        let as_of = counts.as_of;
        let users = counts.users.into_iter().filter_map(|(segment, over)| {
            let users = over.first()?.1;
            (users > 0).then_some((segment, Count { users, as_of }))
        });
        let mut list: Vec<_> = users.collect();
        list.sort_unstable_by(|left, right| left.0.cmp(&right.0));
        Some(list)
    }

    /// What was counted over each of `windows` for every segment that has users and was read from the store; `None` if the
    /// replica can't tell now.
    pub fn counts(&self, windows: &[Window]) -> Option<Counts> {
        self.counts_with(windows, &OwnWindows::default())
    }

    /// The same, also over the window that a segment has in `own`.
    pub fn counts_with(&self, windows: &[Window], own: &OwnWindows) -> Option<Counts> {
        // First the instant: what is applied meanwhile may be counted too.
        let as_of = self.as_of()?;
        let (complete, resets) = {
            let following = self.state().following.lock();
            (following.has_read_all(), following.resets)
        };
        let listed = self.state().index.segments(self.slot(as_of));
        let mut users = HashMap::with_capacity(listed.len());
        {
            let following = self.state().following.lock();
            // A segment that was emptied meanwhile must not look like one without users.
            if following.resets != resets {
                return None;
            }
            let read = listed.into_iter().map(|(segment, _)| segment);
            users.extend(
                read.filter(|segment| following.has_read(segment))
                    .map(|segment| (segment, Vec::new())),
            );
        }
        let mut counted_as_of = as_of;
        for (segment, counts) in &mut users {
            let own = own.get(segment).filter(|own| !windows.contains(own));
            for window in windows.iter().chain(own) {
                let count = self.counted(segment, *window, as_of)?;
                counted_as_of = counted_as_of.max(count.as_of);
                counts.push((window.seconds(), count.users));
            }
        }
        let is_whole = self.state().following.lock().resets == resets;
        is_whole.then_some(Counts {
            users,
            complete,
            as_of: counted_as_of,
        })
    }

    /// Whether the replica waits for entries that the feed lost. Meanwhile they arrive in any order, so counts may have users
    /// who were erased.
    pub fn is_held(&self) -> bool {
        self.held.load(Ordering::Acquire)
    }

    /// Whether every segment was read from the store.
    pub fn is_complete(&self) -> bool {
        self.state().following.lock().has_read_all()
    }

    /// Between two equal versions no count changed as of the instants `as_of`.
    pub fn version(&self, as_of: Timestamp) -> (u64, Slot) {
        (self.version.load(Ordering::Acquire), self.slot(as_of))
    }

    /// The segments that `user` is in over the full window, sorted by name; `None` if the replica can't tell now.
    pub fn memberships(&self, user: &UserId<'_>) -> Option<Vec<Membership>> {
        let as_of = self.as_of()?;
        if !self.state().following.lock().has_read_all() {
            return None;
        }
        let fingerprint = Fingerprint::of(user, self.durable.key());
        let held = self
            .state()
            .index
            .memberships(fingerprint, self.slot(as_of));
        Some(
            held.into_iter()
                .map(|(segment, last_seen)| Membership { segment, last_seen })
                .collect(),
        )
    }

    /// The count as of `as_of`, or of a later slot that has pairs. `None` if entries before that slot may be missing.
    fn counted(&self, segment: &Segment, window: Window, as_of: Timestamp) -> Option<Count> {
        let asked = self.slot(as_of);
        let index = &self.state().index;
        let (users, effective) = index.count(segment.as_str(), window.slots(), asked);
        let as_of = self.counted_as_of(as_of, effective)?;
        Some(Count { users, as_of })
    }

    /// The instant of a count that was asked for as of `asked`, and is as of `counted`, the same slot or a later one. `None`
    /// if entries before that slot may be missing.
    fn counted_as_of(&self, asked: Timestamp, counted: Slot) -> Option<Timestamp> {
        let is_known = counted == self.slot(asked) || !self.is_held();
        is_known.then(|| self.frame.resolution().counted_as_of(asked, counted))
    }
}
