//! Counts out: of the replica in this process, as they were published, or asked of the live process.

use std::time::Duration;

use tokio::time::timeout;

use super::{Live, Side};
use crate::live_process::{At, Comparison, LiveProcess};
use crate::time_steps::FlowSteps;
use domain::overlap::{Overlap, TopOverlaps, TopQuestion};
use domain::store::StoreError;
use domain::{Count, Expression, Floor, Flow, Membership, Segment, SetCount, UserId, Window};
use live::replica::Replica;
use live::view::{CurrentTick, View};

/// How long a fresh count waits until the counts include everything. It usually waits for one poll and one tick.
const FRESH_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a comparison waits for the first tick that this process reads.
const FIRST_TICK: Duration = Duration::from_secs(1);

/// Who answers questions about users.
enum Answering<'a> {
    Replica(&'a Replica),
    Process(&'a dyn LiveProcess, At),
}

impl Live {
    /// The count as of the newest instant that this process knows; `None` if it can't tell now.
    pub(crate) fn count(&self, segment: &Segment, window: Window) -> Option<Count> {
        match &self.side {
            Side::Host(host) => host.replica()?.count(segment, window),
            Side::Reader { view, .. } => view.count(segment, window),
        }
    }

    /// The count from the live process; `None` if it is in this one, or can't tell.
    pub(crate) async fn ask_count(&self, segment: &Segment, window: Window) -> Option<Count> {
        let Side::Reader { view, process } = &self.side else {
            return None;
        };
        let at = self.at_if(view, |tick| tick.complete || view.publishes(segment))?;
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
        self.wait_until_fresh().await?;
        match self.count(segment, window) {
            Some(count) => Some(count),
            None => self.ask_count(segment, window).await,
        }
    }

    /// The number of users in the set that `expression` means, unless `floor` withholds it. A `fresh` count includes every
    /// pair that was acknowledged before this call.
    pub(crate) async fn count_set(
        &self,
        expression: &Expression,
        window: Window,
        floor: Floor,
        fresh: bool,
    ) -> Result<SetCount, StoreError> {
        let counted = match self.answering(fresh).await? {
            Answering::Replica(replica) => replica.count_set(expression, window, floor).await?,
            Answering::Process(process, at) => {
                process.count_set(&at, expression, window, floor).await
            }
        };
        counted.ok_or_else(not_current)
    }

    /// The users in common of each pair of `segments`.
    pub(crate) async fn overlap(
        &self,
        segments: &[Segment],
        window: Window,
        fresh: bool,
    ) -> Result<Overlap, StoreError> {
        let counted = match self.answering(fresh).await? {
            Answering::Replica(replica) => replica.overlap(segments, window, fresh).await?,
            Answering::Process(process, at) => process.overlap(&at, segments, window, fresh).await,
        };
        counted.ok_or_else(not_current)
    }

    /// The pairs of all segments that are asked for.
    pub(crate) async fn top_overlaps(
        &self,
        question: TopQuestion,
        window: Window,
        fresh: bool,
    ) -> Result<TopOverlaps, StoreError> {
        let counted = match self.answering(fresh).await? {
            Answering::Replica(replica) => replica.top_overlaps(question, window, fresh).await?,
            Answering::Process(process, at) => {
                process.top_overlaps(&at, question, window, fresh).await
            }
        };
        counted.ok_or_else(not_current)
    }

    /// Who answers questions about users: an error if nobody can now, or not soon enough with everything that was answered
    /// before this call.
    async fn answering(&self, fresh: bool) -> Result<Answering<'_>, StoreError> {
        if fresh {
            self.wait_until_fresh().await.ok_or_else(not_current)?;
        }
        let answering = match &self.side {
            Side::Host(host) => host.replica().map(|replica| Answering::Replica(replica)),
            // The live process checks whether it has read the segments from the store.
            Side::Reader { view, process } => {
                let at = self.at_if(view, |_| true);
                at.map(|at| Answering::Process(&**process, at))
            }
        };
        answering.ok_or_else(not_current)
    }

    /// How many users entered and left a segment in each of `steps`; `None` if that is not known now.
    pub(crate) async fn flow(
        &self,
        segment: &Segment,
        steps: &FlowSteps,
    ) -> Option<Vec<Option<Flow>>> {
        match &self.side {
            Side::Host(host) => host.replica()?.flow(segment, &steps.spans()),
            Side::Reader { view, process } => {
                // The live process checks whether it has read the segment.
                let at = self.at_if(view, |_| true)?;
                process.flow(&at, segment, steps).await
            }
        }
    }

    /// The count of a segment over the full window, and how many users entered and left it since the replica in this process
    /// has it in memory.
    pub(crate) fn total_flow(&self, segment: &Segment) -> Option<(Count, Flow)> {
        match &self.side {
            Side::Host(host) => host.replica()?.total_flow(segment),
            Side::Reader { .. } => None,
        }
    }

    /// Waits at most two seconds until counts include every pair that was acknowledged before this call.
    async fn wait_until_fresh(&self) -> Option<()> {
        let waiting = async {
            let now = self.sources.feed_now().await.ok()?;
            match &self.side {
                Side::Host(host) => host.replica()?.wait_for(now).await,
                Side::Reader { view, .. } => view.wait_for(now).await,
            }
            Some(())
        };
        timeout(FRESH_TIMEOUT, waiting).await.ok()?
    }

    /// Every segment with users, sorted by name; `None` if that is not known now.
    pub(crate) async fn list(&self, window: Window) -> Option<Vec<(Segment, Count)>> {
        match &self.side {
            Side::Host(host) => host.replica()?.list(window),
            Side::Reader { view, process } => {
                if let Some(list) = view.list(window) {
                    return Some(list);
                }
                let at = self.at_if(view, |tick| tick.complete)?;
                process.list(&at, window).await
            }
        }
    }

    /// The segments of a user; `None` if that is not known now.
    pub(crate) async fn memberships(&self, user: &UserId<'_>) -> Option<Vec<Membership>> {
        match &self.side {
            Side::Host(host) => host.replica()?.memberships(user),
            Side::Reader { view, process } => {
                let at = self.at_if(view, |tick| tick.complete)?;
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
                timeout(FIRST_TICK, view.wait_for_tick()).await.ok()?;
                self.key().await.ok()?;
                let at = self.at_if(view, |_| true)?;
                return process.compare(&at, only).await;
            }
        };
        let Ok(_comparing) = self.comparing.try_lock() else {
            return Some(Comparison::UnderWay);
        };
        let began = tokio::time::Instant::now();
        let audited = host.replica()?.audit_now(&self.sources, only).await?;
        Some(Comparison::Done {
            compared: audited.compared,
            failed: audited.failed,
            differences: audited.differences,
            took: began.elapsed(),
        })
    }

    /// Where the live process answers, if one is at work and its newest tick is as wanted.
    fn at_if(&self, view: &View, is_wanted: impl Fn(&CurrentTick) -> bool) -> Option<At> {
        let tick = view.tick().filter(is_wanted)?;
        let token = self.token()?;
        let address = tick.address;
        (!address.is_empty()).then_some(At { address, token })
    }
}

fn not_current() -> StoreError {
    StoreError::Unavailable(
        "live counts are not current, or did not read all of these segments yet".to_owned(),
    )
}
