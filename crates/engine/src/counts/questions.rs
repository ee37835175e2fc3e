//! Counts of sets of users.

use super::{CountResult, Counts};
use domain::expression::Set;
use domain::store::StoreError;
use domain::{Expression, Window};

impl Counts {
    /// The number of distinct users over `window` in the set that `expression` means. A single segment is counted by
    /// every store, as [`get`](Self::get) does; other sets need all users in memory.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unsupported`] if neither the store nor live counts have all users in memory, and
    /// [`StoreError::Unavailable`] while live counts can't tell.
    pub async fn get_set(
        &self,
        expression: &Expression,
        window: Window,
        fresh: bool,
    ) -> Result<CountResult, StoreError> {
        if let Set::Segment(segment) = expression.set() {
            let counted = self.get(segment, window, fresh).await;
            return counted.map_err(|error| error.0);
        }
        let Some(live) = &self.parts.live else {
            let now = self.parts.clock.now();
            let counted = self.parts.store.count_set(expression, window, now).await?;
            return Ok(CountResult::live(counted, window));
        };
        match live.count_set(expression, window, fresh).await? {
            Some(count) => Ok(CountResult::replica(count, window)),
            None => Err(StoreError::Unavailable(
                "live counts are not current, or did not read all of these segments yet".to_owned(),
            )),
        }
    }
}
