//! Steps on ascending lists of users. The loops have no branch that depends on which user comes next, because the CPU
//! would mispredict every other one.

use crate::entry::{Entry, Fingerprint};
use crate::members::InWindow;
use crate::page::Page;

/// A page with more than this many entries for each user is searched for each of them instead of being read.
const SEARCHED: usize = 16;

/// Appends the users of the entries in the window.
pub(super) fn append(entries: &[Entry], in_window: InWindow, found: &mut Vec<Fingerprint>) {
    let mut len = found.len();
    found.resize(len + entries.len(), Fingerprint::MIN);
    for entry in entries {
        found[len] = entry.fingerprint();
        len += usize::from(in_window.holds(*entry));
    }
    found.truncate(len);
}

/// Appends those of `users`, all of them in the range of the page, who have an entry in the window.
pub(super) fn intersect(
    page: &Page,
    users: &[Fingerprint],
    in_window: InWindow,
    found: &mut Vec<Fingerprint>,
) {
    let entries = page.entries();
    if entries.len() / SEARCHED >= users.len() {
        let held = |user: &&Fingerprint| match page.find(**user) {
            Ok(position) => in_window.holds(entries[position]),
            Err(_) => false,
        };
        found.extend(users.iter().filter(held));
        return;
    }
    let mut len = found.len();
    // `len` reaches this length only when one of both lists is used up.
    found.resize(len + users.len().min(entries.len()), Fingerprint::MIN);
    let (mut at_entry, mut at_user) = (0, 0);
    while at_entry < entries.len() && at_user < users.len() {
        let (entry, user) = (entries[at_entry], users[at_user]);
        let other = entry.fingerprint();
        found[len] = user;
        len += usize::from((other == user) & in_window.holds(entry));
        at_entry += usize::from(other <= user);
        at_user += usize::from(user <= other);
    }
    found.truncate(len);
}

/// The users who are not among `removed`, all of whom are among `users`.
pub(super) fn without(users: &[Fingerprint], removed: &[Fingerprint]) -> Vec<Fingerprint> {
    if removed.is_empty() {
        return users.to_vec();
    }
    let mut left = vec![Fingerprint::MIN; users.len()];
    let (mut len, mut at_removed) = (0, 0);
    for user in users {
        left[len] = *user;
        let is_removed = removed.get(at_removed) == Some(user);
        at_removed += usize::from(is_removed);
        len += usize::from(!is_removed);
    }
    left.truncate(len);
    left
}

/// Sorts a sequence of ascending runs, and removes repeated users.
pub(super) fn merge_runs(users: &mut Vec<Fingerprint>) {
    // The stable sort finds the runs and merges them.
    users.sort();
    users.dedup();
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
    fn removes_and_merges() {
        let some = users([1, 3, 5, 9]);
        assert_eq!(without(&some, &[]), some);
        assert_eq!(without(&some, &users([1, 9])), users([3, 5]));
        assert_eq!(without(&some, &some), []);
        let mut runs = users([3, 4, 9, 1, 4, 5, 2]);
        merge_runs(&mut runs);
        assert_eq!(runs, users([1, 2, 3, 4, 5, 9]));
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
