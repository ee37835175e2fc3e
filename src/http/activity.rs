//! What happens on one connection, for the decision when it may be cut.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Counts the requests of a connection.
#[derive(Debug, Default)]
pub(super) struct Activity {
    begun: AtomicBool,
    /// Requests without an answer yet.
    answering: AtomicUsize,
    /// Answers that go on for as long as the client likes.
    streams: AtomicUsize,
}

/// A request that is being answered.
pub(super) struct Answering(Arc<Activity>);

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
    /// A request came.
    pub(super) fn answer(self: &Arc<Self>) -> Answering {
        self.begun.store(true, Ordering::Relaxed);
        self.answering.fetch_add(1, Ordering::Relaxed);
        Answering(Arc::clone(self))
    }

    /// A stream begins.
    pub(super) fn stream(self: &Arc<Self>) -> Streaming {
        self.streams.fetch_add(1, Ordering::Relaxed);
        Streaming {
            activity: Arc::clone(self),
            is_cut_short: false,
        }
    }

    /// Whether any request has come.
    pub(super) fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Relaxed)
    }

    /// Whether nothing but streams is under way.
    pub(super) fn is_streaming_only(&self) -> bool {
        self.answering.load(Ordering::Relaxed) == 0 && self.streams.load(Ordering::Relaxed) > 0
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.answering.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Streaming {
    fn drop(&mut self) {
        if !self.is_cut_short {
            self.activity.streams.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
