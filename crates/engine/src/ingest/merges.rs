//! The merges of users: who counts as another user from now on.
//!
//! Each merge is a note in the store, which every instance reads, as it reads the notes of erasures. Here they are in memory, by
//! the hash of the merged user, so that the current user of a pair is found with one look-up. The notes do not contain
//! readable ids: only who knows the id of the merged user can read the id that replaces it.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::SignedDuration;
use parking_lot::RwLock;

use domain::{Batch, BatchBuilder, Erasure, ErasureScope, Timestamp, UserId};

/// The maximum number of known merges. Each takes about 200 bytes.
const MAX_MERGES: usize = 1_000_000;
/// An erasure that is less than this earlier than a merge may have followed it: the clocks of two instances differ by less.
const CLOCK_DIFFERENCE: SignedDuration = SignedDuration::from_millis(500);
/// The maximum number of merges that are followed from one user.
const MAX_STEPS: usize = 64;

/// The merges within the window.
#[derive(Debug)]
pub struct Merges {
    known: RwLock<Known>,
    /// The number of changes. While it is 0, no merge is known.
    version: AtomicU64,
    maximum: usize,
}

#[derive(Debug)]
struct Known {
    /// The key of the notes of this instance while it knows no other key.
    own_key: u128,
    /// By the key of the notes, which is usually one for all, and the hash of the merged user.
    by_key: BTreeMap<u128, HashMap<u128, Entry>>,
    entries: usize,
}

#[derive(Debug)]
struct Entry {
    merge: Erasure,
    /// Whether no pair is left to move.
    is_complete: bool,
}

/// The merges that lead from a user to the current one.
#[derive(Debug)]
pub(crate) struct Path {
    /// Each user on the way, and the instant of their merge.
    pub(crate) steps: Vec<(UserId<'static>, Timestamp)>,
    /// The current user.
    pub(crate) end: UserId<'static>,
}

impl Path {
    /// The ids that the user had had by `at`.
    pub(crate) fn ids_at(&self, at: Timestamp) -> impl Iterator<Item = &UserId<'static>> {
        let at = at.saturating_add(CLOCK_DIFFERENCE).unwrap_or(at);
        let merged = self
            .steps
            .iter()
            .take_while(move |(_, merged)| *merged <= at);
        let later = self.steps.iter().map(|(user, _)| user).skip(1);
        let later = later.chain([&self.end]);
        let first = self.steps.first().map(|(user, _)| user);
        first.into_iter().chain(merged.zip(later).map(|(_, id)| id))
    }
}

impl Default for Merges {
    fn default() -> Self {
        Self {
            known: RwLock::new(Known {
                own_key: fastrand::u128(..),
                by_key: BTreeMap::new(),
                entries: 0,
            }),
            version: AtomicU64::new(0),
            maximum: MAX_MERGES,
        }
    }
}

impl Merges {
    /// The user as whom a pair of `user` counts; `None` if it is `user`.
    pub fn current(&self, user: &UserId<'_>) -> Option<UserId<'static>> {
        self.path(user).map(|path| path.end)
    }

    /// The way from `user` to the current user; `None` if `user` was not merged.
    pub(crate) fn path(&self, user: &UserId<'_>) -> Option<Path> {
        if self.version() == 0 {
            return None;
        }
        self.known.read().path(user)
    }

    /// The ids that `user` had had by `at`: a later merge does not make an earlier erasure one of this user.
    pub(crate) fn ids_at(&self, user: &UserId<'_>, at: Timestamp) -> Vec<UserId<'static>> {
        match self.path(user) {
            Some(path) => path.ids_at(at).cloned().collect(),
            None => vec![user.clone().into_owned()],
        }
    }

    /// Changes with each new merge.
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// The number of known merges.
    pub(crate) fn len(&self) -> usize {
        self.known.read().entries
    }

    /// Whether no more merges can be noted.
    pub(crate) fn is_full(&self) -> bool {
        self.len() >= self.maximum
    }

    /// The key for new notes. All instances use the smallest known one, so that soon there is only one.
    pub(crate) fn key(&self) -> u128 {
        let known = self.known.read();
        let smallest = known.by_key.keys().next();
        smallest.copied().unwrap_or(known.own_key)
    }

    /// The merge of `from`, and whether no pair is left to move.
    pub(crate) fn of(&self, from: &UserId<'_>) -> Option<(Erasure, bool)> {
        let known = self.known.read();
        let entry = known.find(from)?;
        Some((entry.merge.clone(), entry.is_complete))
    }

    /// Adds a merge, unless a later one of the same user is known. Ignores it if too many are known.
    pub(crate) fn learn(&self, merge: &Erasure) {
        let mut known = self.known.write();
        let is_full = known.entries >= self.maximum;
        let is_complete = merge.scope() == ErasureScope::Merged;
        let entries = known.by_key.entry(merge.key()).or_default();
        match entries.get_mut(&merge.hash()) {
            Some(entry) if entry.has(merge) => {
                entry.is_complete |= is_complete;
                return;
            }
            Some(entry) if is_earlier(merge, &entry.merge) => return,
            None if is_full => {
                tracing::debug!("a merge of users is ignored, because too many are known");
                return;
            }
            found => {
                let is_new = found.is_none();
                let entry = Entry {
                    merge: merge.clone(),
                    is_complete,
                };
                entries.insert(merge.hash(), entry);
                known.entries += usize::from(is_new);
            }
        }
        drop(known);
        self.version.fetch_add(1, Ordering::AcqRel);
    }

    /// Notes that no pair is left to move for `merge`.
    pub(crate) fn complete(&self, merge: &Erasure) {
        let mut known = self.known.write();
        let entries = known.by_key.get_mut(&merge.key());
        let entry = entries.and_then(|entries| entries.get_mut(&merge.hash()));
        if let Some(entry) = entry.filter(|entry| entry.has(merge)) {
            entry.is_complete = true;
        }
    }

    /// Forgets the merges before `oldest`.
    pub(crate) fn forget_before(&self, oldest: Timestamp) {
        let mut known = self.known.write();
        for entries in known.by_key.values_mut() {
            entries.retain(|_, entry| entry.merge.at() >= oldest);
        }
        known.by_key.retain(|_, entries| !entries.is_empty());
        known.entries = known.by_key.values().map(HashMap::len).sum();
    }

    /// The same pairs, each with the user as whom it counts.
    pub(crate) fn apply(&self, batch: Batch) -> Batch {
        if batch.pairs().all(|pair| self.current(&pair.user).is_none()) {
            return batch;
        }
        let mut applied = BatchBuilder::with_capacity(batch.len());
        for pair in batch.pairs() {
            let segment = applied.admit(pair.segment.clone());
            let user = self.current(&pair.user).unwrap_or(pair.user);
            applied.push(&user, segment, pair.slot);
        }
        applied.finish()
    }
}

impl Known {
    /// The latest merge of `from`.
    fn find(&self, from: &UserId<'_>) -> Option<&Entry> {
        let find = |(key, entries): (&u128, &'_ HashMap<u128, Entry>)| {
            let hash = Erasure::hash_of(*key, from);
            entries.contains_key(&hash).then_some((*key, hash))
        };
        let found = self.by_key.iter().filter_map(find);
        let entries = found.filter_map(|(key, hash)| self.by_key.get(&key)?.get(&hash));
        entries.reduce(|a, b| match is_earlier(&a.merge, &b.merge) {
            true => b,
            false => a,
        })
    }

    /// The user into whom `from` was merged, unless it is `from`, and when.
    fn next(&self, from: &UserId<'_>) -> Option<(UserId<'static>, Timestamp)> {
        let merge = &self.find(from)?.merge;
        let into = merge.merged_into(from).filter(|into| into != from)?;
        Some((into, merge.at()))
    }

    fn path(&self, user: &UserId<'_>) -> Option<Path> {
        let (mut end, at) = self.next(user)?;
        let mut steps = vec![(user.clone().into_owned(), at)];
        while steps.len() < MAX_STEPS
            && let Some((next, at)) = self.next(&end)
        {
            steps.push((std::mem::replace(&mut end, next), at));
            if let Some(start) = steps.iter().position(|(user, _)| *user == end) {
                // Two instances merged users into each other at the same time. The earliest merge of the cycle is void, for
                // everybody the same one.
                let cycle = steps[start..].iter();
                let earliest = cycle.min_by_key(|(user, at)| (*at, user.as_str()));
                end = earliest.map_or(end, |(user, _)| user.clone());
                break;
            }
        }
        Some(Path { steps, end })
    }
}

impl Entry {
    /// Whether it is of this merge, complete or not.
    fn has(&self, merge: &Erasure) -> bool {
        self.merge.completed() == merge.completed()
    }
}

/// Whether `merge` is before `other`. Two at the same instant have the same order on every instance.
fn is_earlier(merge: &Erasure, other: &Erasure) -> bool {
    merge.completed() < other.completed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::Slot;
    use std::collections::BTreeSet;

    fn user(name: &str) -> UserId<'static> {
        UserId::new(name.to_owned()).unwrap()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn known(merges: &[(&str, &str, i64)]) -> Merges {
        let known = Merges::default();
        for (from, into, second) in merges {
            let key = known.key();
            known.learn(&Erasure::of_merge(
                &user(from),
                &user(into),
                key,
                at(*second),
            ));
        }
        known
    }

    #[test]
    fn chains_lead_to_their_end_and_later_merges_replace_earlier_ones() {
        let current = |merges: &Merges, name: &str| {
            let current = merges.current(&user(name));
            current.map_or(name.to_owned(), |user| user.as_str().to_owned())
        };
        let merges = known(&[]);
        assert_eq!(current(&merges, "a"), "a");
        let merges = known(&[("a", "b", 1), ("b", "c", 2), ("x", "a", 3)]);
        for name in ["a", "b", "c", "x"] {
            assert_eq!(current(&merges, name), "c", "{name}");
        }
        assert_eq!(current(&merges, "y"), "y");
        // Notes may arrive in any order.
        let merges = known(&[("a", "c", 2), ("a", "b", 1)]);
        assert_eq!(current(&merges, "a"), "c");
        // Each user into the other at the same time, on two instances.
        let merges = known(&[("a", "b", 1), ("b", "a", 2)]);
        assert_eq!(
            [current(&merges, "a"), current(&merges, "b")],
            ["a", "a"],
            "the later one holds"
        );
        let merges = known(&[("a", "b", 1), ("b", "a", 1)]);
        assert_eq!([current(&merges, "a"), current(&merges, "b")], ["a", "a"]);
        let merges = known(&[("a", "b", 3), ("b", "c", 1), ("c", "a", 2), ("d", "c", 4)]);
        for name in ["a", "b", "c", "d"] {
            assert_eq!(current(&merges, name), "b", "{name}");
        }
        // A user who is only that user again.
        let merges = known(&[("a", "b", 1), ("a", "a", 2), ("b", "a", 2)]);
        assert_eq!([current(&merges, "a"), current(&merges, "b")], ["a", "a"]);
        let long: Vec<String> = (0..200).map(|number| format!("u{number}")).collect();
        let long: Vec<_> = long.windows(2).map(|it| (&*it[0], &*it[1], 1)).collect();
        assert_eq!(current(&known(&long), "u0"), "u64", "the walk ends");
    }

    /// Found by the model of the whole pipeline: a pair that waited in the spool was lost when its user was merged into one who had been
    /// erased before.
    #[test]
    fn a_user_has_an_id_from_the_merge_on() {
        let merges = known(&[("a", "b", 10), ("b", "c", 20)]);
        let ids = |name: &str, second: i64| -> Vec<String> {
            let ids = merges.ids_at(&user(name), at(second)).into_iter();
            ids.map(|user| user.as_str().to_owned()).collect()
        };
        assert_eq!(ids("a", 9), ["a"]);
        assert_eq!(ids("a", 10), ["a", "b"]);
        assert_eq!(ids("a", 19), ["a", "b"]);
        assert_eq!(ids("a", 20), ["a", "b", "c"]);
        assert_eq!(ids("b", 10), ["b"]);
        assert_eq!(ids("x", 30), ["x"]);
        // The clock of the instance that erased may be a little behind.
        let just_before = at(10) - CLOCK_DIFFERENCE;
        assert_eq!(merges.ids_at(&user("a"), just_before).len(), 2);
        // A merge whose note has an earlier instant than the one before it, because the clocks differ.
        let merges = known(&[("a", "b", 20), ("b", "c", 10)]);
        assert_eq!(merges.ids_at(&user("a"), at(15)).len(), 1);
        assert_eq!(merges.ids_at(&user("a"), at(20)).len(), 3);
    }

    #[test]
    fn notes_of_other_keys_are_found_and_soon_all_have_one_key() {
        let [one, two] = [Merges::default(), Merges::default()];
        let notes = [(&one, "a", "b"), (&two, "c", "d")].map(|(merges, from, into)| {
            let merge = Erasure::of_merge(&user(from), &user(into), merges.key(), at(1));
            merges.learn(&merge);
            merge
        });
        assert_ne!(one.key(), two.key());
        for merges in [&one, &two] {
            notes.iter().for_each(|note| merges.learn(note));
            assert_eq!(merges.current(&user("a")), Some(user("b")));
            assert_eq!(merges.current(&user("c")), Some(user("d")));
        }
        assert_eq!(one.key(), two.key());
    }

    #[test]
    fn merges_are_complete_once_and_expire() {
        let merges = known(&[("a", "b", 1), ("c", "d", 9)]);
        let (merge, is_complete) = merges.of(&user("a")).unwrap();
        assert!(!is_complete);
        let version = merges.version();
        merges.learn(&merge.completed());
        assert_eq!(merges.version(), version, "no user changes");
        assert!(merges.of(&user("a")).unwrap().1);
        merges.learn(&merge);
        assert!(merges.of(&user("a")).unwrap().1, "it stays complete");
        merges.learn(&Erasure::of_merge(&user("a"), &user("b"), 1, at(2)));
        assert!(!merges.of(&user("a")).unwrap().1, "it was merged again");
        assert_eq!(merges.len(), 3);
        merges.forget_before(at(9));
        assert_eq!(merges.len(), 1);
        assert!(merges.current(&user("a")).is_none() && merges.current(&user("c")).is_some());
    }

    #[test]
    fn memory_is_bounded() {
        let mut merges = known(&[("a", "b", 1)]);
        merges.maximum = 1;
        assert!(merges.is_full());
        merges.learn(&Erasure::of_merge(
            &user("c"),
            &user("d"),
            merges.key(),
            at(2),
        ));
        assert_eq!((merges.len(), merges.current(&user("c"))), (1, None));
        merges.learn(&Erasure::of_merge(
            &user("a"),
            &user("d"),
            merges.key(),
            at(2),
        ));
        assert_eq!(merges.current(&user("a")), Some(user("d")));
    }

    #[test]
    fn pairs_get_their_current_user() {
        let mut batch = BatchBuilder::default();
        for (name, slot) in [("a", 1), ("z", 2), ("b", 3)] {
            batch.push_pair(&user(name), "s", Slot::new(slot)).unwrap();
        }
        let batch = batch.finish();
        let users = |batch: &Batch| -> BTreeSet<String> {
            let users = batch.pairs().map(|pair| pair.user.as_str().to_owned());
            users.collect()
        };
        let applied = known(&[("a", "b", 1)]).apply(batch.clone());
        assert_eq!(users(&applied), ["b", "z"].map(String::from).into());
        assert_eq!(users(&known(&[]).apply(batch)).len(), 3);
    }
}
