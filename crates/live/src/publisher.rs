//! Publishes the counts of a replica for all readers, while no other process does.
//!
//! Of all replicas one holds the lock of the [published counts](domain::published) and publishes what changed, five times a
//! second. The others try to take the lock. A replica that does not have every segment tries less often, so that one which
//! does takes over first.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::replica::Replica;
use domain::published::{BoardError, Fence, PublishError, PublishedCounts, Tick, UsersPerWindow};
use domain::{OwnWindows, Segment, Slot, Timestamp, Window};
use supervisor::Supervisor;

/// The interval of ticks.
const INTERVAL: Duration = Duration::from_millis(200);
/// How long the lock is held without a renewal: the longest time after which another replica takes over.
const LOCK: Duration = Duration::from_secs(3);
/// The interval of renewals of the lock.
const RENEWAL: Duration = Duration::from_secs(1);
/// The interval at which an incomplete replica tries to take the lock.
const INCOMPLETE: Duration = Duration::from_secs(5);

/// The parts of a [`Publisher`].
#[derive(Debug)]
pub struct PublisherParts {
    /// Whose counts are published.
    pub replica: Arc<Replica>,
    /// Where they are published.
    pub published: Arc<dyn PublishedCounts>,
    /// The windows that are published of every segment.
    pub windows: Vec<Window>,
    /// The segments that are also published over a window of their own.
    pub own_windows: watch::Receiver<OwnWindows>,
    /// Where this process answers other questions; empty if it does not.
    pub address: String,
}

/// Publishes until the stop of its supervisor. Clones share the state.
#[derive(Debug, Clone)]
pub struct Publisher {
    role: Arc<Mutex<Role>>,
}

/// What a process does for the published counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It publishes.
    Publisher,
    /// Another one publishes.
    Standby,
    /// It can't publish, because it is behind the feed or the server of the published counts fails.
    Failing,
}

impl Publisher {
    /// Starts the task.
    pub fn start(parts: PublisherParts, supervisor: &Supervisor) -> Self {
        let role = Arc::new(Mutex::new(Role::Failing));
        let publisher = Self { role };
        let work = Work {
            parts,
            publisher: publisher.clone(),
            owner: fastrand::u64(1..),
            fence: None,
            asked: None,
            revision: 0,
            former: None,
            is_failing: false,
        };
        let work = Arc::new(tokio::sync::Mutex::new(work));
        let stop = supervisor.stop().clone();
        supervisor.keep("publisher", move || {
            let (work, stop) = (Arc::clone(&work), stop.clone());
            async move { work.lock().await.run(&stop).await }
        });
        publisher
    }

    /// What this process does now.
    pub fn role(&self) -> Role {
        *self.role.lock()
    }

    fn is(&self, role: Role) {
        *self.role.lock() = role;
    }
}

struct Work {
    parts: PublisherParts,
    publisher: Publisher,
    /// Identifies this process.
    owner: u64,
    /// While this process holds the lock, as far as it knows.
    fence: Option<Fence>,
    /// When the lock was last requested.
    asked: Option<Instant>,
    /// The number of the last tick.
    revision: u64,
    /// What the last tick left published; `None` if that is not known.
    former: Option<Former>,
    is_failing: bool,
}

/// What is published.
struct Former {
    as_of: Timestamp,
    version: (u64, Slot),
    own_windows: OwnWindows,
    complete: bool,
    users: HashMap<Segment, UsersPerWindow>,
}

impl Work {
    async fn run(&mut self, stop: &CancellationToken) {
        let mut ticks = interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return self.release().await,
                _ = ticks.tick() => self.step().await,
            }
        }
    }

    async fn step(&mut self) {
        let Some(as_of) = self.parts.replica.as_of() else {
            // Another replica may be able to publish.
            self.publisher.is(Role::Failing);
            return self.release().await;
        };
        self.acquire().await;
        if let Some(fence) = self.fence {
            self.publish(fence, as_of).await;
        }
    }

    /// Takes or renews the lock when that is due.
    async fn acquire(&mut self) {
        let pause = match (self.fence, self.parts.replica.is_complete()) {
            (Some(_), _) => RENEWAL,
            (None, true) => Duration::ZERO,
            (None, false) => INCOMPLETE,
        };
        let asked = *self.asked.get_or_insert_with(Instant::now);
        if asked.elapsed() < pause {
            return;
        }
        self.asked = Some(Instant::now());
        match self.parts.published.acquire(self.owner, LOCK).await {
            Ok(None) if self.fence.is_none() => {
                self.publisher.is(Role::Standby);
                self.recovered();
            }
            Ok(fence) if fence == self.fence => {}
            Ok(fence) => {
                match fence {
                    Some(_) => tracing::info!("this process publishes the counts now"),
                    None => tracing::warn!("another process publishes the counts now"),
                }
                // Until the first tick.
                self.publisher.is(Role::Standby);
                self.fence = fence;
                self.former = None;
            }
            // If the former lock is still valid, ticks are still accepted.
            Err(error) => self.failed(&error),
        }
    }

    /// Publishes what changed.
    async fn publish(&mut self, fence: Fence, as_of: Timestamp) {
        let Some((tick, next)) = self.tick(as_of) else {
            return;
        };
        self.revision = tick.revision;
        let published = self.parts.published.publish(fence, &tick).await;
        match published {
            Ok(()) => {
                self.former = Some(next);
                self.publisher.is(Role::Publisher);
                self.recovered();
            }
            Err(PublishError::Fenced) => {
                self.former = None;
                self.fence = None;
                self.asked = None;
            }
            Err(PublishError::Board(error)) => {
                // The tick may be published or not.
                self.former = None;
                self.failed(&error);
            }
        }
    }

    /// The next tick, and what it leaves published.
    fn tick(&mut self, as_of: Timestamp) -> Option<(Tick, Former)> {
        let replica = &self.parts.replica;
        let version = replica.version(as_of);
        let own_windows = OwnWindows::clone(&self.parts.own_windows.borrow());
        let former = self.former.take();
        let replaces_all = former.is_none();
        let (as_of, changed, next) = match former {
            // What arrives now is not complete.
            Some(former) if replica.is_held() => (former.as_of, Vec::new(), former),
            Some(former)
                if former.version == version && Arc::ptr_eq(&former.own_windows, &own_windows) =>
            {
                (as_of, Vec::new(), former)
            }
            former => {
                let counts = replica.counts_with(&self.parts.windows, &own_windows)?;
                let next = Former {
                    as_of: counts.as_of,
                    version,
                    own_windows,
                    complete: counts.complete,
                    users: counts.users,
                };
                let former = former.map(|former| former.users).unwrap_or_default();
                (counts.as_of, changes(former, &next.users), next)
            }
        };
        let next = Former { as_of, ..next };
        let tick = Tick {
            revision: self.revision + 1,
            as_of,
            address: self.parts.address.clone(),
            window: replica.full_window().seconds(),
            complete: next.complete,
            changed,
            replaces_all,
        };
        Some((tick, next))
    }

    /// Lets another process publish.
    async fn release(&mut self) {
        if self.fence.take().is_none() {
            return;
        }
        self.former = None;
        self.asked = None;
        if let Err(error) = self.parts.published.release(self.owner).await {
            // The lock expires.
            tracing::debug!(%error, "the lock of the published counts can't be released");
        }
    }

    fn failed(&mut self, error: &BoardError) {
        if !self.is_failing {
            tracing::warn!(%error, "counts can't be published; readers see an old instant");
        }
        self.is_failing = true;
        self.publisher.is(Role::Failing);
    }

    fn recovered(&mut self) {
        if self.is_failing {
            tracing::info!("counts are published again");
        }
        self.is_failing = false;
    }
}

/// The segments whose counts differ. One without windows is gone.
fn changes(
    mut former: HashMap<Segment, UsersPerWindow>,
    users: &HashMap<Segment, UsersPerWindow>,
) -> Vec<(Segment, UsersPerWindow)> {
    let mut changed: Vec<_> = users
        .iter()
        .filter(|(segment, counts)| former.remove(*segment).as_ref() != Some(*counts))
        .map(|(segment, counts)| (segment.clone(), counts.clone()))
        .collect();
    changed.extend(former.into_keys().map(|gone| (gone, Vec::new())));
    changed
}
