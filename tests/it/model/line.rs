//! An instance's connection to the store or to the cache: a wire in this process, or a proxy before a real server.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::steps::{Call, Fate, Mode};
use super::wire::{HeldCall, Said, Wire};
use crate::support::proxy::Proxy;

/// How long after a connection is there again its user has found that out, and has told what it could not.
const RECOVERY: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub enum Line {
    Wire(Arc<Wire>),
    Proxied(Proxied),
}

/// A proxy, and what was done to it.
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
            Mode::Away => self.proxy.cut(),
            Mode::Stalled => self.proxy.stall(),
        }
        let mut state = self.state.lock();
        if state.0 != mode {
            *state = (mode, Some(Instant::now()));
        }
    }

    fn was_troubled(&self, since: Instant) -> bool {
        let (mode, changed) = *self.state.lock();
        mode != Mode::Up || changed.is_some_and(|at| at >= since)
    }
}

impl Line {
    pub fn set(&self, mode: Mode) {
        match self {
            Self::Wire(wire) => wire.set(mode),
            Self::Proxied(proxied) => proxied.set(mode),
        }
    }

    /// Works from here on.
    pub fn mend(&self) {
        match self {
            Self::Wire(wire) => wire.mend(),
            Self::Proxied(proxied) => proxied.set(Mode::Up),
        }
    }

    pub fn die(&self) {
        match self {
            Self::Wire(wire) => wire.die(),
            Self::Proxied(proxied) => proxied.set(Mode::Away),
        }
    }

    /// A proxy knows nothing of calls.
    pub fn plan(&self, call: Call, fate: Fate) {
        if let Self::Wire(wire) = self {
            wire.plan(call, fate);
        }
    }

    /// What is at its other end was killed.
    pub fn note_kill(&self) {
        if let Self::Proxied(proxied) = self {
            proxied.state.lock().1 = Some(Instant::now());
        }
    }

    /// What was said of notes since this was asked last. Behind a proxy only what may be so is known.
    pub fn take_said(&self) -> Vec<Said> {
        match self {
            Self::Wire(wire) => wire.take_said(),
            Self::Proxied(proxied) => {
                let since = Instant::now().checked_sub(RECOVERY);
                let all = super::steps::SEGMENTS.len();
                let names = (0..all).map(super::world::segment).collect();
                match since.is_none_or(|since| proxied.was_troubled(since)) {
                    true => vec![Said::NotNoted(names)],
                    false => vec![Said::Gap(names)],
                }
            }
        }
    }

    pub fn was_troubled(&self, since: Instant) -> bool {
        match self {
            Self::Wire(wire) => wire.was_troubled(since),
            Self::Proxied(proxied) => proxied.was_troubled(since),
        }
    }

    pub fn holds(&self, call: &HeldCall) -> bool {
        matches!(self, Self::Wire(wire) if call.is_of(wire))
    }
}
