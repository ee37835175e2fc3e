//! The key under which user ids become fingerprints.

use std::fmt;

use siphasher::sip::SipHasher13;

use super::UserId;

/// A secret random key, one for each directory or installation. It never changes.
///
/// Without a key, a fingerprint would be a public hash of the user id. Anyone could then find out an erased user by trying
/// ids, and construct two ids with one fingerprint.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct FingerprintKey([u8; 16]);

impl FingerprintKey {
    /// The key with these bytes.
    pub const fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// A new random key. Fails if the system has no random bytes.
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes)?;
        Ok(Self(bytes))
    }

    /// The bytes of the key.
    pub const fn bytes(self) -> [u8; 16] {
        self.0
    }

    /// The key as 32 hexadecimal digits.
    pub fn to_hex(self) -> String {
        base16ct::lower::encode_string(&self.0)
    }

    /// The key with these 32 hexadecimal digits; `None` if the string is something else.
    pub fn from_hex(digits: &str) -> Option<Self> {
        let bytes = base16ct::mixed::decode_vec(digits).ok()?;
        bytes.try_into().ok().map(Self)
    }

    /// The hash of a user id: SipHash-1-3 under this key. Its top 48 bits are the user's fingerprint.
    pub fn hash(self, user: &UserId<'_>) -> u64 {
        SipHasher13::new_with_key(&self.0).hash(user.as_str().as_bytes())
    }
}

impl fmt::Debug for FingerprintKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FingerprintKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_being_written_down_and_is_not_shown() {
        let key = FingerprintKey::random().unwrap();
        assert_eq!(FingerprintKey::from_hex(&key.to_hex()), Some(key));
        let early = FingerprintKey::new([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7]);
        assert_eq!(FingerprintKey::from_hex(&early.to_hex()), Some(early));
        assert_eq!(early.to_hex(), "00000000000000000000000000000007");
        let upper = key.to_hex().to_uppercase();
        assert_eq!(FingerprintKey::from_hex(&upper), Some(key));
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
            assert_eq!(FingerprintKey::from_hex(digits), None, "{digits}");
        }
        assert!(!format!("{key:?}").contains(&key.to_hex()[..6]));
    }
}
