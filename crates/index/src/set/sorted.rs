//! Steps on ascending lists of users. The loops have no branch that depends on which user comes next, because the CPU
//! would mispredict every other one.

use crate::entry::{Entry, Fingerprint};
use crate::members::InWindow;
use crate::page::Page;

/// A page with more than this many entries for each user is searched for each of them instead of being read.
const SEARCHED: usize = 16;

/// Appends the users of the entries in the window.
pub(super) fn append(entries: &[Entry], in_window: InWindow, found: &mut Vec<Fingerprint>) {
    let held = entries.iter().filter(|entry| in_window.holds(**entry));
    if held.count() == entries.len() {
        // Most pages for most windows, and fast: the CPU counts and copies several at a time.
        found.extend(entries.iter().map(|entry| entry.fingerprint()));
        return;
    }
    let mut len = found.len();
    found.resize(len + entries.len(), Fingerprint::MIN);
    for entry in entries {
        found[len] = entry.fingerprint();
        len += usize::from(in_window.holds(*entry));
    }
    found.truncate(len);
}

/// Appends the users of the entries in the window, but maybe only those who are also in `users`, all of whom are in the
/// range of the page.
pub(super) fn append_candidates(
    page: &Page,
    users: &[Fingerprint],
    in_window: InWindow,
    found: &mut Vec<Fingerprint>,
) {
    let entries = page.entries();
    if entries.len() / SEARCHED < users.len() {
        append(entries, in_window, found);
        return;
    }
    let held = |user: &&Fingerprint| match page.find(**user) {
        Ok(position) => in_window.holds(entries[position]),
        Err(_) => false,
    };
    found.extend(users.iter().filter(held));
}

/// The users in both lists.
pub(super) fn intersect(some: &[Fingerprint], others: &[Fingerprint]) -> Vec<Fingerprint> {
    let (mut low, mut high) = Merge::halves(some, others);
    let mut both = vec![Fingerprint::MIN; some.len()];
    let (low_found, high_found) = both.split_at_mut(low.some.len());
    while low.is_open() && high.is_open() {
        low.step(low_found);
        high.step(high_found);
    }
    while low.is_open() {
        low.step(low_found);
    }
    while high.is_open() {
        high.step(high_found);
    }
    let start = low_found.len();
    let (found_low, found_high) = (low.found, high.found);
    both.copy_within(start..start + found_high, found_low);
    both.truncate(found_low + found_high);
    both
}

/// Two ascending lists, and how far they are compared.
struct Merge<'a> {
    some: &'a [Fingerprint],
    others: &'a [Fingerprint],
    at: usize,
    at_other: usize,
    /// The number of users found in both.
    found: usize,
}

impl<'a> Merge<'a> {
    /// The parts of two lists before and after the middle of the first one. Each step waits for the loads of the step
    /// before: two halves at once take little longer than one.
    fn halves(some: &'a [Fingerprint], others: &'a [Fingerprint]) -> (Self, Self) {
        let (low, high) = some.split_at(some.len() / 2);
        let middle = high
            .first()
            .map_or(0, |first| others.partition_point(|other| other < first));
        let (low_others, high_others) = others.split_at(middle);
        let merge = |some, others| Self {
            some,
            others,
            at: 0,
            at_other: 0,
            found: 0,
        };
        (merge(low, low_others), merge(high, high_others))
    }

    fn is_open(&self) -> bool {
        self.at < self.some.len() && self.at_other < self.others.len()
    }

    /// Moves past the smaller of the next users, or past both if they are the same. `found` is as long as `some`.
    #[inline(always)]
    fn step(&mut self, found: &mut [Fingerprint]) {
        let (user, other) = (self.some[self.at], self.others[self.at_other]);
        found[self.found] = user;
        self.found += usize::from(user == other);
        self.at += usize::from(user <= other);
        self.at_other += usize::from(other <= user);
    }

    /// As [`step`](Self::step), but keeps every user. `found` is as long as both lists together.
    #[inline(always)]
    fn step_either(&mut self, found: &mut [Fingerprint]) {
        let (user, other) = (self.some[self.at], self.others[self.at_other]);
        found[self.found] = user.min(other);
        self.found += 1;
        self.at += usize::from(user <= other);
        self.at_other += usize::from(other <= user);
    }

    fn finish_either(&mut self, found: &mut [Fingerprint]) {
        while self.is_open() {
            self.step_either(found);
        }
        for rest in [&self.some[self.at..], &self.others[self.at_other..]] {
            found[self.found..self.found + rest.len()].copy_from_slice(rest);
            self.found += rest.len();
        }
    }
}

/// The users who are not among `removed`, all of whom are among `users`.
pub(super) fn without(users: &[Fingerprint], removed: &[Fingerprint]) -> Vec<Fingerprint> {
    if removed.is_empty() {
        return users.to_vec();
    }
    let mut left = vec![Fingerprint::MIN; users.len()];
    let (mut at, mut at_removed, mut len) = (0, 0, 0);
    while at < users.len() && at_removed < removed.len() {
        left[len] = users[at];
        let is_removed = users[at] == removed[at_removed];
        len += usize::from(!is_removed);
        at_removed += usize::from(is_removed);
        at += 1;
    }
    left.truncate(len);
    left.extend_from_slice(&users[at..]);
    left
}

/// The users in at least one of two lists.
pub(super) fn unite(some: &[Fingerprint], others: &[Fingerprint]) -> Vec<Fingerprint> {
    let (mut low, mut high) = Merge::halves(some, others);
    let mut either = vec![Fingerprint::MIN; some.len() + others.len()];
    let (low_found, high_found) = either.split_at_mut(low.some.len() + low.others.len());
    while low.is_open() && high.is_open() {
        low.step_either(low_found);
        high.step_either(high_found);
    }
    low.finish_either(low_found);
    high.finish_either(high_found);
    let start = low_found.len();
    let (found_low, found_high) = (low.found, high.found);
    either.copy_within(start..start + found_high, found_low);
    either.truncate(found_low + found_high);
    either
}

/// The number of users before `end`, fast if it is small.
pub(super) fn number_before(users: &[Fingerprint], end: Option<Fingerprint>) -> usize {
    let Some(end) = end else {
        return users.len();
    };
    let mut bound = 1;
    while bound < users.len() && users[bound] < end {
        bound *= 2;
    }
    let start = bound / 2;
    let near = &users[start..users.len().min(bound)];
    start + near.partition_point(|user| *user < end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users(numbers: impl IntoIterator<Item = u64>) -> Vec<Fingerprint> {
        numbers.into_iter().map(Fingerprint::from_number).collect()
    }

    #[test]
    fn intersects_removes_and_unites() {
        let some = users([1, 3, 5, 9]);
        assert_eq!(without(&some, &[]), some);
        assert_eq!(without(&some, &users([1, 9])), users([3, 5]));
        assert_eq!(without(&some, &some), []);
        assert_eq!(intersect(&some, &[]), []);
        assert_eq!(intersect(&[], &some), []);
        assert_eq!(intersect(&some, &users([0, 3, 4, 9, 10])), users([3, 9]));
        assert_eq!(intersect(&some, &users(2..9)), users([3, 5]));
        assert_eq!(intersect(&users(0..20), &some), some);
        assert_eq!(unite(&some, &[]), some);
        assert_eq!(unite(&[], &some), some);
        assert_eq!(unite(&some, &some), some);
        assert_eq!(
            unite(&some, &users([0, 3, 4, 20])),
            users([0, 1, 3, 4, 5, 9, 20])
        );
        assert_eq!(unite(&users(4..7), &some), users([1, 3, 4, 5, 6, 9]));
    }

    #[test]
    fn finds_the_number_before() {
        for len in [0, 1, 2, 3, 100] {
            let some = users((0..len).map(|number| 2 * number));
            assert_eq!(number_before(&some, None), len as usize);
            for end in 0..2 * len + 2 {
                let expected = some.iter().filter(|user| user.number() < end).count();
                let end = Some(Fingerprint::from_number(end));
                assert_eq!(number_before(&some, end), expected);
            }
        }
    }
}
