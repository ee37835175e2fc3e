//! The counters of segments that were removed because their last user had left.

use std::collections::HashMap;

use super::{FlowLayout, Flows};
use domain::{Flow, Segment};

/// The maximum number of removed segments whose counters are kept. Beyond it, the counters of those removed first are
/// dropped.
const KEPT: usize = 1_000;

/// The counters of former segments.
#[derive(Debug, Default)]
pub(crate) struct Former {
    /// Segments that are not here had no users since this slot.
    since: u64,
    flows: HashMap<Segment, Flows>,
}

impl Former {
    pub(crate) fn since(&self) -> u64 {
        self.since
    }

    pub(crate) fn restart(&mut self, since: u64) {
        self.since = since;
        self.flows = HashMap::new();
    }

    /// Keeps the counters of a segment that is being removed.
    pub(crate) fn put(&mut self, segment: Segment, flows: Flows) {
        if self.flows.len() >= KEPT
            && let Some(oldest) = self.flows.iter().min_by_key(|(_, flows)| flows.head)
        {
            let (oldest, head) = (oldest.0.clone(), oldest.1.head);
            self.flows.remove(&oldest);
            self.since = self.since.max(head + 1);
        }
        self.flows.insert(segment, flows);
    }

    pub(crate) fn begin_totals(&mut self) {
        for flows in self.flows.values_mut() {
            flows.total = Flow::default();
        }
    }

    /// The counters with which a segment begins as of `head`.
    pub(crate) fn take(&mut self, segment: &str, layout: FlowLayout, head: u64) -> Flows {
        let kept = self.flows.remove(segment);
        self.as_of(kept, layout, head)
    }

    /// The counters of a segment without users as of `head`.
    pub(crate) fn copy(&self, segment: &str, layout: FlowLayout, head: u64) -> Flows {
        self.as_of(self.flows.get(segment).cloned(), layout, head)
    }

    /// All counters as of `head`.
    pub(crate) fn all(&self, head: u64) -> impl Iterator<Item = (Segment, Flows)> {
        let kept = self.flows.iter();
        kept.map(move |(segment, flows)| {
            let mut flows = flows.clone();
            flows.advance(head);
            (segment.clone(), flows)
        })
    }

    fn as_of(&self, kept: Option<Flows>, layout: FlowLayout, head: u64) -> Flows {
        let mut flows = kept.unwrap_or_else(|| Flows::new(layout, head, self.since));
        flows.advance(head);
        flows
    }
}
