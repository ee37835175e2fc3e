//! Group commit: many requests share one write. Each request completes when its own lines are settled.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::FutureExt;
use futures::future::join_all;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::deliver::Delivery;
use super::error::Error;
use super::group::{Group, WriteResult};
use super::lines::Lines;
use super::options::InfluxOptions;
use domain::store::{Partly, StoreError};
use supervisor::Watch;

/// A body of lines of one request, with its reply channel.
struct Part {
    lines: Lines,
    reply: oneshot::Sender<WriteResult>,
    reservation: Reservation,
}

/// Queue capacity for lines that are queued or being written. Dropping it releases the capacity.
struct Reservation {
    waiting: Arc<AtomicUsize>,
    lines: usize,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.waiting.fetch_sub(self.lines, Ordering::AcqRel);
    }
}

/// The handle of the task that gathers parts into writes.
///
/// The task ends when [`close`](Self::close) is called or the writer is dropped, after it has delivered the queued
/// parts.
#[derive(Debug)]
pub(super) struct Writer {
    /// Unbounded in messages; bounded in lines by `waiting`.
    parts: Mutex<Option<mpsc::UnboundedSender<Part>>>,
    gatherer: Mutex<Option<JoinHandle<()>>>,
    delivery: Arc<Delivery>,
    waiting: Arc<AtomicUsize>,
    #[cfg(test)]
    trap: Arc<std::sync::atomic::AtomicBool>,
}

/// The task's state. It survives a panic of the task; the restarted task continues with the queued parts.
struct Gatherer {
    parts: mpsc::UnboundedReceiver<Part>,
    /// A part that did not fit into the last body.
    held: Option<Part>,
    /// Writes in flight.
    writes: JoinSet<()>,
    delivery: Arc<Delivery>,
    bucket: Arc<str>,
    linger: Duration,
    /// Makes the task panic once, at the next part.
    #[cfg(test)]
    trap: Arc<std::sync::atomic::AtomicBool>,
}

impl Writer {
    /// Starts a writer into the bucket of pairs.
    pub(super) fn start(delivery: Arc<Delivery>, options: &InfluxOptions) -> Self {
        let (sender, receiver) = mpsc::unbounded_channel();
        #[cfg(test)]
        let trap = Arc::default();
        let gatherer = Arc::new(tokio::sync::Mutex::new(Gatherer {
            parts: receiver,
            held: None,
            writes: JoinSet::new(),
            delivery: Arc::clone(&delivery),
            bucket: options.bucket.as_str().into(),
            linger: options.linger,
            #[cfg(test)]
            trap: Arc::clone(&trap),
        }));
        let kept = async move {
            // The task ends when the sender is dropped.
            let never = CancellationToken::new();
            let make = || {
                let gatherer = Arc::clone(&gatherer);
                async move { gatherer.lock().await.run().await }
            };
            Watch::default()
                .keep_alive("influx writer", &never, make)
                .await;
        };
        Self {
            parts: Mutex::new(Some(sender)),
            gatherer: Mutex::new(Some(tokio::spawn(kept))),
            delivery,
            waiting: Arc::default(),
            #[cfg(test)]
            trap,
        }
    }

    /// The current maximum number of lines in a body.
    pub(super) fn batch_lines(&self) -> usize {
        self.delivery.flow.batch_lines()
    }

    /// Queues either all bodies or none, and waits until each line is settled.
    pub(super) async fn write(&self, bodies: Vec<Lines>) -> Result<(), StoreError> {
        if bodies.is_empty() {
            return Ok(());
        }
        let counts: Vec<usize> = bodies.iter().map(Lines::count).collect();
        let results = join_all(self.queue(bodies)?).await;
        // A task that panicked drops the senders.
        let results = results
            .into_iter()
            .map(|result| result.unwrap_or_else(|_| Err(Error::Panicked.into())));
        overall(counts.into_iter().zip(results))
    }

    fn queue(&self, bodies: Vec<Lines>) -> Result<Vec<oneshot::Receiver<WriteResult>>, StoreError> {
        let mut reservations = self.reserve(&bodies)?.into_iter();
        let sender = self.parts.lock().clone().ok_or(StoreError::Closed)?;
        let mut results = Vec::with_capacity(bodies.len());
        for lines in bodies {
            let (reply, result) = oneshot::channel();
            let reservation = reservations.next().ok_or(StoreError::Closed)?;
            let part = Part {
                lines,
                reply,
                reservation,
            };
            sender.send(part).map_err(|_| StoreError::Closed)?;
            results.push(result);
        }
        Ok(results)
    }

    /// Reserves queue capacity for all `bodies`. An empty queue accepts a request that is larger than its capacity.
    fn reserve(&self, bodies: &[Lines]) -> Result<Vec<Reservation>, StoreError> {
        let lines: usize = bodies.iter().map(Lines::count).sum();
        let limit = self.delivery.flow.queue_lines();
        let admitted = self
            .waiting
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |waiting| {
                let all = waiting.checked_add(lines)?;
                (waiting == 0 || all <= limit).then_some(all)
            });
        if admitted.is_err() {
            let text = "InfluxDB: the queue has more pairs than it accepts in two seconds";
            return Err(StoreError::Busy(text.to_owned()));
        }
        let reservation = |body: &Lines| Reservation {
            waiting: Arc::clone(&self.waiting),
            lines: body.count(),
        };
        Ok(bodies.iter().map(reservation).collect())
    }

    /// The number of lines that are queued or being written.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Acquire)
    }

    /// Delivers the queued parts and ends the task.
    pub(super) async fn close(&self) {
        drop(self.parts.lock().take());
        let gatherer = self.gatherer.lock().take();
        if let Some(gatherer) = gatherer
            && gatherer.await.is_err()
        {
            tracing::error!("the writer to InfluxDB panicked");
        }
    }
}

impl Gatherer {
    async fn run(&mut self) {
        loop {
            let first = match self.held.take() {
                Some(part) => part,
                None => match self.parts.recv().await {
                    Some(part) => part,
                    None => break,
                },
            };
            // Gather only when a write may start: the busier the server, the larger the next body.
            let lane = Arc::clone(&self.delivery.lane);
            let Ok(permit) = lane.acquire_owned().await else {
                break;
            };
            #[cfg(test)]
            assert!(!self.trap.swap(false, Ordering::AcqRel), "a trap for tests");
            let parts = self.gather(first).await;
            let (delivery, bucket) = (Arc::clone(&self.delivery), Arc::clone(&self.bucket));
            self.writes.spawn(write(delivery, bucket, parts, permit));
            while let Some(written) = self.writes.try_join_next() {
                note_panic(&written);
            }
        }
        while let Some(written) = self.writes.join_next().await {
            note_panic(&written);
        }
    }

    /// Adds parts to `first` until the body is full or the linger time is over. Holds back a part that does not fit.
    async fn gather(&mut self, first: Part) -> Vec<Part> {
        let until = Instant::now() + self.linger;
        let batch_lines = self.delivery.flow.batch_lines();
        let mut lines = first.lines.count();
        let mut parts = vec![first];
        while lines < batch_lines {
            let next = match self.parts.recv().now_or_never() {
                Some(next) => next,
                None => match tokio::time::timeout_at(until, self.parts.recv()).await {
                    Ok(next) => next,
                    Err(_) => break,
                },
            };
            let Some(part) = next else { break };
            if lines + part.lines.count() > batch_lines {
                self.held = Some(part);
                break;
            }
            lines += part.lines.count();
            parts.push(part);
        }
        parts
    }
}

/// Logs a panic of a write. Its callers notice it by their closed reply channels.
fn note_panic(written: &Result<(), tokio::task::JoinError>) {
    if written.is_err() {
        tracing::error!("a write to InfluxDB panicked");
    }
}

/// Writes the parts whose callers still wait as one body, and sends each its result.
async fn write(
    delivery: Arc<Delivery>,
    bucket: Arc<str>,
    parts: Vec<Part>,
    permit: OwnedSemaphorePermit,
) {
    let mut group = Group::default();
    let mut reservations = Vec::with_capacity(parts.len());
    for part in parts {
        if !part.reply.is_closed() {
            group.push(part.lines, part.reply);
            reservations.push(part.reservation);
        }
    }
    if !group.is_empty() {
        delivery.run(&bucket, group, Some(permit)).await;
    }
    drop(reservations);
}

/// Combines the results of a request's bodies, each with its number of lines. The lines of a body with any error but
/// [`StoreError::Partly`] count as open.
fn overall(results: impl Iterator<Item = (usize, WriteResult)>) -> WriteResult {
    let mut whole = Partly::default();
    let (mut lines, mut settled, mut error) = (0, 0, None);
    whole.kept = true;
    for (count, result) in results {
        match result {
            Ok(()) => settled += count,
            Err(StoreError::Partly(partly)) => {
                settled += count - partly.open.len();
                whole.kept &= partly.kept || partly.refused.is_empty();
                let place = |position: usize| lines + position;
                whole.refused.extend(partly.refused.into_iter().map(place));
                whole.open.extend(partly.open.into_iter().map(place));
                whole.reason = partly.reason;
            }
            Err(other) => {
                whole.open.extend(lines..lines + count);
                error.get_or_insert(other);
            }
        }
        lines += count;
    }
    match error {
        Some(error) if settled == 0 => Err(error),
        Some(error) => {
            whole.reason = error.to_string();
            Err(StoreError::Partly(Box::new(whole)))
        }
        None if whole.refused.is_empty() && whole.open.is_empty() => Ok(()),
        None => Err(StoreError::Partly(Box::new(whole))),
    }
}

#[cfg(test)]
mod tests {
    use super::super::deliver::Wire;
    use super::*;

    fn partly(refused: &[usize], open: &[usize]) -> WriteResult {
        Err(StoreError::Partly(Box::new(Partly {
            refused: refused.to_vec(),
            open: open.to_vec(),
            kept: true,
            reason: String::new(),
        })))
    }

    fn unavailable() -> WriteResult {
        Err(StoreError::Unavailable(String::new()))
    }

    fn lists(result: WriteResult) -> (Vec<usize>, Vec<usize>) {
        match result {
            Err(StoreError::Partly(partly)) => (partly.refused, partly.open),
            other => panic!("{other:?}"),
        }
    }

    #[derive(Debug)]
    struct TakesAll;

    #[async_trait::async_trait]
    impl Wire for TakesAll {
        async fn write(&self, _: &str, _: bytes::Bytes, _: Duration) -> Result<(), Error> {
            Ok(())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_panicked_goes_on_with_what_is_queued() {
        let options = InfluxOptions::for_tests();
        let delivery = Delivery::new(Arc::new(TakesAll), &options, Arc::default());
        let writer = Writer::start(Arc::new(delivery), &options);
        let body = || {
            let mut lines = Lines::with_capacity(0);
            lines.push(|text| std::io::Write::write_all(text, b"pair,segment=s user=\"u\" 1\n"));
            lines
        };
        writer.trap.store(true, Ordering::Release);
        // The caller gets an error and does not wait forever.
        assert!(writer.write(vec![body()]).await.is_err());
        writer.write(vec![body()]).await.unwrap();
        assert_eq!(writer.waiting(), 0);
        writer.close().await;
    }

    #[test]
    fn what_is_not_durable_is_named_by_its_place_in_the_request() {
        let of = |results: [WriteResult; 3]| overall([3, 2, 3].into_iter().zip(results));
        assert!(of([Ok(()), Ok(()), Ok(())]).is_ok());
        let all_failed = of([unavailable(), unavailable(), unavailable()]);
        assert_eq!(all_failed.unwrap_err().name(), "unavailable");
        let some = of([partly(&[0], &[2]), Ok(()), partly(&[], &[1])]);
        assert_eq!(lists(some), (vec![0], vec![2, 6]));
        let cut = of([Ok(()), partly(&[1], &[]), unavailable()]);
        assert_eq!(lists(cut), (vec![4], vec![5, 6, 7]));
    }
}
