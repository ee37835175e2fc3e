//! Owns the background tasks of a service. A task that panics is restarted, until the service stops.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use futures::FutureExt;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The backoff before the first restart. It doubles with each panic that follows soon.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// The longest backoff. If a task ran for longer than this before it panicked, the backoff starts again at the first.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Exponential backoff without a maximum number of retries: delays double from `first` to `longest`. By default, the builder
/// stops after three.
pub const fn doubling(first: Duration, longest: Duration) -> ExponentialBuilder {
    let unbounded = ExponentialBuilder::new().without_max_times();
    unbounded.with_min_delay(first).with_max_delay(longest)
}

/// The background tasks of one service. Clones share them.
#[derive(Debug, Clone)]
pub struct Supervisor {
    tasks: TaskTracker,
    stop: CancellationToken,
    watch: Watch,
}

/// A callback with the name of a task and the number of panics to add to its total. It is called with 0 when a task
/// starts, so that the counter exists and a rate includes the first panic.
pub type OnPanic = Arc<dyn Fn(&'static str, u64) + Send + Sync>;

/// Restarts one task when it panics. The default counts no panics.
#[derive(Clone, Default)]
pub struct Watch {
    on_panic: Option<OnPanic>,
}

impl Supervisor {
    /// Creates a supervisor without tasks. It reports panics to `on_panic`.
    pub fn new(on_panic: OnPanic) -> Self {
        Self {
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            watch: Watch {
                on_panic: Some(on_panic),
            },
        }
    }

    /// The token that is cancelled when the tasks should end.
    pub fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// Runs the task that `create` returns, until it completes. After a panic, `create` is called for a new one.
    pub fn keep<T>(&self, name: &'static str, create: impl FnMut() -> T + Send + 'static)
    where
        T: Future<Output = ()> + Send + 'static,
    {
        let (watch, stop) = (self.watch.clone(), self.stop.clone());
        let kept = async move { watch.keep_alive(name, &stop, create).await };
        drop(self.tasks.spawn(kept));
    }

    /// The same for a task that runs until the stop, which drops it.
    pub fn keep_until_stop<T>(
        &self,
        name: &'static str,
        mut create: impl FnMut() -> T + Send + 'static,
    ) where
        T: Future<Output = ()> + Send + 'static,
    {
        let stop = self.stop.clone();
        self.keep(name, move || {
            let (running, stop) = (create(), stop.clone());
            async move {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = running => {}
                }
            }
        });
    }

    /// Starts work that continues if its caller is cancelled. A panic is counted and logged under `name`, and the
    /// handle returns it.
    pub fn begin<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        let watch = self.watch.clone();
        self.tasks.spawn(async move {
            match AssertUnwindSafe(work).catch_unwind().await {
                Ok(result) => result,
                Err(panic) => {
                    watch.count(name, 1);
                    tracing::error!(
                        task = name,
                        "background work panicked; standard error has its message"
                    );
                    std::panic::resume_unwind(panic)
                }
            }
        })
    }

    /// Stops all tasks, and returns when they have ended.
    pub async fn end(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Watch {
    fn count(&self, task: &'static str, panics: u64) {
        if let Some(on_panic) = &self.on_panic {
            on_panic(task, panics);
        }
    }

    /// Runs the task that `create` returns, until it completes. After a panic it is restarted with backoff, unless `stop` is
    /// cancelled.
    pub async fn keep_alive<T>(
        &self,
        name: &'static str,
        stop: &CancellationToken,
        mut create: impl FnMut() -> T,
    ) where
        T: Future<Output = ()>,
    {
        self.count(name, 0);
        let mut pauses = doubling(FIRST_PAUSE, LONGEST_PAUSE).build();
        loop {
            let begun = Instant::now();
            // `AssertUnwindSafe` is sound here: the state of a task is dropped when it panics, shared state is behind locks
            // that don't poison, and stores refuse to continue from a state that they can't trust.
            let task = AssertUnwindSafe(async { create().await });
            if task.catch_unwind().await.is_ok() {
                return;
            }
            self.count(name, 1);
            if begun.elapsed() > LONGEST_PAUSE {
                pauses = doubling(FIRST_PAUSE, LONGEST_PAUSE).build();
            }
            let pause = pauses.next().unwrap_or(LONGEST_PAUSE);
            tracing::error!(
                task = name,
                restart_in = ?pause,
                "a background task panicked; standard error has its message"
            );
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(pause) => {}
            }
        }
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch")
            .field("counts", &self.on_panic.is_some())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

    use tokio::sync::Notify;

    /// The total panics of all tasks, and a callback that counts them.
    fn counted() -> (Arc<AtomicU64>, OnPanic) {
        let total = Arc::<AtomicU64>::default();
        let counted = Arc::clone(&total);
        let on_panic = Arc::new(move |_, panics| {
            counted.fetch_add(panics, Ordering::SeqCst);
        });
        (total, on_panic)
    }

    /// Creates a task that panics at each start except the last of `starts`. It notifies of the last one and runs until
    /// `stop`.
    fn unsteady(
        starts: u32,
        stop: CancellationToken,
    ) -> (
        impl FnMut() -> futures::future::BoxFuture<'static, ()>,
        Arc<Notify>,
    ) {
        let (begun, steady) = (Arc::new(AtomicU32::new(0)), Arc::new(Notify::new()));
        let notify = Arc::clone(&steady);
        let create = move || {
            let (begun, notify, stop) = (Arc::clone(&begun), Arc::clone(&notify), stop.clone());
            async move {
                let number = begun.fetch_add(1, Ordering::SeqCst) + 1;
                assert!(number >= starts, "start {number} of {starts}");
                notify.notify_one();
                stop.cancelled().await;
            }
            .boxed()
        };
        (create, steady)
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_panics_is_counted_and_started_again_ever_later() {
        let (panics, on_panic) = counted();
        let supervisor = Supervisor::new(on_panic);
        let (create, steady) = unsteady(10, supervisor.stop().clone());
        let begun = Instant::now();
        supervisor.keep("unsteady", create);
        steady.notified().await;
        let pauses = [250, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000];
        let pauses = Duration::from_millis(pauses.iter().sum());
        // Tokio's paused clock has a resolution of a millisecond.
        assert_eq!(begun.elapsed().as_secs(), pauses.as_secs());
        assert_eq!(panics.load(Ordering::SeqCst), 9);
        supervisor.end().await;
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_does_not_wait_for_a_restart() {
        let (panics, on_panic) = counted();
        let supervisor = Supervisor::new(on_panic);
        let (create, _) = unsteady(u32::MAX, supervisor.stop().clone());
        supervisor.keep("hopeless", create);
        while panics.load(Ordering::SeqCst) < 8 {
            sleep(FIRST_PAUSE).await;
        }
        let begun = Instant::now();
        supervisor.end().await;
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }

    #[tokio::test]
    async fn a_panic_before_the_first_wait_is_one_like_others() {
        let (panics, on_panic) = counted();
        let stop = CancellationToken::new();
        stop.cancel();
        let create = || -> std::future::Ready<()> { panic!("no task at all") };
        let watch = Watch {
            on_panic: Some(on_panic),
        };
        watch.keep_alive("none", &stop, create).await;
        assert_eq!(panics.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_task_that_returns_is_done() {
        let supervisor = Supervisor::new(counted().1);
        let done = Arc::new(Notify::new());
        let notify = Arc::clone(&done);
        supervisor.keep("short", move || {
            let notify = Arc::clone(&notify);
            async move { notify.notify_one() }
        });
        done.notified().await;
        supervisor.end().await;
    }
}
