//! Questions about sets of users: counts of sets of segments, and overlaps.

use super::{Answer, Counts, Source};
use domain::expression::Set;
use domain::overlap::{Overlap, OverlapMatrix, PairOverlap, TopOverlaps, TopQuestion};
use domain::store::StoreError;
use domain::{Expression, Floor, Segment, SetCount, Timestamp, Window};

impl Counts {
    /// The number of distinct users over `window` in the set `expression`; `None` if `floor` withholds it. A single segment
    /// without a floor is counted by every store, as [`get`](Self::get) does.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unsupported`] if neither the store nor live counts have all users in memory, and
    /// [`StoreError::Unavailable`] while live counts are not current.
    pub async fn get_set(
        &self,
        expression: &Expression,
        window: Window,
        floor: Floor,
        fresh: bool,
    ) -> Result<Answer<Option<u64>>, StoreError> {
        if let Set::Segment(segment) = expression.set()
            && !floor.is_on()
        {
            let counted = self.get(segment, window, fresh).await;
            let counted = counted.map_err(|error| error.0)?;
            return Ok(Answer {
                value: Some(counted.count.users),
                as_of: counted.count.as_of,
                window,
                source: counted.source,
                stale: counted.stale,
            });
        }
        let read = |SetCount { users, as_of }| (users, as_of);
        let Some(live) = &self.parts.live else {
            let store = &self.parts.store;
            let counted = store
                .count_set(expression, window, floor, self.now())
                .await?;
            return Ok(answer(read(counted), window, Source::Store));
        };
        let counted = live.count_set(expression, window, floor, fresh).await?;
        Ok(answer(read(counted), window, Source::Live))
    }

    /// The number of users over `window` in both segments of each pair of `segments`, and of all segments together. Without
    /// `fresh` it may be a few seconds old.
    ///
    /// # Errors
    ///
    /// Those of [`get_set`](Self::get_set).
    pub async fn overlap(
        &self,
        segments: &[Segment],
        window: Window,
        fresh: bool,
    ) -> Result<Answer<OverlapMatrix>, StoreError> {
        let read = |Overlap { matrix, as_of }| (matrix, as_of);
        let Some(live) = &self.parts.live else {
            let store = &self.parts.store;
            let counted = store.overlap(segments, window, fresh, self.now()).await?;
            return Ok(answer(read(counted), window, Source::Store));
        };
        let counted = live.overlap(segments, window, fresh).await?;
        Ok(answer(read(counted), window, Source::Live))
    }

    /// The pairs of all segments that have most in common over `window`, and the number of users of all segments together.
    /// Without `fresh` it may be a few seconds old.
    ///
    /// # Errors
    ///
    /// Those of [`get_set`](Self::get_set), and [`StoreError::Rejected`] if there are more than
    /// [`MAX_SEGMENTS`](domain::overlap::MAX_SEGMENTS) segments.
    pub async fn top_overlaps(
        &self,
        question: TopQuestion,
        window: Window,
        fresh: bool,
    ) -> Result<Answer<(Vec<PairOverlap>, u64)>, StoreError> {
        let read = |top: TopOverlaps| ((top.pairs, top.everybody), top.as_of);
        let Some(live) = &self.parts.live else {
            let store = &self.parts.store;
            let counted = store.top_overlaps(question, window, fresh, self.now());
            return Ok(answer(read(counted.await?), window, Source::Store));
        };
        let counted = live.top_overlaps(question, window, fresh).await?;
        Ok(answer(read(counted), window, Source::Live))
    }

    fn now(&self) -> Timestamp {
        self.parts.clock.now()
    }
}

fn answer<T>((value, as_of): (T, Timestamp), window: Window, source: Source) -> Answer<T> {
    Answer {
        value,
        as_of,
        window,
        source,
        stale: false,
    }
}
