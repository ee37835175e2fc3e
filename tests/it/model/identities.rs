//! Who counts as whom, as far as clients know: the merges, one after another.
//!
//! It is unknown, and any user whom merges connect may count as any other,
//! - while a merge is under way, and after one that failed, until it is repeated;
//! - if merges of the same users overlap, or follow each other on instances that have not read each other's notes, or whose clocks differ;
//! - if a merged user was merged into yet another one, and an instance that has not read that receives a pair: it stays with the former;
//! - once a note is as old as the window, until every instance has forgotten it.

use std::collections::BTreeMap;

use domain::Timestamp;
use jiff::SignedDuration;
use tokio::time::Instant;

use super::steps::USERS;
use super::users::Users;

/// The window, in which a merge is in force.
const WINDOW: SignedDuration = SignedDuration::from_mins(10);
/// An instance renews a merge that is repeated, unless it is younger than this.
const RENEWAL: SignedDuration = SignedDuration::from_mins(5);
/// Every instance that reads the notes has forgotten a merge after this.
const FORGOTTEN: SignedDuration = SignedDuration::from_mins(22);

#[derive(Debug, Clone, Copy)]
pub struct Merge {
    pub from: usize,
    pub into: usize,
    /// The instance.
    pub by: usize,
}

/// A merge that succeeded.
#[derive(Debug, Clone, Copy)]
pub struct Done {
    pub merge: Merge,
    pub at: Instant,
    /// Whether its instance ended before it had moved pairs that were on their way.
    pub is_left: bool,
}

/// The user that a user became.
#[derive(Debug, Clone, Copy)]
struct Became {
    into: usize,
    /// The note is not older than this, and not younger than `until`.
    since: Timestamp,
    until: Timestamp,
}

#[derive(Debug)]
pub struct Identities {
    became: BTreeMap<usize, Became>,
    /// For each user, those whom merges connect with the user.
    connected: [Users; USERS.len()],
    unsure: Users,
    /// Users connected with one who was merged into another one, and then into a third one, since the last quiet period.
    redirected: Users,
    running: Vec<Merge>,
    /// Since the last quiet period.
    done: Vec<Done>,
    /// Every merge that began.
    begun: Vec<Merge>,
}

impl Default for Identities {
    fn default() -> Self {
        Self {
            became: BTreeMap::new(),
            connected: std::array::from_fn(Users::one),
            unsure: Users::default(),
            redirected: Users::default(),
            running: Vec::new(),
            done: Vec::new(),
            begun: Vec::new(),
        }
    }
}

impl Identities {
    /// Whether any users are connected.
    pub fn has_merges(&self) -> bool {
        self.connected.iter().any(|users| users.len() > 1)
    }

    pub fn connected(&self, user: usize) -> Users {
        self.connected[user]
    }

    pub fn current(&self, user: usize) -> usize {
        let mut user = user;
        while let Some(became) = self.became.get(&user) {
            user = became.into;
        }
        user
    }

    pub fn is_sure(&self, user: usize, now: Timestamp) -> bool {
        !self.unsure.has(user) && self.running_of(user) == 0 && !self.may_expire(user, now)
    }

    /// Whether some instance may have forgotten a merge of the user.
    pub fn may_expire(&self, user: usize, now: Timestamp) -> bool {
        let of_user = self.became.iter();
        let mut of_user = of_user.filter(|(from, _)| self.connected[user].has(**from));
        of_user.any(|(_, became)| now.duration_since(became.since) >= WINDOW)
    }

    /// The number of merges of the user that are under way.
    pub fn running_of(&self, user: usize) -> usize {
        let running = self.running.iter();
        running
            .filter(|merge| self.connected[user].has(merge.from))
            .count()
    }

    /// Whether an instance has merged the user, or somebody connected with the user.
    pub fn were_merged_by(&self, at: usize, user: usize) -> bool {
        let connected = self.connected[user];
        let mut merges = self.begun.iter();
        merges.any(|merge| merge.by == at && connected.has(merge.from))
    }

    pub fn done_with(&self, user: usize) -> impl Iterator<Item = &Done> {
        let connected = self.connected[user];
        let done = self.done.iter();
        done.filter(move |done| connected.has(done.merge.from))
    }

    pub fn is_repeated(&self, merge: Merge) -> bool {
        let became = self.became.get(&merge.from);
        became.is_some_and(|became| became.into == merge.into)
    }

    /// An instance receives a pair that may not know all merges of the user.
    pub fn receive_unaware(&mut self, user: usize) {
        if self.redirected.has(user) {
            self.unsure = self.unsure.and(self.connected[user]);
        }
    }

    /// Returns the users of whom it is unknown who they are meanwhile.
    pub fn begin(&mut self, merge: Merge, is_known: bool, now: Timestamp) -> Users {
        let connected = self.connected[merge.from].and(self.connected[merge.into]);
        connected
            .iter()
            .for_each(|user| self.connected[user] = connected);
        let became = self.became.get(&merge.from);
        if became.is_some_and(|former| former.into != merge.into) {
            self.redirected = self.redirected.and(connected);
        }
        let was_unsure = connected.meets(self.unsure) || self.may_expire(merge.from, now);
        if was_unsure || !is_known || self.running_of(merge.from) > 0 {
            self.unsure = self.unsure.and(connected);
        }
        self.running.push(merge);
        self.begun.push(merge);
        connected
    }

    /// Returns whether it is known who they are now.
    pub fn end(
        &mut self,
        merge: Merge,
        begun: Timestamp,
        now: Option<(Timestamp, Instant)>,
    ) -> bool {
        let same = |it: &Merge| (it.from, it.into, it.by) == (merge.from, merge.into, merge.by);
        let ended = self.running.iter().position(same).unwrap();
        self.running.swap_remove(ended);
        let Some((until, at)) = now else {
            self.unsure = self.unsure.and(self.connected[merge.from]);
            return false;
        };
        self.done.push(Done {
            merge,
            at,
            is_left: false,
        });
        if self.unsure.has(merge.from) {
            return false;
        }
        self.follow(merge, begun, until);
        true
    }

    fn follow(&mut self, merge: Merge, begun: Timestamp, until: Timestamp) {
        let Merge { from, into, .. } = merge;
        let since = match self.is_repeated(merge) || self.unsure.has(from) {
            true => begun - RENEWAL,
            false => begun,
        };
        self.became.remove(&from);
        if self.current(into) == from {
            self.became.remove(&into);
        }
        let became = Became { into, since, until };
        self.became.insert(from, became);
    }

    /// An instance ends. What it left is what other merges did not replace.
    pub fn ends(&mut self, at: usize) {
        for done in &mut self.done {
            done.is_left |= done.merge.by == at;
        }
    }

    /// The merges that a client has to repeat: those that an instance left, and some that make it known who is who.
    pub fn to_repeat(&self) -> Vec<(usize, usize)> {
        let left = self.left().into_iter();
        let mut merges: Vec<_> = left.map(|merge| (merge.from, merge.into)).collect();
        for user in self.unsure.iter() {
            let target = self.target(user);
            if user != target {
                merges.push((user, target));
            }
        }
        merges
    }

    fn left(&self) -> Vec<Merge> {
        let left = self.done.iter().filter(|done| done.is_left);
        let left = left.map(|done| done.merge);
        left.filter(|merge| self.is_repeated(*merge) && !self.unsure.has(merge.from))
            .collect()
    }

    /// The user into whom all are merged who are connected with this one.
    pub fn target(&self, user: usize) -> usize {
        let last = self.done_with(user).last().map(|done| done.merge.into);
        last.or_else(|| self.connected[user].iter().next())
            .unwrap_or(user)
    }

    /// The merges of [`to_repeat`](Self::to_repeat) are done, and every instance has read all notes. Returns who was unsure, and has
    /// become who.
    pub fn repeated(&mut self, begun: Timestamp, now: Timestamp) -> Vec<(Users, usize)> {
        for merge in self.left() {
            self.follow(merge, begun, now);
        }
        let mut settled = Vec::new();
        while let Some(first) = self.unsure.iter().next() {
            let (connected, target) = (self.connected[first], self.target(first));
            for from in connected.without(Users::one(target)).iter() {
                let merge = Merge {
                    from,
                    into: target,
                    by: 0,
                };
                self.follow(merge, begun, now);
            }
            self.unsure = self.unsure.without(connected);
            settled.push((connected, target));
        }
        self.done.clear();
        self.redirected = Users::default();
        for user in 0..USERS.len() {
            let connected = self.connected[user];
            let mut became = self.became.iter();
            let is_forgotten = became.all(|(from, it)| {
                !connected.has(*from) || now.duration_since(it.until) > FORGOTTEN
            });
            if is_forgotten {
                self.became.retain(|from, _| !connected.has(*from));
                connected
                    .iter()
                    .for_each(|user| self.connected[user] = Users::one(user));
            }
        }
        settled
    }
}
