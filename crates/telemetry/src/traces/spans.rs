//! The queue of spans that wait for the collector: bounded, and counted at both ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use opentelemetry::Context;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span, SpanData, SpanExporter, SpanProcessor};

static SENT: AtomicU64 = AtomicU64::new(0);
static FAILED: AtomicU64 = AtomicU64::new(0);
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// Spans by what became of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Totals {
    /// The collector has them.
    pub(crate) sent: u64,
    /// The collector did not take them.
    pub(crate) failed: u64,
    /// The queue was full.
    pub(crate) dropped: u64,
}

pub(super) fn totals() -> Totals {
    Totals {
        sent: SENT.load(Ordering::Relaxed),
        failed: FAILED.load(Ordering::Relaxed),
        dropped: DROPPED.load(Ordering::Relaxed),
    }
}

/// Passes spans on to a queue with the capacity `limit`. It drops spans itself, because the queue does not say how many it drops.
#[derive(Debug)]
pub(super) struct Bounded<P> {
    pub(super) queue: P,
    pub(super) waiting: Arc<AtomicUsize>,
    pub(super) limit: usize,
}

impl<P: SpanProcessor> SpanProcessor for Bounded<P> {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.queue.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        if !span.span_context.is_sampled() {
            return;
        }
        if self.waiting.fetch_add(1, Ordering::AcqRel) >= self.limit {
            self.waiting.fetch_sub(1, Ordering::AcqRel);
            DROPPED.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.queue.on_end(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.queue.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.queue.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.queue.set_resource(resource);
    }
}

/// Counts what `exporter` sends, and logs when the collector stops taking spans and when it takes them again.
#[derive(Debug)]
pub(super) struct Counted<E> {
    exporter: E,
    waiting: Arc<AtomicUsize>,
    fails: AtomicBool,
}

impl<E> Counted<E> {
    pub(super) fn new(exporter: E, waiting: Arc<AtomicUsize>) -> Self {
        Self {
            exporter,
            waiting,
            fails: AtomicBool::new(false),
        }
    }

    fn note(&self, result: &OTelSdkResult, spans: usize) {
        self.waiting.fetch_sub(spans, Ordering::AcqRel);
        let fails = result.is_err();
        let total = if fails { &FAILED } else { &SENT };
        total.fetch_add(spans as u64, Ordering::Relaxed);
        let failed = self.fails.swap(fails, Ordering::Relaxed);
        match result {
            Err(error) if !failed => tracing::warn!(
                %error,
                "the collector does not take traces; until it does, they are lost, and only counted"
            ),
            Ok(()) if failed => tracing::info!("the collector takes traces again"),
            _ => {}
        }
    }
}

impl<E: SpanExporter> SpanExporter for Counted<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let result = self.exporter.export(batch).await;
        self.note(&result, spans);
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry::trace::{Tracer, TracerProvider};
    use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, SdkTracerProvider};
    use std::sync::mpsc::{Receiver, Sender, channel};

    use parking_lot::Mutex;

    /// A collector that takes a batch for each message.
    #[derive(Debug)]
    struct Slow {
        began: Mutex<Sender<usize>>,
        answers: Mutex<Receiver<OTelSdkResult>>,
    }

    impl SpanExporter for Slow {
        async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
            self.began.lock().send(batch.len()).unwrap();
            self.answers.lock().recv().unwrap()
        }
    }

    #[test]
    fn spans_above_the_limit_are_dropped_and_counted_while_the_collector_hangs() {
        let (began, begins) = channel();
        let (answer, answers) = channel();
        let waiting = Arc::<AtomicUsize>::default();
        let slow = Slow {
            began: Mutex::new(began),
            answers: Mutex::new(answers),
        };
        let config = BatchConfigBuilder::default()
            .with_max_queue_size(4)
            .with_max_export_batch_size(1)
            .build();
        let counted = Counted::new(slow, Arc::clone(&waiting));
        let bounded = Bounded {
            queue: BatchSpanProcessor::new(counted, config),
            waiting: Arc::clone(&waiting),
            limit: 4,
        };
        let provider = SdkTracerProvider::builder()
            .with_span_processor(bounded)
            .build();
        let tracer = provider.tracer("test");
        let end_span = || drop(tracer.start("span"));
        let before = totals();
        end_span();
        assert_eq!(begins.recv().unwrap(), 1);
        // One is under way, three wait.
        (0..10).for_each(|_| end_span());
        assert_eq!(totals().dropped - before.dropped, 7);
        answer
            .send(Err(opentelemetry_sdk::error::OTelSdkError::AlreadyShutdown))
            .unwrap();
        (0..3).for_each(|_| answer.send(Ok(())).unwrap());
        provider.force_flush().unwrap();
        assert_eq!(waiting.load(Ordering::Relaxed), 0);
        let after = totals();
        assert_eq!(
            (after.sent - before.sent, after.failed - before.failed),
            (3, 1)
        );
        end_span();
        assert_eq!(totals().dropped - before.dropped, 7);
        answer.send(Ok(())).unwrap();
        provider.shutdown().unwrap();
    }
}
