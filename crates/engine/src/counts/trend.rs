//! Reads the trend: counts of the past.

use std::time::Duration;

use super::{Counts, ShownCount};
use domain::store::StoreError;
use domain::{Count, Segment, Timestamp, Window};

impl Counts {
    /// The points of [`past_counts`](Self::past_counts) that are not withheld.
    ///
    /// # Errors
    ///
    /// The errors of the store.
    pub async fn trend(
        &self,
        segment: &Segment,
        window: Window,
        from: Timestamp,
        to: Timestamp,
        step: Option<Duration>,
    ) -> Result<Vec<Count>, StoreError> {
        let points = self.past_counts(segment, window, from, to, step).await?;
        let shown = points
            .into_iter()
            .filter_map(|ShownCount { users, as_of }| {
                let users = users?;
                Some(Count { users, as_of })
            });
        Ok(shown.collect())
    }

    /// The trend of `segment` from `from` to `to`, both inclusive: every point in the store, or with a `step` only the
    /// last one of each step since the epoch. `None` in place of a number that a floor withholds.
    ///
    /// # Errors
    ///
    /// The errors of the store.
    pub async fn past_counts(
        &self,
        segment: &Segment,
        window: Window,
        from: Timestamp,
        to: Timestamp,
        step: Option<Duration>,
    ) -> Result<Vec<ShownCount>, StoreError> {
        let store = &self.parts.store;
        let points = match step {
            Some(step) => store.trend_in_steps(segment, window, from, to, step).await,
            None => store.trend(segment, window, from, to).await,
        };
        self.shown_trend(segment, window, points?, (from, to)).await
    }
}
