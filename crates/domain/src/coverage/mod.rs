//! Since when a store has every pair: what was stated, and what was lost.

mod answer;
mod properties;
#[cfg(test)]
mod tests;

use jiff::Timestamp;

pub use self::answer::Covered;
pub use self::properties::{InvalidCoverage, PREFIX, began, is_running};
use super::Window;

/// The largest number of losses that a store keeps. Beyond it the oldest become one.
pub const MAX_LOSSES: usize = 100;

/// The history of what a store covers. It is kept as properties of the store, so all instances share it.
///
/// It is a history, because a count is judged by the statements and losses that were known when it was made: a trend point
/// does not include pairs that were loaded later.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Coverage {
    /// When a process first began to record pairs in the store. Without a statement nothing is known of the time before.
    pub began: Option<Timestamp>,
    /// The statements of operators, oldest first.
    pub statements: Vec<Statement>,
    /// Intervals whose pairs may be missing, in any order.
    pub losses: Vec<Loss>,
    /// The last heartbeat of a process that records pairs.
    pub running: Option<Timestamp>,
}

/// The statement of an operator that the store has every pair that was seen since an instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Statement {
    /// When it was made.
    pub at: Timestamp,
    /// The instant.
    pub since: Timestamp,
}

/// Pairs that are missing, or may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loss {
    /// Identifies it in the store.
    pub id: u64,
    /// The instant of the first pair.
    pub from: Timestamp,
    /// The end: no pair from this instant on is missing.
    pub until: Timestamp,
    /// When it was last noted. A later statement includes it.
    pub noted: Timestamp,
    /// The number of pairs, if it is known. A pair that was sent again counts again.
    pub pairs: Option<u64>,
    /// Why they are missing.
    pub reason: LossReason,
}

/// Why pairs are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LossReason {
    /// The store refused them for good.
    Refused,
    /// Neither the store nor the spool could take them, and the client had to send them again.
    Unavailable,
    /// No process that records pairs was running.
    NotRunning,
}

impl LossReason {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Refused, Self::Unavailable, Self::NotRunning];

    /// Its name, for programs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Unavailable => "unavailable",
            Self::NotRunning => "not_running",
        }
    }
}

impl Coverage {
    /// Since when the store had every pair, for a count as of `as_of`; `None` if nothing is known.
    pub fn since(&self, as_of: Timestamp) -> Option<Timestamp> {
        let stated = self.statement(as_of);
        let since = stated.map(|stated| stated.since).or(self.began)?;
        let lost = self
            .losses_as_of(as_of)
            .map(|loss| loss.until)
            .max()
            .unwrap_or(since);
        Some(since.max(lost))
    }

    /// Since when the store has every pair, and whether a count over `window` as of `as_of` is complete.
    pub fn of(&self, window: Window, as_of: Timestamp) -> Covered {
        let since = self.since(as_of);
        Covered {
            since,
            complete: since.is_some_and(|since| since <= window.start_as_of(as_of)),
        }
    }

    /// The losses before `as_of` that no statement includes.
    pub fn losses_as_of(&self, as_of: Timestamp) -> impl Iterator<Item = &Loss> {
        let stated = self.statement(as_of);
        self.losses.iter().filter(move |loss| {
            loss.from <= as_of && stated.is_none_or(|stated| stated.at < loss.noted)
        })
    }

    /// The statement that held at `as_of`.
    pub fn statement(&self, as_of: Timestamp) -> Option<Statement> {
        let mut before = self.statements.iter().rev();
        before.find(|statement| statement.at <= as_of).copied()
    }

    /// Adds a loss, or replaces the one with its id.
    pub fn add(&mut self, loss: Loss) {
        self.losses.retain(|known| known.id != loss.id);
        self.losses.push(loss);
    }
}

impl Loss {
    /// This and a later loss as one, under the id of this one.
    pub fn and(self, other: &Self) -> Self {
        Self {
            id: self.id,
            from: self.from.min(other.from),
            until: self.until.max(other.until),
            noted: self.noted.max(other.noted),
            pairs: match (self.pairs, other.pairs) {
                (Some(ours), Some(theirs)) => Some(ours.saturating_add(theirs)),
                _ => None,
            },
            reason: self.reason,
        }
    }
}
