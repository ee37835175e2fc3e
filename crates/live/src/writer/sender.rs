//! The task that appends: one entry for all requests that wait.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::kept::{Kept, KeptEntries};
use super::owed::{Left, OwedLog};
use super::{Delivery, Request, Shared, WriterParts, WriterStatus, joined};
use domain::feed::{Append, Appended, ChangeFeed, FeedError, FeedId, WriterId};

/// The interval of checks that the feed still has the entries of an idle writer.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// The delay before owed entries are sent again; it doubles up to [`LONGEST_RETRY`].
const FIRST_RETRY: Duration = Duration::from_millis(50);
const LONGEST_RETRY: Duration = Duration::from_secs(1);
/// How often one attempt to send starts again because the feed lost entries meanwhile.
const MAX_RESTARTS: u32 = 8;

/// Sends the entries of one writer.
#[derive(Debug)]
pub(super) struct Sender {
    feed: Arc<dyn ChangeFeed>,
    owed: Option<OwedLog>,
    keep: Duration,
    max_kept_bytes: usize,
    shared: Arc<Shared>,
    writer: WriterId,
    /// The feed as this writer knows it; `None` before the first append.
    known: Option<FeedId>,
    kept: KeptEntries,
    /// The number of the newest entry.
    last: u64,
    /// The feed has the entries up to this number, as far as this writer knows.
    sent: u64,
    /// The log of owed entries has the entries up to this number.
    logged: u64,
    /// The delay before the next attempt, while something is owed.
    retry: Option<Duration>,
    next_attempt: Instant,
}

/// The state for metrics.
#[derive(Debug, Default)]
pub(super) struct Status {
    owed: u64,
    owed_since: Option<Instant>,
    resent: u64,
    dropped: u64,
}

impl Status {
    pub(super) fn now(&self) -> WriterStatus {
        WriterStatus {
            owed: self.owed,
            owed_for: self.owed_since.map(|since| since.elapsed()),
            resent: self.resent,
            dropped: self.dropped,
        }
    }
}

impl Sender {
    pub(super) fn new(parts: WriterParts, shared: Arc<Shared>) -> Self {
        let mut owed = parts.owed;
        let left = owed.as_mut().map(OwedLog::take_left).unwrap_or_default();
        let mut sender = Self {
            feed: parts.feed,
            owed,
            keep: parts.keep,
            max_kept_bytes: parts.max_kept_bytes,
            shared,
            writer: WriterId::random(),
            known: None,
            kept: KeptEntries::default(),
            last: 0,
            sent: 0,
            logged: 0,
            retry: None,
            next_attempt: Instant::now(),
        };
        sender.continue_with(left);
        sender
    }

    /// Continues as the former process whose entries are in the log of owed entries.
    fn continue_with(&mut self, left: Vec<Left>) {
        let Some(first) = left.first() else { return };
        self.writer = first.writer;
        self.sent = first.sequence - 1;
        tracing::info!(
            entries = left.len(),
            "a former process left entries that the change feed lacks"
        );
        for entry in left {
            self.last = entry.sequence;
            self.kept.push(Kept {
                sequence: entry.sequence,
                record: entry.record,
                at: Instant::now(),
            });
        }
        self.logged = self.last;
        self.retry = Some(FIRST_RETRY);
        self.note_owed();
    }

    /// Appends until the stop.
    pub(super) async fn run(&mut self, stop: &CancellationToken) {
        let shared = Arc::clone(&self.shared);
        let mut next_check = Instant::now() + CHECK_INTERVAL;
        loop {
            tokio::select! {
                () = shared.wake.notified() => {}
                () = sleep_until(self.next_attempt), if self.retry.is_some() => {}
                () = sleep_until(next_check), if self.retry.is_none() => {
                    next_check = Instant::now() + CHECK_INTERVAL;
                    self.check().await;
                }
                () = stop.cancelled() => return self.end().await,
            }
            self.step().await;
        }
    }

    /// Takes waiting requests, and sends what is due.
    async fn step(&mut self) {
        self.gather().await;
        let requests = {
            let mut waiting = self.shared.waiting.lock();
            let taken = waiting.take();
            if !waiting.requests.is_empty() {
                self.shared.wake.notify_one();
            }
            taken
        };
        self.push(&requests);
        if self.retry.is_none() || Instant::now() >= self.next_attempt {
            self.attempt().await;
        }
        let delivery = match self.retry {
            None => Delivery::InFeed,
            Some(_) => {
                self.log_owed().await;
                Delivery::Owed
            }
        };
        self.prune();
        self.note_owed();
        for request in requests {
            // Sending fails if the caller was cancelled, which is fine.
            let _ = request.response.send(delivery);
        }
    }

    /// Lets others run while requests arrive. The store writes the pairs of several requests at once, so these come together, and one
    /// entry for all of them costs the feed little more than one for the first.
    async fn gather(&self) {
        let mut before = 0;
        loop {
            let waiting = self.shared.waiting.lock().requests.len();
            if waiting <= before {
                return;
            }
            before = waiting;
            yield_now().await;
        }
    }

    fn push(&mut self, requests: &[Request]) {
        if requests.is_empty() {
            return;
        }
        self.last += 1;
        self.kept.push(Kept {
            sequence: self.last,
            record: joined(requests),
            at: Instant::now(),
        });
    }

    /// Sends everything that the feed lacks.
    async fn attempt(&mut self) {
        match self.send_all().await {
            Ok(()) if self.retry.take().is_some() => {
                tracing::info!("the change feed has all entries of this instance");
                self.clear_log().await;
            }
            Ok(()) => {}
            Err(error) => {
                if self.retry.is_none() {
                    tracing::warn!(%error, "entries wait on this instance until the change feed accepts them");
                }
                let delay = self
                    .retry
                    .map_or(FIRST_RETRY, |last| (last * 2).min(LONGEST_RETRY));
                self.retry = Some(delay);
                self.next_attempt = Instant::now() + delay;
            }
        }
    }

    async fn send_all(&mut self) -> Result<(), FeedError> {
        let mut restarts = 0;
        while let Some(kept) = self.kept.after(self.sent) {
            let append = Append {
                writer: self.writer,
                sequence: kept.sequence,
                skips: kept.sequence > self.sent + 1,
                record: kept.record.clone(),
            };
            let appended = self.feed.append(self.known, &append).await;
            match self.learn(appended) {
                Ok(()) => self.sent = append.sequence,
                Err(error) if error.is_transient() || restarts == MAX_RESTARTS => {
                    return Err(error);
                }
                Err(_) => restarts += 1,
            }
        }
        Ok(())
    }

    /// Checks that the feed has everything that was sent.
    async fn check(&mut self) {
        let checked = self.feed.check(self.known, self.writer, self.sent).await;
        if let Err(error) = self.learn(checked)
            && !error.is_transient()
        {
            tracing::warn!(%error, "the change feed lost entries; they are appended again");
        }
    }

    /// Learns from a response which feed it is, and what it has.
    fn learn(&mut self, response: Result<Appended, FeedError>) -> Result<(), FeedError> {
        let sent = self.sent;
        let result = match response {
            Ok(appended) => {
                self.known = Some(appended.feed);
                return Ok(());
            }
            Err(FeedError::Lost { last }) => {
                self.sent = last.min(self.sent);
                Err(FeedError::Lost { last })
            }
            Err(FeedError::Renewed(feed)) => {
                self.known = Some(feed);
                self.sent = self.kept.before_first().unwrap_or(self.sent);
                Err(FeedError::Renewed(feed))
            }
            Err(error) => Err(error),
        };
        let lost = self.kept.count_after(self.sent) - self.kept.count_after(sent);
        self.shared.status.lock().resent += lost as u64;
        result
    }

    /// Writes the owed entries that are not on disk yet.
    async fn log_owed(&mut self) {
        let Some(owed) = &self.owed else { return };
        let mut written = self.logged.max(self.sent);
        while let Some(kept) = self.kept.after(written) {
            if let Err(error) = owed.write(self.writer, kept.sequence, &kept.record).await {
                // The store has the pairs. If this process ends before the feed is available, an audit finds them.
                tracing::warn!(%error, "an owed entry is only in memory");
            }
            written = kept.sequence;
        }
        self.logged = written;
    }

    async fn clear_log(&mut self) {
        if let Some(owed) = &self.owed
            && let Err(error) = owed.clear().await
        {
            // They would be appended again after a restart, which changes nothing.
            tracing::warn!(%error, "the log of owed entries can't be cleared");
        }
    }

    fn prune(&mut self) {
        let dropped = self.kept.prune(self.sent, self.keep, self.max_kept_bytes);
        if dropped > 0 {
            self.shared.status.lock().dropped += dropped;
        }
    }

    fn note_owed(&self) {
        let mut status = self.shared.status.lock();
        status.owed = self.kept.count_after(self.sent) as u64;
        status.owed_since = match self.retry {
            None => None,
            Some(_) => status.owed_since.or_else(|| Some(Instant::now())),
        };
    }

    /// Sends what waits, once, and closes the log.
    async fn end(&mut self) {
        let requests = {
            let mut waiting = self.shared.waiting.lock();
            waiting.is_closed = true;
            std::mem::take(&mut waiting.requests)
        };
        self.push(&requests);
        self.attempt().await;
        self.log_owed().await;
        if let Some(owed) = &self.owed
            && let Err(error) = owed.close().await
        {
            tracing::warn!(%error, "the log of owed entries can't be closed");
        }
        let delivery = match self.retry {
            None => Delivery::InFeed,
            Some(_) => Delivery::Owed,
        };
        for request in requests {
            let _ = request.response.send(delivery);
        }
    }
}
