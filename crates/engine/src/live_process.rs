//! The port to the process that publishes live counts, for what is not published.

use std::time::Duration;

use async_trait::async_trait;

use crate::time_steps::FlowSteps;
use domain::overlap::{Overlap, TopOverlaps, TopQuestion};
use domain::{Count, Expression, Floor, Flow, Membership, Segment, SetCount, UserId, Window};

/// Asks a live process. `None` is every failure: the caller has other sources.
#[async_trait]
pub trait LiveProcess: Send + Sync + std::fmt::Debug {
    /// The count of a segment over any window.
    async fn count(&self, at: &At, segment: &Segment, window: Window) -> Option<Count>;

    /// The number of users in the set that `expression` means, over any window, unless `floor` withholds it.
    async fn count_set(
        &self,
        at: &At,
        expression: &Expression,
        window: Window,
        floor: Floor,
    ) -> Option<SetCount>;

    /// The users in common of each pair of `segments`.
    async fn overlap(
        &self,
        at: &At,
        segments: &[Segment],
        window: Window,
        fresh: bool,
    ) -> Option<Overlap>;

    /// The pairs of all segments that are asked for.
    async fn top_overlaps(
        &self,
        at: &At,
        question: TopQuestion,
        window: Window,
        fresh: bool,
    ) -> Option<TopOverlaps>;

    /// How many users entered and left a segment in each of `steps`.
    async fn flow(
        &self,
        at: &At,
        segment: &Segment,
        steps: &FlowSteps,
    ) -> Option<Vec<Option<Flow>>>;

    /// Every segment with users, sorted by name.
    async fn list(&self, at: &At, window: Window) -> Option<Vec<(Segment, Count)>>;

    /// The segments that a user is in, sorted by name. `user` is the stored id.
    async fn memberships(&self, at: &At, user: &UserId<'_>) -> Option<Vec<Membership>>;

    /// Compares all segments, or one, with the store's own counts.
    async fn compare(&self, at: &At, only: Option<&Segment>) -> Option<Comparison>;
}

/// The result of a comparison of live counts with the store's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// Another one is in progress.
    UnderWay,
    /// It is complete.
    Done {
        /// Segments that were compared.
        compared: u64,
        /// Segments that could not be compared.
        failed: u64,
        /// Segments that differed by more than the store explains, and were read again.
        differences: u64,
        /// How long it took.
        took: Duration,
    },
}

/// Where a live process is, and the token that it accepts.
#[derive(Clone, PartialEq, Eq)]
pub struct At {
    /// Its URL, such as `http://10.0.0.7:8080`.
    pub address: String,
    /// The token, which every process that may read the store's key can compute.
    pub token: String,
}

impl std::fmt::Debug for At {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("At")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}
