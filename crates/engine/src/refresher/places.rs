//! The one bound on counts that the store makes at once in this process, and whose turn is next.
//!
//! Without it, 500 readers of missing counts would be 500 queries, each slower for all the others. Callers wait in
//! lanes that are served in turn, so that readers can't hold up a refresh, a refresh can't hold up readers, and those
//! who ask for made-up names can't hold up either.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;

use domain::store::StoreError;

/// Counts that wait in a lane. More would be answered too late for anybody.
const MAX_WAITING: usize = 10_000;

/// Who asks for a count. The earlier one is served sooner when two ask for the same count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lane {
    /// A refresh.
    Refresh,
    /// A reader of a known segment over a window that is refreshed.
    Usual,
    /// A reader of anything else: names and windows of this kind are without number.
    Other,
}

const LANES: usize = 3;

/// The places, as many as counts may run at once.
#[derive(Debug)]
pub(super) struct Places {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Not zero only while nobody waits.
    free: usize,
    waiting: [VecDeque<oneshot::Sender<Place>>; LANES],
    /// The lane that is served next.
    turn: usize,
    /// When a place was last taken or given back.
    moved: Instant,
}

/// The right to one count in the store, given back on drop.
#[derive(Debug)]
pub(super) struct Place(Option<Arc<Places>>);

impl Places {
    pub(super) fn new(number: usize) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                free: number.max(1),
                waiting: Default::default(),
                turn: 0,
                moved: Instant::now(),
            }),
        })
    }

    /// A place that is free now.
    pub(super) fn take_now(self: &Arc<Self>) -> Option<Place> {
        let mut state = self.state.lock();
        state.free = state.free.checked_sub(1)?;
        state.moved = Instant::now();
        Some(Place(Some(Arc::clone(self))))
    }

    /// A place, once it is this caller's turn in its lane.
    pub(super) async fn take(self: &Arc<Self>, lane: Lane) -> Result<Place, StoreError> {
        if let Some(place) = self.take_now() {
            return Ok(place);
        }
        let turn = {
            let mut state = self.state.lock();
            let waiting = &mut state.waiting[lane as usize];
            if waiting.len() >= MAX_WAITING {
                waiting.retain(|waiter| !waiter.is_closed());
            }
            if waiting.len() >= MAX_WAITING {
                return Err(StoreError::Busy(format!("{MAX_WAITING} counts wait")));
            }
            let (waiter, turn) = oneshot::channel();
            waiting.push_back(waiter);
            turn
        };
        // One may have been given back before this caller stood in line.
        if let Some(place) = self.take_now() {
            return Ok(place);
        }
        let ended = |_| StoreError::Busy("the line has ended".to_owned());
        turn.await.map_err(ended)
    }

    /// Whether every place has been taken for `time` without any being given back.
    pub(super) fn are_stuck_for(&self, time: Duration) -> bool {
        let state = self.state.lock();
        state.free == 0 && state.moved.elapsed() >= time
    }

    /// Gives a place to whoever is next.
    fn pass_on(self: &Arc<Self>) {
        let mut state = self.state.lock();
        state.moved = Instant::now();
        for _ in 0..LANES {
            let lane = state.turn;
            state.turn = (lane + 1) % LANES;
            while let Some(waiter) = state.waiting[lane].pop_front() {
                match waiter.send(Place(Some(Arc::clone(self)))) {
                    Ok(()) => return,
                    // Whoever waited has left. The place goes on to the next.
                    Err(mut place) => place.0 = None,
                }
            }
        }
        state.free += 1;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(places) = self.0.take() {
            places.pass_on();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn lanes_are_served_in_turn_and_in_order() {
        let places = Places::new(1);
        let mut held = places.take_now();
        assert!(places.take_now().is_none());
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
            .map(|(lane, name)| (*name, Box::pin(places.take(*lane))))
            .collect();
        for (_, turn) in &mut waiting {
            assert!(turn.now_or_never().is_none(), "the place is taken");
        }
        let mut served = Vec::new();
        while !waiting.is_empty() {
            drop(held.take());
            let (index, place) = waiting
                .iter_mut()
                .enumerate()
                .find_map(|(index, (_, turn))| Some((index, turn.now_or_never()?)))
                .unwrap();
            held = Some(place.unwrap());
            served.push(waiting.remove(index).0);
        }
        assert_eq!(served, ["r1", "u1", "o1", "r2", "o2", "o3"]);
        drop(held);
        assert!(places.take_now().is_some(), "no place is lost");
    }

    #[tokio::test]
    async fn a_place_is_not_lost_on_who_left_the_line() {
        let places = Places::new(1);
        let held = places.take_now().unwrap();
        let mut left = Box::pin(places.take(Lane::Usual));
        let mut served = Box::pin(places.take(Lane::Usual));
        assert!((&mut left).now_or_never().is_none());
        assert!((&mut served).now_or_never().is_none());
        drop(left);
        drop(held);
        let place = served.now_or_never().unwrap().unwrap();
        // The next one leaves after the place was given to it, and before it looked.
        let mut late = Box::pin(places.take(Lane::Usual));
        assert!((&mut late).now_or_never().is_none());
        drop(place);
        drop(late);
        assert!(places.take_now().is_some());
    }

    #[tokio::test]
    async fn a_full_lane_refuses_and_the_others_do_not() {
        let places = Places::new(1);
        let _held = places.take_now().unwrap();
        let mut waiting: Vec<_> = (0..MAX_WAITING)
            .map(|_| Box::pin(places.take(Lane::Other)))
            .collect();
        for turn in &mut waiting {
            assert!(turn.now_or_never().is_none());
        }
        let refused = places.take(Lane::Other).now_or_never();
        assert!(matches!(refused, Some(Err(StoreError::Busy(_)))));
        assert!(places.take(Lane::Usual).now_or_never().is_none());
        waiting.pop();
        assert!(
            places.take(Lane::Other).now_or_never().is_none(),
            "room again"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn places_that_nobody_gives_back_are_stuck() {
        let (places, second) = (Places::new(2), Duration::from_secs(1));
        let one = places.take_now().unwrap();
        tokio::time::advance(second * 2).await;
        assert!(!places.are_stuck_for(second), "one is free");
        let _other = places.take_now().unwrap();
        assert!(!places.are_stuck_for(second), "it was taken just now");
        tokio::time::advance(second * 2).await;
        assert!(places.are_stuck_for(second));
        drop(one);
        assert!(!places.are_stuck_for(second));
    }
}
