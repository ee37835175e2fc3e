//! How long a connection of HTTP/1 may wait for a request, and how long the head of one may take.
//!
//! hyper has one timeout for both, which begins when the last response ends. A load balancer or a client that keeps
//! connections for longer than that sends requests on connections that are being closed, and gets no response.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};

/// The limits of a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// For a head, from its first byte on; for the first head from the connection's beginning.
    pub(super) head: Duration,
    /// For the time between two requests.
    pub(super) idle: Duration,
}

/// What a connection does while no request is being answered.
#[derive(Debug, Default)]
pub(super) struct Quiet(Mutex<State>);

#[derive(Debug, Default, Clone, Copy)]
enum State {
    /// A request is answered, or HTTP/2 is spoken, which has pings.
    #[default]
    Busy,
    /// The next request has not begun.
    Idle { since: Instant },
    /// A head is on its way.
    Head { since: Instant },
}

impl Quiet {
    /// The connection begins; the time for its first head does too.
    pub(super) fn opened(&self) {
        let since = Instant::now();
        *self.0.lock() = State::Head { since };
    }

    /// A request's head is whole.
    pub(super) fn requested(&self) {
        *self.0.lock() = State::Busy;
    }

    /// The last request is answered.
    pub(super) fn answered(&self) {
        let since = Instant::now();
        *self.0.lock() = State::Idle { since };
    }

    /// Bytes came.
    pub(super) fn received(&self) {
        let mut state = self.0.lock();
        if matches!(*state, State::Idle { .. }) {
            let since = Instant::now();
            *state = State::Head { since };
        }
    }

    /// Waits until a limit is exceeded. While `is_crowded`, an idle connection has no more time than a head: others
    /// wait for its place.
    pub(super) async fn has_ended(&self, limits: Limits, is_crowded: impl Fn() -> bool) {
        // Nothing that begins later ends earlier than this after now.
        let shortest = limits.head.min(limits.idle);
        loop {
            let now = Instant::now();
            let state = *self.0.lock();
            let end = match state {
                State::Busy => now + shortest,
                State::Head { since } => since + limits.head,
                State::Idle { since } if is_crowded() => since + limits.idle.min(limits.head),
                State::Idle { since } => since + limits.idle,
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
    const LIMITS: Limits = Limits {
        head: Duration::from_secs(10),
        idle: Duration::from_secs(120),
    };

    /// After how many whole seconds a connection ends, unless something happens.
    async fn lasts(quiet: &Quiet, is_crowded: bool) -> u64 {
        let began = Instant::now();
        quiet.has_ended(LIMITS, || is_crowded).await;
        began.elapsed().as_secs()
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_lasts_longer_than_a_head() {
        let quiet = Quiet::default();
        quiet.opened();
        assert_eq!(
            lasts(&quiet, false).await,
            10,
            "a connection without a head"
        );
        quiet.opened();
        sleep(SECOND * 9).await;
        quiet.received();
        assert_eq!(
            lasts(&quiet, false).await,
            1,
            "bytes give the first no more"
        );
        quiet.answered();
        assert_eq!(lasts(&quiet, false).await, 120);
        quiet.answered();
        assert_eq!(lasts(&quiet, true).await, 10, "others wait for its place");
        quiet.answered();
        sleep(SECOND * 100).await;
        quiet.received();
        sleep(SECOND * 3).await;
        quiet.received();
        assert_eq!(lasts(&quiet, false).await, 7, "the head that began");
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_time_may_be_shorter_than_a_head() {
        let quiet = Quiet::default();
        quiet.opened();
        let limits = Limits {
            head: LIMITS.idle,
            idle: LIMITS.head,
        };
        let mut ended = pin!(quiet.has_ended(limits, || false));
        timeout(SECOND, ended.as_mut()).await.unwrap_err();
        quiet.requested();
        quiet.answered();
        timeout(SECOND * 11, ended).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_may_take_any_time() {
        let quiet = Quiet::default();
        quiet.opened();
        let mut ended = pin!(quiet.has_ended(LIMITS, || true));
        quiet.requested();
        timeout(SECOND * 1000, ended.as_mut()).await.unwrap_err();
        quiet.received();
        timeout(SECOND * 1000, ended.as_mut()).await.unwrap_err();
        quiet.answered();
        timeout(SECOND * 9, ended.as_mut()).await.unwrap_err();
        timeout(SECOND * 2, ended).await.unwrap();
    }
}
