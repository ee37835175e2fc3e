//! Counts out: of the replica in this process, as they were published, or asked of the live process.

use std::time::Duration;

use tokio::time::timeout;

use super::{Live, Side};
use crate::live_process::{At, Comparison, LiveProcess};
use domain::{Count, Membership, Segment, Timestamp, UserId, Window};

/// How long a fresh count waits until the counts include everything. It usually waits for one poll and one tick.
const FRESH_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a comparison waits for the first tick that this process reads.
const FIRST_TICK: Duration = Duration::from_secs(1);

impl Live {
    /// The count as of the newest instant that this process knows; `None` if it can't tell now.
    pub(crate) fn count(&self, segment: &Segment, window: Window) -> Option<Count> {
        match &self.side {
            Side::Host(host) => host.count(segment, window),
            Side::Reader { view, .. } => view.count(segment, window),
        }
    }

    /// The count from the live process; `None` if it is in this one, or can't tell.
    pub(crate) async fn ask_count(&self, segment: &Segment, window: Window) -> Option<Count> {
        let (process, at) = self.process(segment)?;
        process.count(&at, segment, window).await
    }

    /// The count as it was last published, if it was, however long ago.
    pub(crate) fn last_known(&self, segment: &Segment, window: Window) -> Option<Count> {
        match &self.side {
            Side::Host(_) => None,
            Side::Reader { view, .. } => view.last_known(segment, window),
        }
    }

    /// A count that includes everything that was answered before this call. Waits at most two seconds.
    pub(crate) async fn count_fresh(&self, segment: &Segment, window: Window) -> Option<Count> {
        let waiting = async {
            let now = self.sources.feed_now().await.ok()?;
            match &self.side {
                Side::Host(host) => host.replica()?.wait_for(now).await,
                Side::Reader { view, .. } => view.wait_for(now).await,
            }
            Some(())
        };
        timeout(FRESH_TIMEOUT, waiting).await.ok()??;
        match self.count(segment, window) {
            Some(count) => Some(count),
            None => self.ask_count(segment, window).await,
        }
    }

    /// Every segment with users, sorted by name; `None` if that is not known now.
    pub(crate) async fn list(&self, window: Window) -> Option<Vec<(Segment, Count)>> {
        match &self.side {
            Side::Host(host) => host.list(window),
            Side::Reader { view, process } => {
                if let Some(list) = view.list(window) {
                    return Some(list);
                }
                let tick = view.tick().filter(|tick| tick.complete)?;
                let at = self.at(tick.address)?;
                process.list(&at, window).await
            }
        }
    }

    /// The segments of a user; `None` if that is not known now.
    pub(crate) async fn memberships(&self, user: &UserId<'_>) -> Option<Vec<Membership>> {
        match &self.side {
            Side::Host(host) => host.memberships(user),
            Side::Reader { view, process } => {
                let tick = view.tick().filter(|tick| tick.complete)?;
                let at = self.at(tick.address)?;
                process.memberships(&at, user).await
            }
        }
    }

    /// Compares all segments, or one, with the store's own counts, and reads those that differ again. `None` if counts are not
    /// live.
    pub(crate) async fn compare(&self, only: Option<&Segment>) -> Option<Comparison> {
        let host = match &self.side {
            Side::Host(host) => host,
            Side::Reader { view, process } => {
                // A command that has just started knows no tick yet.
                let first = Timestamp::UNIX_EPOCH.checked_add(Duration::from_micros(1));
                let waiting = view.wait_for(first.unwrap_or(Timestamp::MAX));
                timeout(FIRST_TICK, waiting).await.ok()?;
                self.key().await.ok()?;
                let at = self.at(view.tick()?.address)?;
                return process.compare(&at, only).await;
            }
        };
        let Ok(_comparing) = self.comparing.try_lock() else {
            return Some(Comparison::UnderWay);
        };
        let began = tokio::time::Instant::now();
        let audited = host.audit(&self.sources, only).await?;
        Some(Comparison::Done {
            compared: audited.compared,
            failed: audited.failed,
            differences: audited.differences,
            took: began.elapsed(),
        })
    }

    /// The live process, if it can tell about `segment` and is another one.
    fn process(&self, segment: &Segment) -> Option<(&dyn LiveProcess, At)> {
        let Side::Reader { view, process } = &self.side else {
            return None;
        };
        let tick = view.tick()?;
        let is_counted = tick.complete || view.publishes(segment);
        let at = is_counted.then(|| self.at(tick.address)).flatten()?;
        Some((&**process, at))
    }

    fn at(&self, address: String) -> Option<At> {
        let token = self.token()?;
        (!address.is_empty()).then_some(At { address, token })
    }
}
