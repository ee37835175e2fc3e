//! The activity of one connection, by which the server decides when to close it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use super::request_timer::RequestTimer;

/// Counts the requests and responses of a connection.
#[derive(Debug, Default)]
pub(super) struct Activity {
    timer: RequestTimer,
    /// Whether the connection uses HTTP/2, whose pings detect a dead peer.
    is_http2: AtomicBool,
    /// Requests in flight, until the last byte of the response was handed to hyper.
    in_flight: AtomicUsize,
    /// Requests without a response yet.
    handling: AtomicUsize,
    /// Responses without an end: event streams.
    streams: AtomicUsize,
    /// The number of the current period; see [`Activity::has_stalled`].
    period: AtomicUsize,
    /// Responses by the parity of the period in which their client last read from them: even, odd.
    deliveries: [AtomicUsize; 2],
}

/// A request without a response yet; dropped when the response is ready.
pub(super) struct Handling(Arc<Activity>);

/// A response that is being sent.
#[derive(Debug)]
pub(super) struct Delivery {
    activity: Arc<Activity>,
    /// The period of the last progress.
    period: usize,
}

impl Delivery {
    /// The client has read so much that another chunk can be sent.
    pub(super) fn progressed(&mut self) {
        let period = self.activity.period.load(Ordering::Relaxed);
        if period != self.period {
            self.activity.move_from(self.period);
            self.period = self.activity.move_to_present();
        }
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        self.activity.move_from(self.period);
        self.activity.end();
    }
}

/// A response without an end.
pub(super) struct Streaming {
    activity: Arc<Activity>,
    is_cut_short: bool,
}

impl Streaming {
    /// The service ends the stream. It stays counted, because its client may never read the last chunks.
    pub(super) fn cut_short(&mut self) {
        self.is_cut_short = true;
    }
}

impl Activity {
    /// The timer of the next request.
    pub(super) fn timer(&self) -> &RequestTimer {
        &self.timer
    }

    /// The connection uses HTTP/2.
    pub(super) fn mark_http2(&self) {
        self.is_http2.store(true, Ordering::Relaxed);
    }

    fn begin(&self) {
        self.timer.head_received();
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    fn end(&self) {
        let was = self.in_flight.fetch_sub(1, Ordering::Relaxed);
        if was == 1 && !self.is_http2.load(Ordering::Relaxed) {
            self.timer.responded();
        }
    }

    /// A request was received.
    pub(super) fn begin_request(self: &Arc<Self>) -> Handling {
        self.begin();
        self.handling.fetch_add(1, Ordering::Relaxed);
        Handling(Arc::clone(self))
    }

    /// A stream begins.
    pub(super) fn begin_stream(self: &Arc<Self>) -> Streaming {
        self.begin();
        self.streams.fetch_add(1, Ordering::Relaxed);
        Streaming {
            activity: Arc::clone(self),
            is_cut_short: false,
        }
    }

    /// A response is ready to be sent.
    pub(super) fn begin_delivery(self: &Arc<Self>) -> Delivery {
        self.begin();
        Delivery {
            period: self.move_to_present(),
            activity: Arc::clone(self),
        }
    }

    fn move_to_present(&self) -> usize {
        let period = self.period.load(Ordering::Relaxed);
        self.deliveries[period % 2].fetch_add(1, Ordering::Relaxed);
        period
    }

    fn move_from(&self, period: usize) {
        self.deliveries[period % 2].fetch_sub(1, Ordering::Relaxed);
    }

    /// Waits until a response has had no progress for `longest`. Detection may take up to twice as long.
    pub(super) async fn has_stalled(&self, longest: Duration) {
        loop {
            tokio::time::sleep(longest).await;
            // Responses with progress in the period that ends now are counted under its parity, all others under the other.
            let ended = self.period.load(Ordering::Relaxed);
            if self.deliveries[(ended + 1) % 2].load(Ordering::Relaxed) > 0 {
                return;
            }
            self.period.store(ended.wrapping_add(1), Ordering::Relaxed);
        }
    }

    /// Whether nothing but streams is under way.
    pub(super) fn is_streaming_only(&self) -> bool {
        self.handling.load(Ordering::Relaxed) == 0 && self.streams.load(Ordering::Relaxed) > 0
    }
}

impl Drop for Handling {
    fn drop(&mut self) {
        self.0.handling.fetch_sub(1, Ordering::Relaxed);
        self.0.end();
    }
}

impl Drop for Streaming {
    fn drop(&mut self) {
        if !self.is_cut_short {
            self.activity.streams.fetch_sub(1, Ordering::Relaxed);
            self.activity.end();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;
    use tokio::time::{sleep, timeout};

    const LONGEST: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn only_an_answer_of_which_nothing_is_taken_stalls() {
        let activity = Arc::<Activity>::default();
        let mut stalled = pin!(activity.has_stalled(LONGEST));
        timeout(LONGEST * 5, stalled.as_mut()).await.unwrap_err();
        // A slow response with progress, and many short ones.
        let mut slow = activity.begin_delivery();
        for _ in 0..10 {
            let short = activity.begin_delivery();
            timeout(LONGEST / 2, stalled.as_mut()).await.unwrap_err();
            slow.progressed();
            drop(short);
        }
        drop(slow);
        // A response without progress beside others with progress.
        let stuck = activity.begin_delivery();
        let going_on = async {
            loop {
                let mut other = activity.begin_delivery();
                sleep(LONGEST / 3).await;
                other.progressed();
            }
        };
        tokio::select! {
            () = stalled => {}
            () = going_on => {}
            // At the latest after twice the time, to the tick of the clock.
            () = sleep(LONGEST * 2 + LONGEST / 10) => panic!("not seen"),
        }
        drop(stuck);
    }
}
