//! What instances with live counts share: the feed, the board of published counts, and the running live processes.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use domain::feed::model::ModelFeed;
use domain::overlap::{Overlap, TopOverlaps, TopQuestion};
use domain::published::model::ModelPublished;
use domain::{
    Clock, Count, Expression, Floor, Flow, Membership, Segment, SetCount, UserId, Window,
};
use engine::FlowSteps;
use engine::counts::Source;
use engine::refresher::{Outcome, Skip};
use engine::{At, Comparison, Headcount, LiveParts, LiveProcess, OwedLog};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use wal::OsDisk;

use super::clock::{ServerClock, Time};
use super::wire::Wire;
use super::wired_feed::Wired;

/// How long a service waits for a live process.
const PATIENCE: Duration = Duration::from_secs(2);
/// The same for a comparison, which takes a second without faults.
const COMPARISON_PATIENCE: Duration = Duration::from_secs(6);

#[derive(Debug, Clone)]
pub struct LiveSite {
    pub feed: Arc<ModelFeed>,
    pub board: Arc<ModelPublished>,
    pub processes: Arc<Processes>,
}

/// The running live processes, by address.
#[derive(Debug, Default)]
pub struct Processes {
    running: Mutex<HashMap<String, (Arc<Headcount>, CancellationToken)>>,
}

impl LiveSite {
    pub fn new(time: &Arc<Time>) -> Self {
        let clock = Arc::new(ServerClock::new(time)) as Arc<dyn Clock>;
        Self {
            feed: Arc::new(ModelFeed::new(Arc::clone(&clock))),
            board: Arc::new(ModelPublished::new(clock)),
            processes: Arc::default(),
        }
    }

    /// What a service needs. With a folder, entries wait there while the feed is unavailable.
    pub fn of_service(
        &self,
        feed: &Arc<Wire>,
        board: &Arc<Wire>,
        folder: Option<&Path>,
    ) -> LiveParts {
        LiveParts::Service {
            feed: Arc::new(Wired::new(&self.feed, feed)),
            published: Arc::new(Wired::new(&self.board, board)),
            owed: folder.map(|folder| OwedLog::open(Arc::new(OsDisk), folder).unwrap()),
            process: Arc::clone(&self.processes) as Arc<dyn LiveProcess>,
        }
    }

    /// What a live process needs.
    pub fn of_process(
        &self,
        feed: &Arc<Wire>,
        board: &Arc<Wire>,
        folder: &Path,
        address: &str,
    ) -> LiveParts {
        LiveParts::Process {
            feed: Arc::new(Wired::new(&self.feed, feed)),
            dir: folder.to_owned(),
            published: Arc::new(Wired::new(&self.board, board)),
            address: address.to_owned(),
        }
    }
}

impl Processes {
    pub fn add(&self, address: &str, headcount: &Arc<Headcount>) {
        let running = (Arc::clone(headcount), CancellationToken::new());
        self.running.lock().insert(address.to_owned(), running);
    }

    /// Nobody reaches the process any more.
    pub fn remove(&self, address: &str) {
        if let Some((_, gone)) = self.running.lock().remove(address) {
            gone.cancel();
        }
    }

    async fn ask<T, F>(
        &self,
        at: &At,
        patience: Duration,
        ask: impl FnOnce(Arc<Headcount>) -> F,
    ) -> Option<T>
    where
        F: Future<Output = Option<T>>,
    {
        let (headcount, gone) = self.running.lock().get(&at.address)?.clone();
        assert_eq!(headcount.live_token()?, at.token);
        tokio::select! {
            () = gone.cancelled() => None,
            answer = tokio::time::timeout(patience, ask(headcount)) => answer.ok()?,
        }
    }
}

#[async_trait]
impl LiveProcess for Processes {
    async fn count(&self, at: &At, segment: &Segment, window: Window) -> Option<Count> {
        let count = async |headcount: Arc<Headcount>| {
            let counted = headcount.counts().get(segment, window, false).await.ok()?;
            (counted.source == Source::Live).then_some(counted.count)
        };
        self.ask(at, PATIENCE, count).await
    }

    async fn count_set(
        &self,
        at: &At,
        expression: &Expression,
        window: Window,
        floor: Floor,
    ) -> Option<SetCount> {
        let count = async |headcount: Arc<Headcount>| {
            let counts = headcount.counts();
            let counted = counts
                .get_set(expression, window, floor, false)
                .await
                .ok()?;
            (counted.source == Source::Live).then_some(SetCount {
                users: counted.value,
                as_of: counted.as_of,
            })
        };
        self.ask(at, PATIENCE, count).await
    }

    async fn overlap(
        &self,
        at: &At,
        segments: &[Segment],
        window: Window,
        fresh: bool,
    ) -> Option<Overlap> {
        let count = async |headcount: Arc<Headcount>| {
            let counted = headcount
                .counts()
                .overlap(segments, window, fresh)
                .await
                .ok()?;
            (counted.source == Source::Live).then_some(Overlap {
                matrix: counted.value,
                as_of: counted.as_of,
            })
        };
        self.ask(at, PATIENCE, count).await
    }

    async fn top_overlaps(
        &self,
        at: &At,
        question: TopQuestion,
        window: Window,
        fresh: bool,
    ) -> Option<TopOverlaps> {
        let count = async |headcount: Arc<Headcount>| {
            let counts = headcount.counts();
            let counted = counts
                .top_overlaps(question.clone(), window, fresh)
                .await
                .ok()?;
            let (pairs, everybody) = counted.value;
            (counted.source == Source::Live).then_some(TopOverlaps {
                pairs,
                everybody,
                as_of: counted.as_of,
            })
        };
        self.ask(at, PATIENCE, count).await
    }

    async fn flow(
        &self,
        at: &At,
        segment: &Segment,
        steps: &FlowSteps,
    ) -> Option<Vec<Option<Flow>>> {
        let flow = async |headcount: Arc<Headcount>| {
            let flow = headcount.counts().flow(segment, steps).await.ok()?;
            Some(flow.iter().map(|step| step.flow).collect())
        };
        self.ask(at, PATIENCE, flow).await
    }

    async fn list(&self, at: &At, window: Window) -> Option<Vec<(Segment, Count)>> {
        let list = async |headcount: Arc<Headcount>| {
            let list = headcount.counts().list(window).await.ok()?;
            let listed = list.iter();
            listed
                .map(|it| Some((it.segment.clone(), it.count?)))
                .collect()
        };
        self.ask(at, PATIENCE, list).await
    }

    async fn memberships(&self, at: &At, user: &UserId<'_>) -> Option<Vec<Membership>> {
        let user = user.as_str();
        let list = async |headcount: Arc<Headcount>| {
            headcount.memberships(UserId::new(user).ok()?).await.ok()
        };
        self.ask(at, PATIENCE, list).await
    }

    async fn compare(&self, at: &At, only: Option<&Segment>) -> Option<Comparison> {
        let compare = async |headcount: Arc<Headcount>| match headcount.refresh(only).await {
            Ok(Outcome::Done(report)) => Some(Comparison::Done {
                compared: report.refreshed,
                failed: report.failed,
                differences: report.differences?,
                took: report.took,
            }),
            Ok(Outcome::Skipped(Skip::UnderWay)) => Some(Comparison::UnderWay),
            _ => None,
        };
        self.ask(at, COMPARISON_PATIENCE, compare).await
    }
}
