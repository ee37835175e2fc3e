//! Permits for counts in the store: the limit on concurrent counts of this process, with fair queues.
//!
//! Without the limit, 500 readers of missing counts would be 500 concurrent queries that slow each other down. Callers
//! wait in queues, called lanes, that are served round-robin. So readers do not block a refresh, a refresh does not block
//! readers, and requests for arbitrary names block neither.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;

use domain::store::StoreError;

/// The maximum number of callers in a lane. Any further ones would be served after their timeouts.
const MAX_WAITING: usize = 10_000;

/// The kind of a request for a count. If requests of several kinds want the same count, it waits in the first of their lanes
/// in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lane {
    /// A refresh.
    Refresh,
    /// A read of a known segment over a refreshed window.
    Usual,
    /// A read of anything else. The number of such names and windows is unlimited.
    Other,
}

const LANES: usize = 3;

/// The permits: as many as counts may run concurrently.
#[derive(Debug)]
pub(super) struct Permits {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The number of free permits. It is zero while callers wait.
    free: usize,
    waiting: [VecDeque<oneshot::Sender<Permit>>; LANES],
    /// The lane that is served next.
    turn: usize,
    /// When a permit was last acquired or released.
    changed_at: Instant,
}

/// The right to one count in the store. Dropping it releases the permit.
#[derive(Debug)]
pub(super) struct Permit(Option<Arc<Permits>>);

impl Permits {
    pub(super) fn new(number: usize) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                free: number.max(1),
                waiting: Default::default(),
                turn: 0,
                changed_at: Instant::now(),
            }),
        })
    }

    /// Acquires a permit if one is free.
    pub(super) fn try_acquire(self: &Arc<Self>) -> Option<Permit> {
        let mut state = self.state.lock();
        state.free = state.free.checked_sub(1)?;
        state.changed_at = Instant::now();
        Some(Permit(Some(Arc::clone(self))))
    }

    /// Acquires a permit, after waiting in `lane` for this caller's turn. Fails if the lane is full.
    pub(super) async fn acquire(self: &Arc<Self>, lane: Lane) -> Result<Permit, StoreError> {
        if let Some(permit) = self.try_acquire() {
            return Ok(permit);
        }
        let turn = {
            let mut state = self.state.lock();
            let waiting = &mut state.waiting[lane as usize];
            if waiting.len() >= MAX_WAITING {
                waiting.retain(|waiter| !waiter.is_closed());
            }
            if waiting.len() >= MAX_WAITING {
                return Err(StoreError::Busy(format!(
                    "{MAX_WAITING} counts are waiting"
                )));
            }
            let (waiter, turn) = oneshot::channel();
            waiting.push_back(waiter);
            turn
        };
        // A permit may have been released before this caller joined the queue.
        if let Some(permit) = self.try_acquire() {
            return Ok(permit);
        }
        let ended = |_| StoreError::Busy("the queue of counts has ended".to_owned());
        turn.await.map_err(ended)
    }

    /// Whether all permits are in use, and none was acquired or released for `time`.
    pub(super) fn are_stuck_for(&self, time: Duration) -> bool {
        let state = self.state.lock();
        state.free == 0 && state.changed_at.elapsed() >= time
    }

    /// Passes a released permit to the next waiter, or adds it to the free ones.
    fn release(self: &Arc<Self>) {
        let mut state = self.state.lock();
        state.changed_at = Instant::now();
        for _ in 0..LANES {
            let lane = state.turn;
            state.turn = (lane + 1) % LANES;
            while let Some(waiter) = state.waiting[lane].pop_front() {
                match waiter.send(Permit(Some(Arc::clone(self)))) {
                    Ok(()) => return,
                    // The waiter was cancelled. The permit goes to the next one.
                    Err(mut permit) => permit.0 = None,
                }
            }
        }
        state.free += 1;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(permits) = self.0.take() {
            permits.release();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn lanes_are_served_in_turn_and_in_order() {
        let permits = Permits::new(1);
        let mut held = permits.try_acquire();
        assert!(permits.try_acquire().is_none());
        let lanes = [
            (Lane::Other, "o1"),
            (Lane::Other, "o2"),
            (Lane::Other, "o3"),
            (Lane::Refresh, "r1"),
            (Lane::Refresh, "r2"),
            (Lane::Usual, "u1"),
        ];
        let mut waiting: Vec<_> = lanes
            .iter()
            .map(|(lane, name)| (*name, Box::pin(permits.acquire(*lane))))
            .collect();
        for (_, turn) in &mut waiting {
            assert!(turn.now_or_never().is_none(), "the permit is in use");
        }
        let mut served = Vec::new();
        while !waiting.is_empty() {
            drop(held.take());
            let (index, permit) = waiting
                .iter_mut()
                .enumerate()
                .find_map(|(index, (_, turn))| Some((index, turn.now_or_never()?)))
                .unwrap();
            held = Some(permit.unwrap());
            served.push(waiting.remove(index).0);
        }
        assert_eq!(served, ["r1", "u1", "o1", "r2", "o2", "o3"]);
        drop(held);
        assert!(permits.try_acquire().is_some(), "no permit is lost");
    }

    #[tokio::test]
    async fn a_place_is_not_lost_on_who_left_the_line() {
        let permits = Permits::new(1);
        let held = permits.try_acquire().unwrap();
        let mut left = Box::pin(permits.acquire(Lane::Usual));
        let mut served = Box::pin(permits.acquire(Lane::Usual));
        assert!((&mut left).now_or_never().is_none());
        assert!((&mut served).now_or_never().is_none());
        drop(left);
        drop(held);
        let permit = served.now_or_never().unwrap().unwrap();
        // The next waiter is cancelled after it was sent the permit and before it received it.
        let mut late = Box::pin(permits.acquire(Lane::Usual));
        assert!((&mut late).now_or_never().is_none());
        drop(permit);
        drop(late);
        assert!(permits.try_acquire().is_some());
    }

    #[tokio::test]
    async fn a_full_lane_refuses_and_the_others_do_not() {
        let permits = Permits::new(1);
        let _held = permits.try_acquire().unwrap();
        let mut waiting: Vec<_> = (0..MAX_WAITING)
            .map(|_| Box::pin(permits.acquire(Lane::Other)))
            .collect();
        for turn in &mut waiting {
            assert!(turn.now_or_never().is_none());
        }
        let refused = permits.acquire(Lane::Other).now_or_never();
        assert!(matches!(refused, Some(Err(StoreError::Busy(_)))));
        assert!(permits.acquire(Lane::Usual).now_or_never().is_none());
        waiting.pop();
        assert!(
            permits.acquire(Lane::Other).now_or_never().is_none(),
            "the lane has capacity again"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn places_that_nobody_gives_back_are_stuck() {
        let (permits, second) = (Permits::new(2), Duration::from_secs(1));
        let one = permits.try_acquire().unwrap();
        tokio::time::advance(second * 2).await;
        assert!(!permits.are_stuck_for(second), "one is free");
        let _other = permits.try_acquire().unwrap();
        assert!(!permits.are_stuck_for(second), "it was acquired just now");
        tokio::time::advance(second * 2).await;
        assert!(permits.are_stuck_for(second));
        drop(one);
        assert!(!permits.are_stuck_for(second));
    }
}
