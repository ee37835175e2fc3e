//! Questions that take a walk over the index: counts of sets of users.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::available_parallelism;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout_at};

use super::State;
use domain::store::StoreError;
use domain::{Expression, Slot, Window};
use index::{Cancelled, Index, SetCount};

/// The longest time for one answer, with the wait for other questions. Far more than a walk over a hundred million pairs takes.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Answers questions on threads for blocking work. At most half of the cores work on them, so that pairs and counts
/// are taken and served meanwhile.
#[derive(Debug)]
pub struct Questions {
    state: Arc<State>,
    permits: Arc<Semaphore>,
}

/// Tells the walk to stop, once the caller has gone.
#[derive(Debug)]
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Questions {
    pub(super) fn new(state: Arc<State>) -> Self {
        let cores = available_parallelism().map_or(1, usize::from);
        Self {
            state,
            permits: Arc::new(Semaphore::new(cores.div_ceil(2))),
        }
    }

    /// The number of users in the set that `expression` means, and the slot as of which; see [`Index::count_set`].
    ///
    /// # Errors
    ///
    /// [`StoreError::Busy`] if other questions take all the time, and [`StoreError::Timeout`] if this one takes longer
    /// than ten seconds.
    pub async fn count_set(
        &self,
        expression: &Expression,
        window: Window,
        as_of: Slot,
    ) -> Result<SetCount, StoreError> {
        let expression = expression.clone();
        self.answer(move |index, should_stop| {
            index.count_set(&expression, window.slots(), as_of, should_stop)
        })
        .await
    }

    /// Runs `walk` on a thread of its own. It stops soon after this future is dropped, or at the timeout.
    async fn answer<T, W>(&self, walk: W) -> Result<T, StoreError>
    where
        T: Send + 'static,
        W: FnOnce(&Index, &mut dyn FnMut() -> bool) -> Result<T, Cancelled> + Send + 'static,
    {
        let deadline = Instant::now() + TIMEOUT;
        let permit = timeout_at(deadline, Arc::clone(&self.permits).acquire_owned()).await;
        let Ok(Ok(permit)) = permit else {
            return Err(StoreError::Busy(
                "other questions about sets of users take all the time".to_owned(),
            ));
        };
        let stopped = Arc::new(AtomicBool::new(false));
        let stop = StopOnDrop(Arc::clone(&stopped));
        let state = Arc::clone(&self.state);
        let walking = spawn_blocking(move || {
            let _permit = permit;
            let mut should_stop = || stopped.load(Ordering::Relaxed) || Instant::now() >= deadline;
            walk(&state.index, &mut should_stop)
        });
        let walked = walking.await;
        drop(stop);
        match walked {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(Cancelled)) => Err(StoreError::Timeout(format!(
                "the question takes more than {} s",
                TIMEOUT.as_secs()
            ))),
            Err(error) => Err(StoreError::Unavailable(error.to_string())),
        }
    }
}
