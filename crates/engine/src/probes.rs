//! Probes of the store and the cache, beside the requests. A task of each sends a ping every second and keeps the result with
//! its time. Requests read the last result, so none waits for a server that does not respond.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use domain::cache::CountCache;
use domain::store::PairStore;
use supervisor::Supervisor;

/// The pause between two probes. Load balancers check an instance about as often.
const INTERVAL: Duration = Duration::from_secs(1);
/// A server that does not respond within this time counts as unavailable.
const TIMEOUT: Duration = Duration::from_secs(2);
/// How long a start waits for the first results.
const FIRST_RESULTS: Duration = Duration::from_secs(1);
/// The age from which a result counts as a failure. A probe ends within three seconds, unless its task panics each time.
const MAX_AGE: Duration = Duration::from_secs(15);

/// The probes of a process. The default has no tasks and never any result.
#[derive(Debug, Default)]
pub struct Probes {
    /// The store.
    pub(crate) store: Probe,
    /// The cache.
    pub(crate) cache: Probe,
}

/// The last result for one server.
#[derive(Debug)]
pub(crate) struct Probe {
    begun: Instant,
    last: watch::Sender<Option<Response>>,
}

/// The response to one ping, or its absence.
#[derive(Debug, Clone)]
struct Response {
    at: Instant,
    problem: Option<String>,
}

/// What is known about a server now.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Known {
    /// Why it counts as unavailable.
    pub(crate) problem: Option<String>,
    /// The time since the last result, or since the start if there is none.
    pub(crate) age: Duration,
}

impl Probes {
    /// Starts the tasks.
    pub(crate) fn start(
        supervisor: &Supervisor,
        store: &Arc<dyn PairStore>,
        cache: &Arc<dyn CountCache>,
    ) -> Arc<Self> {
        let probes = Arc::<Self>::default();
        let (all, store) = (Arc::clone(&probes), Arc::clone(store));
        supervisor.keep_until_stop("store probe", move || {
            let (all, store) = (Arc::clone(&all), Arc::clone(&store));
            async move { all.store.keep_probing(|| store.ping()).await }
        });
        let (all, cache) = (Arc::clone(&probes), Arc::clone(cache));
        supervisor.keep_until_stop("cache probe", move || {
            let (all, cache) = (Arc::clone(&all), Arc::clone(&cache));
            async move { all.cache.keep_probing(|| cache.ping()).await }
        });
        probes
    }

    /// Waits for the first results, or for a second.
    pub(crate) async fn begin(&self) {
        let both = async { tokio::join!(self.store.responded(), self.cache.responded()) };
        // Without a result a server counts as unavailable.
        let _ = timeout(FIRST_RESULTS, both).await;
    }
}

impl Default for Probe {
    fn default() -> Self {
        Self {
            begun: Instant::now(),
            last: watch::Sender::default(),
        }
    }
}

impl Probe {
    async fn keep_probing<P, E: Display>(&self, ping: impl Fn() -> P)
    where
        P: Future<Output = Result<(), E>>,
    {
        loop {
            let problem = match timeout(TIMEOUT, ping()).await {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(_) => Some(format!("no response within {TIMEOUT:?}")),
            };
            let at = Instant::now();
            self.last.send_replace(Some(Response { at, problem }));
            sleep(INTERVAL).await;
        }
    }

    /// The last result. It is never waited for.
    pub(crate) fn known(&self) -> Known {
        let last = self.last.borrow();
        let Some(Response { at, problem }) = &*last else {
            return Known {
                problem: Some("no response yet".to_owned()),
                age: self.begun.elapsed(),
            };
        };
        let age = at.elapsed();
        let problem = match age > MAX_AGE {
            true => Some(format!("not checked for {} s", age.as_secs())),
            false => problem.clone(),
        };
        Known { problem, age }
    }

    /// Completes once probes have failed for `time`.
    pub(crate) async fn unresponsive_for(&self, time: Duration) {
        let mut last = self.last.subscribe();
        // The sender lives as long as this, so that `wait_for` does not fail.
        while last.wait_for(fails).await.is_ok() {
            let responds = last.wait_for(|last| !fails(last));
            if timeout(time, responds).await.is_err() {
                return;
            }
        }
    }

    async fn responded(&self) {
        let mut last = self.last.subscribe();
        // The sender lives as long as this.
        let _ = last.wait_for(Option::is_some).await;
    }
}

fn fails(last: &Option<Response>) -> bool {
    let last = last.as_ref();
    last.is_some_and(|response| response.problem.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    /// A server that can be suspended, and its probe.
    #[derive(Default)]
    struct Server {
        is_silent: AtomicBool,
        probe: Probe,
    }

    impl Server {
        fn suspend(&self, silent: bool) {
            self.is_silent.store(silent, Ordering::SeqCst);
        }

        async fn ping(&self) -> Result<(), String> {
            match self.is_silent.load(Ordering::SeqCst) {
                true => std::future::pending().await,
                false => Ok(()),
            }
        }

        fn problem(&self) -> String {
            self.probe.known().problem.unwrap_or_default()
        }
    }

    fn start() -> (Arc<Server>, tokio::task::JoinHandle<()>) {
        let server = Arc::<Server>::default();
        let probed = Arc::clone(&server);
        let probing =
            tokio::spawn(async move { probed.probe.keep_probing(|| probed.ping()).await });
        (server, probing)
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_server_is_noticed_within_three_seconds_and_nothing_waits_for_it() {
        let (server, _probing) = start();
        assert_eq!(server.problem(), "no response yet");
        server.probe.responded().await;
        assert_eq!(server.problem(), "");
        server.suspend(true);
        let began = Instant::now();
        server.probe.unresponsive_for(Duration::from_secs(2)).await;
        assert!(began.elapsed() <= INTERVAL + TIMEOUT + Duration::from_secs(2));
        assert_eq!(server.problem(), "no response within 2s");
        server.suspend(false);
        sleep(INTERVAL + TIMEOUT).await;
        let known = server.probe.known();
        assert!(
            known.problem.is_none() && known.age <= INTERVAL,
            "{known:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_responds_again_in_time_is_not_unresponsive() {
        let (server, _probing) = start();
        let unresponsive = server.probe.unresponsive_for(Duration::from_secs(4));
        let mut unresponsive = std::pin::pin!(unresponsive);
        for _ in 0..5 {
            server.suspend(true);
            assert!(
                timeout(Duration::from_secs(4), &mut unresponsive)
                    .await
                    .is_err()
            );
            server.suspend(false);
            sleep(INTERVAL + TIMEOUT).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_result_of_probes_that_ended_is_not_used_for_ever() {
        let (server, probing) = start();
        server.probe.responded().await;
        probing.abort();
        sleep(MAX_AGE).await;
        assert_eq!(server.problem(), "");
        sleep(Duration::from_secs(1)).await;
        assert_eq!(server.problem(), "not checked for 16 s");
    }
}
