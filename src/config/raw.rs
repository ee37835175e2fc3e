//! From strings to types: `envy` parses one flat struct, which is checked and becomes [`Settings`].

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use serde::Deserialize;

use super::ConfigError;
use super::check::Check;
use super::layers::Layers;
use super::protection::Protection;
use super::settings::{
    CacheKind, CacheSettings, InfluxTimeouts, IngestSettings, RefreshMode, RefreshSettings,
    Settings, StoreKind, StoreSettings,
};
use engine::SpoolSettings;
use http::auth::AuthMode;
use http::settings::HttpSettings;
use telemetry::{LogFormat, TelemetrySettings};

/// The settings by name. It is flat because `envy` does not support nested structs.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    listen: SocketAddr,
    auth: AuthMode,
    tokens_file: Option<PathBuf>,
    jwt_key: Option<String>,
    jwt_keys: Option<PathBuf>,
    jwt_audience: Option<String>,
    jwt_issuer: Option<String>,
    jwt_max_age: Option<Time>,
    limit_requests: Option<u32>,
    limit_pairs: Option<u32>,
    metrics_open: bool,
    #[serde(default)]
    cors_origins: Vec<String>,
    #[serde(default)]
    trusted_proxies: Vec<String>,
    max_body: ByteSize,
    max_connections: usize,
    max_event_clients: usize,
    max_event_clients_per_token: usize,
    session_key: Option<String>,
    header_timeout: Time,
    idle_timeout: Time,
    shutdown_delay: Time,
    shutdown_grace: Time,
    window: Time,
    resolution: Time,
    max_ahead: Time,
    store: StoreKind,
    data_dir: PathBuf,
    snapshot_after: ByteSize,
    data_file_bytes: ByteSize,
    influx_url: Option<String>,
    influx_org: String,
    influx_bucket: String,
    influx_trend_bucket: String,
    influx_token: Option<String>,
    postgres_url: Option<String>,
    postgres_schema: String,
    postgres_connections: usize,
    postgres_statement_timeout: Time,
    write_deadline: Time,
    influx_write_timeout: Time,
    influx_query_timeout: Time,
    linger: Time,
    batch_pairs: usize,
    spool_dir: PathBuf,
    spool_max_bytes: ByteSize,
    cache: CacheKind,
    cache_ttl: Time,
    memory_ttl: Time,
    redis_url: Option<String>,
    redis_prefix: String,
    refresh_mode: RefreshMode,
    refresh_interval: Time,
    refresh_parallelism: usize,
    #[serde(default)]
    refresh_windows: Vec<Time>,
    worker_listen: Option<SocketAddr>,
    queue_pairs: usize,
    max_segments: usize,
    user_key: Option<String>,
    log_format: LogFormat,
    log: String,
}

/// A duration in the format of `humantime`, such as `1h 30m`.
pub(super) type Time = humantime_serde::Serde<Duration>;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);

/// Parses and checks the layers. The settings of the configured store and of the `more` stores are required.
pub(super) fn settings(layers: &Layers, more: &[StoreKind]) -> Result<Settings, ConfigError> {
    let raw = parse(layers)?;
    let is_needed = |kind| raw.store == kind || more.contains(&kind);
    let check = Check { layers };
    let redis = check.redis(
        raw.redis_url,
        &raw.redis_prefix,
        raw.cache == CacheKind::Redis || is_needed(StoreKind::Redis),
    )?;
    let frame = check.frame(raw.window, raw.resolution, raw.max_ahead)?;
    let auth = check.auth(Protection {
        mode: raw.auth,
        tokens_file: raw.tokens_file,
        jwt_key: raw.jwt_key,
        jwt_keys: raw.jwt_keys,
        jwt_audience: raw.jwt_audience,
        jwt_issuer: raw.jwt_issuer,
        jwt_max_age: raw.jwt_max_age,
        limit_requests: raw.limit_requests,
        limit_pairs: raw.limit_pairs,
        metrics_open: raw.metrics_open,
    })?;
    Ok(Settings {
        listen: raw.listen,
        http: HttpSettings {
            cors: check.cors(raw.cors_origins, &auth)?,
            trusted_proxies: check.networks("trusted_proxies", &raw.trusted_proxies)?,
            max_body: check.size(
                "max_body",
                raw.max_body,
                ByteSize::kib(1)..=ByteSize::gib(1),
            )?,
            max_connections: check.count("max_connections", raw.max_connections, 1..=1_000_000)?,
            max_event_clients: check.count(
                "max_event_clients",
                raw.max_event_clients,
                1..=1_000_000,
            )?,
            max_event_clients_per_token: check.count(
                "max_event_clients_per_token",
                raw.max_event_clients_per_token,
                1..=1_000_000,
            )?,
            session_key: check.key("session_key", raw.session_key)?,
            header_timeout: check.time(
                "header_timeout",
                raw.header_timeout,
                Duration::from_millis(100)..=HOUR,
            )?,
            idle_timeout: check.time(
                "idle_timeout",
                raw.idle_timeout,
                Duration::from_millis(100)..=HOUR,
            )?,
            shutdown_delay: check.time(
                "shutdown_delay",
                raw.shutdown_delay,
                Duration::ZERO..=HOUR,
            )?,
            shutdown_grace: check.time(
                "shutdown_grace",
                raw.shutdown_grace,
                Duration::ZERO..=HOUR,
            )?,
        },
        auth,
        store: StoreSettings {
            kind: raw.store,
            data_dir: raw.data_dir,
            snapshot_after: check.size(
                "snapshot_after",
                raw.snapshot_after,
                ByteSize::kib(64)..=ByteSize::tib(1),
            )?,
            data_file_bytes: check.size(
                "data_file_bytes",
                raw.data_file_bytes,
                ByteSize::kib(64)..=ByteSize::tib(1),
            )?,
            influx_timeouts: InfluxTimeouts {
                write: check.time(
                    "influx_write_timeout",
                    raw.influx_write_timeout,
                    Duration::from_millis(100)..=MINUTE,
                )?,
                query: check.time(
                    "influx_query_timeout",
                    raw.influx_query_timeout,
                    SECOND..=HOUR,
                )?,
            },
            influx: check.influx(
                raw.influx_url,
                raw.influx_token,
                [raw.influx_org, raw.influx_bucket, raw.influx_trend_bucket],
                is_needed(StoreKind::Influx),
            )?,
            redis: redis.clone(),
            postgres: check.postgres(
                raw.postgres_url,
                raw.postgres_schema,
                check.count("postgres_connections", raw.postgres_connections, 2..=1_000)?,
                check.time(
                    "postgres_statement_timeout",
                    raw.postgres_statement_timeout,
                    SECOND..=HOUR,
                )?,
                is_needed(StoreKind::Postgres),
            )?,
        },
        cache: CacheSettings {
            kind: raw.cache,
            ttl: check.time("cache_ttl", raw.cache_ttl, SECOND..=DAY * 400)?,
            memory_ttl: check.time("memory_ttl", raw.memory_ttl, Duration::ZERO..=HOUR)?,
            redis,
        },
        refresh: RefreshSettings {
            mode: raw.refresh_mode,
            interval: check.time("refresh_interval", raw.refresh_interval, SECOND..=DAY)?,
            parallelism: check.count("refresh_parallelism", raw.refresh_parallelism, 1..=256)?,
            windows: check.windows(&frame, &raw.refresh_windows)?,
            worker_listen: raw.worker_listen,
        },
        ingest: IngestSettings {
            queue_pairs: check.count("queue_pairs", raw.queue_pairs, 1..=1_000_000_000)?,
            max_segments: check.count("max_segments", raw.max_segments, 1..=10_000_000)?,
            write_deadline: check.time("write_deadline", raw.write_deadline, SECOND..=MINUTE)?,
            linger: check.time("linger", raw.linger, Duration::ZERO..=SECOND)?,
            batch_pairs: check.count("batch_pairs", raw.batch_pairs, 1..=100_000)?,
            spool: match raw.spool_dir.as_os_str() == "off" {
                true => None,
                false => Some(SpoolSettings {
                    dir: raw.spool_dir,
                    max_bytes: check.size(
                        "spool_max_bytes",
                        raw.spool_max_bytes,
                        ByteSize::mib(64)..=ByteSize::pib(1),
                    )?,
                }),
            },
            user_key: check.key("user_key", raw.user_key)?,
        },
        telemetry: TelemetrySettings {
            log_format: raw.log_format,
            log: check.log(raw.log)?,
        },
        frame,
    })
}

fn parse(layers: &Layers) -> Result<Raw, ConfigError> {
    let parsed = envy::from_iter(owned(layers));
    parsed.map_err(|error| {
        // The error of a custom type does not name the field. Parsing each value alone over the defaults finds it.
        let culprit = layers.texts().map(|(setting, _)| setting).find(|setting| {
            let mut alone = Layers::defaults();
            alone.replace(setting.name, layers);
            envy::from_iter::<_, Raw>(owned(&alone)).is_err()
        });
        match culprit {
            Some(setting) => layers.bad(setting, setting.expects),
            None => ConfigError::Inconsistent(error.to_string()),
        }
    })
}

fn owned(layers: &Layers) -> impl Iterator<Item = (String, String)> {
    layers
        .texts()
        .map(|(setting, text)| (setting.name.to_owned(), text.to_owned()))
}
