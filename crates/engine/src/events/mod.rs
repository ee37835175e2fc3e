//! Events of changed counts: one ring buffer of recent events for all clients, and a position for each client.
//!
//! If a client reads so slowly that its position is no longer in the ring, it gets a reset event. It costs no further
//! memory. One task compares the counts with the previous ones ([`follower`]), only while there are clients.

mod follower;
#[cfg(test)]
mod fuzz;
mod ring;
mod subscription;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, timeout};

pub use follower::follow;
pub use ring::Filter;
pub use subscription::Subscription;

use self::ring::Ring;
use domain::{Covered, Flow, Segment, Timestamp};
use telemetry::Metrics;

/// The `Retry-After` of a client that is refused because there are too many.
pub const RETRY_FULL: Duration = Duration::from_secs(10);
/// A new client waits for a comparison this recent. So there is no gap between the counts that it reads afterwards and the
/// changes that it receives.
const RECENT: Duration = Duration::from_secs(2);
/// How long a new client waits for that comparison. If counts can't be read now, the client gets a reset once they can.
const COMPARISON_TIMEOUT: Duration = Duration::from_secs(2);
/// The number of changes that are added to the ring under one lock. Readers wait for at most about a millisecond.
const PUBLISH_CHUNK: usize = 1_000;

/// The ring of events and the clients that follow it.
#[derive(Debug)]
pub struct Events {
    ring: RwLock<Ring>,
    /// The number of the next event.
    next: watch::Sender<u64>,
    /// When counts were last compared.
    compared: watch::Sender<Option<Instant>>,
    permits: Arc<Semaphore>,
    max_clients: usize,
    client_joined: Notify,
    metrics: Arc<Metrics>,
}

/// A changed count.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Change {
    segment: Segment,
    /// The number of users; `None` if it is withheld.
    users: Option<u64>,
    as_of: Timestamp,
    /// How many users entered and left since the previous change; `None` if that is not known.
    flow: Option<Flow>,
}

/// The maximum number of clients is reached. Contains the maximum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} clients are connected already: the limit is max_event_clients")]
pub struct TooManyClients(pub usize);

impl Events {
    /// An empty ring, for at most `max_clients` concurrent clients.
    pub fn new(max_clients: usize, metrics: Arc<Metrics>) -> Self {
        let ring = Ring::new(fastrand::u64(..));
        Self {
            next: watch::Sender::new(ring.next()),
            ring: RwLock::new(ring),
            compared: watch::Sender::new(None),
            permits: Arc::new(Semaphore::new(max_clients)),
            max_clients,
            client_joined: Notify::new(),
            metrics,
        }
    }

    /// Adds a client. It receives the events that pass `filter`, from the event after `last_id`, or from now on.
    pub async fn subscribe(
        self: &Arc<Self>,
        last_id: Option<&str>,
        filter: Filter,
    ) -> Result<Subscription, TooManyClients> {
        let permit = Arc::clone(&self.permits)
            .try_acquire_owned()
            .map_err(|_| TooManyClients(self.max_clients))?;
        let permit = ClientPermit::new(permit, Arc::clone(self));
        self.client_joined.notify_one();
        let mut compared = self.compared.subscribe();
        let is_recent = |at: &Option<Instant>| at.is_some_and(|at| at.elapsed() < RECENT);
        // After a timeout the client begins anyway. The first successful comparison resets all clients.
        let _ = timeout(COMPARISON_TIMEOUT, compared.wait_for(is_recent)).await;
        Ok(Subscription::new(permit, last_id, filter))
    }

    /// The number of clients.
    fn clients(&self) -> usize {
        self.max_clients
            .saturating_sub(self.permits.available_permits())
    }

    fn show_clients(&self) {
        self.metrics.events.clients.set(self.clients() as u64);
    }

    /// Waits until there is a client.
    async fn wait_for_clients(&self) {
        while self.clients() == 0 {
            self.client_joined.notified().await;
        }
    }

    /// Adds changes. `covered` returns the completeness of a change.
    fn publish(&self, changes: &[Change], covered: impl Fn(&Change) -> Covered) {
        for part in changes.chunks(PUBLISH_CHUNK) {
            let covered: Vec<Covered> = part.iter().map(&covered).collect();
            let next = {
                let mut ring = self.ring.write();
                for (change, covered) in part.iter().zip(covered) {
                    ring.push(change, covered);
                }
                ring.next()
            };
            self.next.send_replace(next);
        }
        self.metrics.events.changes.inc_by(changes.len() as u64);
    }

    /// Makes all clients read the counts again.
    fn reset(&self) {
        let next = {
            let mut ring = self.ring.write();
            ring.forget();
            ring.next()
        };
        self.next.send_replace(next);
    }

    fn note_comparison(&self) {
        self.compared.send_replace(Some(Instant::now()));
    }
}

/// The permit of one client. Dropping it releases the permit and updates the metric.
#[derive(Debug)]
struct ClientPermit {
    permit: Option<OwnedSemaphorePermit>,
    events: Arc<Events>,
}

impl ClientPermit {
    fn new(permit: OwnedSemaphorePermit, events: Arc<Events>) -> Self {
        events.show_clients();
        Self {
            permit: Some(permit),
            events,
        }
    }
}

impl Drop for ClientPermit {
    fn drop(&mut self) {
        drop(self.permit.take());
        self.events.show_clients();
    }
}
