//! Who may do what: opaque tokens by their digests, JWTs by keys, scopes, and limits per token.
//!
//! Knows tokens and no HTTP: [`Auth::check`] turns the text of a token into a [`Caller`] or a reason.

pub(crate) mod base64url;
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
use self::watch::WatchedTokens;
use domain::{Clock, Timestamp};
use telemetry::Metrics;

/// Who sent a request.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The token's name or the JWT's subject; fit for a log line.
    pub name: Arc<str>,
    /// Tells them from all others: the digest of the token or of the JWT's subject.
    pub id: [u8; 32],
    /// What they may do.
    pub scopes: Scopes,
    /// The segments that they may name and see.
    pub reach: Reach,
    /// How much they may ask for; `None` is no limit.
    pub limiter: Option<Arc<Limiter>>,
}

/// Why a token lets nobody in. Completes "the token ...".
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// Nobody knows it: it was revoked, changed, or never given out.
    #[error("is unknown, revoked or not rightly signed")]
    Unknown,
    /// Its time is over.
    #[error("has expired")]
    Expired,
    /// Its time has not come.
    #[error("is not valid yet")]
    NotYet,
    /// A claim that must be there is not, or is none.
    #[error("has no right `{0}` claim")]
    Claim(&'static str),
    /// A claim is of a wrong kind.
    #[error("has a claim of a wrong kind")]
    Claims,
    /// It is meant for another service.
    #[error("is for another audience")]
    Audience,
    /// It is older than may be.
    #[error("was issued longer ago than this service allows")]
    TooOld,
    /// It is no access token.
    #[error("has a `typ` that no access token has")]
    Type,
    /// It comes from another issuer.
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

/// Knows everybody who may come in.
#[derive(Debug)]
pub struct Auth {
    tokens: Option<Arc<WatchedTokens>>,
    jwts: Option<Jwts>,
    clock: Arc<dyn Clock>,
    metrics_open: bool,
    mode: AuthMode,
}

impl Auth {
    /// Reads the tokens file, if there is one.
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
            clock,
            metrics_open: settings.metrics_open,
            mode: settings.mode,
        })
    }

    /// Asks nobody, and serves whoever comes.
    pub fn off(clock: Arc<dyn Clock>) -> Self {
        Self {
            tokens: None,
            jwts: None,
            clock,
            metrics_open: true,
            mode: AuthMode::Off,
        }
    }

    /// Whether anybody is asked for a token at all.
    pub fn is_on(&self) -> bool {
        self.tokens.is_some() || self.jwts.is_some()
    }

    /// Whether nobody is asked for a token because only this machine is served.
    pub fn is_for_loopback_only(&self) -> bool {
        !self.is_on() && self.mode == AuthMode::Auto
    }

    /// Whether metrics are for everybody.
    pub fn metrics_are_open(&self) -> bool {
        self.metrics_open
    }

    /// Now, by the clock that tokens expire by.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Who comes with `token`.
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
        match &self.jwts {
            Some(jwts) => jwts.check(token, &digest, now),
            None => Err(Invalid::Unknown),
        }
    }

    /// The files that are watched, by the settings that name them, and whether each is broken: then what was read before
    /// stays valid, and a revocation is not taken up.
    pub fn files(&self) -> impl Iterator<Item = (&'static str, bool)> {
        let tokens = self.tokens.iter();
        let tokens = tokens.map(|tokens| ("tokens_file", tokens.is_broken()));
        let keys = self.jwts.iter().filter_map(Jwts::watched);
        tokens.chain(keys.map(|keys| ("jwt_keys", keys.is_broken())))
    }

    /// Keeps the tokens and keys those of their files until `stop` is cancelled.
    pub async fn keep_current(&self, stop: CancellationToken) {
        let tokens = async {
            if let Some(tokens) = &self.tokens {
                watch::keep_looking(Arc::clone(tokens), stop.clone()).await;
            }
        };
        let keys = async {
            if let Some(keys) = self.jwts.as_ref().and_then(Jwts::watched) {
                watch::keep_looking(Arc::clone(keys), stop.clone()).await;
            }
        };
        tokio::join!(tokens, keys);
    }
}
