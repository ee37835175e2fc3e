//! The model: every pair that was ever sent, and what is known of it. It does not know how headcount works.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use domain::Timestamp;

use super::clock::Moment;

/// One pair of one request.
#[derive(Debug, Clone)]
pub struct Sent {
    pub request: usize,
    pub user: usize,
    pub segment: usize,
    pub slot: u64,
    /// The instance that received it, whatever happened to its process.
    pub at: usize,
    pub sent: Moment,
    pub became: Became,
    /// When its user had surely been erased.
    pub erased: Option<Moment>,
    /// Its user may have been erased, so it may not be counted any more.
    pub is_in_doubt: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Became {
    UnderWay,
    /// 200, at that moment.
    Stored(Moment),
    /// 202.
    Spooled,
    /// An error, or no response: it may have been recorded.
    Refused,
}

#[derive(Debug, Default)]
pub struct Truth {
    pairs: Vec<Sent>,
    /// Users who are being erased.
    erasing: Vec<usize>,
    /// Users that were erased, or may have been.
    erased: Vec<Erased>,
}

/// A user that instance `by` erased, as of no later than `until`.
#[derive(Debug)]
struct Erased {
    user: usize,
    by: usize,
    at: Moment,
    until: Timestamp,
}

/// An erasure in flight.
#[derive(Debug)]
pub struct Erasing {
    user: usize,
    by: usize,
    settled: Vec<usize>,
}

/// Users by number.
pub type Users = BTreeSet<usize>;

impl Erasing {
    pub fn is_of(&self, user: usize) -> bool {
        self.user == user
    }
}

impl Sent {
    /// Whether it was acknowledged by `by` and nothing may have undone that.
    pub fn is_sure(&self, by: Moment) -> bool {
        matches!(self.became, Became::Stored(at) if at <= by) && !self.is_in_doubt
    }

    /// Whether a count that began after `since` and returned by `until` may include it.
    pub fn is_possible(&self, since: Moment, until: Moment) -> bool {
        self.sent <= until && self.erased.is_none_or(|erased| erased > since)
    }
}

impl Truth {
    pub fn of(&self, segment: usize, slots: RangeInclusive<u64>) -> impl Iterator<Item = &Sent> {
        let within = move |pair: &&Sent| pair.segment == segment && slots.contains(&pair.slot);
        self.pairs.iter().filter(within)
    }

    /// The users that a count that began after `by` must include.
    pub fn sure(&self, segment: usize, slots: RangeInclusive<u64>, by: Moment) -> Users {
        let pairs = self.of(segment, slots);
        pairs
            .filter(|pair| pair.is_sure(by))
            .map(|pair| pair.user)
            .collect()
    }

    /// The users that a count may include if it began after `since` and returned by `until`.
    pub fn possible(
        &self,
        segment: usize,
        slots: RangeInclusive<u64>,
        since: Moment,
        until: Moment,
    ) -> Users {
        let pairs = self.of(segment, slots);
        let possible = pairs.filter(|pair| pair.is_possible(since, until));
        possible.map(|pair| pair.user).collect()
    }

    pub fn settle(&mut self, request: usize, became: Became) {
        for pair in &mut self.pairs {
            if pair.request == request {
                pair.became = became;
            }
        }
    }

    /// Instance `by` begins to erase a user, so none of the user's pairs is sure. The pairs that were settled before
    /// will be removed.
    pub fn begin_to_erase(&mut self, user: usize, by: usize) -> Erasing {
        self.erasing.push(user);
        for pair in &mut self.pairs {
            pair.is_in_doubt |= pair.user == user;
        }
        let settled = self.pairs.iter().enumerate();
        let settled = settled.filter(|(_, pair)| pair.became != Became::UnderWay);
        Erasing {
            user,
            by,
            settled: settled.map(|(index, _)| index).collect(),
        }
    }

    /// Ends an erasure, which was noted as of no later than `until`. The user is erased if the instance reported
    /// success.
    pub fn end_erasing(
        &mut self,
        erasing: &Erasing,
        is_erased: bool,
        now: Moment,
        until: Timestamp,
    ) {
        let Erasing { user, by, .. } = *erasing;
        let at = now;
        self.erased.push(Erased {
            user,
            by,
            at,
            until,
        });
        let ended = self.erasing.iter().position(|user| *user == erasing.user);
        self.erasing.swap_remove(ended.unwrap());
        if !is_erased {
            return;
        }
        for index in &erasing.settled {
            let pair = &mut self.pairs[*index];
            // Pairs in another instance's spool are delivered later.
            let is_reached = pair.became != Became::Spooled || pair.at == by;
            if pair.user == erasing.user && is_reached {
                pair.erased.get_or_insert(now);
            }
        }
    }

    /// Adds a pair in flight, received at `now` by the clock of its instance.
    pub fn send(&mut self, mut pair: Sent, now: Timestamp) {
        let is_doubtful = |erased: &Erased| {
            // An instance whose clock is behind may treat it as older than an erasure that it has not read yet.
            let is_behind = erased.by != pair.at && erased.until >= now;
            erased.user == pair.user && (is_behind || self.waits_elsewhere(erased))
        };
        pair.is_in_doubt = self.erasing.contains(&pair.user) || self.erased.iter().any(is_doubtful);
        self.pairs.push(pair);
    }

    /// Whether another instance may still deliver pairs of the user from before the erasure. It then erases the user
    /// again.
    fn waits_elsewhere(&self, erased: &Erased) -> bool {
        self.pairs.iter().any(|it| {
            let is_before = it.user == erased.user && it.sent <= erased.at;
            is_before && it.at != erased.by && !matches!(it.became, Became::Stored(_))
        })
    }

    /// All spools are empty.
    pub fn all_delivered(&mut self, now: Moment) {
        for pair in &mut self.pairs {
            if pair.became == Became::Spooled {
                pair.became = Became::Stored(now);
            }
        }
    }

    /// Every instance has read every erasure.
    pub fn all_erasures_read(&mut self) {
        self.erased.clear();
    }
}
