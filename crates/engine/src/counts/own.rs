//! Counts of each segment over its own window.

use std::collections::HashMap;
use std::sync::Arc;

use super::list::has_users;
use super::{CountError, Counts, Listed};
use domain::{OwnWindows, Segment, Window};

impl Counts {
    /// The default window of counts of `segment`.
    pub fn window_of(&self, segment: &Segment) -> Window {
        self.parts.segments.window_of(segment)
    }

    /// The own windows of segments that differ from the configured one.
    pub fn own_windows(&self) -> OwnWindows {
        self.parts.segments.own_windows()
    }

    /// The same as [`list`](Self::list), with each segment counted over its own window.
    pub async fn list_own(&self) -> Result<Arc<[Listed]>, CountError> {
        let list = self.list(self.parts.frame.full_window()).await?;
        let own = self.own_windows();
        // A segment without users in the full window has none in a shorter one.
        let names = list.iter().map(|listed| &listed.segment);
        let names: Vec<Segment> = names
            .filter(|name| own.contains_key(*name))
            .cloned()
            .collect();
        if names.is_empty() {
            return Ok(list);
        }
        let over_own = self.list_of(names, None).await.into_iter();
        let mut over_own: HashMap<Segment, Listed> = over_own
            .map(|listed| (listed.segment.clone(), listed))
            .collect();
        let all = list.iter().map(|listed| {
            let over_own = over_own.remove(&listed.segment);
            over_own.unwrap_or_else(|| listed.clone())
        });
        Ok(all.filter(has_users).collect())
    }
}
