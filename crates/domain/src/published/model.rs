//! Published counts in memory, for tests, that can lose ticks and stop responding.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;

use super::{
    Board, BoardError, Fence, LastTick, Position, PublishError, PublishedCounts, Tick, Update,
    UsersPerWindow,
};
use crate::feed::Token;
use crate::{Clock, Segment, Timestamp};

/// The ticks with changes that the model keeps.
const MAX_ENTRIES: usize = 1_000;

/// [`PublishedCounts`] in memory.
#[derive(Debug)]
pub struct ModelPublished {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    saved: Mutex<State>,
    faults: Mutex<Faults>,
}

#[derive(Debug, Clone, Default)]
struct State {
    /// The holder of the lock, and when the lock expires.
    lock: Option<(u64, Timestamp)>,
    /// The newest fence and its owner.
    fence: Option<(Fence, u64)>,
    board: Option<Published>,
}

#[derive(Debug, Clone)]
struct Published {
    owner: u64,
    fence: Fence,
    /// The newest tick, without its changes.
    tick: Tick,
    at: Timestamp,
    counts: HashMap<Segment, UsersPerWindow>,
    /// Never empty: a board begins with the entry of the tick that replaced all.
    entries: VecDeque<Entry>,
}

#[derive(Debug, Clone)]
struct Entry {
    position: Position,
    changed: Vec<(Segment, UsersPerWindow)>,
}

#[derive(Debug, Default)]
struct Faults {
    is_unavailable: bool,
    loses_responses: bool,
}

impl ModelPublished {
    /// An empty board whose clock is `clock`. Each read of it must return a later instant.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            state: Mutex::default(),
            saved: Mutex::default(),
            faults: Mutex::default(),
        }
    }

    /// Loses everything, as `FLUSHALL` does.
    pub fn empty(&self) {
        *self.state.lock() = State::default();
    }

    /// Saves the state for [`restore`](Self::restore).
    pub fn save(&self) {
        *self.saved.lock() = self.state.lock().clone();
    }

    /// Returns to the saved state, as the promotion of a replica that lags does.
    pub fn restore(&self) {
        *self.state.lock() = self.saved.lock().clone();
    }

    /// Whether all calls fail.
    pub fn set_unavailable(&self, is_unavailable: bool) {
        self.faults.lock().is_unavailable = is_unavailable;
    }

    /// Whether ticks are published but report a timeout.
    pub fn set_loses_responses(&self, loses_responses: bool) {
        self.faults.lock().loses_responses = loses_responses;
    }

    fn with<T>(&self, act: impl FnOnce(&mut State, Timestamp) -> T) -> Result<T, BoardError> {
        if self.faults.lock().is_unavailable {
            return Err(BoardError::Unavailable("the model is off".to_owned()));
        }
        Ok(act(&mut self.state.lock(), self.clock.now()))
    }
}

impl State {
    fn acquire(&mut self, owner: u64, ttl: Duration, now: Timestamp) -> Option<Fence> {
        if self
            .lock
            .is_some_and(|(holder, until)| holder != owner && until > now)
        {
            return None;
        }
        self.lock = Some((owner, now.checked_add(ttl).unwrap_or(Timestamp::MAX)));
        let clock = u64::try_from(now.as_microsecond()).unwrap_or(0);
        let fence = match self.fence {
            Some((fence, former)) if former == owner => fence,
            Some((fence, _)) => Fence(clock.max(fence.0 + 1)),
            None => Fence(clock),
        };
        self.fence = Some((fence, owner));
        Some(fence)
    }

    fn publish(&mut self, fence: Fence, tick: &Tick, now: Timestamp) -> Result<(), PublishError> {
        let owner = match self.fence {
            Some((newest, owner)) if newest == fence => owner,
            _ => return Err(PublishError::Fenced),
        };
        let own = self.board.as_ref().filter(|board| board.fence == fence);
        let newest = own.map(|board| board.tick.revision);
        if newest == Some(tick.revision) {
            return Ok(());
        }
        let follows = match newest {
            Some(newest) if tick.replaces_all => tick.revision > newest,
            Some(newest) => tick.revision == newest + 1,
            None => tick.replaces_all,
        };
        if !follows {
            return Err(PublishError::Fenced);
        }
        let former = self.board.take().filter(|_| !tick.replaces_all);
        let (mut counts, mut entries) = match former {
            Some(former) => (former.counts, former.entries),
            None => (HashMap::new(), VecDeque::new()),
        };
        apply(&mut counts, tick.changed.iter().cloned());
        if tick.replaces_all || !tick.changed.is_empty() {
            let position = Position {
                fence,
                revision: tick.revision,
                token: Token::random(),
            };
            let changed = tick.changed.clone();
            entries.push_back(Entry { position, changed });
        }
        while entries.len() > MAX_ENTRIES {
            entries.pop_front();
        }
        self.board = Some(Published {
            owner,
            fence,
            tick: Tick {
                changed: Vec::new(),
                ..tick.clone()
            },
            at: now,
            counts,
            entries,
        });
        Ok(())
    }
}

impl Published {
    fn last_tick(&self, now: Timestamp) -> LastTick {
        LastTick {
            owner: self.owner,
            as_of: self.tick.as_of,
            address: self.tick.address.clone(),
            window: self.tick.window,
            complete: self.tick.complete,
            age: now.duration_since(self.at).unsigned_abs(),
        }
    }

    fn position(&self) -> Option<Position> {
        self.entries.back().map(|entry| entry.position)
    }

    /// The changes after a position, merged; `None` if the position is lost.
    fn changes_after(&self, after: &Position) -> Option<HashMap<Segment, UsersPerWindow>> {
        let mut entries = self.entries.iter();
        entries.find(|entry| entry.position == *after)?;
        let mut merged = HashMap::new();
        for entry in entries {
            merged.extend(entry.changed.iter().cloned());
        }
        Some(merged)
    }
}

fn apply(
    counts: &mut HashMap<Segment, UsersPerWindow>,
    changed: impl IntoIterator<Item = (Segment, UsersPerWindow)>,
) {
    for (segment, users) in changed {
        if users.is_empty() {
            counts.remove(&segment);
        } else {
            counts.insert(segment, users);
        }
    }
}

#[async_trait]
impl PublishedCounts for ModelPublished {
    async fn acquire(&self, owner: u64, ttl: Duration) -> Result<Option<Fence>, BoardError> {
        self.with(|state, now| state.acquire(owner, ttl, now))
    }

    async fn release(&self, owner: u64) -> Result<(), BoardError> {
        self.with(|state, _| state.lock = state.lock.filter(|(holder, _)| *holder != owner))
    }

    async fn publish(&self, fence: Fence, tick: &Tick) -> Result<(), PublishError> {
        self.with(|state, now| state.publish(fence, tick, now))??;
        match self.faults.lock().loses_responses {
            true => Err(BoardError::Timeout.into()),
            false => Ok(()),
        }
    }

    async fn load(&self) -> Result<Option<Board>, BoardError> {
        self.with(|state, now| {
            let board = state.board.as_ref()?;
            Some(Board {
                counts: board.counts.clone(),
                tick: board.last_tick(now),
                position: board.position()?,
            })
        })
    }

    async fn follow(&self, after: &Position) -> Result<Update, BoardError> {
        self.with(|state, now| {
            let board = state.board.as_ref();
            let changes = board.and_then(|board| {
                Some(Update::Changes {
                    changed: board.changes_after(after)?.into_iter().collect(),
                    tick: board.last_tick(now),
                    position: board.position()?,
                })
            });
            changes.unwrap_or(Update::Lost)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::conformance::{check_losses, check_published};
    use super::*;
    use crate::ManualClock;

    fn clock() -> Arc<ManualClock> {
        let start = Timestamp::from_second(1_800_000_000).unwrap();
        Arc::new(ManualClock::ticking(start, Duration::from_micros(1)))
    }

    #[tokio::test]
    async fn the_model_publishes() {
        let clock = clock();
        let new = async || {
            let model = ModelPublished::new(Arc::clone(&clock) as Arc<dyn Clock>);
            Arc::new(model) as Arc<dyn PublishedCounts>
        };
        check_published(new, async |time| clock.advance(time)).await;
    }

    #[tokio::test]
    async fn the_model_notices_losses() {
        let model = ModelPublished::new(clock());
        let (save, restore) = (async || model.save(), async || model.restore());
        check_losses(&model, save, restore, async || model.empty()).await;
    }

    #[tokio::test]
    async fn the_model_fails_on_demand() {
        let model = ModelPublished::new(clock());
        let fence = model.acquire(1, Duration::from_secs(1)).await;
        let fence = fence.unwrap().unwrap();
        let tick = Tick {
            revision: 1,
            as_of: Timestamp::UNIX_EPOCH,
            address: String::new(),
            window: 0,
            complete: false,
            changed: Vec::new(),
            replaces_all: true,
        };
        model.set_loses_responses(true);
        let lost = model.publish(fence, &tick).await;
        assert_eq!(lost, Err(PublishError::Board(BoardError::Timeout)));
        model.set_loses_responses(false);
        model.publish(fence, &tick).await.unwrap();
        model.set_unavailable(true);
        assert!(model.load().await.unwrap_err().is_transient());
    }
}
