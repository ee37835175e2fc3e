//! What [`Floor`] withholds of counts.

use std::collections::HashMap;
use std::sync::Arc;

use super::{CountError, CountResult, Counts, Listed, ShownCount};
use domain::store::StoreError;
use domain::{Count, Floor, Segment, Timestamp, Window};

impl Counts {
    /// The smallest group of users that answers tell apart.
    pub fn floor(&self) -> Floor {
        self.parts.floor
    }

    /// The windows over which every segment is recounted and has a trend, the longest first.
    pub fn refreshed_windows(&self) -> &[Window] {
        self.parts.refresher.windows()
    }

    /// The windows over which segments can be counted, the longest first. `None` if every window can.
    pub fn windows(&self) -> Option<&[Window]> {
        self.parts
            .floor
            .is_on()
            .then(|| self.parts.refresher.windows())
    }

    /// The number of users of a count of [`get`](Self::get) for people; `None` if it is withheld.
    pub async fn shown(&self, segment: &Segment, counted: &CountResult) -> Option<u64> {
        let users = self.parts.floor.shown(counted.count.users)?;
        for longer in self.longer(segment, counted.window) {
            // Without the other count, nothing is known of the difference.
            let other = self.get(segment, longer, false).await.ok()?;
            if self.parts.floor.hides_beside(users, other.count.users) {
                return None;
            }
        }
        Some(users)
    }

    /// Past counts for people.
    ///
    /// # Errors
    ///
    /// The errors of the store.
    pub(super) async fn shown_trend(
        &self,
        segment: &Segment,
        window: Window,
        points: Vec<Count>,
        (from, to): (Timestamp, Timestamp),
    ) -> Result<Vec<ShownCount>, StoreError> {
        let floor = self.parts.floor;
        let mut longer = Vec::new();
        for window in self.longer(segment, window) {
            let points = self.parts.store.trend(segment, window, from, to).await?;
            let users: HashMap<Timestamp, u64> = points
                .iter()
                .map(|point| (point.as_of, point.users))
                .collect();
            longer.push(users);
        }
        let shown = points.into_iter().map(|point| {
            let beside = longer.iter().map(|users| users.get(&point.as_of));
            // A point without one over the longer window tells nothing of the difference.
            let is_shown = beside
                .into_iter()
                .all(|other| other.is_some_and(|other| !floor.hides_beside(point.users, *other)));
            ShownCount {
                users: floor.shown(point.users).filter(|_| is_shown),
                as_of: point.as_of,
            }
        });
        Ok(shown.collect())
    }

    /// The list for people.
    pub(super) async fn withhold(
        &self,
        list: Arc<[Listed]>,
        window: Window,
    ) -> Result<Arc<[Listed]>, CountError> {
        let floor = self.parts.floor;
        if !floor.is_on() {
            return Ok(list);
        }
        let mut longer = Vec::new();
        let windows = self.windows().unwrap_or_default().iter().copied();
        for window in windows.filter(|other| *other > window) {
            let list = self.list_all(window).await?;
            let users = list.iter().map(|listed| {
                let users = listed.count.map(|count| count.users);
                (listed.segment.clone(), users)
            });
            longer.push(users.collect::<HashMap<Segment, Option<u64>>>());
        }
        let shown = list.iter().cloned().map(|listed| {
            let Some(count) = listed.count else {
                return listed;
            };
            let beside = longer.iter().map(|users| users.get(&listed.segment));
            let is_shown = beside.into_iter().all(|other| {
                let other = other.copied().flatten();
                other.is_some_and(|other| !floor.hides_beside(count.users, other))
            });
            match floor.hides_group(count.users) || !is_shown {
                true => withheld(listed),
                false => listed,
            }
        });
        Ok(shown.collect())
    }

    /// A segment of a list for people.
    pub(super) async fn withhold_one(&self, listed: Listed, window: Window) -> Listed {
        let Some(count) = listed.count.filter(|_| self.parts.floor.is_on()) else {
            return listed;
        };
        let counted = CountResult::cached(count, window);
        match self.shown(&listed.segment, &counted).await {
            Some(_) => listed,
            None => withheld(listed),
        }
    }

    /// The windows over which `segment` is counted that are longer; none without a floor.
    fn longer(&self, segment: &Segment, window: Window) -> impl Iterator<Item = Window> {
        let known = self.windows();
        let own = known.map(|_| self.window_of(segment));
        let known = known.unwrap_or_default().iter().copied();
        let others = known.filter(move |known| Some(*known) != own);
        others.chain(own).filter(move |other| *other > window)
    }
}

fn withheld(listed: Listed) -> Listed {
    Listed {
        count: None,
        withheld: true,
        ..listed
    }
}
