//! The first log line of a process: version, role and the main settings. Programs read it, so its fields keep their names.

use crate::config::{CacheKind, LiveMode, Settings, StoreKind};
use domain::text::duration_text;
use http::auth::AuthMode;
use telemetry::version::{COMMIT, VERSION};

/// Logs that `role` starts.
pub(super) fn log(settings: &Settings, role: &str) {
    tracing::info!(
        version = VERSION,
        commit = COMMIT,
        role,
        pid = std::process::id(),
        listen = listen(settings, role),
        store = store(settings.store.kind),
        cache = cache(settings.cache.kind),
        live = live(settings.live.mode),
        window = duration_text(settings.frame.full_window().seconds()),
        auth = match role {
            // Only services, with a token from the key of the installation.
            "live" => "services",
            _ => auth(settings),
        },
        "headcount starts"
    );
}

/// The configured address; the line "listening" has the port that the system chose.
fn listen(settings: &Settings, role: &str) -> String {
    let address = match role {
        "worker" => settings.refresh.worker_listen,
        _ => Some(settings.listen),
    };
    address.map_or_else(|| "-".to_owned(), |address| address.to_string())
}

fn live(mode: LiveMode) -> &'static str {
    match mode {
        LiveMode::Off => "off",
        LiveMode::Here => "here",
        LiveMode::Redis => "redis",
    }
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
    fn a_worker_listens_elsewhere_or_nowhere() {
        let settings = Settings::with([]).unwrap();
        assert_eq!(listen(&settings, "serve"), "127.0.0.1:8080");
        assert_eq!(listen(&settings, "worker"), "-");
        let settings = Settings::with([("worker_listen", "127.0.0.1:81")]).unwrap();
        assert_eq!(listen(&settings, "worker"), "127.0.0.1:81");
    }

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
