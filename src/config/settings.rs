//! The settings, typed and valid: the rest of the program knows no texts.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use domain::{Secret, TimeFrame, Window};
use engine::SpoolSettings;
use http::auth::AuthSettings;
use http::settings::HttpSettings;
use stores::postgres::PostgresServer;
use stores::redis::{Prefix, RedisServer};
use telemetry::TelemetrySettings;

/// Everything that can be set. Made by [`load`](super::load) or [`Settings::with`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Settings {
    /// The address that the service listens on.
    pub listen: SocketAddr,
    /// Who may do what.
    pub auth: AuthSettings,
    /// Limits of the HTTP server.
    pub http: HttpSettings,
    /// Window, resolution and how far ahead a pair may be.
    pub frame: TimeFrame,
    /// Where pairs live.
    pub store: StoreSettings,
    /// Where last known counts live.
    pub cache: CacheSettings,
    /// When and what is recounted.
    pub refresh: RefreshSettings,
    /// The way in.
    pub ingest: IngestSettings,
    /// Logs.
    pub telemetry: TelemetrySettings,
}

/// Where pairs live.
#[derive(Debug, Clone)]
pub struct StoreSettings {
    /// Which adapter.
    pub kind: StoreKind,
    /// The directory of the embedded store.
    pub data_dir: PathBuf,
    /// By how many bytes the log there grows before a snapshot is taken.
    pub snapshot_after: u64,
    /// From how many bytes on a file of that log is followed by a new one.
    pub data_file_bytes: u64,
    /// Where InfluxDB is and what things are called there; always given when `kind` is InfluxDB.
    pub influx: Option<InfluxSettings>,
    /// How long InfluxDB may take.
    pub influx_timeouts: InfluxTimeouts,
    /// Where Redis is and what keys begin with there; always given when `kind` is Redis.
    pub redis: Option<RedisSettings>,
    /// Where Postgres is; always given when `kind` is Postgres.
    pub postgres: Option<PostgresSettings>,
}

/// An InfluxDB and the places in it.
#[derive(Debug, Clone)]
pub struct InfluxSettings {
    /// Its URL.
    pub url: String,
    /// The organisation.
    pub org: String,
    /// The bucket of the pairs.
    pub bucket: String,
    /// The bucket of the trend.
    pub trend_bucket: String,
    /// The token.
    pub token: Secret,
}

/// How long InfluxDB may take.
#[derive(Debug, Clone, Copy)]
pub struct InfluxTimeouts {
    /// One try of a write, at first; after a time-out it grows to 30 s.
    pub write: Duration,
    /// A query, to the last byte of its answer.
    pub query: Duration,
}

/// A Postgres and the place in it.
#[derive(Debug, Clone)]
pub struct PostgresSettings {
    /// Where it is.
    pub server: PostgresServer,
    /// The schema that holds the tables.
    pub schema: String,
    /// The most connections, at least two.
    pub connections: usize,
    /// How long a statement may take.
    pub statement_timeout: Duration,
}

/// The adapters of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
#[value(rename_all = "lowercase")]
pub enum StoreKind {
    /// In this process, on this disk.
    Embedded,
    /// In InfluxDB 2.
    Influx,
    /// In Redis, a server or a cluster.
    Redis,
    /// In Postgres.
    Postgres,
}

/// Where last known counts live.
#[derive(Debug, Clone)]
pub struct CacheSettings {
    /// Which adapter.
    pub kind: CacheKind,
    /// The age from which a cached count is no longer trusted.
    pub ttl: Duration,
    /// How long a count is answered from process memory.
    pub memory_ttl: Duration,
    /// Where Redis is and what keys begin with there; always given when `kind` is Redis.
    pub redis: Option<RedisSettings>,
}

/// A Redis and a part of its keys.
#[derive(Debug, Clone)]
pub struct RedisSettings {
    /// Where it is.
    pub server: RedisServer,
    /// What every key begins with.
    pub prefix: Prefix,
}

/// The adapters of the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CacheKind {
    /// In this process.
    Memory,
    /// In Redis, shared by all instances.
    Redis,
}

/// When and what is recounted.
#[derive(Debug, Clone)]
pub struct RefreshSettings {
    /// Whether the service recounts by itself.
    pub mode: RefreshMode,
    /// The time from one recount to the next.
    pub interval: Duration,
    /// Segments recounted at once, at least one.
    pub parallelism: usize,
    /// The windows recounted, longest first, each once; the full one is always the first.
    pub windows: Vec<Window>,
    /// Where a worker tells how it is; nowhere if not given.
    pub worker_listen: Option<SocketAddr>,
}

/// Whether the service recounts by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RefreshMode {
    /// Every `interval`.
    Loop,
    /// Only when told to.
    Off,
}

/// The way in.
#[derive(Debug, Clone)]
pub struct IngestSettings {
    /// Most pairs waiting to be stored.
    pub queue_pairs: usize,
    /// Most segments.
    pub max_segments: usize,
    /// How long a client waits for a store on the network before its pairs go to the spool.
    pub write_deadline: Duration,
    /// How long a write to a store on the network waits for pairs of other requests.
    pub linger: Duration,
    /// Most pairs in one such write.
    pub batch_pairs: usize,
    /// Where pairs wait while such a store is away.
    pub spool: Option<SpoolSettings>,
    /// The key with which user ids become keyed hashes of themselves at the edge.
    pub user_key: Option<Secret>,
}
