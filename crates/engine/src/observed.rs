//! A decorator that measures the calls of a store.

use std::collections::BTreeMap;
use std::ops::{Range, RangeInclusive};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures::stream::BoxStream;
use tracing::Instrument;
use tracing::field::Empty;

use domain::overlap::{Overlap, TopOverlaps, TopQuestion};
use domain::store::{Archived, PairStore, Remains, StoreError};
use domain::{
    Batch, Count, Erasure, Expression, FingerprintKey, Floor, Flow, Membership, Segment, SetCount,
    Slot, Timestamp, TrendPoint, UserId, Window,
};
use telemetry::{Metrics, traces};

/// Counts and times the calls of the inner store. Calls without I/O, streamed exports, the removal of refused pairs and
/// `close` pass through unmeasured. It changes no result.
#[derive(Debug)]
pub(crate) struct ObservedStore {
    inner: Arc<dyn PairStore>,
    metrics: Arc<Metrics>,
}

impl ObservedStore {
    /// Measures the calls of `inner` into `metrics`.
    pub(crate) fn new(inner: Arc<dyn PairStore>, metrics: Arc<Metrics>) -> Self {
        Self { inner, metrics }
    }

    async fn observe<T>(
        &self,
        operation: &'static str,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let started = Instant::now();
        let span =
            tracing::debug_span!(target: traces::TARGET, "store", operation, outcome = Empty);
        let result = call.instrument(span.clone()).await;
        let outcome = result.as_ref().map_or_else(StoreError::name, |_| "ok");
        span.record("outcome", outcome);
        let took = started.elapsed();
        self.metrics.store.call(operation, outcome, took);
        result
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl PairStore for ObservedStore {
    async fn record(&self, batch: &Batch) -> Result<(), StoreError> {
        self.observe("record", self.inner.record(batch)).await
    }

    fn advance(&self, now: Timestamp) {
        self.inner.advance(now);
    }

    async fn count(
        &self,
        segment: &Segment,
        window: Window,
        as_of: Timestamp,
    ) -> Result<Count, StoreError> {
        self.observe("count", self.inner.count(segment, window, as_of))
            .await
    }

    async fn count_many(
        &self,
        segments: &[Segment],
        window: Window,
        as_of: Timestamp,
    ) -> Result<Vec<Count>, StoreError> {
        let counts = self.inner.count_many(segments, window, as_of);
        self.observe("count_many", counts).await
    }

    fn counts_at_once(&self) -> usize {
        self.inner.counts_at_once()
    }

    fn keeps_every_slot(&self) -> bool {
        self.inner.keeps_every_slot()
    }

    fn is_live(&self) -> bool {
        self.inner.is_live()
    }

    fn count_now(&self, segment: &Segment, window: Window, as_of: Timestamp) -> Option<Count> {
        self.inner.count_now(segment, window, as_of)
    }

    async fn count_set(
        &self,
        expression: &Expression,
        window: Window,
        floor: Floor,
        as_of: Timestamp,
    ) -> Result<SetCount, StoreError> {
        let counted = self.inner.count_set(expression, window, floor, as_of);
        self.observe("count_set", counted).await
    }

    async fn overlap(
        &self,
        segments: &[Segment],
        window: Window,
        fresh: bool,
        as_of: Timestamp,
    ) -> Result<Overlap, StoreError> {
        let counted = self.inner.overlap(segments, window, fresh, as_of);
        self.observe("overlap", counted).await
    }

    async fn top_overlaps(
        &self,
        question: TopQuestion,
        window: Window,
        fresh: bool,
        as_of: Timestamp,
    ) -> Result<TopOverlaps, StoreError> {
        let counted = self.inner.top_overlaps(question, window, fresh, as_of);
        self.observe("overlap", counted).await
    }

    fn flow(
        &self,
        segment: &Segment,
        spans: &[Range<Slot>],
        as_of: Timestamp,
    ) -> Result<Vec<Option<Flow>>, StoreError> {
        self.inner.flow(segment, spans, as_of)
    }

    fn total_flow(&self, segment: &Segment, as_of: Timestamp) -> Option<(Count, Flow)> {
        self.inner.total_flow(segment, as_of)
    }

    async fn segments(&self, as_of: Timestamp) -> Result<Vec<Segment>, StoreError> {
        self.observe("segments", self.inner.segments(as_of)).await
    }

    async fn memberships(
        &self,
        user: &UserId<'_>,
        as_of: Timestamp,
    ) -> Result<Vec<Membership>, StoreError> {
        self.observe("memberships", self.inner.memberships(user, as_of))
            .await
    }

    async fn forget(&self, user: &UserId<'_>, as_of: Timestamp) -> Result<u64, StoreError> {
        self.observe("forget", self.inner.forget(user, as_of)).await
    }

    async fn forget_in(
        &self,
        segment: &Segment,
        user: &UserId<'_>,
        as_of: Timestamp,
    ) -> Result<bool, StoreError> {
        self.observe("forget_in", self.inner.forget_in(segment, user, as_of))
            .await
    }

    async fn forget_seen(
        &self,
        user: &UserId<'_>,
        seen: &[Membership],
        as_of: Timestamp,
    ) -> Result<u64, StoreError> {
        self.observe("forget_seen", self.inner.forget_seen(user, seen, as_of))
            .await
    }

    async fn drop_segment(
        &self,
        segment: &Segment,
        windows: &[Window],
        as_of: Timestamp,
    ) -> Result<u64, StoreError> {
        let dropped = self.inner.drop_segment(segment, windows, as_of);
        self.observe("drop_segment", dropped).await
    }

    async fn note_erasure(&self, erasure: &Erasure) -> Result<(), StoreError> {
        self.observe("note_erasure", self.inner.note_erasure(erasure))
            .await
    }

    async fn erasures(&self, since: Timestamp) -> Result<Vec<Erasure>, StoreError> {
        self.observe("erasures", self.inner.erasures(since)).await
    }

    async fn erase_refused(&self, erasures: &[Erasure]) -> Result<u64, StoreError> {
        self.inner.erase_refused(erasures).await
    }

    fn remains(&self, at: Timestamp) -> Vec<Remains> {
        self.inner.remains(at)
    }

    async fn fingerprint_key(&self) -> Result<FingerprintKey, StoreError> {
        self.inner.fingerprint_key().await
    }

    async fn properties(&self, prefix: &str) -> Result<BTreeMap<String, String>, StoreError> {
        self.observe("properties", self.inner.properties(prefix))
            .await
    }

    async fn set_property(&self, name: &str, value: Option<&str>) -> Result<(), StoreError> {
        self.observe("set_property", self.inner.set_property(name, value))
            .await
    }

    async fn archive(&self, as_of: Timestamp, limit: u64) -> Result<Archived, StoreError> {
        self.observe("archive", self.inner.archive(as_of, limit))
            .await
    }

    async fn export(
        &self,
        segment: &Segment,
        slots: RangeInclusive<Slot>,
    ) -> Result<Batch, StoreError> {
        self.observe("export", self.inner.export(segment, slots))
            .await
    }

    fn streams(&self) -> bool {
        self.inner.streams()
    }

    fn export_stream<'a>(
        &'a self,
        segment: &'a Segment,
        slots: RangeInclusive<Slot>,
    ) -> BoxStream<'a, Result<Batch, StoreError>> {
        self.inner.export_stream(segment, slots)
    }

    async fn record_trend(&self, points: &[TrendPoint]) -> Result<(), StoreError> {
        self.observe("record_trend", self.inner.record_trend(points))
            .await
    }

    async fn trend(
        &self,
        segment: &Segment,
        window: Window,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<Count>, StoreError> {
        self.observe("trend", self.inner.trend(segment, window, from, to))
            .await
    }

    async fn trend_in_steps(
        &self,
        segment: &Segment,
        window: Window,
        from: Timestamp,
        to: Timestamp,
        step: Duration,
    ) -> Result<Vec<Count>, StoreError> {
        let trend = self.inner.trend_in_steps(segment, window, from, to, step);
        self.observe("trend", trend).await
    }

    async fn strangers(&self, as_of: Timestamp) -> Result<Vec<String>, StoreError> {
        self.observe("strangers", self.inner.strangers(as_of)).await
    }

    fn known_strangers(&self) -> Vec<String> {
        self.inner.known_strangers()
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.observe("ping", self.inner.ping()).await
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.inner.close().await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use domain::TimeFrame;
    use domain::store::conformance::{self, Factory};
    use stores::embedded::{EmbeddedOptions, EmbeddedStore};

    struct Observed {
        dir: tempfile::TempDir,
        made: AtomicUsize,
        metrics: Arc<Metrics>,
    }

    #[async_trait]
    impl Factory for Observed {
        async fn empty(&self, frame: TimeFrame) -> Arc<dyn PairStore> {
            let number = self.made.fetch_add(1, Ordering::Relaxed);
            let dir = self.dir.path().join(number.to_string());
            let inner = EmbeddedStore::open(EmbeddedOptions::new(dir, frame)).unwrap();
            Arc::new(ObservedStore::new(
                Arc::new(inner),
                Arc::clone(&self.metrics),
            ))
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn keeps_every_promise_of_the_store_inside_and_measures_it() {
        let factory = Observed {
            dir: tempfile::tempdir().unwrap(),
            made: AtomicUsize::new(0),
            metrics: Arc::default(),
        };
        conformance::check_store(&factory).await;
        let metrics = factory.metrics.render().unwrap();
        for operation in [
            "record",
            "count",
            "count_many",
            "segments",
            "memberships",
            "forget",
            "archive",
            "trend",
        ] {
            let labels = format!("operation=\"{operation}\",outcome=\"ok\"");
            assert!(metrics.contains(&labels), "{operation} is not measured");
        }
        assert!(metrics.contains("operation=\"record\",outcome=\"closed\""));
    }
}
