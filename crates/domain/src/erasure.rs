//! Notes of erasures, which do not contain the user's id.

use std::hash::Hasher;

use jiff::Timestamp;
use siphasher::sip128::{Hasher128, SipHasher24};

use super::UserId;

/// A note that a user was erased at an instant. It can be matched against a user id, but does not contain the id.
///
/// It is SipHash-2-4-128 of the stored user id under a random key of its own, so that two erasures of one user look
/// unrelated. The key is stored with the hash, so anyone who reads both can test ids against them. The store therefore
/// keeps the note only for the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Erasure {
    at: Timestamp,
    key: u128,
    hash: u128,
}

impl Erasure {
    /// The erasure of `user`, an id as it is stored, at `at`. The time is truncated to microseconds.
    pub fn of(user: &UserId<'_>, at: Timestamp) -> Self {
        let key = fastrand::u128(..);
        Self {
            at: whole_microseconds(at),
            key,
            hash: hash(user, key),
        }
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
        (self.key, self.hash) == (other.key, other.hash)
    }

    /// Whether this is the erasure of `user`.
    pub fn is_of(&self, user: &UserId<'_>) -> bool {
        self.hash == hash(user, self.key)
    }

    /// Key and hash as 64 hexadecimal digits.
    pub fn mark(&self) -> String {
        format!("{:032x}{:032x}", self.key, self.hash)
    }

    /// The erasure with this [`mark`](Self::mark) at `at`; `None` if the string is not a mark.
    pub fn from_mark(mark: &str, at: Timestamp) -> Option<Self> {
        if mark.len() != 64 || !mark.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let (key, hash) = mark.split_at(32);
        Some(Self {
            at: whole_microseconds(at),
            key: u128::from_str_radix(key, 16).ok()?,
            hash: u128::from_str_radix(hash, 16).ok()?,
        })
    }
}

fn hash(user: &UserId<'_>, key: u128) -> u128 {
    let mut hasher = SipHasher24::new_with_key(&key.to_be_bytes());
    hasher.write(user.as_str().as_bytes());
    hasher.finish128().as_u128()
}

fn whole_microseconds(at: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(at.as_microsecond()).unwrap_or(at)
}

#[cfg(test)]
mod tests {
    use super::*;

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
