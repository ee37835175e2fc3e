//! Every setting, once: flags, variables, file keys, `check-config` and the page of settings follow from this list.

/// One setting.
#[derive(Debug)]
pub struct Setting {
    /// Its key in a file; upper case after `HEADCOUNT_` it is the variable, with dashes it is the flag.
    pub name: &'static str,
    /// The text that stands when no layer gives one; empty means that the setting is off.
    pub default: &'static str,
    /// What a right value is, to complete "give ...".
    pub expects: &'static str,
    /// What it does, in one line.
    pub help: &'static str,
    /// For a secret: the name of its twin that names a file to read it from.
    pub file_twin: Option<&'static str>,
}

const DURATION: &str = "a duration such as 500ms, 10s, 5m, 1h or 14d";
const SIZE: &str = "a size such as 512 KiB or 8 MiB";
pub(super) const POSTGRES_URL: &str = stores::postgres::POSTGRES_URL;
pub(super) const INFLUX_URL: &str = stores::influx::INFLUX_URL;
const COUNT: &str = "a whole number";
pub(super) const REDIS_URL: &str = "a URL such as redis://user:password@host:6379/0, rediss://host or redis+cluster://a:6379,b:6379";

/// The settings, in the order in which they are listed to people.
///
/// A new setting is a line here, a field of `Raw` and its place in `Settings`; tests fail where one is missing.
#[rustfmt::skip] // one setting a line: it is a table
pub const SETTINGS: &[Setting] = &[
    plain("listen", "127.0.0.1:8080", "an address and a port such as 127.0.0.1:8080 or [::]:8080", "address that the service listens on"),
    plain("auth", "auto", "auto or off", "`auto`: tokens are asked for once `tokens_file` or `jwt_key` is set, and without them only loopback is served; `off`: never asked for"),
    plain("tokens_file", "", "a file that `headcount token new` made", "file with the digests of tokens; re-read when it changes"),
    secret("jwt_key", "jwt_key_file", "a PEM public key or a secret", "key that JWTs are checked with: PEM public key (RSA: RS256, Ed25519: EdDSA), else a secret of 32 bytes or more (HS256)"),
    plain("jwt_keys", "", "a JWKS file, or a directory of PEM files", "keys that JWTs are checked with, in place of `jwt_key`: a JWKS file, or a directory of PEM files named by `kid`; re-read when they change"),
    plain("jwt_audience", "", "the `aud` that JWTs must have", "`aud` that JWTs must have"),
    plain("jwt_issuer", "", "the `iss` that JWTs must have", "`iss` that JWTs must have"),
    plain("jwt_max_age", "", DURATION, "how long ago a JWT may have been issued (`iat`, required then), whatever its `exp`"),
    plain("limit_requests", "", COUNT, "requests a second per token, and at once; more are answered with 429"),
    plain("limit_pairs", "", COUNT, "pairs a second per token, and at once; more are answered with 429"),
    plain("metrics_open", "true", "true or false", "whether /metrics needs no token; else one with scope `read`"),
    plain("cors_origins", "", "origins such as https://app.example, with commas between, or *", "web pages of these origins may ask; `*` is all"),
    plain("trusted_proxies", "", "addresses and networks such as 10.0.0.7 or 10.0.0.0/8, with commas between", "proxies whose `X-Forwarded-For` names the client in the audit trail; without any, the connection's other end does"),
    plain("max_body", "8 MiB", SIZE, "most bytes of a request's body, after decompression"),
    plain("max_connections", "16384", COUNT, "most connections open at once, less where the limit of open files is lower; more wait to be accepted"),
    plain("max_event_clients", "2000", COUNT, "most clients of /v1/events at once; more are answered with 503. One that does not read costs about 40 KiB"),
    plain("max_event_clients_per_token", "500", COUNT, "most of them with one token; more are answered with 429"),
    secret("session_key", "session_key_file", "at least 16 characters", "key of the page's sessions, the same on all instances that share a name; without one, sessions are of one process"),
    plain("header_timeout", "10s", DURATION, "longest time that a client may take to send a request's head"),
    plain("idle_timeout", "2m", DURATION, "longest time that a connection without a request is kept; above what load balancers and clients keep theirs for"),
    plain("shutdown_delay", "0s", DURATION, "how long the service goes on after SIGTERM while /readyz says draining, so that load balancers can leave it"),
    plain("shutdown_grace", "10s", DURATION, "longest time that requests under way may take after SIGTERM"),
    plain("window", "14d", DURATION, "how long a user stays in a segment after the last time seen there"),
    plain("resolution", "1m", DURATION, "step of time; divides the window, 1s to 1h"),
    plain("max_ahead", "5m", DURATION, "how far ahead of the clock a pair may be and still count as now"),
    plain("store", "embedded", "embedded, influx, postgres or redis", "where pairs live: embedded, influx, postgres or redis"),
    plain("data_dir", "./headcount-data", "a directory", "directory of the embedded store"),
    plain("snapshot_after", "64 MiB", SIZE, "growth of the embedded store's log after which it takes a snapshot: bounds what a start has to replay"),
    plain("data_file_bytes", "256 MiB", SIZE, "size at which a file of the embedded store's log is followed by a new one"),
    plain("influx_url", "", INFLUX_URL, "InfluxDB 2: where it is, such as `http://localhost:8086`"),
    plain("influx_org", "headcount", "the name of an organisation", "organisation in InfluxDB"),
    plain("influx_bucket", "headcount", "the name of a bucket", "bucket of the pairs; `headcount setup` makes it"),
    plain("influx_trend_bucket", "headcount_trend", "the name of another bucket", "bucket of the trend; `headcount setup` makes it"),
    secret("influx_token", "influx_token_file", "a token of InfluxDB that may read and write both buckets", "token for InfluxDB"),
    secret("postgres_url", "postgres_url_file", POSTGRES_URL, "Postgres: `postgres://user:password@host:5432/database`; TLS by `?sslmode=` disable, prefer, require, verify-ca or verify-full, and `sslrootcert=`"),
    plain("postgres_schema", "headcount", stores::postgres::SCHEMA, "schema of the tables in Postgres; `headcount setup` makes it"),
    plain("postgres_connections", "10", COUNT, "most connections to Postgres; half of them only write"),
    plain("postgres_statement_timeout", "1m", DURATION, "longest time that Postgres may work on one count"),
    plain("influx_write_timeout", "11s", DURATION, "longest time that InfluxDB may take for one write at first; after a time-out it grows, up to 30s. Its own limit is 10s"),
    plain("influx_query_timeout", "1m", DURATION, "longest time that InfluxDB may take for one query"),
    plain("write_deadline", "6s", DURATION, "how long a client waits for a store on the network before its pairs go to the spool, or without a spool are answered with 503"),
    plain("linger", "0ms", DURATION, "how long a write to InfluxDB waits for pairs of other requests"),
    plain("batch_pairs", "5000", COUNT, "most pairs in one write to InfluxDB or Postgres"),
    plain("spool_dir", "./headcount-spool", "a directory, or off", "where pairs wait while a store on the network is away; `off` keeps none"),
    plain("spool_max_bytes", "1 GiB", SIZE, "most bytes in the spool; beyond it pairs are answered with 503"),
    plain("cache", "memory", "memory or redis", "where last known counts live: memory or redis"),
    plain("cache_ttl", "15m", DURATION, "age from which a cached count is no longer trusted"),
    plain("memory_ttl", "1s", DURATION, "how long a count is answered from the process's own memory"),
    secret("redis_url", "redis_url_file", REDIS_URL, "Redis: `redis://[user:password@]host[:port][/db]`, `rediss://` for TLS, `redis+cluster://host,host` for a cluster"),
    plain("redis_prefix", "headcount", "1 to 64 printable ASCII characters without blanks and braces", "what every key in Redis begins with"),
    plain("refresh_mode", "loop", "loop or off", "whether the service recounts by itself: loop or off"),
    plain("refresh_interval", "1m", DURATION, "time from one recount to the next"),
    plain("refresh_parallelism", "2", COUNT, "counts in the store at once, for refreshes and readers together"),
    plain("refresh_windows", "", "durations, with commas between, such as 1d,7d", "windows recounted besides the full one"),
    plain("worker_listen", "", "an address and a port such as 127.0.0.1:8081", "address of a worker's /healthz, /readyz and /metrics"),
    plain("queue_pairs", "1000000", COUNT, "most pairs waiting to be stored; more are answered with 429"),
    plain("max_segments", "10000", COUNT, "most segments; pairs of further ones are rejected"),
    secret("user_key", "user_key_file", "at least 16 characters", "key that turns user ids into keyed hashes at the edge"),
    plain("log_format", "text", "text or json", "how log lines are written: text or json"),
    plain("log", "info", "a level (error, warn, info, debug, trace) or directives such as info,headcount=debug", "what is logged"),
];

const fn plain(
    name: &'static str,
    default: &'static str,
    expects: &'static str,
    help: &'static str,
) -> Setting {
    Setting {
        name,
        default,
        expects,
        help,
        file_twin: None,
    }
}

const fn secret(
    name: &'static str,
    file_twin: &'static str,
    expects: &'static str,
    help: &'static str,
) -> Setting {
    Setting {
        name,
        default: "",
        expects,
        help,
        file_twin: Some(file_twin),
    }
}

impl Setting {
    /// Whether its value must not be shown.
    pub fn is_secret(&self) -> bool {
        self.file_twin.is_some()
    }
}

/// The row of a setting in `docs/reference/settings.md`.
pub fn page_row(setting: &Setting) -> String {
    let default = match setting.default {
        "" => "-".to_owned(),
        text => format!("`{text}`"),
    };
    format!("| `{}` | {default} | {} |", setting.name, setting.help)
}

/// The variable of a setting or twin.
pub fn variable_of(name: &str) -> String {
    format!("{PREFIX}{}", name.to_ascii_uppercase())
}

/// The flag of a setting or twin, without the leading dashes.
pub fn flag_of(name: &str) -> String {
    name.replace('_', "-")
}

/// What the variable of a setting begins with.
pub const PREFIX: &str = "HEADCOUNT_";

/// The names that a layer may give: settings, and the file twins of secrets.
pub fn names() -> impl Iterator<Item = &'static str> {
    SETTINGS
        .iter()
        .flat_map(|setting| std::iter::once(setting.name).chain(setting.file_twin))
}

/// `name` as the table has it, if the table has it.
pub(super) fn known(name: &str) -> Option<&'static str> {
    names().find(|known| *known == name)
}

/// Whether `name` is a secret, or the twin that names a file with one.
pub(super) fn is_secret(name: &str) -> bool {
    let is_it = |setting: &Setting| setting.name == name || setting.file_twin == Some(name);
    SETTINGS
        .iter()
        .any(|setting| setting.is_secret() && is_it(setting))
}

/// The known name of which `name`, in lower case, is a misspelling: a letter or two are wrong. Likeness is not enough
/// here, since `window_days` may well be somebody else's.
pub(super) fn mistyped(name: &str) -> Option<&'static str> {
    names()
        .filter(|known| is_slip_of(known, name))
        .min_by_key(|known| strsim::damerau_levenshtein(known, name))
}

/// Whether `name` is `known` but for a letter or two.
pub(super) fn is_slip_of(known: &str, name: &str) -> bool {
    let allowed = if known.len() < 8 { 1 } else { 2 };
    strsim::damerau_levenshtein(known, name) <= allowed
}

/// The known name most like `name`, if any is like it.
pub(super) fn nearest(name: &str) -> Option<&'static str> {
    // Two names share a word or little more below this likeness: no help.
    const ALIKE: f64 = 0.75;
    let name = name.to_ascii_lowercase().replace('-', "_");
    names()
        .map(|known| (known, strsim::normalized_damerau_levenshtein(known, &name)))
        .filter(|(_, alike)| *alike >= ALIKE)
        .max_by(|(_, a), (_, b)| a.total_cmp(b))
        .map(|(known, _)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_twins_end_in_file() {
        let mut all: Vec<_> = names().collect();
        all.sort_unstable();
        let count = all.len();
        all.dedup();
        assert_eq!(all.len(), count);
        for setting in SETTINGS {
            if let Some(twin) = setting.file_twin {
                assert_eq!(twin, format!("{}_file", setting.name));
            }
        }
    }

    #[test]
    fn suggests_what_was_meant_and_nothing_else() {
        assert_eq!(nearest("wndow"), Some("window"));
        assert_eq!(nearest("refresh-intervall"), Some("refresh_interval"));
        assert_eq!(nearest("user_keyfile"), Some("user_key_file"));
        assert_eq!(nearest("banana"), None);
    }

    #[test]
    fn a_slip_of_the_finger_is_told_from_another_name() {
        for (name, meant) in [
            ("wndow", "window"),
            ("windwo", "window"),
            ("logs", "log"),
            ("influxdb_url", "influx_url"),
            ("redis_uri", "redis_url"),
            ("datadir", "data_dir"),
            ("window", "window"),
        ] {
            assert_eq!(mistyped(name), Some(meant), "{name}");
        }
        for name in ["", "foo", "port", "home", "image", "window_days", "version"] {
            assert_eq!(mistyped(name), None, "{name}");
        }
    }
}
