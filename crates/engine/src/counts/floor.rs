//! Withholds counts below the [`Floor`].

use std::collections::HashMap;
use std::sync::Arc;

use jiff::SignedDuration;

use super::{CountError, CountResult, Counts, Listed, ShownCount};
use domain::store::StoreError;
use domain::{Count, Floor, Segment, Timestamp, Window};

impl Counts {
    /// The privacy floor.
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
        self.shown_over(segment, counted.window, counted.count.users)
            .await
    }

    async fn shown_over(&self, segment: &Segment, window: Window, users: u64) -> Option<u64> {
        let users = self.parts.floor.shown(users)?;
        for longer in self.longer(segment, window) {
            // Without the other count the difference is unknown.
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
        // Windows may be counted one after another.
        let apart = SignedDuration::try_from(self.parts.renew_after).unwrap_or(SignedDuration::MAX);
        let from = from.checked_sub(apart).unwrap_or(Timestamp::MIN);
        let to = to.checked_add(apart).unwrap_or(Timestamp::MAX);
        let mut longer = Vec::new();
        for window in self.longer(segment, window) {
            longer.push(self.parts.store.trend(segment, window, from, to).await?);
        }
        let shown = points.into_iter().map(|point| {
            let beside = longer.iter().map(|beside| {
                let other = nearest(beside, point.as_of)?;
                let is_near = other.as_of.duration_since(point.as_of).abs() <= apart;
                is_near.then_some(other.users)
            });
            ShownCount {
                users: floor.shown_beside(point.users, beside),
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
        if !self.parts.floor.is_on() {
            return Ok(list);
        }
        let mut longer = Vec::new();
        let windows = self.refreshed_windows().iter().copied();
        for other in windows.filter(|other| *other > window) {
            let list = self.list_all(other).await?;
            let users = list.iter().map(|listed| {
                let users = listed.count.map(|count| count.users);
                (listed.segment.clone(), users)
            });
            longer.push((other, users.collect()));
        }
        let (beside, own) = (Beside { longer }, self.own_windows());
        let mut shown = Vec::with_capacity(list.len());
        for listed in list.iter().cloned() {
            let own = own.get(&listed.segment).copied();
            shown.push(match listed.count {
                None => listed,
                Some(_) if own.is_some_and(|own| own > window) => self.withhold_one(listed).await,
                Some(count) => {
                    match beside.shown(self.parts.floor, &listed.segment, window, count.users) {
                        Some(_) => listed,
                        None => withheld(listed),
                    }
                }
            });
        }
        Ok(shown.into())
    }

    /// Counts for people, each over the window of its segment, from the same source as [`sample`](Self::sample). `None`
    /// while that is unavailable.
    pub(super) async fn withhold_all(
        &self,
        counts: Vec<(Segment, Count)>,
    ) -> Option<Vec<(Segment, ShownCount)>> {
        let mut longer = Vec::new();
        let windows = self.windows().unwrap_or_default().iter().copied();
        for window in windows {
            let names: Vec<Segment> = counts.iter().map(|(segment, _)| segment.clone()).collect();
            let counted = self.known_counts(&names, window).await?.into_iter();
            let users = counted.map(|count| count.map(|count| count.users));
            longer.push((window, names.into_iter().zip(users).collect()));
        }
        let beside = Beside { longer };
        let shown = counts.into_iter().map(|(segment, Count { users, as_of })| {
            let window = self.window_of(&segment);
            let users = beside.shown(self.parts.floor, &segment, window, users);
            (segment, ShownCount { users, as_of })
        });
        Some(shown.collect())
    }

    /// A segment of a list for people.
    pub(super) async fn withhold_one(&self, listed: Listed) -> Listed {
        let Some(count) = listed.count.filter(|_| self.parts.floor.is_on()) else {
            return listed;
        };
        let shown = self.shown_over(&listed.segment, listed.window, count.users);
        match shown.await {
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

/// The users of segments over the windows over which all segments are counted; `None` where they are not known.
struct Beside {
    longer: Vec<(Window, HashMap<Segment, Option<u64>>)>,
}

impl Beside {
    /// `users` of a count over `window`; `None` if it is withheld.
    fn shown(&self, floor: Floor, segment: &Segment, window: Window, users: u64) -> Option<u64> {
        let longer = self.longer.iter().filter(|(other, _)| *other > window);
        let beside = longer.map(|(_, beside)| beside.get(segment).copied().flatten());
        floor.shown_beside(users, beside)
    }
}

/// The point of a trend that is nearest to `at`. `points` are in order.
fn nearest(points: &[Count], at: Timestamp) -> Option<&Count> {
    let next = points.partition_point(|point| point.as_of < at);
    let around = points.get(next.saturating_sub(1)..points.len().min(next + 1))?;
    around
        .iter()
        .min_by_key(|point| point.as_of.duration_since(at).abs())
}

fn withheld(listed: Listed) -> Listed {
    Listed {
        count: None,
        withheld: true,
        ..listed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_point_is_found() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let point = |second| Count {
            users: 0,
            as_of: at(second),
        };
        let points = [point(10), point(20), point(40)];
        let found = |second| nearest(&points, at(second)).map(|point| point.as_of.as_second());
        assert_eq!(
            [0, 14, 16, 20, 29, 99].map(found),
            [10, 10, 20, 20, 20, 40].map(Some)
        );
        assert_eq!(nearest(&[], at(0)), None);
    }
}
