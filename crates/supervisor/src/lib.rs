//! Owns the background tasks of a service: each is kept running until the stop, whatever happens in it.

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

/// The pause before the first restart; it doubles with each panic that follows soon.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// The longest pause. A task that ran for longer than this before it panicked starts at the first pause again.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Pauses between tries: they double from `first` to `longest` and never end. The builder's own end after the third.
pub const fn doubling(first: Duration, longest: Duration) -> ExponentialBuilder {
    let unbounded = ExponentialBuilder::new().without_max_times();
    unbounded.with_min_delay(first).with_max_delay(longest)
}

/// The tasks of one service. Clones share them.
#[derive(Debug, Clone)]
pub struct Supervisor {
    tasks: TaskTracker,
    stop: CancellationToken,
    watch: Watch,
}

/// Called with the name of a task and the number of panics to add to its total. It is called with 0 when a task starts, so
/// that a rate sees the first panic.
pub type OnPanic = Arc<dyn Fn(&'static str, u64) + Send + Sync>;

/// Restarts one task when it panics. The default counts no panics.
#[derive(Clone, Default)]
pub struct Watch {
    on_panic: Option<OnPanic>,
}

impl Supervisor {
    /// A supervisor without tasks, which reports panics to `on_panic`.
    pub fn new(on_panic: OnPanic) -> Self {
        Self {
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            watch: Watch {
                on_panic: Some(on_panic),
            },
        }
    }

    /// Cancelled when the tasks should end.
    pub fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// Runs the task that `make` makes until it returns. Where it panics, `make` is asked for a new one.
    pub fn keep<T>(&self, name: &'static str, make: impl FnMut() -> T + Send + 'static)
    where
        T: Future<Output = ()> + Send + 'static,
    {
        let (watch, stop) = (self.watch.clone(), self.stop.clone());
        let kept = async move { watch.keep_alive(name, &stop, make).await };
        drop(self.tasks.spawn(kept));
    }

    /// Begins work that goes on when its caller goes away. A panic is counted and logged under `name`, and is its
    /// caller's.
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
                        "work in the background panicked; standard error has its message"
                    );
                    std::panic::resume_unwind(panic)
                }
            }
        })
    }

    /// Ends all tasks, and returns when they have ended.
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

    /// Runs the task that `make` makes until it returns, or until it has panicked after `stop`.
    pub async fn keep_alive<T>(
        &self,
        name: &'static str,
        stop: &CancellationToken,
        mut make: impl FnMut() -> T,
    ) where
        T: Future<Output = ()>,
    {
        self.count(name, 0);
        let mut pauses = doubling(FIRST_PAUSE, LONGEST_PAUSE).build();
        loop {
            let begun = Instant::now();
            // What a task leaves behind when it panics is dropped with it; what tasks share is behind locks that don't
            // poison, and stores refuse to go on from a state that they can't trust.
            let task = AssertUnwindSafe(async { make().await });
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

    /// Adds up the panics of all tasks.
    fn counted() -> (Arc<AtomicU64>, OnPanic) {
        let total = Arc::<AtomicU64>::default();
        let counted = Arc::clone(&total);
        let on_panic = Arc::new(move |_, panics| {
            counted.fetch_add(panics, Ordering::SeqCst);
        });
        (total, on_panic)
    }

    /// Panics at each start but the last of `starts`, tells of that, and runs until `stop`.
    fn unsteady(
        starts: u32,
        stop: CancellationToken,
    ) -> (
        impl FnMut() -> futures::future::BoxFuture<'static, ()>,
        Arc<Notify>,
    ) {
        let (begun, steady) = (Arc::new(AtomicU32::new(0)), Arc::new(Notify::new()));
        let told = Arc::clone(&steady);
        let make = move || {
            let (begun, told, stop) = (Arc::clone(&begun), Arc::clone(&told), stop.clone());
            async move {
                let number = begun.fetch_add(1, Ordering::SeqCst) + 1;
                assert!(number >= starts, "start {number} of {starts}");
                told.notify_one();
                stop.cancelled().await;
            }
            .boxed()
        };
        (make, steady)
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_panics_is_counted_and_started_again_ever_later() {
        let (panics, on_panic) = counted();
        let supervisor = Supervisor::new(on_panic);
        let (make, steady) = unsteady(10, supervisor.stop().clone());
        let begun = Instant::now();
        supervisor.keep("unsteady", make);
        steady.notified().await;
        let pauses = [250, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000];
        let pauses = Duration::from_millis(pauses.iter().sum());
        // Tokio's paused clock has a step of a millisecond.
        assert_eq!(begun.elapsed().as_secs(), pauses.as_secs());
        assert_eq!(panics.load(Ordering::SeqCst), 9);
        supervisor.end().await;
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_does_not_wait_for_a_restart() {
        let (panics, on_panic) = counted();
        let supervisor = Supervisor::new(on_panic);
        let (make, _) = unsteady(u32::MAX, supervisor.stop().clone());
        supervisor.keep("hopeless", make);
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
        let make = || -> std::future::Ready<()> { panic!("no task at all") };
        let watch = Watch {
            on_panic: Some(on_panic),
        };
        watch.keep_alive("none", &stop, make).await;
        assert_eq!(panics.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_task_that_returns_is_done() {
        let supervisor = Supervisor::new(counted().1);
        let done = Arc::new(Notify::new());
        let told = Arc::clone(&done);
        supervisor.keep("short", move || {
            let told = Arc::clone(&told);
            async move { told.notify_one() }
        });
        done.notified().await;
        supervisor.end().await;
    }
}
