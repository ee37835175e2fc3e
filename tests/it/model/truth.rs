//! The model: every pair that was ever sent, and what is known of it. It does not know how headcount works.

use std::ops::RangeInclusive;

use domain::Timestamp;
use jiff::SignedDuration;
use tokio::time::Instant;

use super::clock::Moment;
use super::identities::{Identities, Merge};
use super::users::Users;

/// One pair of one request.
#[derive(Debug, Clone)]
pub struct Sent {
    pub request: usize,
    /// The user that was sent.
    pub user: usize,
    /// The user as whom it was recorded, if that is known.
    pub recorded_as: Option<usize>,
    /// The user as whom it counts.
    pub counts_as: usize,
    /// Other users as whom a count may have it that was made before the moment.
    pub also: Vec<(usize, Moment)>,
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
    /// It stays unknown as whom it counts.
    pub is_unknown: bool,
    /// Merges of its user overlapped, so it may be missing until the users are merged again.
    pub may_be_missing: bool,
    /// What live counts may do differently.
    pub live: LiveDoubt,
}

/// Where live counts may differ from those of the store.
#[derive(Debug, Clone, Copy, Default)]
pub struct LiveDoubt {
    pub lacks: Lacks,
    /// It may be counted although its user was erased.
    pub may_stay: bool,
    /// It may count as a user who was merged since.
    pub may_be_former: bool,
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
    /// Users whom live counts have dropped because of a merge, until then.
    moved: Vec<(usize, Timestamp)>,
    pub identities: Identities,
    /// When merges last overlapped.
    pub overlapped: Option<Instant>,
}

/// A merge in flight.
#[derive(Debug)]
pub struct Merging {
    merge: Merge,
    begun: Timestamp,
    /// The pairs that were in the store before, as nobody but one known user.
    settled: Vec<usize>,
    is_behind: bool,
    is_repeated: bool,
}

/// An instance takes an erasure that is less than this earlier than a merge for a later one.
const CLOCK_DIFFERENCE: SignedDuration = SignedDuration::from_millis(510);
/// Later than every count.
const ALWAYS: Moment = Moment::MAX;

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

impl Erasing {
    pub fn is_of(&self, user: usize) -> bool {
        self.user == user
    }
}

impl Sent {
    /// The users as whom a count that was made after `since` may have it.
    pub fn users(&self, since: Moment, is_live: bool) -> Users {
        let is_former = is_live && self.live.may_be_former;
        let also = self.also.iter();
        let also = also.filter(|(_, until)| *until > since || is_former);
        let also: Users = also.map(|(user, _)| Users::one(*user)).collect();
        also.and(Users::one(self.counts_as))
    }

    /// The users as whom it may count from now on.
    fn may_be(&self) -> Users {
        self.users(ALWAYS - 1, false)
    }

    fn is_certain(&self) -> bool {
        self.may_be().len() == 1
    }

    /// It may count as any of these.
    fn doubt(&mut self, users: Users) {
        self.also.retain(|(_, until)| *until != ALWAYS);
        let others = users.and(self.may_be()).without(Users::one(self.counts_as));
        self.also.extend(others.iter().map(|user| (user, ALWAYS)));
    }

    /// From now on it counts as `user`.
    fn becomes(&mut self, user: usize, now: Moment) {
        for (_, until) in &mut self.also {
            *until = now.min(*until);
        }
        if self.counts_as != user {
            self.also.push((self.counts_as, now));
            self.counts_as = user;
        }
    }

    fn is_in_store(&self) -> bool {
        matches!(self.became, Became::Stored(_) | Became::Uncounted(_))
    }

    /// Whether it was acknowledged by `by` and nothing may have undone that.
    pub fn is_sure(&self, by: Moment, is_live: bool) -> bool {
        let at = match self.became {
            Became::Stored(at) => at,
            Became::Uncounted(at) if !is_live => at,
            _ => return false,
        };
        // What a second move of a merge appends may be owed.
        let may_be_lacking = is_live && (self.live.lacks != Lacks::No || !self.is_certain());
        let is_in_doubt = self.is_in_doubt || self.may_be_missing;
        at <= by && !is_in_doubt && !may_be_lacking
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

    /// For each pair that a count that began after `by` must include, the users as whom it may count.
    pub fn sure(
        &self,
        segment: usize,
        slots: RangeInclusive<u64>,
        by: Moment,
        is_live: bool,
    ) -> Vec<Users> {
        let pairs = self.of(segment, slots);
        pairs
            .filter(|pair| pair.is_sure(by, is_live))
            .map(|pair| pair.users(by, is_live))
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
        possible.map(|pair| pair.users(since, is_live)).collect()
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
            // An instance that holds a pair leaves it out if any id of its user was erased.
            let had_id = self.identities.connected(pair.user).has(user) && !pair.is_in_store();
            pair.is_in_doubt |= pair.may_be().has(user) || had_id;
        }
        let settled = self.pairs.iter().enumerate();
        let settled = settled.filter(|(_, pair)| {
            pair.became != Became::UnderWay && pair.may_be() == Users::one(user)
        });
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
            if pair.may_be() == Users::one(user) && is_reached {
                pair.erased.get_or_insert(now);
                // A live process compares the instants.
                pair.live.may_stay |= erasing.is_behind;
            }
        }
    }

    /// Adds a pair in flight, received at `now` by the clock of its instance.
    pub fn send(&mut self, mut pair: Sent, now: Timestamp, has_read: bool) {
        if !has_read || self.identities.running_of(pair.user) > 0 {
            self.identities.receive_unaware(pair.user);
        }
        let identities = &self.identities;
        let connected = identities.connected(pair.user);
        pair.counts_as = identities.current(pair.user);
        let is_known = has_read && identities.is_sure(pair.user, now);
        pair.recorded_as = is_known.then_some(pair.counts_as);
        if !is_known {
            pair.doubt(connected);
        }
        pair.may_be_missing = identities.running_of(pair.user) > 1;
        let is_doubtful = |erased: &Erased| {
            // An instance whose clock is behind may treat it as older than an erasure that it has not read yet.
            let is_behind = erased.by != pair.at && erased.until >= now;
            connected.has(erased.user) && (is_behind || self.waits_elsewhere(erased))
        };
        let is_behind = |(user, until): &(usize, Timestamp)| connected.has(*user) && *until >= now;
        let mut dropped = self.ever_erased.iter().chain(&self.moved);
        if dropped.any(is_behind) {
            // A live process treats it as older than the erasure.
            pair.live.lacks = Lacks::Always;
        }
        let is_erasing = self.erasing.iter().any(|user| connected.has(*user));
        pair.is_in_doubt = is_erasing || self.erased.iter().any(is_doubtful);
        self.pairs.push(pair);
    }

    /// Whether another instance may still deliver pairs of the user from before the erasure. It then erases the user
    /// again.
    fn waits_elsewhere(&self, erased: &Erased) -> bool {
        let connected = self.identities.connected(erased.user);
        self.pairs.iter().any(|it| {
            let is_before = connected.has(it.user) && it.sent <= erased.at;
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
            let is_of = pair.at == at || self.identities.were_merged_by(at, pair.user);
            if is_of && pair.live.lacks != Lacks::Always {
                pair.live.lacks = lacks;
            }
            pair.live.may_stay |= pair.erased.is_some();
            pair.live.may_be_former |= !pair.also.is_empty();
        }
    }

    /// An instance ends that had owed entries only in memory.
    pub fn lose_owed(&mut self, at: usize) {
        for pair in &mut self.pairs {
            let is_owed = pair.at == at && matches!(pair.became, Became::Uncounted(_));
            let was_moved = self.identities.were_merged_by(at, pair.user);
            if is_owed || (was_moved && pair.live.lacks == Lacks::ForNow) {
                pair.live.lacks = Lacks::Always;
            }
        }
    }

    /// An instance starts again with a clock that was set back. It delivers spooled pairs as if they came before erasures.
    pub fn doubt_spooled(&mut self, at: usize) {
        for pair in &mut self.pairs {
            let connected = self.identities.connected(pair.user);
            let mut erased = self.ever_erased.iter().chain(&self.moved);
            let was_erased = erased.any(|(user, _)| connected.has(*user));
            if pair.at == at && pair.became == Became::Spooled && was_erased {
                pair.live.lacks = Lacks::Always;
            }
        }
    }

    /// Live counts may have users who were erased until now.
    pub fn doubt_erasures(&mut self) {
        for pair in &mut self.pairs {
            pair.live.may_stay |= pair.erased.is_some();
            pair.live.may_be_former |= !pair.also.is_empty();
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

    /// A merge begins, on an instance that has read the notes of all related merges or not.
    pub fn begin_to_merge(
        &mut self,
        merge: Merge,
        has_read: bool,
        is_behind: bool,
        (begun, moment): (Timestamp, Moment),
    ) -> Merging {
        // A pair that is on its way may be moved by this merge, or by the earlier one that it was sent before.
        let is_astray = |pair: &Sent| pair.counts_as != merge.from && pair.may_be().has(merge.from);
        let is_repeated = self.identities.is_repeated(merge);
        let is_astray = !is_repeated && self.pairs.iter().any(is_astray);
        let is_known = has_read && !is_behind && !is_astray;
        let users = self.identities.begin(merge, is_known, begun);
        let overlaps = self.identities.running_of(merge.from) > 1;
        if overlaps {
            self.overlapped = Some(Instant::now());
        }
        let mut settled = Vec::new();
        for (index, pair) in self.pairs.iter_mut().enumerate() {
            if !users.has(pair.user) && !users.meets(pair.may_be()) {
                continue;
            }
            let was_before = match pair.became {
                Became::Stored(at) | Became::Uncounted(at) => at <= moment,
                _ => false,
            };
            if was_before && pair.is_certain() {
                settled.push(index);
            }
            pair.doubt(users);
            pair.may_be_missing |= overlaps;
            let is_recent = |(user, until): &(usize, Timestamp)| {
                users.has(*user) && *until + CLOCK_DIFFERENCE >= begun
            };
            let is_recent = self.ever_erased.iter().any(is_recent)
                || self.erasing.iter().any(|user| users.has(*user));
            pair.is_in_doubt |= !pair.is_in_store() && is_recent;
            if is_behind {
                // A live process compares the instants.
                pair.live.lacks = Lacks::Always;
                pair.live.may_be_former = true;
            }
        }
        Merging {
            merge,
            begun,
            settled,
            is_behind,
            is_repeated,
        }
    }

    /// Ends a merge that was noted as of no later than `until`. Pairs that were on their way may count as the merged user for longer. Returns
    /// whether the merge moved everything that was there.
    pub fn end_merging(
        &mut self,
        merging: &Merging,
        succeeded: bool,
        (now, until): (Moment, Timestamp),
        feed_was_faulty: bool,
    ) -> bool {
        let merge = merging.merge;
        self.moved.push((merge.from, until));
        let ended = succeeded.then(|| (until, Instant::now()));
        let is_known = self.identities.end(merge, merging.begun, ended);
        let users = self.identities.connected(merge.from);
        for (index, pair) in self.pairs.iter_mut().enumerate() {
            if !users.has(pair.user) && !users.meets(pair.may_be()) {
                continue;
            }
            if feed_was_faulty && pair.live.lacks == Lacks::No {
                pair.live.lacks = Lacks::ForNow;
            }
            pair.live.may_be_former |= merging.is_behind;
            if !is_known {
                pair.doubt(users);
                continue;
            }
            let counts_as = match pair.counts_as == merge.from {
                true => self.identities.current(merge.from),
                false => pair.counts_as,
            };
            let before = pair.may_be();
            pair.becomes(counts_as, now);
            if merging.settled.binary_search(&index).is_err() {
                pair.doubt(before);
            }
        }
        is_known && !merging.is_repeated
    }

    /// A client has repeated merges since `begun`, and every instance has read every note and moved what was on its way. `was_alone` if
    /// no instance has ended since merges overlapped.
    pub fn all_merged(&mut self, begun: Timestamp, now: (Moment, Timestamp), was_alone: bool) {
        let (moment, until) = now;
        let expire: Users = (0..super::steps::USERS.len())
            .filter(|user| self.identities.may_expire(*user, begun))
            .map(Users::one)
            .collect();
        let settled = self.identities.repeated(begun, until);
        for pair in &mut self.pairs {
            let may_be = pair.may_be();
            let is_settled =
                |(users, _): &&(Users, usize)| may_be.without(*users) == Users::default();
            if let Some((_, target)) = settled.iter().find(is_settled) {
                pair.becomes(*target, moment);
                pair.is_unknown = false;
                continue;
            }
            // An instance that had forgotten the merge may have recorded it, and does not move it.
            let is_partly = settled.iter().any(|(users, _)| users.meets(may_be));
            pair.is_unknown |= !pair.is_certain() && (expire.meets(may_be) || is_partly);
            if !pair.is_unknown {
                pair.becomes(pair.counts_as, moment);
            }
        }
        for pair in &mut self.pairs {
            if std::mem::take(&mut pair.may_be_missing) {
                pair.is_in_doubt |= !was_alone;
                if pair.is_in_store() {
                    // Earlier counts may lack it.
                    pair.became = Became::Stored(moment);
                }
            }
        }
    }
}
