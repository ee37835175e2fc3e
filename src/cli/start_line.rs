//! The first log line of a process: version, role and the main settings.

use crate::config::{CacheKind, Settings, StoreKind};
use http::auth::AuthMode;
use telemetry::version::{COMMIT, VERSION};

/// Logs that `role` starts.
pub(super) fn log(settings: &Settings, role: &str) {
    tracing::info!(
        version = VERSION,
        commit = COMMIT,
        role,
        store = store(settings.store.kind),
        cache = cache(settings.cache.kind),
        auth = match role {
            // Only services, with a token from the key of the installation.
            "live" => "services",
            _ => auth(settings),
        },
        "headcount starts"
    );
}

fn store(kind: StoreKind) -> &'static str {
    match kind {
        StoreKind::Embedded => "embedded",
        StoreKind::Influx => "influx",
        StoreKind::Redis => "redis",
        StoreKind::Postgres => "postgres",
    }
}

fn cache(kind: CacheKind) -> &'static str {
    match kind {
        CacheKind::Memory => "memory",
        CacheKind::Redis => "redis",
    }
}

/// The accepted credentials: tokens, JWTs or both; none on loopback only; none at all.
fn auth(settings: &Settings) -> &'static str {
    let auth = &settings.auth;
    match (auth.tokens_file.is_some(), auth.jwt.is_some(), auth.mode) {
        (true, true, _) => "tokens and JWTs",
        (true, false, _) => "tokens",
        (false, true, _) => "JWTs",
        (false, false, AuthMode::Auto) => "none, loopback only",
        (false, false, AuthMode::Off) => "off",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auth_is_told_in_words() {
        let told =
            |given: &[(&'static str, &str)]| auth(&Settings::with(given.iter().copied()).unwrap());
        assert_eq!(told(&[]), "none, loopback only");
        assert_eq!(told(&[("auth", "off")]), "off");
        let key = ("jwt_key", "a secret of thirty-two characters or more");
        assert_eq!(told(&[key]), "JWTs");
    }
}
