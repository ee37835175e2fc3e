//! The wire between an instance and the store or the cache: connections that fail, stall, and lose responses.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::steps::{Call, Fate, Mode};

/// Held calls of all wires, in the order of their arrival.
pub type Held = Arc<Mutex<VecDeque<HeldCall>>>;

#[derive(Debug)]
pub struct HeldCall {
    wire: Arc<Wire>,
    sender: oneshot::Sender<()>,
}

impl HeldCall {
    pub fn release(self) {
        self.wire.note_fault();
        // The waiting caller may have given up.
        let _ = self.sender.send(());
    }

    pub fn is_of(&self, wire: &Arc<Wire>) -> bool {
        Arc::ptr_eq(&self.wire, wire)
    }

    /// Whether the caller has given up. The wire was faulty until now.
    pub fn is_given_up(&self) -> bool {
        let is_given_up = self.sender.is_closed();
        if is_given_up {
            self.wire.note_fault();
        }
        is_given_up
    }
}

/// One instance's connection.
#[derive(Debug)]
pub struct Wire {
    state: Mutex<State>,
    held: Held,
}

#[derive(Debug)]
struct State {
    mode: Mode,
    is_dead: bool,
    next: Vec<(Call, Fate)>,
    last_fault: Option<Instant>,
}

/// A call waits for this.
pub type Waiting = oneshot::Receiver<()>;

/// The decided fate of a call.
pub enum Course {
    Passes,
    Fails(Fate),
    WaitsBefore(Waiting),
    WaitsAfter(Waiting),
    /// Its instance no longer exists.
    Never,
}

impl Wire {
    pub fn new(held: &Held) -> Arc<Self> {
        let state = State {
            mode: Mode::Up,
            is_dead: false,
            next: Vec::new(),
            last_fault: None,
        };
        Arc::new(Self {
            state: Mutex::new(state),
            held: Arc::clone(held),
        })
    }

    pub fn course(self: &Arc<Self>, call: Call) -> Course {
        let mut state = self.state.lock();
        if state.is_dead {
            return Course::Never;
        }
        let planned = state.next.iter().position(|(of, _)| *of == call);
        let fate = match (state.mode, planned) {
            (Mode::Up, None) => return Course::Passes,
            (Mode::Up, Some(index)) => state.next.remove(index).1,
            (Mode::Down, _) => Fate::Refused,
            (Mode::Stalled, _) => Fate::HeldBefore,
        };
        state.last_fault = Some(Instant::now());
        match fate {
            Fate::HeldBefore => Course::WaitsBefore(self.hold()),
            Fate::HeldAfter => Course::WaitsAfter(self.hold()),
            fate => Course::Fails(fate),
        }
    }

    fn hold(self: &Arc<Self>) -> Waiting {
        let (sender, waiting) = oneshot::channel();
        let wire = Arc::clone(self);
        self.held.lock().push_back(HeldCall { wire, sender });
        waiting
    }

    /// Waits until the call is released, or forever if the instance has ended by then.
    pub async fn wait(&self, waiting: Waiting) {
        let _ = waiting.await;
        if self.state.lock().is_dead {
            std::future::pending::<()>().await;
        }
    }

    pub fn set(&self, mode: Mode) {
        self.state.lock().mode = mode;
        if mode != Mode::Up {
            self.note_fault();
        }
    }

    pub fn plan(&self, call: Call, fate: Fate) {
        self.state.lock().next.push((call, fate));
    }

    /// Restores the connection.
    pub fn restore(&self) {
        let mut state = self.state.lock();
        state.mode = Mode::Up;
        state.next.clear();
    }

    pub fn kill(&self) {
        self.state.lock().is_dead = true;
    }

    fn note_fault(&self) {
        self.state.lock().last_fault = Some(Instant::now());
    }

    /// Whether it had any fault since `since`, or has one now.
    pub fn was_faulty(self: &Arc<Self>, since: Instant) -> bool {
        let state = self.state.lock();
        let held = self.held.lock();
        state.mode != Mode::Up
            || state.last_fault.is_some_and(|at| at >= since)
            || held.iter().any(|call| call.is_of(self))
    }
}
