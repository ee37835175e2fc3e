//! Counts over the window that each segment has.

use std::collections::HashMap;
use std::sync::Arc;

use futures::{StreamExt, stream};
use tokio::time::{Instant, timeout_at};

use super::list::{CONCURRENT_COUNTS, has_users};
use super::timeouts::READ_TIMEOUT;
use super::{CountError, CountResult, Counts, Listed};
use domain::{OwnWindows, Segment, Window};

impl Counts {
    /// The window of counts of `segment` that state none.
    pub fn window_of(&self, segment: &Segment) -> Window {
        self.parts.segments.window_of(segment)
    }

    /// The windows of segments that are not the configured one.
    pub fn own_windows(&self) -> OwnWindows {
        self.parts.segments.own_windows()
    }

    /// The same as [`list`](Self::list), with each segment counted over its own window.
    pub async fn list_own(&self) -> Result<Arc<[Listed]>, CountError> {
        let list = self.list(self.parts.frame.full_window()).await?;
        let own = self.own_windows();
        // A segment without users in the full window has none in a shorter one.
        let differs = |listed: &Listed| own.contains_key(&listed.segment);
        if own.is_empty() || !list.iter().any(differs) {
            return Ok(list);
        }
        let keys = list
            .iter()
            .filter_map(|listed| Some((listed.segment.clone(), *own.get(&listed.segment)?)));
        let counted = self
            .get_until(Instant::now() + READ_TIMEOUT, keys.collect())
            .await;
        let mut all = Vec::with_capacity(list.len());
        for listed in list.iter() {
            let Some(&window) = own.get(&listed.segment) else {
                all.push(listed.clone());
                continue;
            };
            let counted = counted.get(&listed.segment);
            let over_own = Listed {
                segment: listed.segment.clone(),
                window,
                count: counted.map(|result| result.count),
                withheld: false,
                stale: counted.is_none_or(|result| result.stale),
            };
            all.push(self.withhold_one(over_own, window).await);
        }
        all.retain(has_users);
        Ok(all.into())
    }

    /// The counts that are known before `deadline`.
    async fn get_until(
        &self,
        deadline: Instant,
        keys: Vec<(Segment, Window)>,
    ) -> HashMap<Segment, CountResult> {
        let mut counts = HashMap::with_capacity(keys.len());
        let mut counted = stream::iter(keys)
            .map(|(segment, window)| async move {
                let result = match self.get_now(&segment, window) {
                    Some(result) => Ok(result),
                    None => self.get(&segment, window, false).await,
                };
                result.ok().map(|result| (segment, result))
            })
            .buffer_unordered(CONCURRENT_COUNTS);
        while let Ok(Some(counted)) = timeout_at(deadline, counted.next()).await {
            counts.extend(counted);
        }
        counts
    }
}
