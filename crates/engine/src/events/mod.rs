//! Changes of counts, told to whoever listens: one ring of recent events for all, and a position for each.
//!
//! A client that reads slowly falls off the ring's end: it hears of that, and costs no memory. One task compares the
//! counts with those that it knew ([`follower`]), and only while somebody listens.

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
use domain::{Count, Segment};
use telemetry::Metrics;

/// What a client is told to wait when there is no place.
pub const RETRY_FULL: Duration = Duration::from_secs(10);
/// A new client waits for a comparison this recent, so that what it reads from elsewhere afterwards and the changes
/// that it hears of leave no gap between them.
const RECENT: Duration = Duration::from_secs(2);
/// How long it waits. Where counts can't be read now, it is told to read them anew once they can.
const PATIENCE: Duration = Duration::from_secs(2);
/// Changes put into the ring at once: readers wait for about a millisecond at most.
const AT_ONCE: usize = 1_000;

/// The changes, and who listens.
#[derive(Debug)]
pub struct Events {
    ring: RwLock<Ring>,
    /// The number of the event that comes next.
    next: watch::Sender<u64>,
    /// When counts were last compared.
    compared: watch::Sender<Option<Instant>>,
    places: Arc<Semaphore>,
    most_clients: usize,
    /// Somebody came.
    came: Notify,
    metrics: Arc<Metrics>,
}

/// There are as many clients as may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("as many clients as may be ({0}) listen already")]
pub struct TooManyClients(pub usize);

impl Events {
    /// No events yet, for at most `most_clients` at a time.
    pub fn new(most_clients: usize, metrics: Arc<Metrics>) -> Self {
        let ring = Ring::new(fastrand::u64(..));
        Self {
            next: watch::Sender::new(ring.next()),
            ring: RwLock::new(ring),
            compared: watch::Sender::new(None),
            places: Arc::new(Semaphore::new(most_clients)),
            most_clients,
            came: Notify::new(),
            metrics,
        }
    }

    /// A place for one more client: after the event that `last_id` names, or from now on. What passes `filter` is
    /// told.
    pub async fn subscribe(
        self: &Arc<Self>,
        last_id: Option<&str>,
        filter: Filter,
    ) -> Result<Subscription, TooManyClients> {
        let permit = Arc::clone(&self.places)
            .try_acquire_owned()
            .map_err(|_| TooManyClients(self.most_clients))?;
        let place = Place::take(permit, Arc::clone(self));
        self.came.notify_one();
        let mut compared = self.compared.subscribe();
        let is_recent = |at: &Option<Instant>| at.is_some_and(|at| at.elapsed() < RECENT);
        // Without an answer the client begins all the same: the first comparison resets everybody.
        let _ = timeout(PATIENCE, compared.wait_for(is_recent)).await;
        Ok(Subscription::new(place, last_id, filter))
    }

    /// How many listen.
    fn clients(&self) -> usize {
        self.most_clients
            .saturating_sub(self.places.available_permits())
    }

    fn show_clients(&self) {
        self.metrics.events.clients.set(self.clients() as u64);
    }

    /// Waits until somebody listens.
    async fn wait_for_clients(&self) {
        while self.clients() == 0 {
            self.came.notified().await;
        }
    }

    fn publish(&self, changes: &[(Segment, Count)]) {
        for part in changes.chunks(AT_ONCE) {
            let next = {
                let mut ring = self.ring.write();
                part.iter()
                    .for_each(|(segment, count)| ring.push(segment, count));
                ring.next()
            };
            self.next.send_replace(next);
        }
        self.metrics.events.changes.inc_by(changes.len() as u64);
    }

    /// Sends everybody who listens to read the counts anew.
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

/// One client among those that may be.
#[derive(Debug)]
struct Place {
    permit: Option<OwnedSemaphorePermit>,
    events: Arc<Events>,
}

impl Place {
    fn take(permit: OwnedSemaphorePermit, events: Arc<Events>) -> Self {
        events.show_clients();
        Self {
            permit: Some(permit),
            events,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        drop(self.permit.take());
        self.events.show_clients();
    }
}
