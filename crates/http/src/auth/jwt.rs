//! JSON Web Tokens, which are signed by an issuer and verified with configured keys.

use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Validation, decode, decode_header};
use moka::sync::Cache;
use serde::Deserialize;

use super::jwt_key::JwtKey;
use super::keyring::{Keyring, WatchedKeys};
use super::{AuthError, Caller, Digest, Invalid, JwtKeys, JwtSettings, Limiter, Rates, Scopes};
use domain::Reach;
use domain::Timestamp;
use telemetry::Metrics;

/// The allowed clock skew to the issuer, in seconds.
const LEEWAY: f64 = 30.0;
/// Capacity of the caches of tokens and of subjects, a few hundred bytes each. An evicted token is only verified again.
const CACHE_CAPACITY: u64 = 10_000;
/// The limiter of a subject is evicted after this time without requests. A limiter is full again after a second, so an
/// eviction forgives nothing.
const LIMITER_IDLE: Duration = Duration::from_secs(60);
/// Longest subject in logs, in characters.
const MAX_NAME: usize = 64;

/// Verifies JWTs.
#[derive(Debug)]
pub(super) struct Jwts {
    keys: Keys,
    claims: RequiredClaims,
    max_age: Option<f64>,
    defaults: Rates,
    /// Tokens with a valid signature, by digest, so that a signature is verified once per token and not once per request.
    verified: Cache<[u8; 32], Arc<Verified>>,
    /// The limiters of subjects. With more active subjects than the capacity within a minute, some limiters are reset.
    limiters: Cache<[u8; 32], Arc<Limiter>>,
}

#[derive(Debug)]
enum Keys {
    /// The key from the settings.
    One(Arc<Keyring>),
    /// The keys of a file or directory, reloaded when it changes.
    Watched(Arc<WatchedKeys>),
}

/// The audience and issuer that a token must have.
#[derive(Debug)]
struct RequiredClaims {
    audience: Option<String>,
    issuer: Option<String>,
}

#[derive(Debug)]
struct Verified {
    /// The keys that it was verified with. After a change of the keys it is verified again.
    keyring: Arc<Keyring>,
    name: Arc<str>,
    subject: [u8; 32],
    scopes: Scopes,
    reach: Reach,
    expires: f64,
    not_before: Option<f64>,
    issued: Option<f64>,
}

#[derive(Deserialize)]
struct Claims {
    sub: Option<String>,
    scope: Option<OneOrMore>,
    /// Patterns of the segments that the token is bound to. Without the claim, all segments.
    segments: Option<OneOrMore>,
    /// Unix seconds, fractions allowed (RFC 7519, section 2).
    exp: Option<f64>,
    nbf: Option<f64>,
    iat: Option<f64>,
}

/// A claim with one value or several. RFC 8693 has the scopes in one string, separated by spaces; some issuers use an array.
/// In the claim `segments` a string is one pattern, because names of segments may have spaces.
#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    Text(String),
    List(Vec<String>),
}

impl Jwts {
    /// Reads the keys, if they are in a file or directory.
    pub(super) fn open(
        settings: &JwtSettings,
        defaults: Rates,
        metrics: &Arc<Metrics>,
    ) -> Result<Self, AuthError> {
        let keys = match &settings.keys {
            JwtKeys::One(key) => Keys::One(Arc::new(Keyring::of(key.clone()))),
            JwtKeys::In(path) => {
                let watched = WatchedKeys::open(path.clone(), Arc::clone(metrics))?;
                Keys::Watched(Arc::new(watched))
            }
        };
        if settings.audience.is_none() || settings.issuer.is_none() {
            tracing::warn!(
                "`jwt_audience` or `jwt_issuer` is not set: a JWT that the same issuer created for another service, or \
                 that another issuer created with the same key, is accepted"
            );
        }
        Ok(Self {
            keys,
            claims: RequiredClaims {
                audience: settings.audience.clone(),
                issuer: settings.issuer.clone(),
            },
            max_age: settings.max_age.map(|age| age.as_secs_f64()),
            defaults,
            verified: Cache::new(CACHE_CAPACITY),
            limiters: Cache::builder()
                .max_capacity(CACHE_CAPACITY)
                .time_to_idle(LIMITER_IDLE)
                .build(),
        })
    }

    /// The file or directory with the keys, if there is one.
    pub(super) fn watched(&self) -> Option<&Arc<WatchedKeys>> {
        match &self.keys {
            Keys::One(_) => None,
            Keys::Watched(keys) => Some(keys),
        }
    }

    fn keyring(&self) -> Arc<Keyring> {
        match &self.keys {
            Keys::One(keyring) => Arc::clone(keyring),
            Keys::Watched(keys) => keys.keyring(),
        }
    }

    /// The caller that `token`, with the digest `digest`, authenticates.
    pub(super) fn check(
        &self,
        token: &str,
        digest: &Digest,
        now: Timestamp,
    ) -> Result<Caller, Invalid> {
        let keyring = self.keyring();
        let known = self.verified.get(&digest.bytes());
        let verified = match known.filter(|known| Arc::ptr_eq(&known.keyring, &keyring)) {
            Some(verified) => verified,
            None => {
                // Only valid tokens are cached, so that a client that can't sign can't evict entries.
                let verified = Arc::new(self.verify(token, keyring)?);
                self.verified.insert(digest.bytes(), Arc::clone(&verified));
                verified
            }
        };
        let now = now.as_millisecond() as f64 / 1000.0;
        if now >= verified.expires + LEEWAY {
            self.verified.invalidate(&digest.bytes());
            return Err(Invalid::Expired);
        }
        if verified.not_before.is_some_and(|from| now < from - LEEWAY) {
            return Err(Invalid::NotYet);
        }
        if let Some(max_age) = self.max_age {
            let issued = verified.issued.ok_or(Invalid::Claim("iat"))?;
            if now >= issued + max_age + LEEWAY {
                return Err(Invalid::TooOld);
            }
            if now < issued - LEEWAY {
                return Err(Invalid::NotYet);
            }
        }
        Ok(Caller {
            name: Arc::clone(&verified.name),
            id: verified.subject,
            scopes: verified.scopes,
            reach: verified.reach.clone(),
            limiter: self.limiter(verified.subject),
        })
    }

    fn verify(&self, token: &str, keyring: Arc<Keyring>) -> Result<Verified, Invalid> {
        let header = decode_header(token).map_err(|_| Invalid::Unknown)?;
        if header.crit.is_some() {
            // RFC 7515, section 4.1.11: a token with critical extensions that are not supported must be rejected.
            return Err(Invalid::Unknown);
        }
        if !header.typ.as_deref().is_none_or(is_access_token) {
            return Err(Invalid::Type);
        }
        let mut claims = Err(Invalid::Unknown);
        for key in keyring.candidates(header.kid.as_deref()) {
            claims = self.claims_by(key, token);
            // After a bad signature another key may match. A claim that is invalid is invalid with every key.
            if !matches!(claims, Err(Invalid::Unknown)) {
                break;
            }
        }
        let claims = claims?;
        let scopes = match &claims.scope {
            Some(OneOrMore::Text(text)) => Scopes::known_among(text.split(' ')),
            Some(OneOrMore::List(list)) => Scopes::known_among(list.iter().map(String::as_str)),
            None => Scopes::default(),
        };
        let reach = match &claims.segments {
            None => Some(Reach::every()),
            Some(OneOrMore::Text(text)) => Reach::of([text]),
            Some(OneOrMore::List(list)) => Reach::of(list),
        };
        let subject = claims.sub.as_deref().unwrap_or_default();
        Ok(Verified {
            keyring,
            name: name(subject),
            subject: Digest::of(subject.as_bytes()).bytes(),
            scopes,
            reach: reach.ok_or(Invalid::Claim("segments"))?,
            expires: claims.exp.ok_or(Invalid::Claim("exp"))?,
            not_before: claims.nbf,
            issued: claims.iat,
        })
    }

    /// The claims of `token` if `key` verifies its signature.
    fn claims_by(&self, key: &JwtKey, token: &str) -> Result<Claims, Invalid> {
        // Only the key determines the algorithm, never the token.
        let mut validation = Validation::new(key.algorithm());
        // Times are checked at each request, by the service's clock.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        let mut required = vec!["exp"];
        if let Some(audience) = &self.claims.audience {
            validation.set_audience(&[audience]);
            required.push("aud");
        }
        if let Some(issuer) = &self.claims.issuer {
            validation.set_issuer(&[issuer]);
            required.push("iss");
        }
        validation.set_required_spec_claims(&required);
        let decoded = decode::<Claims>(token, key.decoding(), &validation);
        Ok(decoded.map_err(|error| refusal(error.kind()))?.claims)
    }

    /// The limiter of a subject; all tokens without a subject share one. It is looked up at each request, which keeps it
    /// from being evicted: two tokens of one subject must never have different limiters.
    fn limiter(&self, subject: [u8; 32]) -> Option<Arc<Limiter>> {
        if self.defaults == Rates::default() {
            return None;
        }
        self.limiters
            .optionally_get_with(subject, || Limiter::new(self.defaults).map(Arc::new))
    }
}

/// The reason that the client receives. A bad signature has no further reason, because the client can't fix the token.
fn refusal(error: &ErrorKind) -> Invalid {
    match error {
        ErrorKind::MissingRequiredClaim(claim) => match claim.as_str() {
            "aud" => Invalid::Claim("aud"),
            "iss" => Invalid::Claim("iss"),
            _ => Invalid::Claim("exp"),
        },
        // The header was parsed before, so this is about the claims, and the signature is valid.
        ErrorKind::Json(_) => Invalid::Claims,
        ErrorKind::InvalidAudience => Invalid::Audience,
        ErrorKind::InvalidIssuer => Invalid::Issuer,
        _ => Invalid::Unknown,
    }
}

/// Whether `typ` is that of a plain JWT or of an access token (RFC 9068). Other types are refused, because the same issuer
/// signs ID tokens and logout tokens with the same keys.
fn is_access_token(typ: &str) -> bool {
    let typ = typ.to_ascii_lowercase();
    matches!(
        typ.strip_prefix("application/").unwrap_or(&typ),
        "jwt" | "at+jwt"
    )
}

/// The subject, sanitized for a log line.
fn name(subject: &str) -> Arc<str> {
    let plain = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    let name: String = subject.chars().take(MAX_NAME).map(plain).collect();
    match name.as_str() {
        "" => "a JWT without subject".into(),
        name => name.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_cannot_play_tricks_on_the_log() {
        assert_eq!(&*name("uss"), "uss");
        assert_eq!(&*name("a\nb\u{1b}[2J"), "a\u{fffd}b\u{fffd}[2J");
        assert_eq!(name(&"é".repeat(100)).chars().count(), MAX_NAME);
        assert_eq!(&*name(""), "a JWT without subject");
    }
}
