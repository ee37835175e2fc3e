//! The stored form of a user id: the received id, or a keyed hash of it.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use siphasher::sip128::{Hasher128, SipHasher24};
use std::hash::Hasher;

use domain::UserId;

/// Maps a received user id to the stored id.
///
/// With a key, only the edge sees the received id. Stores, spool and lookups use the 32 hexadecimal digits of
/// SipHash-2-4-128 under that key. The same key gives the same digits on every instance. With another key every user
/// is a new one.
pub struct Identity(Option<Key>);

struct Key {
    bytes: [u8; 16],
}

impl Identity {
    /// User ids are stored unchanged.
    pub fn plain() -> Self {
        Self(None)
    }

    /// User ids are stored as keyed hashes. The key is derived from `secret`, a string of any length.
    pub fn keyed(secret: &str) -> Self {
        let mut hasher = SipHasher24::new_with_key(b"headcount-useri\x01");
        hasher.write(secret.as_bytes());
        Self(Some(Key {
            bytes: hasher.finish128().as_bytes(),
        }))
    }

    /// A digest by which instances with different secrets can refuse to share a store. It does not reveal the secret.
    /// Half of a SHA-256 is more than enough to distinguish secrets.
    pub fn digest_of(secret: &str) -> String {
        let mut input = b"headcount user_key\0".to_vec();
        input.extend_from_slice(secret.as_bytes());
        let digest = digest(&SHA256, &input);
        base16ct::lower::encode_string(&digest.as_ref()[..16])
    }

    /// Calls `then` with the stored id of `given`.
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

    /// The stored id of `given`.
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
        // The stores keep it, so it may never change.
        let digest = "b7a190e003628d98c7f73373b5fd2fb3";
        assert_eq!(Identity::digest_of("k"), digest);
        assert_ne!(Identity::digest_of("k"), Identity::digest_of("other"));
    }
}
