//! Checks of the settings of authentication, rate limits, trusted proxies and CORS.

use std::num::NonZeroU32;

use reqwest::Url;

use super::ConfigError;
use super::check::Check;
use domain::Secret;
use http::auth::{AuthMode, AuthSettings, JwtKey, JwtKeys, JwtSettings, Rates};
use http::networks::Networks;
use http::settings::Cors;

impl Check<'_> {
    pub(super) fn auth(&self) -> Result<AuthSettings, ConfigError> {
        let values = self.values;
        let keys = self.jwt_keys()?;
        let on = values.tokens_file.is_some() || keys.is_some();
        if on && values.auth == AuthMode::Off {
            // One of the two settings is a mistake. An open service must not be the way to find out.
            return Err(self.bad(
                "auth",
                "auto, or none of `tokens_file`, `jwt_key` and `jwt_keys`: they ask for tokens",
            ));
        }
        for (name, is_given) in [
            ("jwt_audience", values.jwt_audience.is_some()),
            ("jwt_issuer", values.jwt_issuer.is_some()),
            ("jwt_max_age", values.jwt_max_age.is_some()),
        ] {
            if is_given && keys.is_none() {
                return Err(self.bad(name, "`jwt_key` or `jwt_keys` with it, or none of them"));
            }
        }
        for (name, is_given) in [
            ("limit_requests", values.limit_requests.is_some()),
            ("limit_pairs", values.limit_pairs.is_some()),
        ] {
            if is_given && !on {
                return Err(self.bad(
                    name,
                    "`tokens_file` or `jwt_key` with it: the limit is one per token",
                ));
            }
        }
        Ok(AuthSettings {
            mode: values.auth,
            tokens_file: values.tokens_file.clone(),
            jwt: keys.map(|keys| JwtSettings {
                keys,
                audience: values.jwt_audience.clone(),
                issuer: values.jwt_issuer.clone(),
                max_age: values.jwt_max_age.map(|age| age.0),
            }),
            // The range of both begins at 1, so no limit that was given is lost here.
            rates: Rates {
                requests: values.limit_requests.and_then(NonZeroU32::new),
                pairs: values.limit_pairs.and_then(NonZeroU32::new),
            },
            metrics_open: values.metrics_open,
        })
    }

    fn jwt_keys(&self) -> Result<Option<JwtKeys>, ConfigError> {
        let key = self.values.jwt_key.as_deref().map(Secret::new);
        let key = key.as_ref().map(JwtKey::parse).transpose();
        let key = key.map_err(|right| self.bad("jwt_key", right))?;
        match (key, self.values.jwt_keys.clone()) {
            (Some(_), Some(_)) => Err(self.bad("jwt_keys", "`jwt_key` or this: one of them")),
            (Some(key), None) => Ok(Some(JwtKeys::One(key))),
            (None, path) => Ok(path.map(JwtKeys::In)),
        }
    }

    pub(super) fn trusted_proxies(&self) -> Result<Networks, ConfigError> {
        let given = self.values.trusted_proxies.iter().flatten();
        Networks::parse(given.map(String::as_str))
            .ok_or_else(|| self.layers.unexpected("trusted_proxies"))
    }

    pub(super) fn cors(&self, auth: &AuthSettings) -> Result<Cors, ConfigError> {
        let given = self.values.cors_origins.iter().flatten();
        let given: Vec<String> = given.map(|text| text.trim().to_owned()).collect();
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
