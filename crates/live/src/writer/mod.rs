//! Appends the records of this process to the change feed, in order, with one call for all waiting requests.
//!
//! **Owed records.** What the feed does not accept goes to a log on this disk and is sent later. As long as something is
//! owed, everything goes through that log, in order.
//!
//! **Lost records.** The records of the last minutes stay in memory. When the feed reports that it lost entries of this
//! writer, or everything, they are sent again.

mod kept;
mod owed;
mod sender;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

pub use self::owed::OwedLog;
use self::sender::Sender;
use domain::feed::{ChangeFeed, FeedError};
use supervisor::Supervisor;

/// The bytes of records from which an entry takes no more requests.
const ENTRY_BYTES: usize = 1 << 20;

/// Appends to a feed. Clones share the queue.
#[derive(Debug, Clone)]
pub struct FeedWriter {
    shared: Arc<Shared>,
}

/// The parts of a [`FeedWriter`].
#[derive(Debug)]
pub struct WriterParts {
    /// The feed.
    pub feed: Arc<dyn ChangeFeed>,
    /// Where owed records survive a restart. Without it they are only in memory.
    pub owed: Option<OwedLog>,
    /// How long sent records stay in memory.
    pub keep: Duration,
    /// The maximum size of the records in memory, in bytes. When owed records exceed it, the oldest are dropped, and
    /// replicas have to read them from the store.
    pub max_kept_bytes: usize,
}

/// Where a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// In the feed.
    InFeed,
    /// On this disk, or in this process. It is sent when the feed is available again.
    Owed,
}

/// The state of a writer, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WriterStatus {
    /// The number of entries that the feed does not have yet.
    pub owed: u64,
    /// Since when something is owed; `None` if nothing is.
    pub owed_for: Option<Duration>,
    /// Entries that were appended again because the feed lost them.
    pub resent: u64,
    /// Owed entries that were dropped because they exceeded the memory.
    pub dropped: u64,
}

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    wake: Notify,
    status: Mutex<sender::Status>,
}

#[derive(Debug, Default)]
struct Waiting {
    is_closed: bool,
    requests: Vec<Request>,
}

#[derive(Debug)]
struct Request {
    record: Vec<u8>,
    response: oneshot::Sender<Delivery>,
}

impl FeedWriter {
    /// Starts the task that appends until the stop.
    pub fn start(parts: WriterParts, supervisor: &Supervisor) -> Self {
        let shared = Arc::<Shared>::default();
        let sender = Sender::new(parts, Arc::clone(&shared));
        let sender = Arc::new(tokio::sync::Mutex::new(sender));
        let stop = supervisor.stop().clone();
        supervisor.keep("feed writer", move || {
            let (sender, stop) = (Arc::clone(&sender), stop.clone());
            async move { sender.lock().await.run(&stop).await }
        });
        Self { shared }
    }

    /// Appends a record. Returns when the feed or the log of owed records has it.
    pub async fn append(&self, record: Vec<u8>) -> Delivery {
        let (response, appended) = oneshot::channel();
        {
            let mut waiting = self.shared.waiting.lock();
            if waiting.is_closed {
                return Delivery::Owed;
            }
            waiting.requests.push(Request { record, response });
        }
        self.shared.wake.notify_one();
        // An error means that the task has stopped.
        appended.await.unwrap_or(Delivery::Owed)
    }

    /// Appends a record that must be in the feed at once. After an error it may still be appended later.
    pub async fn append_now(&self, record: Vec<u8>) -> Result<(), FeedError> {
        match self.append(record).await {
            Delivery::InFeed => Ok(()),
            Delivery::Owed => Err(FeedError::Unavailable(
                "records of this instance wait for the feed".to_owned(),
            )),
        }
    }

    /// The current state.
    pub fn status(&self) -> WriterStatus {
        self.shared.status.lock().now()
    }
}

impl Waiting {
    /// Takes requests for one entry.
    fn take(&mut self) -> Vec<Request> {
        let mut bytes = 0;
        let fits = self.requests.iter().take_while(|request| {
            let is_within = bytes < ENTRY_BYTES;
            bytes += request.record.len();
            is_within
        });
        let number = fits.count();
        self.requests.drain(..number).collect()
    }
}

/// The records of requests as one record of the feed.
fn joined(requests: &[Request]) -> Vec<u8> {
    let mut joined = Vec::new();
    for request in requests {
        state::join(&mut joined, &request.record);
    }
    joined
}
