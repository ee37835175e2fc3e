//! When calls stop asking a server, and who finds out that it is back.
//!
//! A connection that broke, or a server that says that it can't serve, opens the breaker at once. A call without an
//! answer in time only makes the keeper ask the server by a `PING` whether it is there: one slow moment of Redis, or
//! one large request, must not send everybody else to the store. [`Strikes`] open it as well when none of many calls
//! after each other had an answer, though the `PING` has.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::connection::Connection;
use super::error::{Failure, LinkError};

/// Failures after each other, without an answer in between, that open the breaker of one server.
const TOLERANCE: u32 = 8;
/// The same for a cluster. One dead node must not cost the others' segments, and with the others alive so many in a
/// row are rare.
const CLUSTER_TOLERANCE: u32 = 16;

/// What the calls of a link and its keeper share.
#[derive(Debug)]
pub(super) struct Breaker {
    /// The name of the server, for errors.
    pub(super) server: String,
    pub(super) is_cluster: bool,
    pub(super) state: watch::Sender<State>,
    /// Wakes the keeper: the breaker opened, or something is to be looked at.
    pub(super) look: Notify,
    /// Whether the connection leads to the wrong server, so that another is needed though this one answers.
    pub(super) is_misled: AtomicBool,
    strikes: Strikes,
}

#[derive(Debug, Clone)]
pub(super) enum State {
    /// Never connected so far; calls wait for the first attempt, within their time.
    Connecting,
    /// Served as the `n`th connection or confirmation.
    Up(Connection, u64),
    /// Failing; calls fail at once with this.
    Down(LinkError),
}

impl Breaker {
    pub(super) fn new(server: String, is_cluster: bool) -> Self {
        Self {
            server,
            is_cluster,
            state: watch::Sender::new(State::Connecting),
            look: Notify::new(),
            is_misled: AtomicBool::new(false),
            strikes: Strikes::new(if is_cluster {
                CLUSTER_TOLERANCE
            } else {
                TOLERANCE
            }),
        }
    }

    /// A call was answered.
    pub(super) fn answered(&self) {
        self.strikes.clear();
    }

    /// A call that began at `began` failed on the connection of this generation.
    pub(super) fn failed(
        &self,
        generation: u64,
        began: Instant,
        failure: Failure,
        reason: &LinkError,
    ) {
        if !self.is_current(generation) {
            // A failure on a former connection says nothing about this one.
            return;
        }
        if failure == Failure::Misled {
            self.is_misled.store(true, Ordering::Relaxed);
        }
        // A node of a cluster is not the cluster.
        let is_over = self.strikes.add(began) || (!self.is_cluster && failure != Failure::Silence);
        if is_over {
            self.open(generation, reason);
        } else {
            self.look.notify_one();
        }
    }

    /// Lets calls fail at once with `reason`, unless another connection serves by now.
    pub(super) fn open(&self, generation: u64, reason: &LinkError) {
        let opened = self.state.send_if_modified(|state| {
            if !matches!(state, State::Up(_, current) if *current == generation) {
                return false;
            }
            *state = State::Down(unavailable(&self.server, reason));
            true
        });
        if opened {
            self.look.notify_one();
        }
    }

    /// Publishes a connection that serves.
    pub(super) fn close(&self, connection: Connection, generation: u64) {
        self.strikes.clear();
        self.is_misled.store(false, Ordering::Relaxed);
        self.state.send_replace(State::Up(connection, generation));
    }

    fn is_current(&self, generation: u64) -> bool {
        matches!(&*self.state.borrow(), State::Up(_, current) if *current == generation)
    }
}

/// What calls are told while the breaker is open.
pub(super) fn unavailable(server: &str, reason: &LinkError) -> LinkError {
    match reason {
        LinkError::Timeout => LinkError::Unavailable(format!("{server} did not answer in time")),
        other => other.clone(),
    }
}

/// Counts failures after each other. Calls that were under way at the same time count as one: they met the same
/// moment.
#[derive(Debug)]
struct Strikes {
    tolerance: u32,
    count: AtomicU32,
    last: Mutex<Option<Instant>>,
}

impl Strikes {
    fn new(tolerance: u32) -> Self {
        Self {
            tolerance,
            count: AtomicU32::new(0),
            last: Mutex::new(None),
        }
    }

    fn clear(&self) {
        // Most often it is 0 already: a load leaves the cache line shared.
        if self.count.load(Ordering::Relaxed) > 0 {
            self.count.store(0, Ordering::Relaxed);
        }
    }

    /// Whether the failure now of a call that began at `began` was one too many.
    fn add(&self, began: Instant) -> bool {
        let mut last = self.last.lock();
        if last.is_some_and(|last| began < last) {
            return false;
        }
        *last = Some(Instant::now());
        self.count.fetch_add(1, Ordering::Relaxed) + 1 >= self.tolerance
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn failures_at_the_same_time_are_one_and_an_answer_clears_them() {
        let strikes = Strikes::new(3);
        let wait = async || tokio::time::sleep(Duration::from_millis(50)).await;
        let first = Instant::now();
        wait().await;
        for _ in 0..100 {
            assert!(!strikes.add(first), "a hundred calls in one bad moment");
        }
        let second = Instant::now();
        wait().await;
        assert!(!strikes.add(second));
        strikes.clear();
        for _ in 0..2 {
            let began = Instant::now();
            wait().await;
            assert!(!strikes.add(began), "after an answer it begins anew");
        }
        let began = Instant::now();
        wait().await;
        assert!(strikes.add(began), "the third in a row");
    }
}
