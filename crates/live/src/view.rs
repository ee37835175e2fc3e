//! The published counts in the memory of a reader.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use backon::BackoffBuilder;
use parking_lot::RwLock;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::replica::MAX_AGE;
use domain::published::{
    Board, BoardError, LastTick, Position, PublishedCounts, Update, UsersPerWindow,
};
use domain::{Count, Segment, Timestamp, Window};
use supervisor::{Supervisor, doubling};

/// The interval at which changes are read.
const INTERVAL: Duration = Duration::from_millis(100);
const LONGEST_RETRY: Duration = Duration::from_secs(1);

/// Follows the published counts until the stop of its supervisor.
#[derive(Debug)]
pub struct View {
    /// The widest window here. Counts of a publisher with another one are not used.
    window: Window,
    held: RwLock<Option<Held>>,
    /// The instant of the newest tick, in unix microseconds; 0 before the first.
    as_of: watch::Sender<i64>,
    started: Instant,
}

#[derive(Debug)]
struct Held {
    counts: HashMap<Segment, UsersPerWindow>,
    tick: LastTick,
    /// When the tick was read.
    read: Instant,
}

/// The newest tick of a publisher that is at work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CurrentTick {
    /// The instant for which the counts are exact.
    pub as_of: Timestamp,
    /// Where the publisher answers other questions; may be empty.
    pub address: String,
    /// Whether a segment that is not published has no users.
    pub complete: bool,
    /// The number of published segments.
    pub segments: u64,
}

impl View {
    /// Starts to follow `published`. `window` is the widest window.
    pub fn start(
        published: Arc<dyn PublishedCounts>,
        window: Window,
        supervisor: &Supervisor,
    ) -> Arc<Self> {
        let view = Arc::new(Self {
            window,
            held: RwLock::default(),
            as_of: watch::Sender::new(0),
            started: Instant::now(),
        });
        let following = Arc::clone(&view);
        supervisor.keep_until_stop("published counts", move || {
            let (view, published) = (Arc::clone(&following), Arc::clone(&published));
            async move { view.follow(&*published).await }
        });
        view
    }

    /// The count of a segment; `None` if no publisher is at work, or it does not publish this count.
    pub fn count(&self, segment: &Segment, window: Window) -> Option<Count> {
        self.held
            .read()
            .as_ref()
            .and_then(|held| held.current(self))?
            .count(segment, window)
    }

    /// Every segment with users, sorted by name; `None` if no publisher is at work, or it does not publish all of these counts.
    pub fn list(&self, window: Window) -> Option<Vec<(Segment, Count)>> {
        let held = self.held.read();
        let held = held.as_ref().and_then(|held| held.current(self))?;
        if !held.tick.complete {
            return None;
        }
        let mut list = Vec::with_capacity(held.counts.len());
        for segment in held.counts.keys() {
            let count = held.count(segment, window)?;
            if count.users > 0 {
                list.push((segment.clone(), count));
            }
        }
        list.sort_unstable_by(|left, right| left.0.cmp(&right.0));
        Some(list)
    }

    /// The count of a segment as it was last published, however long ago.
    pub fn last_known(&self, segment: &Segment, window: Window) -> Option<Count> {
        let held = self.held.read();
        let held = held.as_ref().filter(|held| held.is_alike(self))?;
        held.count(segment, window)
    }

    /// Whether counts of this segment are published.
    pub fn publishes(&self, segment: &Segment) -> bool {
        let held = self.held.read();
        held.as_ref()
            .is_some_and(|held| held.counts.contains_key(segment))
    }

    /// The newest tick; `None` if no publisher is at work.
    pub fn tick(&self) -> Option<CurrentTick> {
        let held = self.held.read();
        let held = held.as_ref().and_then(|held| held.current(self))?;
        Some(CurrentTick {
            as_of: held.tick.as_of,
            address: held.tick.address.clone(),
            complete: held.tick.complete,
            segments: held.counts.len() as u64,
        })
    }

    /// The widest window of the publisher at work, in seconds, if it is another one than here: then its counts are not used.
    pub fn other_window(&self) -> Option<u64> {
        let held = self.held.read();
        let window = held
            .as_ref()
            .filter(|held| held.age() <= MAX_AGE)?
            .tick
            .window;
        (window != self.window.seconds()).then_some(window)
    }

    /// How long no publisher has been at work, as far as this process knows; zero if one is.
    pub fn silent_for(&self) -> Duration {
        let held = self.held.read();
        let age = held
            .as_ref()
            .filter(|held| held.is_alike(self))
            .map_or_else(|| self.started.elapsed(), Held::age);
        if age <= MAX_AGE { Duration::ZERO } else { age }
    }

    /// Waits until the published counts include everything that was answered before `instant` by the clock of their server.
    pub async fn wait_for(&self, instant: Timestamp) {
        let wanted = instant.as_microsecond();
        let mut as_of = self.as_of.subscribe();
        // The sender lives as long as this view.
        let _ = as_of.wait_for(|as_of| *as_of >= wanted).await;
    }

    /// Waits for the first tick.
    pub async fn wait_for_tick(&self) {
        let mut as_of = self.as_of.subscribe();
        // The sender lives as long as this view.
        let _ = as_of.wait_for(|as_of| *as_of > 0).await;
    }

    async fn follow(&self, published: &dyn PublishedCounts) {
        let mut position = None;
        let mut retries = None;
        loop {
            let pause = match self.step(published, position).await {
                Ok(next) => {
                    if retries.take().is_some() {
                        tracing::info!("published counts can be read again");
                    }
                    position = next;
                    INTERVAL
                }
                Err(error) => {
                    let retries = retries.get_or_insert_with(|| {
                        tracing::warn!(%error, "published counts can't be read; counts come from other sources");
                        doubling(INTERVAL, LONGEST_RETRY).build()
                    });
                    retries.next().unwrap_or(LONGEST_RETRY)
                }
            };
            sleep(pause).await;
        }
    }

    /// Reads what changed since `position`, or everything. Returns the next position.
    async fn step(
        &self,
        published: &dyn PublishedCounts,
        position: Option<Position>,
    ) -> Result<Option<Position>, BoardError> {
        if let Some(position) = position {
            match published.follow(&position).await? {
                Update::Changes {
                    changed,
                    tick,
                    position,
                } => {
                    self.change(changed, tick);
                    return Ok(Some(position));
                }
                Update::Lost => {}
            }
        }
        let Some(board) = published.load().await? else {
            return Ok(None);
        };
        let Board {
            counts,
            tick,
            position,
        } = board;
        let as_of = tick.as_of;
        *self.held.write() = Some(Held {
            counts,
            tick,
            read: Instant::now(),
        });
        self.noted(as_of);
        Ok(Some(position))
    }

    fn change(&self, changed: Vec<(Segment, UsersPerWindow)>, tick: LastTick) {
        let as_of = tick.as_of;
        let mut held = self.held.write();
        let Some(board) = held.as_mut() else { return };
        for (segment, users) in changed {
            match users.is_empty() {
                true => board.counts.remove(&segment),
                false => board.counts.insert(segment, users),
            };
        }
        board.tick = tick;
        board.read = Instant::now();
        drop(held);
        self.noted(as_of);
    }

    fn noted(&self, as_of: Timestamp) {
        self.as_of.send_replace(as_of.as_microsecond());
    }
}

impl Held {
    /// How long ago the tick was published.
    fn age(&self) -> Duration {
        self.tick.age + self.read.elapsed()
    }

    /// Whether the publisher has the same widest window.
    fn is_alike(&self, view: &View) -> bool {
        self.tick.window == view.window.seconds()
    }

    /// This, if a publisher is at work whose counts are of use.
    fn current(&self, view: &View) -> Option<&Self> {
        (self.age() <= MAX_AGE && self.is_alike(view)).then_some(self)
    }

    fn count(&self, segment: &Segment, window: Window) -> Option<Count> {
        let as_of = self.tick.as_of;
        let users = match self.counts.get(segment) {
            Some(counts) => {
                let mut counts = counts.iter();
                counts.find(|(seconds, _)| *seconds == window.seconds())?.1
            }
            None if self.tick.complete => 0,
            None => return None,
        };
        Some(Count { users, as_of })
    }
}
