//! Checks of the settings of authentication, rate limits, trusted proxies and CORS.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use reqwest::Url;

use super::ConfigError;
use super::check::Check;
use super::raw::Time;
use domain::Secret;
use http::auth::{AuthMode, AuthSettings, JwtKey, JwtKeys, JwtSettings, MAX_RATE, Rates};
use http::networks::Networks;
use http::settings::Cors;

const SECOND: Duration = Duration::from_secs(1);
/// Longer than any token should live.
const LONGEST_AGE: Duration = Duration::from_hours(24 * 400);

/// The parsed settings, before they are checked.
pub(super) struct Protection {
    pub(super) mode: AuthMode,
    pub(super) tokens_file: Option<PathBuf>,
    pub(super) jwt_key: Option<String>,
    pub(super) jwt_keys: Option<PathBuf>,
    pub(super) jwt_audience: Option<String>,
    pub(super) jwt_issuer: Option<String>,
    pub(super) jwt_max_age: Option<Time>,
    pub(super) limit_requests: Option<u32>,
    pub(super) limit_pairs: Option<u32>,
    pub(super) metrics_open: bool,
}

impl Check<'_> {
    pub(super) fn auth(&self, given: Protection) -> Result<AuthSettings, ConfigError> {
        let key = given.jwt_key.map(Secret::new);
        let key = key.as_ref().map(JwtKey::parse).transpose();
        let key = key.map_err(|right| self.bad("jwt_key", right))?;
        let keys = match (key, given.jwt_keys) {
            (Some(_), Some(_)) => {
                return Err(self.bad("jwt_keys", "`jwt_key` or this: one of them"));
            }
            (Some(key), None) => Some(JwtKeys::One(key)),
            (None, path) => path.map(JwtKeys::In),
        };
        let on = given.tokens_file.is_some() || keys.is_some();
        if on && given.mode == AuthMode::Off {
            // One of the two settings is a mistake. An open service must not be the way to find out.
            return Err(self.bad(
                "auth",
                "auto, or none of `tokens_file`, `jwt_key` and `jwt_keys`: they ask for tokens",
            ));
        }
        for (name, is_given) in [
            ("jwt_audience", given.jwt_audience.is_some()),
            ("jwt_issuer", given.jwt_issuer.is_some()),
            ("jwt_max_age", given.jwt_max_age.is_some()),
        ] {
            if is_given && keys.is_none() {
                return Err(self.bad(name, "`jwt_key` or `jwt_keys` with it, or none of them"));
            }
        }
        let max_age = given.jwt_max_age;
        let max_age = max_age.map(|age| self.time("jwt_max_age", age, SECOND..=LONGEST_AGE));
        let rates = Rates {
            requests: self.rate("limit_requests", given.limit_requests, on)?,
            pairs: self.rate("limit_pairs", given.limit_pairs, on)?,
        };
        Ok(AuthSettings {
            mode: given.mode,
            tokens_file: given.tokens_file,
            jwt: match keys {
                Some(keys) => Some(JwtSettings {
                    keys,
                    audience: given.jwt_audience,
                    issuer: given.jwt_issuer,
                    max_age: max_age.transpose()?,
                }),
                None => None,
            },
            rates,
            metrics_open: given.metrics_open,
        })
    }

    fn rate(
        &self,
        name: &str,
        given: Option<u32>,
        on: bool,
    ) -> Result<Option<NonZeroU32>, ConfigError> {
        let Some(given) = given else {
            return Ok(None);
        };
        if !on {
            return Err(self.bad(
                name,
                "`tokens_file` or `jwt_key` with it: the limit is one per token",
            ));
        }
        match NonZeroU32::new(given).filter(|rate| rate.get() <= MAX_RATE) {
            Some(rate) => Ok(Some(rate)),
            None => Err(self.bad(name, format!("a whole number from 1 to {MAX_RATE}"))),
        }
    }

    pub(super) fn networks(&self, name: &str, given: &[String]) -> Result<Networks, ConfigError> {
        let networks = Networks::parse(given.iter().map(String::as_str));
        networks.ok_or_else(|| {
            self.bad(
                name,
                "addresses and networks such as 10.0.0.7 or 10.0.0.0/8, with commas between",
            )
        })
    }

    pub(super) fn cors(
        &self,
        given: Vec<String>,
        auth: &AuthSettings,
    ) -> Result<Cors, ConfigError> {
        let given: Vec<String> = given.iter().map(|text| text.trim().to_owned()).collect();
        match given.as_slice() {
            [] => return Ok(Cors::Off),
            [all] if all == "*" => {
                // Without auth the service listens on loopback, and any page in a local browser could read it.
                return match auth.is_on() || auth.mode == AuthMode::Off {
                    true => Ok(Cors::Any),
                    false => Err(self.bad(
                        "cors_origins",
                        "the origins of your pages by name, or `tokens_file` or `jwt_key` with it: without tokens \
                         every web page could read all counts",
                    )),
                };
            }
            _ => {}
        }
        // It must be spelt as browsers send it, or no `Origin` header would equal it.
        let is_origin = |text: &String| {
            let url = Url::parse(text).ok();
            url.is_some_and(|url| {
                matches!(url.scheme(), "http" | "https")
                    && url.origin().ascii_serialization() == *text
            })
        };
        match given.iter().all(is_origin) {
            true => Ok(Cors::Of(given)),
            false => Err(self.bad(
                "cors_origins",
                "origins such as https://app.example or http://localhost:3000, without a path, with commas between, or * alone",
            )),
        }
    }
}
