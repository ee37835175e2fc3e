//! Losses that this process noticed.

use std::collections::HashMap;

use jiff::SignedDuration;

use domain::coverage::{Loss, LossReason};

/// A loss is part of the previous one if it is noted within this time after it. It bounds what the store keeps of an outage.
const JOINED: SignedDuration = SignedDuration::from_hours(1);

/// The losses of this process: those that the store may lack, and for each reason the newest one, which may grow.
#[derive(Debug, Default)]
pub(super) struct OwnLosses {
    growing: HashMap<LossReason, Own>,
    /// Complete ones that are not written yet.
    complete: Vec<Loss>,
}

#[derive(Debug)]
struct Own {
    loss: Loss,
    is_written: bool,
}

impl OwnLosses {
    pub(super) fn add(&mut self, loss: Loss) {
        let joined = match self.growing.remove(&loss.reason) {
            None => loss,
            Some(own) if loss.noted.duration_since(own.loss.noted) <= JOINED => own.loss.and(&loss),
            Some(own) => {
                self.keep(own);
                loss
            }
        };
        let own = Own {
            loss: joined,
            is_written: false,
        };
        self.growing.insert(loss.reason, own);
    }

    fn keep(&mut self, own: Own) {
        if !own.is_written {
            self.complete.push(own.loss);
        }
    }

    /// A statement includes all losses so far, so that none of them grows any more.
    pub(super) fn close(&mut self) {
        let growing = std::mem::take(&mut self.growing);
        for own in growing.into_values() {
            self.keep(own);
        }
    }

    pub(super) fn all(&self) -> impl Iterator<Item = Loss> {
        let growing = self.growing.values().map(|own| own.loss);
        growing.chain(self.complete.iter().copied())
    }

    /// Those that the store lacks.
    pub(super) fn unwritten(&self) -> Vec<Loss> {
        let growing = self.growing.values().filter(|own| !own.is_written);
        let growing = growing.map(|own| own.loss);
        growing.chain(self.complete.iter().copied()).collect()
    }

    /// The store has `loss`. If it has grown since, it must be written again.
    pub(super) fn written(&mut self, loss: &Loss) {
        self.complete.retain(|kept| kept != loss);
        if let Some(own) = self.growing.get_mut(&loss.reason)
            && own.loss == *loss
        {
            own.is_written = true;
        }
    }
}
