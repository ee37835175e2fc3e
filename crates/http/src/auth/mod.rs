//! Authentication: opaque tokens by their digests, JWTs by keys; the scopes and rate limits of a token.
//!
//! Independent of HTTP: [`Auth::check`] turns a token string into a [`Caller`] or an error.

mod digest;
mod edit;
mod file;
#[cfg(test)]
mod fuzz;
mod jwks;
mod jwt;
mod jwt_key;
mod keyring;
mod limits;
mod scope;
mod services;
mod settings;
mod table;
mod watch;

use std::path::PathBuf;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

pub use digest::{Digest, new_token};
pub use domain::{PATTERN, Reach};
pub use edit::{EditError, edit, read};
pub use file::{BadTokens, Token, Tokens};
pub use jwt_key::JwtKey;
pub use limits::{Limited, Limiter, MAX_RATE, Rates};
pub use scope::{Scope, Scopes};
pub use settings::{AuthMode, AuthSettings, JwtKeys, JwtSettings};

use self::jwt::Jwts;
use self::services::Services;
use self::watch::WatchedTokens;
use domain::{Clock, Timestamp};
use telemetry::Metrics;

/// The authenticated sender of a request.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The token's name or the JWT's subject, without control characters.
    pub name: Arc<str>,
    /// Unique per caller: the digest of the token or of the JWT's subject.
    pub id: [u8; 32],
    /// What the caller may do.
    pub scopes: Scopes,
    /// The segments that the caller may name and see.
    pub reach: Reach,
    /// The rate limits; `None` is no limit.
    pub limiter: Option<Arc<Limiter>>,
}

/// Why a token is invalid. The message completes "the token ...".
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// It was revoked, changed, never issued, or not signed with a configured key.
    #[error("is unknown, revoked or has an invalid signature")]
    Unknown,
    /// It has expired.
    #[error("has expired")]
    Expired,
    /// It is not valid yet (`nbf`, `iat`).
    #[error("is not valid yet")]
    NotYet,
    /// A required claim is missing or invalid.
    #[error("has no valid `{0}` claim")]
    Claim(&'static str),
    /// A claim has the wrong type.
    #[error("has a claim of the wrong type")]
    Claims,
    /// It is for another service (`aud`).
    #[error("is for another audience")]
    Audience,
    /// It is older than `jwt_max_age`.
    #[error("was issued longer ago than this service allows")]
    TooOld,
    /// It is not an access token (`typ`).
    #[error("has a `typ` other than that of an access token")]
    Type,
    /// It is from another issuer (`iss`).
    #[error("is from another issuer")]
    Issuer,
}

/// A file of tokens or keys can't be used.
#[derive(Debug, thiserror::Error)]
#[error("setting `{setting}` names the file {path}, which {problem}")]
pub struct AuthError {
    setting: &'static str,
    path: PathBuf,
    problem: String,
}

/// Authenticates tokens.
#[derive(Debug)]
pub struct Auth {
    tokens: Option<Arc<WatchedTokens>>,
    jwts: Option<Jwts>,
    /// The services that ask a live process.
    services: Option<Services>,
    clock: Arc<dyn Clock>,
    metrics_open: bool,
    mode: AuthMode,
}

impl Auth {
    /// Reads the configured tokens file and keys. Fails if one of them can't be used.
    pub fn open(
        settings: &AuthSettings,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, AuthError> {
        let jwts = settings.jwt.as_ref();
        let jwts = jwts
            .map(|jwt| Jwts::open(jwt, settings.rates, &metrics))
            .transpose()?;
        let tokens = match &settings.tokens_file {
            Some(path) => {
                let watched = WatchedTokens::open(path.clone(), settings.rates, metrics)?;
                Some(Arc::new(watched))
            }
            None => None,
        };
        Ok(Self {
            tokens,
            jwts,
            services: None,
            clock,
            metrics_open: settings.metrics_open,
            mode: settings.mode,
        })
    }

    /// Requires no tokens.
    pub fn off(clock: Arc<dyn Clock>) -> Self {
        Self {
            tokens: None,
            jwts: None,
            services: None,
            clock,
            metrics_open: true,
            mode: AuthMode::Off,
        }
    }

    /// Accepts only the token that `token` returns, that of the services which ask a live process; nobody while it returns
    /// `None`.
    pub(crate) fn of_services(
        clock: Arc<dyn Clock>,
        token: impl Fn() -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        Self {
            services: Some(Services::new(token)),
            ..Self::off(clock)
        }
    }

    /// Whether tokens are required at all.
    pub fn is_on(&self) -> bool {
        self.tokens.is_some() || self.jwts.is_some() || self.services.is_some()
    }

    /// Whether no tokens are required because only this machine is served.
    pub(crate) fn is_for_loopback_only(&self) -> bool {
        !self.is_on() && self.mode == AuthMode::Auto
    }

    /// Whether `/metrics` needs no token.
    pub(crate) fn metrics_are_open(&self) -> bool {
        self.metrics_open
    }

    /// Now, by the clock that decides whether tokens have expired.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The caller that `token` authenticates.
    pub fn check(&self, token: &str) -> Result<Caller, Invalid> {
        let (digest, now) = (Digest::of(token.as_bytes()), self.clock.now());
        if let Some(tokens) = &self.tokens
            && let Some(known) = tokens.table().find(&digest)
        {
            return match known.expires {
                Some(expires) if expires <= now => Err(Invalid::Expired),
                _ => Ok(known.caller.clone()),
            };
        }
        if let Some(services) = &self.services {
            return services.check(digest);
        }
        match &self.jwts {
            Some(jwts) => jwts.check(token, &digest, now),
            None => Err(Invalid::Unknown),
        }
    }

    /// The settings that name watched files, and whether each file is broken. While a file is broken, its last valid
    /// contents stay in use, and revocations have no effect.
    pub fn files(&self) -> impl Iterator<Item = (&'static str, bool)> {
        let tokens = self.tokens.iter();
        let tokens = tokens.map(|tokens| ("tokens_file", tokens.is_broken()));
        let keys = self.jwts.iter().filter_map(Jwts::watched);
        tokens.chain(keys.map(|keys| ("jwt_keys", keys.is_broken())))
    }

    /// Reloads tokens and keys when their files change, until `stop` is cancelled.
    pub(crate) async fn keep_current(&self, stop: CancellationToken) {
        let tokens = async {
            if let Some(tokens) = &self.tokens {
                watch::poll_until(Arc::clone(tokens), stop.clone()).await;
            }
        };
        let keys = async {
            if let Some(keys) = self.jwts.as_ref().and_then(Jwts::watched) {
                watch::poll_until(Arc::clone(keys), stop.clone()).await;
            }
        };
        tokio::join!(tokens, keys);
    }
}
