//! Group commit: many requests share one write, and each is answered when its own lines are durable.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::join_all;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use super::deliver::Delivery;
use super::error::Error;
use super::lines::Lines;
use super::options::InfluxOptions;
use crate::store::StoreError;

/// The lines of one request that travel together, with what their caller waits on.
struct Part {
    lines: Lines,
    deadline: Instant,
    answer: oneshot::Sender<Result<(), StoreError>>,
    /// Room in the queue, given back when the part is dropped.
    _room: OwnedSemaphorePermit,
}

/// The way in to the task that gathers parts into writes.
///
/// The task ends when [`close`](Self::close) is called or the writer is dropped, after it has delivered what
/// was queued.
#[derive(Debug)]
pub(super) struct Writer {
    /// Unbounded in messages; bounded in lines by `room`.
    parts: Mutex<Option<mpsc::UnboundedSender<Part>>>,
    gatherer: Mutex<Option<JoinHandle<()>>>,
    room: Arc<Semaphore>,
    queue_lines: usize,
    deadline: Duration,
}

/// The task's side.
struct Gatherer {
    parts: mpsc::UnboundedReceiver<Part>,
    delivery: Arc<Delivery>,
    bucket: Arc<str>,
    batch_lines: usize,
    linger: Duration,
    in_flight: usize,
}

impl Writer {
    /// Starts a writer into the bucket of pairs.
    pub(super) fn start(delivery: Arc<Delivery>, options: &InfluxOptions) -> Self {
        let (sender, receiver) = mpsc::unbounded_channel();
        let gatherer = Gatherer {
            parts: receiver,
            delivery,
            bucket: options.bucket.as_str().into(),
            batch_lines: options.batch_pairs.max(1),
            linger: options.linger,
            in_flight: options.writes_in_flight.max(1),
        };
        let queue_lines = options.queue_pairs.clamp(1, Semaphore::MAX_PERMITS >> 1);
        Self {
            parts: Mutex::new(Some(sender)),
            gatherer: Mutex::new(Some(tokio::spawn(gatherer.run()))),
            room: Arc::new(Semaphore::new(queue_lines)),
            queue_lines,
            deadline: options.write_deadline,
        }
    }

    /// Queues bodies of lines, all or none, and waits until each of them is durable.
    pub(super) async fn write(&self, bodies: Vec<Lines>) -> Result<(), StoreError> {
        if bodies.is_empty() {
            return Ok(());
        }
        let deadline = Instant::now() + self.deadline;
        let answers = self.queue(bodies, deadline)?;
        let Ok(answers) = tokio::time::timeout_at(deadline, join_all(answers)).await else {
            return Err(StoreError::Timeout(
                "InfluxDB: a write took too long".into(),
            ));
        };
        // A gatherer that panicked drops the senders.
        let results = answers
            .into_iter()
            .map(|answer| answer.unwrap_or_else(|_| Err(Error::Panicked.into())));
        overall(results)
    }

    fn queue(
        &self,
        bodies: Vec<Lines>,
        deadline: Instant,
    ) -> Result<Vec<oneshot::Receiver<Result<(), StoreError>>>, StoreError> {
        let mut room = self.room_for(bodies.iter().map(Lines::count).sum())?;
        let sender = self.parts.lock().clone().ok_or(StoreError::Closed)?;
        let mut answers = Vec::with_capacity(bodies.len());
        for lines in bodies {
            let share = lines.count().min(room.num_permits());
            let (answer, answered) = oneshot::channel();
            let part = Part {
                lines,
                deadline,
                answer,
                _room: room.split(share).ok_or(StoreError::Closed)?,
            };
            sender.send(part).map_err(|_| StoreError::Closed)?;
            answers.push(answered);
        }
        Ok(answers)
    }

    /// Room for `lines`. A request larger than the queue gets in when the queue is empty.
    fn room_for(&self, lines: usize) -> Result<OwnedSemaphorePermit, StoreError> {
        let wanted = u32::try_from(lines.min(self.queue_lines)).unwrap_or(u32::MAX);
        Arc::clone(&self.room)
            .try_acquire_many_owned(wanted)
            .map_err(|_| StoreError::Busy("InfluxDB: too many pairs wait to be written".into()))
    }

    /// How many lines wait or are under way.
    pub(super) fn waiting(&self) -> usize {
        self.queue_lines - self.room.available_permits().min(self.queue_lines)
    }

    /// Delivers what is queued and ends.
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
    async fn run(mut self) {
        let mut writes = JoinSet::new();
        let mut held = None;
        loop {
            // Gathering begins when a write may start: the busier the server, the larger the next body.
            while writes.len() >= self.in_flight {
                writes.join_next().await;
            }
            let first = match held.take() {
                Some(part) => part,
                None => match self.parts.recv().await {
                    Some(part) => part,
                    None => break,
                },
            };
            let (group, next) = self.gather(first).await;
            held = next;
            let delivery = Arc::clone(&self.delivery);
            writes.spawn(write(delivery, Arc::clone(&self.bucket), group));
        }
        while writes.join_next().await.is_some() {}
    }

    /// Adds parts to `first` until a body is full or the linger is over; returns also one that did not fit.
    async fn gather(&mut self, first: Part) -> (Vec<Part>, Option<Part>) {
        let until = Instant::now() + self.linger;
        let mut lines = first.lines.count();
        let mut group = vec![first];
        while lines < self.batch_lines {
            let next = match self.parts.recv().now_or_never() {
                Some(next) => next,
                None => match tokio::time::timeout_at(until, self.parts.recv()).await {
                    Ok(next) => next,
                    Err(_) => break,
                },
            };
            let Some(part) = next else { break };
            if lines + part.lines.count() > self.batch_lines {
                return (group, Some(part));
            }
            lines += part.lines.count();
            group.push(part);
        }
        (group, None)
    }
}

/// The result of a request from those of its parts. `Rejected` means that everything else is durable, so any
/// other error goes before it.
fn overall(results: impl Iterator<Item = Result<(), StoreError>>) -> Result<(), StoreError> {
    let mut rejected = Ok(());
    for result in results {
        match result {
            Err(StoreError::Rejected(_)) => rejected = result,
            result => result?,
        }
    }
    rejected
}

/// Writes the parts whose callers still wait, as one body, and answers each.
async fn write(delivery: Arc<Delivery>, bucket: Arc<str>, mut group: Vec<Part>) {
    group.retain(|part| !part.answer.is_closed());
    let Some(deadline) = group.iter().map(|part| part.deadline).max() else {
        return;
    };
    let (body, ends) = join(&mut group);
    let delivered = std::panic::AssertUnwindSafe(delivery.deliver(&bucket, body, deadline));
    let refused = match delivered.catch_unwind().await {
        Ok(result) => result,
        Err(_) => Err(Error::Panicked.into()),
    };
    let mut start = 0;
    for (part, end) in group.into_iter().zip(ends) {
        let result = match &refused {
            Ok(refused) => answer_for(&(start..end), refused),
            Err(error) => Err(error.clone()),
        };
        start = end;
        // A caller that gave up no longer listens.
        let _gone = part.answer.send(result);
    }
}

/// The lines of all parts, and where each part's end in them.
fn join(group: &mut [Part]) -> (Lines, Vec<usize>) {
    if let [only] = group {
        let lines = std::mem::take(&mut only.lines);
        let end = lines.text().len();
        return (lines, vec![end]);
    }
    let bytes = group.iter().map(|part| part.lines.text().len()).sum();
    let mut body = Lines::with_capacity(bytes);
    let mut ends = Vec::with_capacity(group.len());
    for part in group {
        body.append(&std::mem::take(&mut part.lines));
        ends.push(body.text().len());
    }
    (body, ends)
}

fn answer_for(part: &Range<usize>, refused: &[Range<usize>]) -> Result<(), StoreError> {
    let hit = |range: &&Range<usize>| range.start < part.end && part.start < range.end;
    match refused.iter().filter(hit).count() {
        0 => Ok(()),
        places => Err(StoreError::Rejected(format!(
            "InfluxDB refuses lines in {places} places"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rejection_vouches_for_all_the_rest() {
        let rejected = || Err(StoreError::Rejected(String::new()));
        let away = || Err(StoreError::Unavailable(String::new()));
        let name = |results: [Result<(), StoreError>; 3]| {
            overall(results.into_iter()).map_err(|error| error.name())
        };
        assert_eq!(name([Ok(()), Ok(()), Ok(())]), Ok(()));
        assert_eq!(name([Ok(()), rejected(), Ok(())]), Err("rejected"));
        assert_eq!(name([rejected(), away(), Ok(())]), Err("unavailable"));
        assert_eq!(name([away(), rejected(), Ok(())]), Err("unavailable"));
    }

    #[test]
    fn only_parts_with_refused_lines_are_rejected() {
        let refused = [10..20, 30..31];
        assert!(answer_for(&(0..10), &refused).is_ok());
        assert!(answer_for(&(20..30), &refused).is_ok());
        assert!(answer_for(&(31..90), &refused).is_ok());
        assert_eq!(
            answer_for(&(19..25), &refused).unwrap_err().name(),
            "rejected"
        );
        assert_eq!(
            answer_for(&(0..90), &refused).unwrap_err().name(),
            "rejected"
        );
    }
}
