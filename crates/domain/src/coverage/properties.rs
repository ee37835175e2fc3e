//! Coverage as properties of a store: one property for each fact, so that instances do not overwrite each other's.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{Coverage, Loss, LossReason, MAX_LOSSES, Statement};

/// The beginning of the names of these properties.
pub const PREFIX: &str = "coverage/";
const BEGAN: &str = "coverage/began";
const RUNNING: &str = "coverage/running";
/// Followed by when it was made, in unix microseconds.
const STATED: &str = "coverage/stated/";
/// Followed by its id.
const LOST: &str = "coverage/lost/";

/// A property that this version does not understand.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the property {name:?} has the value {value:?}, which this version does not understand")]
pub struct InvalidCoverage {
    name: String,
    value: String,
}

/// The name and the value of a property.
type Property = (String, String);

/// The property that says when a process first began to record pairs.
pub fn began(at: Timestamp) -> Property {
    (BEGAN.to_owned(), at.to_string())
}

/// The property that says when a process that records pairs was last running.
pub fn is_running(at: Timestamp) -> Property {
    (RUNNING.to_owned(), at.to_string())
}

impl Coverage {
    /// Reads the properties under [`PREFIX`].
    ///
    /// # Errors
    ///
    /// One of them has an unknown name or value. Ignoring it could report counts as complete that are not.
    pub fn from_properties(properties: &BTreeMap<String, String>) -> Result<Self, InvalidCoverage> {
        let mut coverage = Self::default();
        for (name, value) in properties {
            let read = coverage.read(name, value);
            read.ok_or_else(|| InvalidCoverage {
                name: name.clone(),
                value: value.clone(),
            })?;
        }
        coverage.statements.sort_unstable_by_key(|stated| stated.at);
        Ok(coverage)
    }

    fn read(&mut self, name: &str, value: &str) -> Option<()> {
        if name == BEGAN {
            self.began = Some(value.parse().ok()?);
        } else if name == RUNNING {
            self.running = Some(value.parse().ok()?);
        } else if let Some(at) = name.strip_prefix(STATED) {
            self.statements.push(Statement {
                at: Timestamp::from_microsecond(at.parse().ok()?).ok()?,
                since: value.parse().ok()?,
            });
        } else {
            let id = u64::from_str_radix(name.strip_prefix(LOST)?, 16).ok()?;
            self.losses.push(Loss::parse(id, value)?);
        }
        Some(())
    }

    /// The changes that keep the history short: a property to set, and then properties to remove. Statements that no count
    /// as of `oldest` or later needs are removed. Losses that were noted before, or that are too many, are merged into one.
    /// No count becomes complete by this.
    pub fn shortened(&self, oldest: Timestamp) -> (Option<Property>, Vec<String>) {
        let needed = self.statement(oldest).map(|stated| stated.at);
        let statements = self.statements.iter();
        let outdated = statements.filter(|stated| needed > Some(stated.at));
        let mut removed: Vec<String> = outdated.map(|stated| stated.property().0).collect();
        let mut losses = self.losses.clone();
        losses.sort_unstable_by_key(|loss| loss.noted);
        let outdated = losses.partition_point(|loss| loss.noted < oldest);
        let surplus = match losses.len() > MAX_LOSSES {
            true => losses.len() - MAX_LOSSES + 1,
            false => 0,
        };
        let Some((first, others)) = losses[..outdated.max(surplus)].split_first() else {
            return (None, removed);
        };
        if others.is_empty() {
            return (None, removed);
        }
        removed.extend(others.iter().map(|loss| loss.property().0));
        let merged = others.iter().fold(*first, Loss::and);
        (Some(merged.property()), removed)
    }
}

impl Statement {
    /// The statement as a property.
    pub fn property(&self) -> Property {
        let name = format!("{STATED}{:020}", self.at.as_microsecond());
        (name, self.since.to_string())
    }
}

impl Loss {
    /// The loss as a property.
    pub fn property(&self) -> Property {
        let Self {
            id,
            from,
            until,
            noted,
            pairs,
            reason,
        } = self;
        let pairs = pairs.map_or("-".to_owned(), |pairs| pairs.to_string());
        let value = format!("{from} {until} {noted} {pairs} {}", reason.as_str());
        (format!("{LOST}{id:016x}"), value)
    }

    fn parse(id: u64, value: &str) -> Option<Self> {
        let mut words = value.split(' ');
        let mut instant = || words.next()?.parse::<Timestamp>().ok();
        let (from, until, noted) = (instant()?, instant()?, instant()?);
        let pairs = match words.next()? {
            "-" => None,
            number => Some(number.parse().ok()?),
        };
        let reason = words.next()?;
        let reason = LossReason::ALL
            .into_iter()
            .find(|known| known.as_str() == reason)?;
        Some(Self {
            id,
            from,
            until,
            noted,
            pairs,
            reason,
        })
    }
}
