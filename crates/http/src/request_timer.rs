//! The timeouts of an HTTP/1 connection: for the next request, and for the head of a request.
//!
//! hyper has one timeout for both, which begins when the last response ends. A load balancer or a client that keeps
//! connections for longer than that sends requests on connections that are being closed, and gets no response.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};

/// The timeouts of an HTTP/1 connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timeouts {
    /// For a request head, from its first byte; for the first head, from the start of the connection.
    pub(super) head: Duration,
    /// For the time between two requests.
    pub(super) idle: Duration,
}

/// The state of a connection, with the instant from which its timeout counts.
#[derive(Debug, Default)]
pub(super) struct RequestTimer(Mutex<State>);

#[derive(Debug, Default, Clone, Copy)]
enum State {
    /// A request is in flight, or the connection uses HTTP/2, which has pings.
    #[default]
    Busy,
    /// The next request has not begun.
    Idle { since: Instant },
    /// A part of a request head was received, or the connection has just been opened.
    Head { since: Instant },
}

impl RequestTimer {
    /// The connection was opened: the timeout of its first head starts.
    pub(super) fn opened(&self) {
        let since = Instant::now();
        *self.0.lock() = State::Head { since };
    }

    /// A request head is complete.
    pub(super) fn head_received(&self) {
        *self.0.lock() = State::Busy;
    }

    /// No request is in flight any more: the idle timeout starts.
    pub(super) fn responded(&self) {
        let since = Instant::now();
        *self.0.lock() = State::Idle { since };
    }

    /// Bytes were received. On an idle connection, the head timeout starts.
    pub(super) fn received(&self) {
        let mut state = self.0.lock();
        if matches!(*state, State::Idle { .. }) {
            let since = Instant::now();
            *state = State::Head { since };
        }
    }

    /// Waits until a timeout has expired. While `is_full`, an idle connection has only the head timeout, because other
    /// clients wait for its place.
    pub(super) async fn expired(&self, timeouts: Timeouts, is_full: impl Fn() -> bool) {
        // A state that begins later can't expire within this time from now, so it is safe to sleep for so long.
        let shortest = timeouts.head.min(timeouts.idle);
        loop {
            let now = Instant::now();
            let state = *self.0.lock();
            let end = match state {
                State::Busy => now + shortest,
                State::Head { since } => since + timeouts.head,
                State::Idle { since } if is_full() => since + timeouts.idle.min(timeouts.head),
                State::Idle { since } => since + timeouts.idle,
            };
            if end <= now {
                return;
            }
            sleep_until(end.min(now + shortest)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;
    use tokio::time::{sleep, timeout};

    const SECOND: Duration = Duration::from_secs(1);
    const TIMEOUTS: Timeouts = Timeouts {
        head: Duration::from_secs(10),
        idle: Duration::from_secs(120),
    };

    /// Whole seconds until the timer of a connection without events expires.
    async fn lasts(timer: &RequestTimer, is_full: bool) -> u64 {
        let began = Instant::now();
        timer.expired(TIMEOUTS, || is_full).await;
        began.elapsed().as_secs()
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_lasts_longer_than_a_head() {
        let timer = RequestTimer::default();
        timer.opened();
        assert_eq!(
            lasts(&timer, false).await,
            10,
            "a connection without a head"
        );
        timer.opened();
        sleep(SECOND * 9).await;
        timer.received();
        assert_eq!(
            lasts(&timer, false).await,
            1,
            "bytes do not extend the timeout of the first head"
        );
        timer.responded();
        assert_eq!(lasts(&timer, false).await, 120);
        timer.responded();
        assert_eq!(lasts(&timer, true).await, 10, "other clients wait");
        timer.responded();
        sleep(SECOND * 100).await;
        timer.received();
        sleep(SECOND * 3).await;
        timer.received();
        assert_eq!(lasts(&timer, false).await, 7, "the head that began");
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_time_may_be_shorter_than_a_head() {
        let timer = RequestTimer::default();
        timer.opened();
        let timeouts = Timeouts {
            head: TIMEOUTS.idle,
            idle: TIMEOUTS.head,
        };
        let mut ended = pin!(timer.expired(timeouts, || false));
        timeout(SECOND, ended.as_mut()).await.unwrap_err();
        timer.head_received();
        timer.responded();
        timeout(SECOND * 11, ended).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_may_take_any_time() {
        let timer = RequestTimer::default();
        timer.opened();
        let mut ended = pin!(timer.expired(TIMEOUTS, || true));
        timer.head_received();
        timeout(SECOND * 1000, ended.as_mut()).await.unwrap_err();
        timer.received();
        timeout(SECOND * 1000, ended.as_mut()).await.unwrap_err();
        timer.responded();
        timeout(SECOND * 9, ended.as_mut()).await.unwrap_err();
        timeout(SECOND * 2, ended).await.unwrap();
    }
}
