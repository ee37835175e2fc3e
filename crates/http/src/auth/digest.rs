//! Opaque tokens. Only their digests are stored.

use std::fmt;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use base16ct::HexDisplay;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Random bytes of a token.
const TOKEN_BYTES: usize = 32;
/// The prefix of a token, by which people and secret scanners recognize it.
const TOKEN_PREFIX: &str = "hc_";

/// A new random token. It is hexadecimal, so that a double click selects all of it, and shells and URLs need no escaping.
pub fn new_token() -> Result<String, getrandom::Error> {
    let mut random = [0; TOKEN_BYTES];
    getrandom::fill(&mut random)?;
    Ok(format!("{TOKEN_PREFIX}{:x}", HexDisplay(&random)))
}

/// SHA-256 of a token.
///
/// A slow, salted hash (argon2, bcrypt) makes it expensive to guess a password. A token of 256 random bits can't be guessed
/// at any speed, and the hash is computed for every request: SHA-256 takes a fraction of a microsecond.
#[derive(Clone, Copy)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of `token`.
    pub fn of(token: &[u8]) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, token).as_ref());
        Self(bytes)
    }

    /// The first bytes, as the key of a hash map. The timing of the look-up may reveal part of a digest, but a token can't
    /// be derived from its digest.
    pub(super) fn start(&self) -> [u8; 8] {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        [a, b, c, d, e, f, g, h]
    }

    pub(crate) fn bytes(&self) -> [u8; 32] {
        self.0
    }

    fn from_hex(text: &str) -> Option<Self> {
        let bytes = base16ct::mixed::decode_vec(text).ok()?;
        bytes.try_into().ok().map(Self)
    }
}

/// Compares in constant time.
impl PartialEq for Digest {
    fn eq(&self, other: &Self) -> bool {
        verify_slices_are_equal(&self.0, &other.0).is_ok()
    }
}

impl Eq for Digest {}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", HexDisplay(&self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digest(..)")
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::from_hex(&text)
            .ok_or_else(|| serde::de::Error::custom("sha256 must be 64 hexadecimal digits"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_the_one_that_sha256sum_prints() {
        let digest = Digest::of(b"abc");
        let text = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(digest.to_string(), text);
        assert_eq!(Digest::from_hex(text), Some(digest));
        assert_eq!(Digest::from_hex(&text.to_uppercase()), Some(digest));
        assert_ne!(digest, Digest::of(b"abd"));
        for bad in [
            "",
            "00",
            &text[1..],
            &format!("{text}0"),
            &text[2..],
            &format!("0x{}", &text[2..]),
            &format!("{text}00"),
            &text.replace('b', "g"),
            &"\u{e9}".repeat(32),
        ] {
            assert_eq!(Digest::from_hex(bad), None, "{bad}");
        }
        assert!(!format!("{digest:?}").contains("ba78"));
    }

    #[test]
    fn tokens_differ_and_fit_a_header() {
        let (one, other) = (new_token().unwrap(), new_token().unwrap());
        assert_ne!(one, other);
        assert_eq!(one.len(), 3 + 64);
        assert!(
            one.bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        );
    }
}
