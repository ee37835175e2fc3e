//! An instance's connection to the store or to the cache: a wire in this process, or a proxy in front of a real server.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::steps::{Call, Fate, Mode};
use super::wire::{HeldCall, Wire};
use crate::support::proxy::Proxy;

#[derive(Debug)]
pub enum Connection {
    Wire(Arc<Wire>),
    Proxied(Proxied),
}

/// A proxy, and its latest change.
#[derive(Debug)]
pub struct Proxied {
    proxy: Proxy,
    state: Mutex<(Mode, Option<Instant>)>,
}

impl Proxied {
    pub async fn to(port: u16) -> Self {
        Self {
            proxy: Proxy::to(port).await,
            state: Mutex::new((Mode::Up, None)),
        }
    }

    pub fn port(&self) -> u16 {
        self.proxy.address().port()
    }

    fn set(&self, mode: Mode) {
        match mode {
            Mode::Up => self.proxy.restore(),
            Mode::Down => self.proxy.cut(),
            Mode::Stalled => self.proxy.stall(),
        }
        let mut state = self.state.lock();
        if state.0 != mode {
            *state = (mode, Some(Instant::now()));
        }
    }

    fn was_faulty(&self, since: Instant) -> bool {
        let (mode, changed) = *self.state.lock();
        mode != Mode::Up || changed.is_some_and(|at| at >= since)
    }
}

impl Connection {
    pub fn set(&self, mode: Mode) {
        match self {
            Self::Wire(wire) => wire.set(mode),
            Self::Proxied(proxied) => proxied.set(mode),
        }
    }

    /// Restores the connection.
    pub fn restore(&self) {
        match self {
            Self::Wire(wire) => wire.restore(),
            Self::Proxied(proxied) => proxied.set(Mode::Up),
        }
    }

    pub fn kill(&self) {
        match self {
            Self::Wire(wire) => wire.kill(),
            Self::Proxied(proxied) => proxied.set(Mode::Down),
        }
    }

    /// Has no effect on a proxy, which does not know calls.
    pub fn plan(&self, call: Call, fate: Fate) {
        if let Self::Wire(wire) = self {
            wire.plan(call, fate);
        }
    }

    /// The server behind it was killed.
    pub fn note_kill(&self) {
        if let Self::Proxied(proxied) = self {
            proxied.state.lock().1 = Some(Instant::now());
        }
    }

    pub fn was_faulty(&self, since: Instant) -> bool {
        match self {
            Self::Wire(wire) => wire.was_faulty(since),
            Self::Proxied(proxied) => proxied.was_faulty(since),
        }
    }

    pub fn holds(&self, call: &HeldCall) -> bool {
        matches!(self, Self::Wire(wire) if call.is_of(wire))
    }
}
