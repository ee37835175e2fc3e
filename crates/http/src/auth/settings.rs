//! The options of authentication.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::{JwtKey, Rates};

/// The options of authentication.
#[derive(Debug, Clone)]
pub struct AuthSettings {
    /// When tokens are required.
    pub mode: AuthMode,
    /// The file with the digests of tokens.
    pub tokens_file: Option<PathBuf>,
    /// How JWTs are verified; `None` if they are not accepted.
    pub jwt: Option<JwtSettings>,
    /// The rate limits of tokens that have none of their own.
    pub rates: Rates,
    /// Whether `/metrics` needs no token.
    pub metrics_open: bool,
}

impl AuthSettings {
    /// Whether tokens are required.
    pub fn is_on(&self) -> bool {
        self.tokens_file.is_some() || self.jwt.is_some()
    }
}

/// When tokens are required.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AuthMode {
    /// If a tokens file or a key is configured. Otherwise only this machine is served.
    Auto,
    /// Never: every request is served.
    Off,
}

/// How JWTs are verified.
#[derive(Debug, Clone)]
pub struct JwtSettings {
    /// The keys.
    pub keys: JwtKeys,
    /// The `aud` that they must have.
    pub audience: Option<String>,
    /// The `iss` that they must have.
    pub issuer: Option<String>,
    /// The most time since they were issued. Without it, only `exp` limits their age.
    pub max_age: Option<Duration>,
}

/// Where the keys of JWTs are.
#[derive(Debug, Clone)]
pub enum JwtKeys {
    /// One key with its algorithm.
    One(JwtKey),
    /// A JWKS file, or a directory of PEM files; reloaded when it changes.
    In(PathBuf),
}
