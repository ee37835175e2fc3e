//! Flow control of writes: the timeout grows and bodies shrink on a slow server, pauses that the server requests are
//! kept, and the queue is limited to what the server accepts in two seconds.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use domain::store::StoreError;

/// The upper limit of the timeout of a write, however slow the server has been so far.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(30);
/// The factor by which a timeout above the first one gets shorter with each response.
const TIMEOUT_DECAY: f64 = 0.9;
/// The lower limit of the body size. Below it, most of the cost of a write is the request itself.
const LEAST_LINES: usize = 500;
/// The upper limit of a pause from the server's `Retry-After`, so that an absurd value does not stop writes to a server
/// that has recovered.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// The weight of one write in the moving average of the rate.
const RATE_WEIGHT: f64 = 0.2;
/// The time that the last pair of a full queue waits: a third of the time that a client waits by default.
const QUEUE_TIME: Duration = Duration::from_secs(2);
/// The assumed rate before the first full body was written, in lines per second and concurrent write. InfluxDB 2.9.1
/// accepts 240,000 on each of two connections.
const ASSUMED_RATE: f64 = 100_000.0;

/// The limits for the next writes, derived from the previous ones.
#[derive(Debug)]
pub(super) struct FlowControl {
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
    /// Lines per second of one write, as a moving average.
    rate: f64,
    pause: Option<Pause>,
}

/// A pause that the server requested.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pause {
    until: Instant,
    /// The status of the response that requested it.
    status: u16,
}

impl Pause {
    /// The end of the pause.
    pub(super) fn until(&self) -> Instant {
        self.until
    }

    /// The error for a write that can't wait until the end of the pause.
    pub(super) fn error(&self) -> StoreError {
        let left = self.until.saturating_duration_since(Instant::now());
        let seconds = Duration::from_secs(left.as_secs_f64().ceil() as u64);
        if self.status == 429 {
            return StoreError::Throttled {
                reason: "InfluxDB returned status 429".to_owned(),
                retry_after: seconds.max(Duration::from_secs(1)),
            };
        }
        StoreError::Unavailable(format!(
            "InfluxDB returned status {} and requests a pause of {} s",
            self.status,
            seconds.as_secs()
        ))
    }
}

impl FlowControl {
    /// Starts with these values. `queue_lines` is the upper limit of the queue.
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

    /// The timeout of the next write.
    pub(super) fn timeout(&self) -> Duration {
        self.state.lock().timeout
    }

    /// The maximum number of lines in the next body.
    pub(super) fn batch_lines(&self) -> usize {
        self.state.lock().lines
    }

    /// Records a write whose response came after `elapsed`. The timeout is at least twice that time. A server that was slow
    /// once may be slow again, so a longer timeout gets shorter by a tenth only.
    pub(super) fn responded(&self, lines: usize, elapsed: Duration) {
        let mut state = self.state.lock();
        let longest = LONGEST_TIMEOUT.max(self.base_timeout);
        let timeout = (elapsed * 2).max(state.timeout.mul_f64(TIMEOUT_DECAY));
        state.timeout = timeout.clamp(self.base_timeout, longest);
        if elapsed * 2 < self.base_timeout {
            state.lines = (state.lines * 2).min(self.batch_lines);
        }
        // Small bodies are ignored: most of their time is overhead of the request.
        if lines * 2 >= state.lines {
            let rate = lines as f64 / elapsed.as_secs_f64().max(0.001);
            state.rate += (rate - state.rate) * RATE_WEIGHT;
        }
    }

    /// Records a write that got no response within `waited`.
    pub(super) fn timed_out(&self, waited: Duration) {
        let mut state = self.state.lock();
        let longest = LONGEST_TIMEOUT.max(self.base_timeout);
        state.timeout = state.timeout.max((waited * 2).min(longest));
        state.lines = (state.lines / 2).max(LEAST_LINES.min(self.batch_lines));
        state.rate *= 1.0 - RATE_WEIGHT;
    }

    /// Records that the server requests a pause.
    pub(super) fn pause(&self, wish: Duration, status: u16) {
        let until = Instant::now() + wish.min(LONGEST_PAUSE);
        self.state.lock().pause = Some(Pause { until, status });
    }

    /// The current pause, if the server requested one that has not ended.
    pub(super) fn paused(&self) -> Option<Pause> {
        let mut state = self.state.lock();
        state.pause = state.pause.filter(|pause| pause.until > Instant::now());
        state.pause
    }

    /// The maximum number of lines that are queued or being written: what the server accepts within [`QUEUE_TIME`], but at
    /// least enough to keep all concurrent writes busy.
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

    fn flow() -> FlowControl {
        FlowControl::new(SECOND * 10, 5_000, 2, 1_000_000)
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_server_gets_more_time_and_smaller_bodies() {
        let flow = flow();
        flow.timed_out(flow.timeout());
        assert_eq!((flow.timeout(), flow.batch_lines()), (SECOND * 20, 2_500));
        for _ in 0..9 {
            flow.timed_out(flow.timeout());
        }
        assert_eq!((flow.timeout(), flow.batch_lines()), (SECOND * 30, 500));
        flow.responded(500, SECOND * 12);
        assert_eq!((flow.timeout(), flow.batch_lines()), (SECOND * 27, 500));
        for _ in 0..10 {
            flow.responded(5_000, SECOND);
        }
        assert_eq!((flow.timeout(), flow.batch_lines()), (SECOND * 10, 5_000));
    }

    #[tokio::test(start_paused = true)]
    async fn the_queue_holds_two_seconds_of_what_the_server_takes() {
        let flow = flow();
        for _ in 0..60 {
            flow.responded(5_000, Duration::from_millis(50));
        }
        let lines = flow.queue_lines();
        assert!((399_000..=401_000).contains(&lines), "{lines}");
        for _ in 0..60 {
            flow.responded(5_000, SECOND * 3);
        }
        assert_eq!(flow.queue_lines(), 15_000, "what keeps two writes busy");
        for _ in 0..60 {
            flow.responded(1, SECOND * 9);
        }
        assert_eq!(flow.queue_lines(), 15_000, "small bodies say nothing");
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_has_an_end_whatever_the_server_asks_for() {
        let flow = flow();
        flow.pause(Duration::MAX, 429);
        let pause = flow.paused().unwrap();
        assert_eq!(pause.until(), Instant::now() + LONGEST_PAUSE);
        let StoreError::Throttled { retry_after, .. } = pause.error() else {
            panic!("429 throttles its clients");
        };
        assert_eq!(retry_after, LONGEST_PAUSE);
        tokio::time::advance(LONGEST_PAUSE).await;
        assert!(flow.paused().is_none());
        flow.pause(SECOND, 503);
        assert_eq!(flow.paused().unwrap().error().name(), "unavailable");
    }
}
