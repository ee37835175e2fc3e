//! The name under which a user is stored: the given one, or a keyed hash of it.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use siphasher::sip128::{Hasher128, SipHasher24};
use std::hash::Hasher;

use domain::UserId;

/// Turns a user's name into the one that is stored.
///
/// With a key, nothing behind the edge ever sees the given name: stores, spool and lookups know only 32
/// hexadecimal digits of SipHash-2-4-128 under that key. The same key gives the same digits on every
/// instance; changing it makes every user a new one.
pub struct Identity(Option<Key>);

struct Key {
    bytes: [u8; 16],
}

impl Identity {
    /// Names stay as they are.
    pub fn plain() -> Self {
        Self(None)
    }

    /// Names become keyed hashes. `secret` is a text of any length; a key is derived from it.
    pub fn keyed(secret: &str) -> Self {
        let mut hasher = SipHasher24::new_with_key(b"headcount-useri\x01");
        hasher.write(secret.as_bytes());
        Self(Some(Key {
            bytes: hasher.finish128().as_bytes(),
        }))
    }

    /// Tells one secret from another and gives neither away, so that instances with different ones can refuse to share
    /// a store. Half of a SHA-256 is more than enough for that.
    pub fn digest_of(secret: &str) -> String {
        let mut text = b"headcount user_key\0".to_vec();
        text.extend_from_slice(secret.as_bytes());
        let digest = digest(&SHA256, &text);
        let half = digest.as_ref().iter().take(16);
        half.map(|byte| format!("{byte:02x}")).collect()
    }

    /// Calls `then` with the stored name of `given`.
    pub fn with<T>(&self, given: UserId<'_>, then: impl FnOnce(&UserId<'_>) -> T) -> T {
        match &self.0 {
            None => then(&given),
            Some(key) => {
                let mut hasher = SipHasher24::new_with_key(&key.bytes);
                hasher.write(given.as_str().as_bytes());
                then(&UserId::from_hash(hasher.finish128().as_u128()))
            }
        }
    }

    /// The stored name of `given`.
    pub fn of(&self, given: UserId<'_>) -> UserId<'static> {
        self.with(given, |stored| stored.clone().into_owned())
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() {
            "Identity(keyed)"
        } else {
            "Identity(plain)"
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(identity: &Identity, user: &str) -> String {
        identity
            .of(UserId::new(user.to_owned()).unwrap())
            .as_str()
            .to_owned()
    }

    #[test]
    fn a_key_hides_names_and_keeps_users_apart() {
        assert_eq!(stored(&Identity::plain(), "u1"), "u1");
        let keyed = Identity::keyed("k");
        assert_eq!(stored(&keyed, "u1"), stored(&Identity::keyed("k"), "u1"));
        assert_ne!(stored(&keyed, "u1"), stored(&keyed, "u2"));
        assert_ne!(
            stored(&keyed, "u1"),
            stored(&Identity::keyed("other"), "u1")
        );
        assert_eq!(stored(&keyed, "u1").len(), 32);
        assert_eq!(Identity::digest_of("k"), Identity::digest_of("k"));
        assert_ne!(Identity::digest_of("k"), Identity::digest_of("other"));
    }
}
