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
    /// The same by the clock of its instance.
    pub received: Timestamp,
    pub became: Became,
    /// When its user had surely been erased.
    pub erased: Option<Moment>,
    /// Its user may have been erased, so it may not be counted any more.
    pub is_in_doubt: bool,
    /// What live counts may do differently.
    pub live: LiveDoubt,
}

/// Where live counts may differ from those of the store.
#[derive(Debug, Clone, Copy, Default)]
pub struct LiveDoubt {
    pub lacks: Lacks,
    /// It may be counted although its user was erased.
    pub may_stay: bool,
}

/// Whether live counts may lack a pair that is in the store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Lacks {
    #[default]
    No,
    /// Until every instance has appended what it owes.
    ForNow,
    /// Until an audit.
    Always,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Became {
    UnderWay,
    /// 200, at that moment.
    Stored(Moment),
    /// 202, but in the store at that moment.
    Uncounted(Moment),
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
    /// The same, of the whole case.
    ever_erased: Vec<(usize, Timestamp)>,
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
    /// Whether the clock of the instance is behind that of another one.
    is_behind: bool,
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
    pub fn is_sure(&self, by: Moment, is_live: bool) -> bool {
        let at = match self.became {
            Became::Stored(at) => at,
            Became::Uncounted(at) if !is_live => at,
            _ => return false,
        };
        let may_be_lacking = is_live && self.live.lacks != Lacks::No;
        at <= by && !self.is_in_doubt && !may_be_lacking
    }

    /// Whether a count that began after `since` and returned by `until` may include it.
    pub fn is_possible(&self, since: Moment, until: Moment, is_live: bool) -> bool {
        let is_erased = self.erased.is_some_and(|erased| erased <= since);
        let may_stay = is_live && self.live.may_stay;
        self.sent <= until && (!is_erased || may_stay)
    }
}

impl Truth {
    pub fn of(&self, segment: usize, slots: RangeInclusive<u64>) -> impl Iterator<Item = &Sent> {
        let within = move |pair: &&Sent| pair.segment == segment && slots.contains(&pair.slot);
        self.pairs.iter().filter(within)
    }

    /// The users that a count that began after `by` must include.
    pub fn sure(
        &self,
        segment: usize,
        slots: RangeInclusive<u64>,
        by: Moment,
        is_live: bool,
    ) -> Users {
        let pairs = self.of(segment, slots);
        pairs
            .filter(|pair| pair.is_sure(by, is_live))
            .map(|pair| pair.user)
            .collect()
    }

    /// The users that a count may include if it began after `since` and returned by `until`.
    pub fn possible(
        &self,
        segment: usize,
        slots: RangeInclusive<u64>,
        (since, until): (Moment, Moment),
        is_live: bool,
    ) -> Users {
        let pairs = self.of(segment, slots);
        let possible = pairs.filter(|pair| pair.is_possible(since, until, is_live));
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
    pub fn begin_to_erase(&mut self, user: usize, by: usize, is_behind: bool) -> Erasing {
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
            is_behind,
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
        self.ever_erased.push((user, until));
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
                // A live process compares the instants.
                pair.live.may_stay |= erasing.is_behind;
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
        let is_behind = |(user, until): &(usize, Timestamp)| *user == pair.user && *until >= now;
        if self.ever_erased.iter().any(is_behind) {
            // A live process treats it as older than the erasure.
            pair.live.lacks = Lacks::Always;
        }
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

    /// All spools are empty, and the feed has everything.
    pub fn all_delivered(&mut self, now: Moment) {
        for pair in &mut self.pairs {
            let was_lacking = pair.live.lacks == Lacks::ForNow;
            if was_lacking {
                pair.live.lacks = Lacks::No;
            }
            pair.became = match pair.became {
                Became::Spooled | Became::Uncounted(_) => Became::Stored(now),
                // Earlier counts may lack it.
                Became::Stored(_) if was_lacking => Became::Stored(now),
                same => same,
            };
        }
    }

    /// Live counts may lack what the instance appended, and its erasures.
    pub fn doubt_live(&mut self, at: usize, lacks: Lacks) {
        for pair in &mut self.pairs {
            if pair.at == at && pair.live.lacks != Lacks::Always {
                pair.live.lacks = lacks;
            }
            pair.live.may_stay |= pair.erased.is_some();
        }
    }

    /// An instance ends that had owed entries only in memory.
    pub fn lose_owed(&mut self, at: usize) {
        for pair in &mut self.pairs {
            if pair.at == at && matches!(pair.became, Became::Uncounted(_)) {
                pair.live.lacks = Lacks::Always;
            }
        }
    }

    /// An instance starts again with a clock that was set back. It delivers spooled pairs as if they came before erasures.
    pub fn doubt_spooled(&mut self, at: usize) {
        for pair in &mut self.pairs {
            let was_erased = self.ever_erased.iter().any(|(user, _)| *user == pair.user);
            if pair.at == at && pair.became == Became::Spooled && was_erased {
                pair.live.lacks = Lacks::Always;
            }
        }
    }

    /// Live counts may have users who were erased until now.
    pub fn doubt_erasures(&mut self) {
        for pair in &mut self.pairs {
            pair.live.may_stay |= pair.erased.is_some();
        }
    }

    /// The pairs that the store and the feed took.
    pub fn stored(&self) -> Vec<&Sent> {
        let stored = |pair: &&Sent| matches!(pair.became, Became::Stored(_));
        self.pairs.iter().filter(stored).collect()
    }

    /// Every instance has read every erasure.
    pub fn all_erasures_read(&mut self) {
        self.erased.clear();
    }
}
