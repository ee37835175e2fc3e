//! Every setting, once: flags, variables, file keys, `check-config`, the parser, the ranges and the documents derive from
//! this table. `CONTRIBUTING.md` has the steps to add one.

use std::net::SocketAddr;
use std::path::PathBuf;

use bytesize::ByteSize;

use super::check::is_filter;
use super::row::{Setting, settings};
use super::rule::{Checked, Rule, Time};
use super::settings::{CacheKind, LiveMode, RefreshMode, StoreKind};
use http::auth::{AuthMode, MAX_RATE};
use http::settings::Switch;
use stores::influx::INFLUX_URL;
use stores::postgres::{POSTGRES_URL, SCHEMA, is_schema};
use telemetry::LogFormat;

const DURATION: &str = "a duration such as 500ms, 10s, 5m, 1h or 14d";
pub(super) const REDIS_URL: &str = "a URL such as redis://user:password@host:6379/0, rediss://host or redis+cluster://a:6379,b:6379";
const OTLP_ENDPOINT: &str =
    "a base URL such as http://localhost:4318, without user, query and fragment";
const FILTER: &str =
    "a level (error, warn, info, debug, trace) or directives such as info,headcount=debug";
/// A key must not be guessable: the values that it protects, such as user ids, are often few and regular.
const KEY: Checked = Checked(|key| key.len() >= 16, "at least 16 characters");
const INFLUX_TOKEN: Checked = Checked(
    |token| !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic()),
    "a token of InfluxDB that may read and write both buckets, in printable ASCII characters without blanks",
);

const A_NAME: &str = "a name without line breaks";
const EVENT_SEGMENT: &str =
    "some of properties.segment, event, groupId and name, with commas between";

fn is_a_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(['\n', '\r'])
}

// The greatest durations keep `Instant + duration` far from overflow, which would panic.
settings! {
    "Address" {
        listen: SocketAddr = "127.0.0.1:8080", "an address and a port such as 127.0.0.1:8080 or [::]:8080",
            "address that the service listens on";
        public_listen: Option<SocketAddr> = "", "an address and a port such as 0.0.0.0:8081",
            "second address of `headcount serve`, for a proxy or Ingress that takes requests from outside: it serves only writes of pairs and reads of counts, and responds to everything else, such as administration, user ids, `/metrics` and the page, with 404";
    }
    "Authentication" {
        auth: AuthMode = "auto", "auto or off",
            "`auto`: tokens are required if `tokens_file`, `jwt_key` or `jwt_keys` is set, else the service only listens on loopback; `off`: never required";
        tokens_file: Option<PathBuf> = "", "a file that `headcount token new` made",
            "file with the digests of tokens; it is read again when it changes";
        jwt_key: Option<String> = secret, "a PEM public key or a secret",
            "key that verifies JWTs: a PEM public key (RSA: RS256, Ed25519: EdDSA), or a secret of at least 32 bytes (HS256)";
        jwt_keys: Option<PathBuf> = "", "a JWKS file, or a directory of PEM files",
            "keys that verify JWTs, instead of `jwt_key`: a JWKS file, or a directory of PEM files named by `kid`; they are read again when they change";
        jwt_audience: Option<String> = "", "the `aud` that JWTs must have",
            "`aud` that JWTs must have";
        jwt_issuer: Option<String> = "", "the `iss` that JWTs must have",
            "`iss` that JWTs must have";
        jwt_max_age: Option<Time> = "", Time::seconds(1)..=Time::days(400),
            "maximum age of a JWT by its `iat`, which is then required, regardless of its `exp`";
        limit_requests: Option<u32> = "", 1..=MAX_RATE,
            "rate limit and burst of requests per second for each token; the response above it is 429";
        limit_pairs: Option<u32> = "", 1..=MAX_RATE,
            "rate limit and burst of pairs per second for each token; the response above it is 429";
        metrics_open: bool = "true", "true or false",
            "whether /metrics is open; if false, it needs a token with scope `read`";
    }
    "HTTP" {
        cors_origins: Option<Vec<String>> = "", "origins such as https://app.example, with commas between, or *",
            "origins whose web pages may send requests (CORS); `*` allows all";
        trusted_proxies: Option<Vec<String>> = "", "addresses and networks such as 10.0.0.7 or 10.0.0.0/8, with commas between",
            "proxies whose `X-Forwarded-For` names the client in the audit trail; without it, the peer of the connection is the client";
        max_body: ByteSize = "8 MiB", ByteSize::kib(1)..=ByteSize::gib(1),
            "maximum size of a request body after decompression";
        max_connections: usize = "16384", 1..=1_000_000,
            "maximum number of open connections, lower if the limit of open files is lower; further ones wait to be accepted";
        max_event_clients: usize = "2000", 1..=1_000_000,
            "maximum number of clients of /v1/events; the response to further ones is 503. A client that does not read costs about 40 KiB";
        max_event_clients_per_token: usize = "500", 1..=1_000_000,
            "maximum number of clients of /v1/events with one token; the response to further ones is 429";
        min_users: u32 = "0", 0..=1_000_000_000,
            "privacy floor: counts below it are withheld, and so are counts that would reveal a smaller group of users; 0: off";
        export: Switch = "off", "on or off",
            "whether tokens with scope `export` may list the users of a segment by name";
        session_key: Option<String> = secret, KEY,
            "key of the sessions of the page, the same on all instances behind one name; without it, a session is valid in one process only";
        header_timeout: Time = "10s", Time::millis(100)..=Time::hours(1),
            "timeout for the head of a request";
        idle_timeout: Time = "2m", Time::millis(100)..=Time::hours(1),
            "how long an idle connection is kept; longer than load balancers and clients keep theirs";
        shutdown_delay: Time = "0s", Time::millis(0)..=Time::hours(1),
            "how long the service continues after SIGTERM while /readyz reports draining, so that load balancers can remove it";
        shutdown_grace: Time = "10s", Time::millis(0)..=Time::hours(1),
            "timeout for requests in progress after SIGTERM";
    }
    "Clients of other programs" {
        line_protocol_measurement: String = "pair", Checked(is_a_name, A_NAME),
            "measurement of the points in InfluxDB's line protocol that are pairs; others are ignored";
        line_protocol_segment_tag: String = "segment", Checked(is_a_name, A_NAME),
            "tag of such a point that has the segment";
        line_protocol_user_field: String = "user", Checked(is_a_name, A_NAME),
            "field of such a point that has the user: a string or an integer";
        event_segment: Option<Vec<String>> = "properties.segment,event", EVENT_SEGMENT,
            "where the segment is in a message of an analytics library: the first of these that a message has; a message without any is ignored";
        event_merges: bool = "true", "true or false",
            "whether `identify` and `alias` of analytics libraries merge the two users that they name";
    }
    "Window" {
        window: Time = "14d", DURATION,
            "how long a user stays in a segment after they were last seen there";
        resolution: Time = "1m", DURATION,
            "length of a slot, 1s to 1h; it divides the window";
        max_ahead: Time = "5m", DURATION,
            "how far in the future the time of a pair may be; such a pair counts as seen now";
    }
    "Store" {
        store: StoreKind = "embedded", "embedded, influx, postgres or redis",
            "where pairs are stored: embedded, influx, postgres or redis";
        data_dir: PathBuf = "./headcount-data", "a directory",
            "directory of the embedded store";
        snapshot_after: ByteSize = "64 MiB", ByteSize::kib(64)..=ByteSize::tib(1),
            "growth of the embedded store's log after which it takes a snapshot; it bounds the replay at a start";
        data_file_bytes: ByteSize = "256 MiB", ByteSize::kib(64)..=ByteSize::tib(1),
            "size at which the embedded store's log begins a new file";
        influx_url: Option<String> = "", INFLUX_URL,
            "URL of InfluxDB 2, such as `http://localhost:8086`";
        influx_org: String = "headcount", "the name of an organisation",
            "organisation in InfluxDB";
        influx_bucket: String = "headcount", "the name of a bucket",
            "bucket of the pairs; `headcount setup` creates it";
        influx_trend_bucket: String = "headcount_trend", "the name of another bucket",
            "bucket of the trend; `headcount setup` creates it";
        influx_token: Option<String> = secret, INFLUX_TOKEN,
            "token for InfluxDB";
        postgres_url: Option<String> = secret, POSTGRES_URL,
            "URL of Postgres: `postgres://user:password@host:5432/database`; TLS by `?sslmode=` disable, prefer, require, verify-ca or verify-full, and `sslrootcert=`";
        postgres_schema: String = "headcount", Checked(is_schema, SCHEMA),
            "schema of the tables in Postgres; `headcount setup` creates it";
        postgres_connections: usize = "10", 2..=1_000,
            "maximum number of connections to Postgres; half of them only write";
        postgres_statement_timeout: Time = "1m", Time::seconds(1)..=Time::hours(1),
            "timeout for one count in Postgres";
        influx_write_timeout: Time = "11s", Time::millis(100)..=Time::minutes(1),
            "first timeout for a write to InfluxDB; after a timeout it grows, up to 30s. The limit of InfluxDB itself is 10s";
        influx_query_timeout: Time = "1m", Time::seconds(1)..=Time::hours(1),
            "timeout for a query to InfluxDB";
    }
    "Writes to a store on the network" {
        write_deadline: Time = "6s", Time::seconds(1)..=Time::minutes(1),
            "how long a request waits for a store on the network before its pairs go to the spool, or before the response is 503 without a spool";
        linger: Time = "0ms", Time::millis(0)..=Time::seconds(1),
            "how long a write to InfluxDB waits for pairs of other requests";
        batch_pairs: usize = "5000", 1..=100_000,
            "maximum number of pairs in one write to InfluxDB or Postgres";
        spool_dir: PathBuf = "./headcount-spool", "a directory, or off",
            "directory of the spool, where pairs wait while a store on the network is unavailable; `off` disables it";
        spool_max_bytes: ByteSize = "1 GiB", ByteSize::mib(64)..=ByteSize::pib(1),
            "maximum size of the spool; above it the response to pairs is 503";
    }
    "Cache" {
        cache: CacheKind = "memory", "memory or redis",
            "where the last known counts are cached: memory or redis";
        cache_ttl: Time = "15m", Time::seconds(1)..=Time::days(400),
            "age from which a cached count is no longer trusted";
        memory_ttl: Time = "1s", Time::millis(0)..=Time::hours(1),
            "how long a count is served from process memory";
        redis_url: Option<String> = secret, REDIS_URL,
            "URL of Redis: `redis://[user:password@]host[:port][/db]`, `rediss://` for TLS, `redis+cluster://host,host` for a cluster";
        redis_prefix: String = "headcount", "1 to 64 printable ASCII characters without blanks and braces",
            "prefix of every key in Redis";
    }
    "Live counts" {
        live: LiveMode = "off", "off, here or redis",
            "whether a replica of all counts stands in front of a store on the network, so that a count includes a pair within a second and needs no recount. `redis`: in `headcount live`, which any number of services reach through Redis; `here`: in this process, which must then be the only one that writes pairs";
        live_dir: PathBuf = "./headcount-live", "a directory",
            "directory of the replica, and with `live = \"here\"` of its change feed; it can be deleted, and is then read from the store again";
        live_address: Option<String> = "", "a URL such as http://10.0.0.7:8080",
            "URL at which services reach this `headcount live`; by default its address towards Redis and the port of `listen`";
    }
    "Recounts" {
        refresh_mode: RefreshMode = "loop", "loop or off",
            "whether the service recounts periodically: loop or off";
        refresh_interval: Time = "1m", Time::seconds(1)..=Time::days(1),
            "time from one recount to the next";
        refresh_parallelism: usize = "2", 1..=256,
            "maximum number of concurrent counts in the store, for refreshes and readers together";
        refresh_windows: Option<Vec<Time>> = "", "durations, with commas between, such as 1d,7d",
            "windows that are recounted in addition to the full one";
        worker_listen: Option<SocketAddr> = "", "an address and a port such as 127.0.0.1:8081",
            "address of a worker's /healthz, /readyz and /metrics";
    }
    "Limits and privacy" {
        queue_pairs: usize = "1000000", 1..=1_000_000_000,
            "capacity of the queue of pairs that wait for the store; the response above it is 429";
        max_segments: usize = "10000", 1..=10_000_000,
            "maximum number of segments; pairs of further ones are rejected";
        user_key: Option<String> = secret, KEY,
            "key of the keyed hashes that replace user ids before they are stored";
    }
    "Logs" {
        log_format: LogFormat = "text", "text or json",
            "format of log lines: text or json";
        log: String = "info", Checked(is_filter, FILTER),
            "what is logged";
    }
    "Traces" {
        otlp_endpoint: Option<String> = "", OTLP_ENDPOINT,
            "OpenTelemetry collector that takes traces of requests over OTLP/HTTP; without it there are no traces";
        otlp_ratio: f64 = "1", 0.0..=1.0,
            "share of the traces that begin here and are sent; a `traceparent` of the client decides about its own trace";
    }
}
