//! Notes of erasures: of a user, of a segment, or of a user in one segment. They contain no id.

use std::hash::Hasher;

use jiff::Timestamp;
use siphasher::sip128::{Hasher128, SipHasher24};

use super::{Segment, UserId};

/// A note that a user or a segment was erased at an instant. It can be matched against a pair, but does not contain the id or
/// the name.
///
/// It is SipHash-2-4-128 of the stored user id under a random key of its own, so that two erasures of one user look
/// unrelated. The key is stored with the hash, so anyone who reads both can test ids against them. The store therefore
/// keeps the note only for the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Erasure {
    at: Timestamp,
    scope: ErasureScope,
    key: u128,
    hash: u128,
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
}

/// The first character of a mark. A user's has none, because earlier versions wrote no other marks.
const SEGMENT_MARK: char = 's';
const PAIR_MARK: char = 'p';

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

    fn new(at: Timestamp, scope: ErasureScope, hash: impl Fn(u128) -> u128) -> Self {
        let key = fastrand::u128(..);
        Self {
            at: whole_microseconds(at),
            scope,
            key,
            hash: hash(key),
        }
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
        (self.scope, self.key, self.hash) == (other.scope, other.key, other.hash)
    }

    /// Whether this is the erasure of `user`.
    pub fn is_of(&self, user: &UserId<'_>) -> bool {
        self.scope == ErasureScope::User && self.hash == hash(self.key, None, Some(user))
    }

    /// Whether this erasure removes the pair of `segment` and `user`.
    pub fn removes(&self, segment: &Segment, user: &UserId<'_>) -> bool {
        self.hash
            == match self.scope {
                ErasureScope::User => hash(self.key, None, Some(user)),
                ErasureScope::Segment => hash(self.key, Some(segment), None),
                ErasureScope::Pair => hash(self.key, Some(segment), Some(user)),
            }
    }

    /// The scope, unless it is a user, then key and hash as 64 hexadecimal digits.
    pub fn mark(&self) -> String {
        let scope = match self.scope {
            ErasureScope::User => None,
            ErasureScope::Segment => Some(SEGMENT_MARK),
            ErasureScope::Pair => Some(PAIR_MARK),
        };
        let scope = scope.map(String::from).unwrap_or_default();
        format!("{scope}{:032x}{:032x}", self.key, self.hash)
    }

    /// The erasure with this [`mark`](Self::mark) at `at`; `None` if the string is not a mark.
    pub fn from_mark(mark: &str, at: Timestamp) -> Option<Self> {
        let (scope, mark) = match (
            mark.strip_prefix(SEGMENT_MARK),
            mark.strip_prefix(PAIR_MARK),
        ) {
            (Some(mark), _) => (ErasureScope::Segment, mark),
            (_, Some(mark)) => (ErasureScope::Pair, mark),
            (None, None) => (ErasureScope::User, mark),
        };
        if mark.len() != 64 || !mark.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let (key, hash) = mark.split_at(32);
        Some(Self {
            at: whole_microseconds(at),
            scope,
            key: u128::from_str_radix(key, 16).ok()?,
            hash: u128::from_str_radix(hash, 16).ok()?,
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
            assert_eq!(Erasure::from_mark(&erasure.mark(), at), Some(erasure));
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
        assert_eq!(Erasure::from_mark(&erasure.mark(), at), Some(erasure));
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
}
