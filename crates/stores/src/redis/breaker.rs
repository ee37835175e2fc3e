//! The circuit breaker: while it is open, calls fail at once without a request to the server.
//!
//! A broken connection, or a server that reports that it can't serve, opens the breaker at once. A timeout only makes
//! the background task send a `PING`: one slow moment of Redis, or one large request, must not send all readers to the
//! store. [`FailureCount`] also opens the breaker when many calls in a row fail although the `PING` succeeds.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::connection::Connection;
use super::error::{ClientError, Failure};

/// Failures in a row, without a success in between, that open the breaker of one server.
const FAILURE_THRESHOLD: u32 = 8;
/// The same for a cluster. One dead node must not make the segments of the other nodes unavailable, and while the others
/// respond so many failures in a row are rare.
const CLUSTER_FAILURE_THRESHOLD: u32 = 16;

/// The state that the calls of a client share with its background task.
#[derive(Debug)]
pub(super) struct Breaker {
    /// The name of the server, for errors.
    pub(super) server: String,
    pub(super) is_cluster: bool,
    pub(super) state: watch::Sender<State>,
    /// Wakes the background task: the breaker opened, or the connection must be checked.
    pub(super) wake: Notify,
    /// Whether the server responds but can't serve, such as a replica, so that a new connection is needed.
    pub(super) is_wrong_server: AtomicBool,
    failures: FailureCount,
}

#[derive(Debug, Clone)]
pub(super) enum State {
    /// No connection attempt has ended yet; calls wait for the first one, within their timeout.
    Connecting,
    /// Closed: the connection in use, and its generation.
    Up(Connection, u64),
    /// Open: calls fail at once with this error.
    Down(ClientError),
}

impl Breaker {
    pub(super) fn new(server: String, is_cluster: bool) -> Self {
        Self {
            server,
            is_cluster,
            state: watch::Sender::new(State::Connecting),
            wake: Notify::new(),
            is_wrong_server: AtomicBool::new(false),
            failures: FailureCount::new(if is_cluster {
                CLUSTER_FAILURE_THRESHOLD
            } else {
                FAILURE_THRESHOLD
            }),
        }
    }

    /// Records a call that got a response.
    pub(super) fn succeeded(&self) {
        self.failures.clear();
    }

    /// Records the failure of a call that began at `began` on the connection of this generation.
    pub(super) fn failed(
        &self,
        generation: u64,
        began: Instant,
        failure: Failure,
        reason: &ClientError,
    ) {
        if !self.is_current(generation) {
            // A failure on a former connection does not concern this one.
            return;
        }
        if failure == Failure::WrongServer {
            self.is_wrong_server.store(true, Ordering::Relaxed);
        }
        // The failure of one node does not open the breaker of a whole cluster.
        let must_open =
            self.failures.add(began) || (!self.is_cluster && failure != Failure::Timeout);
        if must_open {
            self.open(generation, reason);
        } else {
            self.wake.notify_one();
        }
    }

    /// Opens the breaker: calls fail at once with `reason`. Does nothing if another connection is in use by now.
    pub(super) fn open(&self, generation: u64, reason: &ClientError) {
        let opened = self.state.send_if_modified(|state| {
            if !matches!(state, State::Up(_, current) if *current == generation) {
                return false;
            }
            *state = State::Down(unavailable(&self.server, reason));
            true
        });
        if opened {
            self.wake.notify_one();
        }
    }

    /// Closes the breaker: publishes a working connection.
    pub(super) fn close(&self, connection: Connection, generation: u64) {
        self.failures.clear();
        self.is_wrong_server.store(false, Ordering::Relaxed);
        self.state.send_replace(State::Up(connection, generation));
    }

    fn is_current(&self, generation: u64) -> bool {
        matches!(&*self.state.borrow(), State::Up(_, current) if *current == generation)
    }
}

/// The error that calls return while the breaker is open.
pub(super) fn unavailable(server: &str, reason: &ClientError) -> ClientError {
    match reason {
        ClientError::Timeout => {
            ClientError::Unavailable(format!("{server} did not respond in time"))
        }
        other => other.clone(),
    }
}

/// Counts failures in a row. Failures of concurrent calls count as one, since they have the same cause.
#[derive(Debug)]
struct FailureCount {
    threshold: u32,
    count: AtomicU32,
    last: Mutex<Option<Instant>>,
}

impl FailureCount {
    fn new(threshold: u32) -> Self {
        Self {
            threshold,
            count: AtomicU32::new(0),
            last: Mutex::new(None),
        }
    }

    fn clear(&self) {
        // It is 0 in most cases: a load alone leaves the cache line shared.
        if self.count.load(Ordering::Relaxed) > 0 {
            self.count.store(0, Ordering::Relaxed);
        }
    }

    /// Counts a failure of a call that began at `began`, and returns whether the threshold is reached.
    fn add(&self, began: Instant) -> bool {
        let mut last = self.last.lock();
        if last.is_some_and(|last| began < last) {
            return false;
        }
        *last = Some(Instant::now());
        self.count.fetch_add(1, Ordering::Relaxed) + 1 >= self.threshold
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn failures_at_the_same_time_are_one_and_an_answer_clears_them() {
        let failures = FailureCount::new(3);
        let wait = async || tokio::time::sleep(Duration::from_millis(50)).await;
        let first = Instant::now();
        wait().await;
        for _ in 0..100 {
            assert!(!failures.add(first), "100 calls that failed at once");
        }
        let second = Instant::now();
        wait().await;
        assert!(!failures.add(second));
        failures.clear();
        for _ in 0..2 {
            let began = Instant::now();
            wait().await;
            assert!(!failures.add(began), "a success resets the count");
        }
        let began = Instant::now();
        wait().await;
        assert!(failures.add(began), "the third in a row");
    }
}
