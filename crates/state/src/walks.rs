//! Threads for walks over the index.
//!
//! A walk keeps a core busy for up to seconds, so at most half of the cores walk, and pairs go first: on Linux each walk has a
//! thread of its own with a lower priority. Priorities matter only while all cores are busy. Threads for blocking work are not used,
//! because a thread can't get its former priority back.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot};
use tokio::time::{Instant, timeout_at};

use super::State;
use domain::store::StoreError;
use index::{Index, OverlapError};

/// The longest time for one answer, with the wait for other questions. Far more than a walk over a hundred million pairs takes.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How much nicer than others the thread of a walk is. The kernel gives it a third of the time that it gives to another thread. With
/// 10 it would be a tenth, and a walk of a second could reach the timeout on two busy cores.
#[cfg(target_os = "linux")]
const NICE: i32 = 5;

/// Walks over the index of a state.
#[derive(Debug)]
pub(super) struct Walks {
    state: Arc<State>,
    permits: Arc<Semaphore>,
}

impl Walks {
    pub(super) fn new(state: Arc<State>) -> Self {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        Self {
            state,
            permits: Arc::new(Semaphore::new(cores.div_ceil(2))),
        }
    }

    /// Until when an answer may take that is asked for now.
    pub(super) fn deadline() -> Instant {
        Instant::now() + TIMEOUT
    }

    /// Runs `walk` on a thread of its own. It stops soon after this future is dropped, or at the deadline.
    pub(super) async fn run<T, W>(&self, deadline: Instant, walk: W) -> Result<T, StoreError>
    where
        T: Send + 'static,
        W: FnOnce(&Index, &mut dyn FnMut() -> bool) -> Result<T, OverlapError> + Send + 'static,
    {
        let permit = timeout_at(deadline, Arc::clone(&self.permits).acquire_owned()).await;
        let Ok(Ok(permit)) = permit else {
            return Err(busy());
        };
        let state = Arc::clone(&self.state);
        let (respond, response) = oneshot::channel();
        let thread = thread::Builder::new().name("walk".to_owned());
        let started = thread.spawn(move || {
            let _permit = permit;
            lower_priority();
            let mut should_stop = || respond.is_closed() || Instant::now() >= deadline;
            let walked = walk(&state.index, &mut should_stop);
            // A caller that has gone needs no answer.
            let _ = respond.send(walked);
        });
        started.map_err(|error| StoreError::Unavailable(error.to_string()))?;
        match response.await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(OverlapError::Cancelled)) => Err(StoreError::Timeout(format!(
                "the question takes more than {} s",
                TIMEOUT.as_secs()
            ))),
            Ok(Err(error @ OverlapError::TooManySegments(_))) => {
                Err(StoreError::Rejected(error.to_string()))
            }
            Err(_) => Err(StoreError::Unavailable(
                "a walk over the index panicked; the message is on standard error".to_owned(),
            )),
        }
    }
}

/// Other questions take all the time.
pub(super) fn busy() -> StoreError {
    StoreError::Busy("other questions about sets of users take all the time".to_owned())
}

/// Lowers the priority of the calling thread. A walk that is refused this only takes more time from others.
fn lower_priority() {
    // Elsewhere, all threads of a process have one priority.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::nice(NICE);
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::TimeFrame;

    fn walks() -> Walks {
        let [window, slot] = [3_600, 60].map(Duration::from_secs);
        let frame = TimeFrame::new(window, slot, slot).unwrap();
        Walks::new(Arc::new(State::new(frame)))
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_walk_has_a_lower_priority_and_its_caller_has_not() {
        let priority = || rustix::process::getpriority_process(None).unwrap();
        let (before, walks) = (priority(), walks());
        let walked = walks.run(Walks::deadline(), move |_, _| Ok(priority()));
        assert_eq!(walked.await.unwrap(), (before + NICE).min(19));
        assert_eq!(priority(), before);
    }

    #[tokio::test]
    async fn a_walk_stops_when_its_caller_has_gone_and_frees_its_place() {
        let walks = walks();
        let places = walks.permits.available_permits();
        let endless = walks.run(Walks::deadline(), |_, should_stop| {
            while !should_stop() {
                thread::yield_now();
            }
            Ok(())
        });
        drop(timeout_at(Instant::now() + Duration::from_millis(20), endless).await);
        let all = u32::try_from(places).unwrap();
        drop(walks.permits.acquire_many(all).await.unwrap());
    }

    #[tokio::test]
    async fn a_walk_that_panics_is_an_error() {
        let walks = walks();
        let walked = walks.run(Walks::deadline(), |_, _| -> Result<(), OverlapError> {
            panic!("a bug")
        });
        assert!(matches!(walked.await, Err(StoreError::Unavailable(_))));
    }
}
