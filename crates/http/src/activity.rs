//! What happens on one connection, for the decision when it may be cut.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use super::quiet::Quiet;

/// Counts the requests of a connection.
#[derive(Debug, Default)]
pub(super) struct Activity {
    quiet: Quiet,
    /// Whether HTTP/2 is spoken, whose pings find a peer that is gone.
    has_pings: AtomicBool,
    /// Requests and their answers, until the last byte was handed over.
    under_way: AtomicUsize,
    /// Requests without an answer yet.
    answering: AtomicUsize,
    /// Answers that go on for as long as the client likes.
    streams: AtomicUsize,
    /// Which period of time it is; see [`Activity::has_stalled`].
    period: AtomicUsize,
    /// Answers whose clients took something of them last in an even period, and in an odd one.
    taking: [AtomicUsize; 2],
}

/// A request that is being answered.
pub(super) struct Answering(Arc<Activity>);

/// An answer that its client is to take.
#[derive(Debug)]
pub(super) struct Taking {
    activity: Arc<Activity>,
    /// That in which something was taken last.
    period: usize,
}

impl Taking {
    /// The client made room for a piece.
    pub(super) fn goes_on(&mut self) {
        let period = self.activity.period.load(Ordering::Relaxed);
        if period != self.period {
            self.activity.move_from(self.period);
            self.period = self.activity.move_to_present();
        }
    }
}

impl Drop for Taking {
    fn drop(&mut self) {
        self.activity.move_from(self.period);
        self.activity.end();
    }
}

/// An answer without an end.
pub(super) struct Streaming {
    activity: Arc<Activity>,
    is_cut_short: bool,
}

impl Streaming {
    /// The service ends it. Its last pieces may never be taken, so that it goes on counting.
    pub(super) fn cut_short(&mut self) {
        self.is_cut_short = true;
    }
}

impl Activity {
    /// What happens between requests.
    pub(super) fn quiet(&self) -> &Quiet {
        &self.quiet
    }

    /// The connection speaks HTTP/2.
    pub(super) fn has_pings(&self) {
        self.has_pings.store(true, Ordering::Relaxed);
    }

    fn begin(&self) {
        self.quiet.requested();
        self.under_way.fetch_add(1, Ordering::Relaxed);
    }

    fn end(&self) {
        let was = self.under_way.fetch_sub(1, Ordering::Relaxed);
        if was == 1 && !self.has_pings.load(Ordering::Relaxed) {
            self.quiet.answered();
        }
    }

    /// A request came.
    pub(super) fn answer(self: &Arc<Self>) -> Answering {
        self.begin();
        self.answering.fetch_add(1, Ordering::Relaxed);
        Answering(Arc::clone(self))
    }

    /// A stream begins.
    pub(super) fn stream(self: &Arc<Self>) -> Streaming {
        self.begin();
        self.streams.fetch_add(1, Ordering::Relaxed);
        Streaming {
            activity: Arc::clone(self),
            is_cut_short: false,
        }
    }

    /// An answer is ready.
    pub(super) fn take(self: &Arc<Self>) -> Taking {
        self.begin();
        Taking {
            period: self.move_to_present(),
            activity: Arc::clone(self),
        }
    }

    fn move_to_present(&self) -> usize {
        let period = self.period.load(Ordering::Relaxed);
        self.taking[period % 2].fetch_add(1, Ordering::Relaxed);
        period
    }

    fn move_from(&self, period: usize) {
        self.taking[period % 2].fetch_sub(1, Ordering::Relaxed);
    }

    /// Waits until there is an answer of which nothing was taken for `longest`; it may be twice as long.
    pub(super) async fn has_stalled(&self, longest: Duration) {
        loop {
            tokio::time::sleep(longest).await;
            // What went on in the period that ends now is counted under its number, everything else under the one before.
            let ended = self.period.load(Ordering::Relaxed);
            if self.taking[(ended + 1) % 2].load(Ordering::Relaxed) > 0 {
                return;
            }
            self.period.store(ended.wrapping_add(1), Ordering::Relaxed);
        }
    }

    /// Whether nothing but streams is under way.
    pub(super) fn is_streaming_only(&self) -> bool {
        self.answering.load(Ordering::Relaxed) == 0 && self.streams.load(Ordering::Relaxed) > 0
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.answering.fetch_sub(1, Ordering::Relaxed);
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
        // One that is taken piece by piece, however slowly, and many short ones.
        let mut slow = activity.take();
        for _ in 0..10 {
            let short = activity.take();
            timeout(LONGEST / 2, stalled.as_mut()).await.unwrap_err();
            slow.goes_on();
            drop(short);
        }
        drop(slow);
        // One that nobody takes, beside others that go on.
        let stuck = activity.take();
        let going_on = async {
            loop {
                let mut other = activity.take();
                sleep(LONGEST / 3).await;
                other.goes_on();
            }
        };
        tokio::select! {
            () = stalled => {}
            () = going_on => {}
            // At the latest after twice as long, to the tick of the clock.
            () = sleep(LONGEST * 2 + LONGEST / 10) => panic!("not seen"),
        }
        drop(stuck);
    }
}
