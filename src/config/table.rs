//! Every setting, once: flags, variables, file keys, `check-config` and the page of settings derive from this list.

/// One setting.
#[derive(Debug)]
pub struct Setting {
    /// Its key in a file. The variable is `HEADCOUNT_` and the name in upper case; the flag is the name with dashes.
    pub name: &'static str,
    /// The default as a string; empty means that the setting is unset.
    pub default: &'static str,
    /// What is valid, to complete "give ...".
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

/// The settings, in the order in which they are displayed.
///
/// A new setting needs a line here, a field of `Raw` and a field of `Settings`; tests fail if one is missing.
#[rustfmt::skip] // one setting a line: it is a table
pub const SETTINGS: &[Setting] = &[
    plain("listen", "127.0.0.1:8080", "an address and a port such as 127.0.0.1:8080 or [::]:8080", "address that the service listens on"),
    plain("auth", "auto", "auto or off", "`auto`: tokens are required if `tokens_file`, `jwt_key` or `jwt_keys` is set, else the service only listens on loopback; `off`: never required"),
    plain("tokens_file", "", "a file that `headcount token new` made", "file with the digests of tokens; it is read again when it changes"),
    secret("jwt_key", "jwt_key_file", "a PEM public key or a secret", "key that verifies JWTs: a PEM public key (RSA: RS256, Ed25519: EdDSA), or a secret of at least 32 bytes (HS256)"),
    plain("jwt_keys", "", "a JWKS file, or a directory of PEM files", "keys that verify JWTs, instead of `jwt_key`: a JWKS file, or a directory of PEM files named by `kid`; they are read again when they change"),
    plain("jwt_audience", "", "the `aud` that JWTs must have", "`aud` that JWTs must have"),
    plain("jwt_issuer", "", "the `iss` that JWTs must have", "`iss` that JWTs must have"),
    plain("jwt_max_age", "", DURATION, "maximum age of a JWT by its `iat`, which is then required, regardless of its `exp`"),
    plain("limit_requests", "", COUNT, "rate limit and burst of requests per second for each token; the response above it is 429"),
    plain("limit_pairs", "", COUNT, "rate limit and burst of pairs per second for each token; the response above it is 429"),
    plain("metrics_open", "true", "true or false", "whether /metrics is open; if false, it needs a token with scope `read`"),
    plain("cors_origins", "", "origins such as https://app.example, with commas between, or *", "origins whose web pages may send requests (CORS); `*` allows all"),
    plain("trusted_proxies", "", "addresses and networks such as 10.0.0.7 or 10.0.0.0/8, with commas between", "proxies whose `X-Forwarded-For` names the client in the audit trail; without it, the peer of the connection is the client"),
    plain("max_body", "8 MiB", SIZE, "maximum size of a request body after decompression"),
    plain("max_connections", "16384", COUNT, "maximum number of open connections, lower if the limit of open files is lower; further ones wait to be accepted"),
    plain("max_event_clients", "2000", COUNT, "maximum number of clients of /v1/events; the response to further ones is 503. A client that does not read costs about 40 KiB"),
    plain("max_event_clients_per_token", "500", COUNT, "maximum number of clients of /v1/events with one token; the response to further ones is 429"),
    secret("session_key", "session_key_file", "at least 16 characters", "key of the sessions of the page, the same on all instances behind one name; without it, a session is valid in one process only"),
    plain("header_timeout", "10s", DURATION, "timeout for the head of a request"),
    plain("idle_timeout", "2m", DURATION, "how long an idle connection is kept; longer than load balancers and clients keep theirs"),
    plain("shutdown_delay", "0s", DURATION, "how long the service continues after SIGTERM while /readyz reports draining, so that load balancers can remove it"),
    plain("shutdown_grace", "10s", DURATION, "timeout for requests in progress after SIGTERM"),
    plain("window", "14d", DURATION, "how long a user stays in a segment after they were last seen there"),
    plain("resolution", "1m", DURATION, "length of a slot, 1s to 1h; it divides the window"),
    plain("max_ahead", "5m", DURATION, "how far in the future the time of a pair may be; such a pair counts as seen now"),
    plain("store", "embedded", "embedded, influx, postgres or redis", "where pairs are stored: embedded, influx, postgres or redis"),
    plain("data_dir", "./headcount-data", "a directory", "directory of the embedded store"),
    plain("snapshot_after", "64 MiB", SIZE, "growth of the embedded store's log after which it takes a snapshot; it bounds the replay at a start"),
    plain("data_file_bytes", "256 MiB", SIZE, "size at which the embedded store's log begins a new file"),
    plain("influx_url", "", INFLUX_URL, "URL of InfluxDB 2, such as `http://localhost:8086`"),
    plain("influx_org", "headcount", "the name of an organisation", "organisation in InfluxDB"),
    plain("influx_bucket", "headcount", "the name of a bucket", "bucket of the pairs; `headcount setup` creates it"),
    plain("influx_trend_bucket", "headcount_trend", "the name of another bucket", "bucket of the trend; `headcount setup` creates it"),
    secret("influx_token", "influx_token_file", "a token of InfluxDB that may read and write both buckets", "token for InfluxDB"),
    secret("postgres_url", "postgres_url_file", POSTGRES_URL, "URL of Postgres: `postgres://user:password@host:5432/database`; TLS by `?sslmode=` disable, prefer, require, verify-ca or verify-full, and `sslrootcert=`"),
    plain("postgres_schema", "headcount", stores::postgres::SCHEMA, "schema of the tables in Postgres; `headcount setup` creates it"),
    plain("postgres_connections", "10", COUNT, "maximum number of connections to Postgres; half of them only write"),
    plain("postgres_statement_timeout", "1m", DURATION, "timeout for one count in Postgres"),
    plain("influx_write_timeout", "11s", DURATION, "first timeout for a write to InfluxDB; after a timeout it grows, up to 30s. The limit of InfluxDB itself is 10s"),
    plain("influx_query_timeout", "1m", DURATION, "timeout for a query to InfluxDB"),
    plain("write_deadline", "6s", DURATION, "how long a request waits for a store on the network before its pairs go to the spool, or before the response is 503 without a spool"),
    plain("linger", "0ms", DURATION, "how long a write to InfluxDB waits for pairs of other requests"),
    plain("batch_pairs", "5000", COUNT, "maximum number of pairs in one write to InfluxDB or Postgres"),
    plain("spool_dir", "./headcount-spool", "a directory, or off", "directory of the spool, where pairs wait while a store on the network is unavailable; `off` disables it"),
    plain("spool_max_bytes", "1 GiB", SIZE, "maximum size of the spool; above it the response to pairs is 503"),
    plain("cache", "memory", "memory or redis", "where the last known counts are cached: memory or redis"),
    plain("cache_ttl", "15m", DURATION, "age from which a cached count is no longer trusted"),
    plain("memory_ttl", "1s", DURATION, "how long a count is served from process memory"),
    secret("redis_url", "redis_url_file", REDIS_URL, "URL of Redis: `redis://[user:password@]host[:port][/db]`, `rediss://` for TLS, `redis+cluster://host,host` for a cluster"),
    plain("redis_prefix", "headcount", "1 to 64 printable ASCII characters without blanks and braces", "prefix of every key in Redis"),
    plain("refresh_mode", "loop", "loop or off", "whether the service recounts periodically: loop or off"),
    plain("refresh_interval", "1m", DURATION, "time from one recount to the next"),
    plain("refresh_parallelism", "2", COUNT, "maximum number of concurrent counts in the store, for refreshes and readers together"),
    plain("refresh_windows", "", "durations, with commas between, such as 1d,7d", "windows that are recounted in addition to the full one"),
    plain("worker_listen", "", "an address and a port such as 127.0.0.1:8081", "address of a worker's /healthz, /readyz and /metrics"),
    plain("queue_pairs", "1000000", COUNT, "capacity of the queue of pairs that wait for the store; the response above it is 429"),
    plain("max_segments", "10000", COUNT, "maximum number of segments; pairs of further ones are rejected"),
    secret("user_key", "user_key_file", "at least 16 characters", "key of the keyed hashes that replace user ids before they are stored"),
    plain("log_format", "text", "text or json", "format of log lines: text or json"),
    plain("log", "info", "a level (error, warn, info, debug, trace) or directives such as info,headcount=debug", "what is logged"),
];

/// The groups of [`SETTINGS`], each with its first setting.
const GROUPS: &[(&str, &str)] = &[
    ("listen", "Address"),
    ("auth", "Authentication"),
    ("cors_origins", "HTTP"),
    ("window", "Window"),
    ("store", "Store"),
    ("write_deadline", "Writes to a store on the network"),
    ("cache", "Cache"),
    ("refresh_mode", "Recounts"),
    ("queue_pairs", "Limits and privacy"),
    ("log_format", "Logs"),
];

/// The title of the group of the setting `name`, for help texts. Unknown names have the title of the last group.
pub fn group_of(name: &str) -> &'static str {
    let mut title = "";
    for setting in SETTINGS {
        if let Some((_, begun)) = GROUPS.iter().find(|(first, _)| *first == setting.name) {
            title = begun;
        }
        if setting.name == name {
            break;
        }
    }
    title
}

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

/// The prefix of the variable of a setting.
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

/// Whether `name` is a secret or the file twin of one.
pub(super) fn is_secret(name: &str) -> bool {
    let is_it = |setting: &Setting| setting.name == name || setting.file_twin == Some(name);
    SETTINGS
        .iter()
        .any(|setting| setting.is_secret() && is_it(setting))
}

/// The known name that `name`, in lower case, misspells by a letter or two. Similarity is not enough here, since
/// `window_days` may belong to another program.
pub(super) fn mistyped(name: &str) -> Option<&'static str> {
    names()
        .filter(|known| is_slip_of(known, name))
        .min_by_key(|known| strsim::damerau_levenshtein(known, name))
}

/// Whether `name` differs from `known` by a letter or two.
pub(super) fn is_slip_of(known: &str, name: &str) -> bool {
    let allowed = if known.len() < 8 { 1 } else { 2 };
    strsim::damerau_levenshtein(known, name) <= allowed
}

/// The known name most similar to `name`, if any is similar enough.
pub(super) fn nearest(name: &str) -> Option<&'static str> {
    // Below this similarity two names share at most a word, and a suggestion does not help.
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
