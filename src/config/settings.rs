//! The settings, typed and valid. The rest of the program never handles them as strings.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use domain::{Floor, Secret, TimeFrame, Window};
use engine::SpoolSettings;
use http::auth::AuthSettings;
use http::settings::HttpSettings;
use stores::postgres::PostgresServer;
use stores::redis::{Prefix, RedisServer};
use telemetry::TelemetrySettings;

/// All settings. Created by [`load`](super::load) or [`Settings::with`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Settings {
    /// The address that the service listens on.
    pub listen: SocketAddr,
    /// The address that serves only writes of pairs and reads of counts; `None`: there is none.
    pub public_listen: Option<SocketAddr>,
    /// Authentication and rate limits.
    pub auth: AuthSettings,
    /// Limits of the HTTP server.
    pub http: HttpSettings,
    /// The privacy floor.
    pub min_users: Floor,
    /// Window, resolution, and how far in the future a pair may be.
    pub frame: TimeFrame,
    /// The store of pairs.
    pub store: StoreSettings,
    /// The cache of counts.
    pub cache: CacheSettings,
    /// Live counts in front of a store on the network.
    pub live: LiveSettings,
    /// When and what to recount.
    pub refresh: RefreshSettings,
    /// Limits and buffers on the path of incoming pairs.
    pub ingest: IngestSettings,
    /// The format and filter of the log.
    pub telemetry: TelemetrySettings,
}

/// The store of pairs.
#[derive(Debug, Clone)]
pub struct StoreSettings {
    /// Which adapter.
    pub kind: StoreKind,
    /// The directory of the embedded store.
    pub data_dir: PathBuf,
    /// Bytes by which the write-ahead log grows before the embedded store takes a snapshot.
    pub snapshot_after: u64,
    /// Bytes at which a file of that log is followed by a new one.
    pub data_file_bytes: u64,
    /// Address, organisation, buckets and token of InfluxDB; always `Some` when `kind` is InfluxDB.
    pub influx: Option<InfluxSettings>,
    /// Timeouts of requests to InfluxDB.
    pub influx_timeouts: InfluxTimeouts,
    /// Address and key prefix of Redis; always `Some` when `kind` is Redis.
    pub redis: Option<RedisSettings>,
    /// Address and schema of Postgres; always `Some` when `kind` is Postgres.
    pub postgres: Option<PostgresSettings>,
}

/// An InfluxDB server, organisation and buckets.
#[derive(Debug, Clone)]
pub struct InfluxSettings {
    /// The server's URL.
    pub url: String,
    /// The name of the organisation.
    pub org: String,
    /// The bucket of the pairs.
    pub bucket: String,
    /// The bucket of the trend.
    pub trend_bucket: String,
    /// A token that may read and write both buckets.
    pub token: Secret,
}

/// Timeouts of requests to InfluxDB.
#[derive(Debug, Clone, Copy)]
pub struct InfluxTimeouts {
    /// The initial timeout of one attempt to write; after a timeout it grows, up to 30 s.
    pub write: Duration,
    /// The timeout of a query, up to the last byte of its response.
    pub query: Duration,
}

/// A Postgres server, database and schema.
#[derive(Debug, Clone)]
pub struct PostgresSettings {
    /// Hosts, database and credentials.
    pub server: PostgresServer,
    /// The schema that holds the tables.
    pub schema: String,
    /// The maximum number of connections, at least two.
    pub connections: usize,
    /// The timeout of a statement that counts.
    pub statement_timeout: Duration,
}

/// The adapters of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
#[value(rename_all = "lowercase")]
pub enum StoreKind {
    /// In this process, on the local disk.
    Embedded,
    /// In InfluxDB 2.
    Influx,
    /// In a Redis server or cluster.
    Redis,
    /// In Postgres.
    Postgres,
}

/// The cache of counts.
#[derive(Debug, Clone)]
pub struct CacheSettings {
    /// Which adapter.
    pub kind: CacheKind,
    /// The age at which a cached count expires.
    pub ttl: Duration,
    /// How long a count is served from process memory.
    pub memory_ttl: Duration,
    /// Address and key prefix of Redis; always `Some` when `kind` is Redis.
    pub redis: Option<RedisSettings>,
}

/// A Redis server or cluster, and the prefix of the keys there.
#[derive(Debug, Clone)]
pub struct RedisSettings {
    /// Addresses and credentials.
    pub server: RedisServer,
    /// The prefix of every key.
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

/// Live counts in front of a store on the network.
#[derive(Debug, Clone)]
pub struct LiveSettings {
    /// Whether there are any, and where.
    pub mode: LiveMode,
    /// The directory of the replica and of its change feed.
    pub dir: PathBuf,
    /// The URL at which services reach a live process; `None`: its address is found out.
    pub address: Option<String>,
}

/// Where the replica of the counts is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LiveMode {
    /// There is none.
    Off,
    /// In this process, which is the only one that writes pairs.
    Here,
    /// In `headcount live`, which any number of services reach through Redis.
    Redis,
}

/// When and what to recount.
#[derive(Debug, Clone)]
pub struct RefreshSettings {
    /// Whether the service recounts by itself.
    pub mode: RefreshMode,
    /// The time from one recount to the next.
    pub interval: Duration,
    /// Segments recounted concurrently, at least one.
    pub parallelism: usize,
    /// The windows to recount, longest first, without duplicates. The full window is always the first.
    pub windows: Vec<Window>,
    /// The address on which a worker serves its health and metrics; `None`: it does not listen.
    pub worker_listen: Option<SocketAddr>,
}

/// Whether the service recounts by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RefreshMode {
    /// Every `interval`.
    Loop,
    /// Only on request.
    Off,
}

/// Limits and buffers on the path of incoming pairs.
#[derive(Debug, Clone)]
pub struct IngestSettings {
    /// The maximum number of pairs waiting to be stored.
    pub queue_pairs: usize,
    /// The maximum number of segments.
    pub max_segments: usize,
    /// How long a client waits for a store on the network before its pairs go to the spool.
    pub write_deadline: Duration,
    /// How long a write to a store on the network waits for pairs of other requests.
    pub linger: Duration,
    /// The maximum number of pairs in one such write.
    pub batch_pairs: usize,
    /// The spool, where pairs wait while such a store is unavailable; `None`: no spool.
    pub spool: Option<SpoolSettings>,
    /// The key of the keyed hash that replaces user ids before they are stored.
    pub user_key: Option<Secret>,
}
