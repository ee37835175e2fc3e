//! What authentication is set to.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::{JwtKey, Rates};

/// Who may do what.
#[derive(Debug, Clone)]
pub struct AuthSettings {
    /// Whether tokens are asked for.
    pub mode: AuthMode,
    /// The file with the digests of tokens.
    pub tokens_file: Option<PathBuf>,
    /// How JWTs are checked.
    pub jwt: Option<JwtSettings>,
    /// What tokens may ask for that have no limits of their own.
    pub rates: Rates,
    /// Whether metrics are for everybody.
    pub metrics_open: bool,
}

impl AuthSettings {
    /// Whether tokens are asked for.
    pub fn is_on(&self) -> bool {
        self.tokens_file.is_some() || self.jwt.is_some()
    }
}

/// Whether tokens are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AuthMode {
    /// Once there are tokens or a key; without them only this machine is served.
    Auto,
    /// Never: every request is served.
    Off,
}

/// How JWTs are checked.
#[derive(Debug, Clone)]
pub struct JwtSettings {
    /// The keys.
    pub keys: JwtKeys,
    /// The `aud` that they must have.
    pub audience: Option<String>,
    /// The `iss` that they must have.
    pub issuer: Option<String>,
    /// How long ago they may have been issued; without it, `exp` alone ends them.
    pub max_age: Option<Duration>,
}

/// Where the keys of JWTs are.
#[derive(Debug, Clone)]
pub enum JwtKeys {
    /// One key, and with it the algorithm.
    One(JwtKey),
    /// A JWKS file, or a directory of PEM files; re-read when it changes.
    In(PathBuf),
}
