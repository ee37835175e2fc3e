//! Notes of erasures: of a user, of a segment, or of a user in one segment; and of merges, which erase a user whose visits become
//! another user's. They contain no readable id.

use std::hash::Hasher;
use std::sync::Arc;

use jiff::Timestamp;
use siphasher::sip128::{Hasher128, SipHasher24};

use super::{Segment, UserId};

/// A note that a user or a segment was erased at an instant. It can be matched against a pair, but does not contain the id or
/// the name.
///
/// It is SipHash-2-4-128 of the stored user id under a random key of its own, so that two erasures of one user look
/// unrelated. The key is stored with the hash, so anyone who reads both can test ids against them. The store therefore
/// keeps the note only for the window.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Erasure {
    at: Timestamp,
    scope: ErasureScope,
    key: u128,
    hash: u128,
    /// The enciphered id of the user into whom this one was merged. Only a merge has it.
    into: Option<Arc<[u8]>>,
}

/// What an erasure removes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ErasureScope {
    /// Every pair of a user.
    User,
    /// Every pair of a segment.
    Segment,
    /// The pair of a user and a segment.
    Pair,
    /// Every pair of a user, which becomes another user's.
    Merge,
    /// The same, and no pair is left to move.
    Merged,
}

/// The first character of a mark. A user's has none, because earlier versions wrote no other marks.
const SEGMENT_MARK: char = 's';
const PAIR_MARK: char = 'p';
const MERGE_MARK: char = 'm';
const MERGED_MARK: char = 'M';
/// Hexadecimal digits of key and hash.
const DIGITS: usize = 64;

impl Erasure {
    /// The erasure of `user`, an id as it is stored, at `at`. The time is truncated to microseconds.
    pub fn of(user: &UserId<'_>, at: Timestamp) -> Self {
        Self::new(at, ErasureScope::User, |key| hash(key, None, Some(user)))
    }

    /// The erasure of every pair of `segment` at `at`.
    pub fn of_segment(segment: &Segment, at: Timestamp) -> Self {
        Self::new(at, ErasureScope::Segment, |key| {
            hash(key, Some(segment), None)
        })
    }

    /// The erasure of `user` from `segment` at `at`.
    pub fn of_pair(segment: &Segment, user: &UserId<'_>, at: Timestamp) -> Self {
        Self::new(at, ErasureScope::Pair, |key| {
            hash(key, Some(segment), Some(user))
        })
    }

    /// The merge of `from` into `into` at `at`, both ids as they are stored. Notes of many merges share one `key`, so that the note of a
    /// user is found by its hash.
    pub fn of_merge(from: &UserId<'_>, into: &UserId<'_>, key: u128, at: Timestamp) -> Self {
        Self {
            at: whole_microseconds(at),
            scope: ErasureScope::Merge,
            key,
            hash: hash(key, None, Some(from)),
            into: Some(cipher::encipher(key, from, into)),
        }
    }

    fn new(at: Timestamp, scope: ErasureScope, hash: impl Fn(u128) -> u128) -> Self {
        let key = fastrand::u128(..);
        Self {
            at: whole_microseconds(at),
            scope,
            key,
            hash: hash(key),
            into: None,
        }
    }

    /// The note that this merge has no pair left to move.
    pub fn completed(&self) -> Self {
        Self {
            scope: ErasureScope::Merged,
            ..self.clone()
        }
    }

    /// Whether it is a merge.
    pub fn is_merge(&self) -> bool {
        self.into.is_some()
    }

    /// The user into whom `from` was merged, if this is the merge of `from`.
    pub fn merged_into(&self, from: &UserId<'_>) -> Option<UserId<'static>> {
        let into = self.into.as_deref()?;
        cipher::decipher(self.key, from, into)
    }

    /// The random key of the hash.
    pub fn key(&self) -> u128 {
        self.key
    }

    /// The hash of what is erased.
    pub fn hash(&self) -> u128 {
        self.hash
    }

    /// The hash of `user` under `key`.
    pub fn hash_of(key: u128, user: &UserId<'_>) -> u128 {
        hash(key, None, Some(user))
    }

    /// What it removes.
    pub fn scope(&self) -> ErasureScope {
        self.scope
    }

    /// When the user was erased, in whole microseconds.
    pub fn at(&self) -> Timestamp {
        self.at
    }

    /// The same erasure, with its time limited to `latest`.
    pub fn no_later_than(self, latest: Timestamp) -> Self {
        Self {
            at: self.at.min(whole_microseconds(latest)),
            ..self
        }
    }

    /// Whether both are the same erasure, regardless of their times.
    pub fn is_same(&self, other: &Self) -> bool {
        (self.scope, self.key, self.hash, &self.into)
            == (other.scope, other.key, other.hash, &other.into)
    }

    /// Whether this is the erasure of `user`.
    pub fn is_of(&self, user: &UserId<'_>) -> bool {
        self.scope == ErasureScope::User && self.hash == hash(self.key, None, Some(user))
    }

    /// Whether this erasure removes the pair of `segment` and `user`. A merge removes none: it gives the pair another user.
    pub fn removes(&self, segment: &Segment, user: &UserId<'_>) -> bool {
        let hash = match self.scope {
            ErasureScope::User => hash(self.key, None, Some(user)),
            ErasureScope::Segment => hash(self.key, Some(segment), None),
            ErasureScope::Pair => hash(self.key, Some(segment), Some(user)),
            ErasureScope::Merge | ErasureScope::Merged => return false,
        };
        self.hash == hash
    }

    /// The scope, unless it is a user, then key and hash as 64 hexadecimal digits, then the rest of a merge.
    pub fn mark(&self) -> String {
        let scope = match self.scope {
            ErasureScope::User => None,
            ErasureScope::Segment => Some(SEGMENT_MARK),
            ErasureScope::Pair => Some(PAIR_MARK),
            ErasureScope::Merge => Some(MERGE_MARK),
            ErasureScope::Merged => Some(MERGED_MARK),
        };
        let scope = scope.map(String::from).unwrap_or_default();
        let into = self.into.as_deref().map(cipher::digits).unwrap_or_default();
        format!("{scope}{:032x}{:032x}{into}", self.key, self.hash)
    }

    /// The erasure with this [`mark`](Self::mark) at `at`; `None` if the string is not a mark.
    pub fn from_mark(mark: &str, at: Timestamp) -> Option<Self> {
        let (scope, digits) = match mark.chars().next()? {
            SEGMENT_MARK => (ErasureScope::Segment, &mark[1..]),
            PAIR_MARK => (ErasureScope::Pair, &mark[1..]),
            MERGE_MARK => (ErasureScope::Merge, &mark[1..]),
            MERGED_MARK => (ErasureScope::Merged, &mark[1..]),
            _ => (ErasureScope::User, mark),
        };
        if digits.len() < DIGITS || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let (digits, rest) = digits.split_at(DIGITS);
        let into = match scope {
            ErasureScope::Merge | ErasureScope::Merged => Some(cipher::from_digits(rest)?),
            _ if rest.is_empty() => None,
            _ => return None,
        };
        let (key, hash) = digits.split_at(DIGITS / 2);
        Some(Self {
            at: whole_microseconds(at),
            scope,
            key: u128::from_str_radix(key, 16).ok()?,
            hash: u128::from_str_radix(hash, 16).ok()?,
            into,
        })
    }
}

/// A segment has no control character, so a zero ends its name.
fn hash(key: u128, segment: Option<&Segment>, user: Option<&UserId<'_>>) -> u128 {
    let mut hasher = SipHasher24::new_with_key(&key.to_be_bytes());
    if let Some(segment) = segment {
        hasher.write(segment.as_str().as_bytes());
        hasher.write(&[0]);
    }
    if let Some(user) = user {
        hasher.write(user.as_str().as_bytes());
    }
    hasher.finish128().as_u128()
}

/// Enciphers the id of the user into whom another one was merged, so that only who knows the other one can read it.
mod cipher {
    use super::{Arc, Hasher, Hasher128, SipHasher24, UserId};

    /// Bytes of a number that makes the key stream of each note another one.
    const NONCE: usize = 8;
    /// Ids are padded to a multiple of this, so that a note does not tell their length.
    const PADDING: usize = 32;

    pub(super) fn encipher(key: u128, from: &UserId<'_>, into: &UserId<'_>) -> Arc<[u8]> {
        let nonce = fastrand::u64(..).to_le_bytes();
        let mut id = into.as_str().as_bytes().to_vec();
        id.resize(id.len().next_multiple_of(PADDING), 0);
        let id = id.iter().zip(stream(key, from, &nonce)).map(|(a, b)| a ^ b);
        nonce.into_iter().chain(id).collect()
    }

    pub(super) fn decipher(
        key: u128,
        from: &UserId<'_>,
        enciphered: &[u8],
    ) -> Option<UserId<'static>> {
        let (nonce, id) = enciphered.split_at_checked(NONCE)?;
        let id = id.iter().zip(stream(key, from, nonce)).map(|(a, b)| a ^ b);
        let mut id: Vec<u8> = id.collect();
        // An id has no control character.
        while id.pop_if(|last| *last == 0).is_some() {}
        UserId::new(String::from_utf8(id).ok()?).ok()
    }

    /// The key stream: SipHash of a counter, under a key that is the hash of `from`. The prefix makes that hash differ from the one in the
    /// note, because no id begins with it.
    fn stream(key: u128, from: &UserId<'_>, nonce: &[u8]) -> impl Iterator<Item = u8> {
        let mut hasher = SipHasher24::new_with_key(&key.to_be_bytes());
        hasher.write(&[1]);
        hasher.write(from.as_str().as_bytes());
        let key = hasher.finish128().as_u128().to_be_bytes();
        let nonce = nonce.to_vec();
        (0_u64..).flat_map(move |block| {
            let mut hasher = SipHasher24::new_with_key(&key);
            hasher.write(&nonce);
            hasher.write(&block.to_le_bytes());
            hasher.finish128().as_u128().to_be_bytes()
        })
    }

    pub(super) fn digits(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The bytes of hexadecimal digits.
    pub(super) fn from_digits(digits: &str) -> Option<Arc<[u8]>> {
        let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
        if pairs.len() < NONCE || !rest.is_empty() {
            return None;
        }
        let byte = |pair: &[u8; 2]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
        pairs.iter().map(byte).collect()
    }
}

fn whole_microseconds(at: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(at.as_microsecond()).unwrap_or(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_erasure_removes_the_pairs_of_its_scope_and_no_others() {
        let at = Timestamp::from_microsecond(1_800_000_000_123_456).unwrap();
        let [u, v] = ["u", "v"].map(|name| UserId::new(name).unwrap());
        let [a, b] = ["a", "b"].map(|name| Segment::new(name).unwrap());
        for (erasure, expected) in [
            (Erasure::of(&u, at), [true, true, false, false]),
            (Erasure::of_segment(&a, at), [true, false, true, false]),
            (Erasure::of_pair(&a, &u, at), [true, false, false, false]),
        ] {
            let pairs = [(&a, &u), (&b, &u), (&a, &v), (&b, &v)];
            let removed = pairs.map(|(segment, user)| erasure.removes(segment, user));
            assert_eq!(removed, expected, "{:?}", erasure.scope());
            assert_eq!(
                Erasure::from_mark(&erasure.mark(), at),
                Some(erasure.clone())
            );
            assert_eq!(
                erasure.is_of(&u),
                erasure.scope() == ErasureScope::User,
                "a user is erased only as a whole"
            );
        }
        let same = UserId::new("a").unwrap();
        assert!(!Erasure::of_segment(&a, at).is_of(&same));
        assert!(!Erasure::of(&same, at).removes(&a, &u));
    }

    #[test]
    fn an_erasure_recognises_its_user_and_nobody_else() {
        let [gone, other] = ["gone", "other"].map(|name| UserId::new(name).unwrap());
        let at = Timestamp::from_nanosecond(1_800_000_000_123_456_789).unwrap();
        let erasure = Erasure::of(&gone, at);
        assert!(erasure.is_of(&gone) && !erasure.is_of(&other));
        assert_eq!(
            Erasure::from_mark(&erasure.mark(), at),
            Some(erasure.clone())
        );
        assert_eq!(erasure.at().as_nanosecond(), 1_800_000_000_123_456_000);
        let again = Erasure::of(&gone, at);
        assert_ne!(
            again.mark(),
            erasure.mark(),
            "two of one user look unrelated"
        );
        for text in ["", "0", &"g".repeat(64), &"é".repeat(32)] {
            assert_eq!(Erasure::from_mark(text, at), None);
        }
    }
    #[test]
    fn a_merge_tells_its_target_only_to_who_knows_its_user() {
        let at = Timestamp::from_microsecond(1_800_000_000_123_456).unwrap();
        let long = "ü".repeat(128);
        let segment = Segment::new("s").unwrap();
        for name in ["b", "u104010", "31 bytes of an id, and padding .", &long] {
            let [from, into] = ["a", name].map(|name| UserId::new(name).unwrap());
            let merge = Erasure::of_merge(&from, &into, 7, at);
            assert_eq!(merge.merged_into(&from), Some(into.clone().into_owned()));
            assert_ne!(merge.merged_into(&into), Some(into.clone().into_owned()));
            assert_eq!(merge.hash(), Erasure::hash_of(7, &from));
            assert!(!merge.removes(&segment, &from) && !merge.is_of(&from));
            let mark = merge.mark();
            assert!(mark.len() < 700, "{}", mark.len());
            assert_eq!(Erasure::from_mark(&mark, at).as_ref(), Some(&merge));
            let complete = merge.completed();
            assert!(!complete.is_same(&merge) && complete.is_merge());
            assert_eq!(Erasure::from_mark(&complete.mark(), at), Some(complete));
            let again = Erasure::of_merge(&from, &into, 7, at);
            assert_ne!(again.mark(), mark, "each has a key stream of its own");
            assert_eq!(Erasure::from_mark(&mark[..70], at), None);
            assert_eq!(Erasure::from_mark(&mark[1..], at), None);
        }
        let plain = Erasure::of(&UserId::new("u").unwrap(), at);
        assert!(!plain.is_merge());
        assert_eq!(plain.merged_into(&UserId::new("u").unwrap()), None);
    }
}
