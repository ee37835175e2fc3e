//! Notes the segments of acknowledged pairs in the cache, so that the lists of all instances have a new segment at once.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use domain::cache::CountCache;
use domain::{Batch, Segment};
use supervisor::Supervisor;

/// How long a segment is not noted again. Far below [`domain::cache::KEEP_NOTED`], for which a noted segment stays.
const NOTED_FOR: Duration = Duration::from_mins(1);
/// The interval of retries while the cache is unavailable.
const RETRY: Duration = Duration::from_millis(100);

/// Notes segments in the cache, each at most once in [`NOTED_FOR`]. Requests that arrive during a round trip share the next
/// one. While the cache is unavailable the task keeps the notes and retries, and requests do not wait for it again.
#[derive(Debug)]
pub struct SegmentNotes {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct State {
    closed: bool,
    /// When each segment was noted, or became one that the task owes to the cache.
    noted: HashMap<Segment, Instant>,
    due: Vec<Segment>,
    waiting: Vec<oneshot::Sender<()>>,
}

impl SegmentNotes {
    /// Starts the task that sends notes to `cache` until the stop.
    pub fn start(cache: Arc<dyn CountCache>, supervisor: &Supervisor) -> Self {
        let shared = Arc::<Shared>::default();
        let (task_state, stop) = (Arc::clone(&shared), supervisor.stop().clone());
        supervisor.keep("segment notes", move || {
            send(Arc::clone(&task_state), Arc::clone(&cache), stop.clone())
        });
        Self { shared }
    }

    /// Notes the segments of `batch`. Returns at once if all were noted recently, else when the cache has the notes, or when
    /// it did not take them and the task retries.
    pub async fn note(&self, batch: &Batch) {
        let (sender, sent) = oneshot::channel();
        {
            let mut state = self.shared.state.lock();
            let is_due = |segment: &&Segment| {
                let at = state.noted.get(*segment);
                at.is_none_or(|at| at.elapsed() >= NOTED_FOR)
            };
            let due: Vec<_> = batch.segments().iter().filter(is_due).cloned().collect();
            if due.is_empty() || state.closed {
                return;
            }
            state.due.extend(due);
            state.waiting.push(sender);
        }
        self.shared.wake.notify_one();
        // An error means that the task has stopped and these segments are not noted.
        let _ = sent.await;
    }
}

async fn send(shared: Arc<Shared>, cache: Arc<dyn CountCache>, stop: CancellationToken) {
    let mut owed: Vec<Segment> = Vec::new();
    let mut cleaned = Instant::now();
    loop {
        tokio::select! {
            () = shared.wake.notified() => {}
            () = tokio::time::sleep(RETRY), if !owed.is_empty() => {}
            () = stop.cancelled() => {
                let mut state = shared.state.lock();
                *state = State { closed: true, ..State::default() };
                return;
            }
        }
        let waiting = {
            let mut state = shared.state.lock();
            owed.append(&mut state.due);
            std::mem::take(&mut state.waiting)
        };
        if owed.is_empty() {
            continue;
        }
        owed.sort_unstable();
        owed.dedup();
        let now = Instant::now();
        let is_sent = cache.note_segments(&owed).await.is_ok();
        {
            let mut state = shared.state.lock();
            state
                .noted
                .extend(owed.iter().map(|segment| (segment.clone(), now)));
            if cleaned.elapsed() >= NOTED_FOR {
                state.noted.retain(|_, at| at.elapsed() < NOTED_FOR);
                cleaned = now;
            }
        }
        if is_sent {
            owed.clear();
        }
        for waiting in waiting {
            // Sending fails if the request was cancelled, which is fine.
            let _ = waiting.send(());
        }
    }
}
