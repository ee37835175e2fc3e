//! How fast to write: time-outs that grow, bodies that shrink, pauses that the server asks for, and a queue that is
//! bounded by what the server takes in two seconds.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use domain::store::StoreError;

/// A write that takes longer than this is not waited for, however slow the server has been so far.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Bodies don't get smaller than this: most of the cost of a write of so few lines is the request itself.
const LEAST_LINES: usize = 500;
/// The longest pause that the server's `Retry-After` can cause. A server that is back sooner is not kept waiting
/// for ever by a number that nobody meant.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// How much one write changes the measured rate.
const RATE_WEIGHT: f64 = 0.2;
/// How long the last pair of a full queue waits: a third of what a client waits by default.
const QUEUE_TIME: Duration = Duration::from_secs(2);
/// The rate that is assumed before a full body was written, in lines a second and write. InfluxDB 2.9.1 takes
/// 240,000 on each of two connections.
const ASSUMED_RATE: f64 = 100_000.0;

/// What the writes so far tell about the server.
#[derive(Debug)]
pub(super) struct Pace {
    base_timeout: Duration,
    batch_lines: usize,
    in_flight: usize,
    queue_lines: usize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    timeout: Duration,
    lines: usize,
    /// Lines a second that one write takes.
    rate: f64,
    pause: Option<Pause>,
}

/// A pause that the server asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pause {
    until: Instant,
    /// The status that asked for it.
    status: u16,
}

impl Pause {
    /// When it ends.
    pub(super) fn until(&self) -> Instant {
        self.until
    }

    /// What a write meets that can't wait for its end.
    pub(super) fn error(&self) -> StoreError {
        let left = self.until.saturating_duration_since(Instant::now());
        let seconds = Duration::from_secs(left.as_secs_f64().ceil() as u64);
        if self.status == 429 {
            return StoreError::Throttled {
                reason: "InfluxDB answered status 429".to_owned(),
                retry_after: seconds.max(Duration::from_secs(1)),
            };
        }
        StoreError::Unavailable(format!(
            "InfluxDB answered status {} and asks for a pause of {} s",
            self.status,
            seconds.as_secs()
        ))
    }
}

impl Pace {
    /// A pace that begins with these; `queue_lines` is the most that may ever wait.
    pub(super) fn new(
        base_timeout: Duration,
        batch_lines: usize,
        in_flight: usize,
        queue_lines: usize,
    ) -> Self {
        Self {
            base_timeout,
            batch_lines,
            in_flight,
            queue_lines,
            state: Mutex::new(State {
                timeout: base_timeout,
                lines: batch_lines,
                rate: ASSUMED_RATE,
                pause: None,
            }),
        }
    }

    /// How long the next write may take.
    pub(super) fn timeout(&self) -> Duration {
        self.state.lock().timeout
    }

    /// How many lines the next body may have.
    pub(super) fn batch_lines(&self) -> usize {
        self.state.lock().lines
    }

    /// Notes a write that was answered after `elapsed`. A server that was slow once may be slow again, so the
    /// time-out stays at twice what it needed.
    pub(super) fn answered(&self, lines: usize, elapsed: Duration) {
        let mut state = self.state.lock();
        let longest = LONGEST_TIMEOUT.max(self.base_timeout);
        state.timeout = (elapsed * 2).clamp(self.base_timeout, longest);
        if elapsed * 2 < self.base_timeout {
            state.lines = (state.lines * 2).min(self.batch_lines);
        }
        // A small body says little about the rate: most of its time is the request's own.
        if lines * 2 >= state.lines {
            let rate = lines as f64 / elapsed.as_secs_f64().max(0.001);
            state.rate += (rate - state.rate) * RATE_WEIGHT;
        }
    }

    /// Notes a write that got no answer within `waited`.
    pub(super) fn timed_out(&self, waited: Duration) {
        let mut state = self.state.lock();
        let longest = LONGEST_TIMEOUT.max(self.base_timeout);
        state.timeout = state.timeout.max((waited * 2).min(longest));
        state.lines = (state.lines / 2).max(LEAST_LINES.min(self.batch_lines));
        state.rate *= 1.0 - RATE_WEIGHT;
    }

    /// Notes that the server asks for a pause.
    pub(super) fn pause(&self, wish: Duration, status: u16) {
        let until = Instant::now() + wish.min(LONGEST_PAUSE);
        self.state.lock().pause = Some(Pause { until, status });
    }

    /// The pause that the server asked for, until it is over.
    pub(super) fn paused(&self) -> Option<Pause> {
        let mut state = self.state.lock();
        state.pause = state.pause.filter(|pause| pause.until > Instant::now());
        state.pause
    }

    /// How many lines may wait or be under way: what the server takes within [`QUEUE_TIME`], and in any case what
    /// keeps all writes busy.
    pub(super) fn queue_lines(&self) -> usize {
        let state = self.state.lock();
        let in_time = state.rate * QUEUE_TIME.as_secs_f64() * self.in_flight as f64;
        let busy = state.lines * (self.in_flight + 1);
        (in_time as usize).max(busy).min(self.queue_lines)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn pace() -> Pace {
        Pace::new(SECOND * 10, 5_000, 2, 1_000_000)
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_server_gets_more_time_and_smaller_bodies() {
        let pace = pace();
        pace.timed_out(pace.timeout());
        assert_eq!((pace.timeout(), pace.batch_lines()), (SECOND * 20, 2_500));
        for _ in 0..9 {
            pace.timed_out(pace.timeout());
        }
        assert_eq!((pace.timeout(), pace.batch_lines()), (SECOND * 30, 500));
        pace.answered(500, SECOND * 12);
        assert_eq!((pace.timeout(), pace.batch_lines()), (SECOND * 24, 500));
        for _ in 0..9 {
            pace.answered(5_000, SECOND);
        }
        assert_eq!((pace.timeout(), pace.batch_lines()), (SECOND * 10, 5_000));
    }

    #[tokio::test(start_paused = true)]
    async fn the_queue_holds_two_seconds_of_what_the_server_takes() {
        let pace = pace();
        for _ in 0..60 {
            pace.answered(5_000, Duration::from_millis(50));
        }
        let lines = pace.queue_lines();
        assert!((399_000..=401_000).contains(&lines), "{lines}");
        for _ in 0..60 {
            pace.answered(5_000, SECOND * 3);
        }
        assert_eq!(pace.queue_lines(), 15_000, "what keeps two writes busy");
        for _ in 0..60 {
            pace.answered(1, SECOND * 9);
        }
        assert_eq!(pace.queue_lines(), 15_000, "small bodies say nothing");
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_has_an_end_whatever_the_server_asks_for() {
        let pace = pace();
        pace.pause(Duration::MAX, 429);
        let pause = pace.paused().unwrap();
        assert_eq!(pause.until(), Instant::now() + LONGEST_PAUSE);
        let StoreError::Throttled { retry_after, .. } = pause.error() else {
            panic!("429 slows its clients down");
        };
        assert_eq!(retry_after, LONGEST_PAUSE);
        tokio::time::advance(LONGEST_PAUSE).await;
        assert!(pace.paused().is_none());
        pace.pause(SECOND, 503);
        assert_eq!(pace.paused().unwrap().error().name(), "unavailable");
    }
}
