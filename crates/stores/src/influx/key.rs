//! The installation's key, which determines the position of a user's point within its slot.

use std::fmt;

use siphasher::sip::SipHasher13;

use domain::UserId;
use domain::store::StoreError;
use index::Fingerprint;

/// The key under which user ids become fingerprints, one for all instances on a bucket.
///
/// Without a key, a point's timestamp would be a public hash of the user id. Anyone could then find out an erased user by
/// trying ids, and construct two ids whose points overwrite each other.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PointKey([u8; 16]);

impl PointKey {
    /// The key with these bytes.
    pub fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// A new random key.
    pub(super) fn random() -> Result<Self, StoreError> {
        let mut key = [0; 16];
        getrandom::fill(&mut key).map_err(|error| {
            StoreError::Unavailable(format!("can't generate a random key: {error}"))
        })?;
        Ok(Self(key))
    }

    pub(super) fn to_hex(self) -> String {
        base16ct::lower::encode_string(&self.0)
    }

    pub(super) fn from_hex(digits: &str) -> Option<Self> {
        let bytes = base16ct::mixed::decode_vec(digits).ok()?;
        bytes.try_into().ok().map(Self)
    }

    /// The fingerprint of a user: the top 48 bits of SipHash-1-3 under this key.
    pub(super) fn fingerprint(self, user: &UserId<'_>) -> Fingerprint {
        let hasher = SipHasher13::new_with_key(&self.0);
        Fingerprint::new(hasher.hash(user.as_str().as_bytes()))
    }
}

impl fmt::Debug for PointKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PointKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_being_written_down_and_is_not_shown() {
        let key = PointKey::random().unwrap();
        assert_eq!(PointKey::from_hex(&key.to_hex()), Some(key));
        let early = PointKey::new([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7]);
        assert_eq!(PointKey::from_hex(&early.to_hex()), Some(early));
        assert_eq!(early.to_hex(), "00000000000000000000000000000007");
        let upper = key.to_hex().to_uppercase();
        assert_eq!(PointKey::from_hex(&upper), Some(key));
        for digits in [
            "",
            "1",
            "+0000000000000000000000000000001",
            "0x000000000000000000000000000001",
            &"0".repeat(30),
            &"0".repeat(31),
            &"0".repeat(34),
            &"g".repeat(32),
            &"\u{e9}".repeat(16),
        ] {
            assert_eq!(PointKey::from_hex(digits), None, "{digits}");
        }
        assert!(!format!("{key:?}").contains(&key.to_hex()[..6]));
    }
}
