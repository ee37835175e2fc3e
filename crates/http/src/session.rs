//! Sessions of the page, which a browser stores instead of the token.
//!
//! The cookie is the token, encrypted under a key of the service. It can't be used as a token, and it authorizes only
//! reads by the page. A session ends after [`LONGEST`], at sign-out, and with the token. Instances with the same key
//! (`session_key`) accept each other's sessions. A sign-out is known only to the instance that received it: a copy of the
//! cookie stays valid on other instances until it expires, although the browser has deleted it.

use std::time::Duration;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use moka::sync::Cache;

use crate::auth::Digest;
use domain::{Secret, Timestamp};

/// The lifetime of a session: enough to sign in once per working day.
const LONGEST: Duration = Duration::from_hours(12);
/// Signed-out sessions that are remembered until they expire, 50 bytes each.
const MOST_ENDED: u64 = 100_000;
const ID_BYTES: usize = 16;
/// The longest token that can have a session. Browsers store cookies of up to 4096 bytes with name and attributes;
/// encryption adds 52 bytes, and base64 adds a third.
pub(super) const MAX_TOKEN: usize = 2_900;

/// Encrypts and decrypts sessions.
#[derive(Debug)]
pub(super) struct Sessions {
    /// `None` if the system provided no random bytes: then sign-in fails.
    key: Option<RandomizedNonceKey>,
    ended: Cache<[u8; ID_BYTES], ()>,
}

/// A decrypted session that has not ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Session {
    id: [u8; ID_BYTES],
    pub(super) token: String,
}

impl Sessions {
    /// Sessions under the key derived from `secret`. Without it the key is random, and sessions are valid only in this
    /// process.
    pub(super) fn new(secret: Option<&Secret>) -> Self {
        let key = match secret {
            Some(secret) => {
                let text = format!("headcount session {}", secret.reveal());
                Some(Digest::of(text.as_bytes()).bytes())
            }
            None => {
                let mut random = [0; 32];
                getrandom::fill(&mut random).ok().map(|()| random)
            }
        };
        Self {
            key: key.and_then(|key| RandomizedNonceKey::new(&AES_256_GCM, &key).ok()),
            ended: Cache::builder()
                .max_capacity(MOST_ENDED)
                .time_to_live(LONGEST)
                .build(),
        }
    }

    /// A new session for `token`, as the value of a cookie.
    pub(super) fn seal(&self, token: &str, now: Timestamp) -> Option<String> {
        let mut id = [0; ID_BYTES];
        getrandom::fill(&mut id).ok()?;
        let until = now.as_second().checked_add_unsigned(LONGEST.as_secs())?;
        let mut sealed = [&id[..], &until.to_be_bytes(), token.as_bytes()].concat();
        let key = self.key.as_ref()?;
        let nonce = key.seal_in_place_append_tag(Aad::empty(), &mut sealed);
        let nonce: [u8; NONCE_LEN] = *nonce.ok()?.as_ref();
        Some(BASE64_URL_SAFE_NO_PAD.encode([&nonce[..], &sealed].concat()))
    }

    /// The session in a cookie's value; `None` if it is invalid or has ended.
    pub(super) fn open(&self, text: &str, now: Timestamp) -> Option<Session> {
        let sealed = BASE64_URL_SAFE_NO_PAD.decode(text).ok()?;
        let (nonce, sealed) = sealed.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut sealed = sealed.to_vec();
        let key = self.key.as_ref()?;
        let opened = key.open_in_place(nonce, Aad::empty(), &mut sealed).ok()?;
        let (id, rest) = opened.split_first_chunk::<ID_BYTES>()?;
        let (until, token) = rest.split_first_chunk::<8>()?;
        let is_over = i64::from_be_bytes(*until) <= now.as_second();
        if is_over || self.ended.contains_key(id) {
            return None;
        }
        Some(Session {
            id: *id,
            token: String::from_utf8(token.to_vec()).ok()?,
        })
    }

    /// Ends a session on this instance.
    pub(super) fn end(&self, session: &Session) {
        self.ended.insert(session.id, ());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_session_is_opened_until_it_ends() {
        let sessions = Sessions::new(None);
        let text = sessions.seal("hc_secret", at(0)).unwrap();
        assert!(!text.contains("hc_secret") && text.is_ascii());
        assert_ne!(sessions.seal("hc_secret", at(0)), Some(text.clone()));
        let session = sessions.open(&text, at(12 * 3600 - 1)).unwrap();
        assert_eq!(session.token, "hc_secret");
        assert_eq!(
            sessions.open(&text, at(12 * 3600)),
            None,
            "it ends by itself"
        );
        assert_eq!(
            sessions.open("hc_secret", at(0)),
            None,
            "a token is no session"
        );
        for at_byte in 0..text.len() {
            let mut other = text.clone().into_bytes();
            other[at_byte] = if other[at_byte] == b'A' { b'B' } else { b'A' };
            let other = String::from_utf8(other).unwrap();
            assert_eq!(sessions.open(&other, at(0)), None);
        }
        sessions.end(&session);
        assert_eq!(sessions.open(&text, at(0)), None);
    }

    #[test]
    fn a_session_has_one_spelling() {
        let sessions = Sessions::new(None);
        let text = sessions.seal("t", at(0)).unwrap();
        // The last two bits of the last digit belong to no byte, and must be zero.
        assert_eq!(text.len() % 4, 3);
        let (start, last) = text.split_at(text.len() - 1);
        let last = char::from(last.as_bytes()[0] + 1);
        assert!(sessions.open(&text, at(0)).is_some());
        for other in [
            format!("{start}{last}"),
            format!("{text}="),
            format!("{text}A"),
            format!("{text} "),
            format!("{text}\u{e9}"),
        ] {
            assert_eq!(sessions.open(&other, at(0)), None, "{other}");
        }
    }

    #[test]
    fn instances_with_one_key_know_each_others_sessions() {
        let key = |text: &str| Sessions::new(Some(&Secret::new(text)));
        let text = key("one key for all").seal("t", at(0)).unwrap();
        assert!(key("one key for all").open(&text, at(0)).is_some());
        assert_eq!(key("another one").open(&text, at(0)), None);
        assert_eq!(Sessions::new(None).open(&text, at(0)), None);
    }

    #[test]
    fn the_longest_token_fits_a_cookie() {
        let text = Sessions::new(None).seal(&"x".repeat(MAX_TOKEN), at(0));
        assert!(text.unwrap().len() + 100 <= 4096);
    }
}
