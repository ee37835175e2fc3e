//! Reads the trend: counts of the past.

use std::time::Duration;

use super::Counts;
use domain::store::StoreError;
use domain::{Count, Segment, Timestamp, Window};

impl Counts {
    /// The trend of `segment` from `from` to `to`, both inclusive: every point in the store, or with a `step` only the
    /// last one of each step since the epoch.
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
        let store = &self.parts.store;
        match step {
            Some(step) => store.trend_in_steps(segment, window, from, to, step).await,
            None => store.trend(segment, window, from, to).await,
        }
    }
}
