//! Opens stores from the settings and connects their statistics to the metrics.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::live::open_live;
use super::open_cache;
use crate::config::{CacheKind, RefreshMode, Settings, StoreKind};
use domain::cache::{CacheError, CountCache};
use domain::store::StoreError;
use engine::ingest::Identity;
use engine::{Backends, EngineOptions, Opened};
use stores::embedded::{EmbeddedOptions, EmbeddedStore};
use stores::influx::{InfluxOptions, InfluxStore};
use stores::postgres::{PostgresOptions, PostgresStore};
use stores::redis::store::{self as redis_store, RedisStoreOptions};
use telemetry::Metrics;
use telemetry::metrics::set_total;
use wal::LogObserver;

/// How long a start waits to read from InfluxDB what all instances must agree on.
const INFLUX_TIMEOUT: Duration = Duration::from_secs(2);

impl From<&Settings> for EngineOptions {
    fn from(settings: &Settings) -> Self {
        Self {
            frame: settings.frame,
            max_segments: settings.ingest.max_segments,
            queue_pairs: settings.ingest.queue_pairs,
            write_deadline: settings.ingest.write_deadline,
            user_key: settings.ingest.user_key.clone(),
            spool: settings.ingest.spool.clone(),
            refreshes: settings.refresh.mode == RefreshMode::Loop,
            refresh_interval: settings.refresh.interval,
            refresh_parallelism: settings.refresh.parallelism,
            refresh_windows: settings.refresh.windows.clone(),
            cache_ttl: settings.cache.ttl,
            memory_ttl: match settings.cache.kind {
                CacheKind::Memory => Duration::ZERO,
                CacheKind::Redis => settings.cache.memory_ttl,
            },
            max_event_clients: settings.http.max_event_clients,
            min_users: settings.min_users,
        }
    }
}

#[async_trait]
impl Backends for Settings {
    fn engine_options(&self) -> EngineOptions {
        self.into()
    }

    async fn open_store(&self, metrics: &Arc<Metrics>) -> Result<Opened, StoreError> {
        let mut opened = open_store(self, metrics).await?;
        opened.live = open_live(self).await?;
        Ok(opened)
    }

    fn open_cache(&self) -> Result<Arc<dyn CountCache>, CacheError> {
        open_cache(self)
    }
}

/// Opens the configured store. The error says why it can't be used.
pub async fn open_store(settings: &Settings, metrics: &Arc<Metrics>) -> Result<Opened, StoreError> {
    if settings.store.kind == StoreKind::Influx {
        return open_influx(influx_options(settings)?, metrics).await;
    }
    open_store_of(settings, settings.store.kind, metrics).await
}

/// Opens the store of this kind, which may differ from the configured one. The settings that it needs must be present: see
/// [`Sources::stores`](crate::config::Sources::stores).
pub async fn open_store_of(
    settings: &Settings,
    kind: StoreKind,
    metrics: &Arc<Metrics>,
) -> Result<Opened, StoreError> {
    match kind {
        StoreKind::Embedded => open_embedded(settings, metrics).await,
        StoreKind::Influx => {
            let options = InfluxOptions {
                // Commands that use another window than the service only read.
                any_window: true,
                ..influx_options(settings)?
            };
            open_influx(options, metrics).await
        }
        StoreKind::Redis => open_redis(settings, metrics).await,
        StoreKind::Postgres => open_postgres(settings, metrics).await,
    }
}

async fn open_influx(options: InfluxOptions, metrics: &Arc<Metrics>) -> Result<Opened, StoreError> {
    let store = Arc::new(InfluxStore::open(options)?);
    match tokio::time::timeout(INFLUX_TIMEOUT, store.prepare()).await {
        Ok(Ok(())) => {}
        // Retrying can't resolve a difference from the other instances.
        Ok(Err(error @ StoreError::Damaged(_))) => return Err(error),
        // An unavailable server must not prevent the start: the first call that needs the key reads it again.
        Ok(Err(error)) => tracing::warn!(%error, "the installation's key can't be read yet"),
        Err(_) => tracing::warn!("timeout while reading the installation's key from InfluxDB"),
    }
    let observed = Arc::downgrade(&store);
    metrics.before_render(move |metrics| {
        let Some(store) = observed.upgrade() else {
            return;
        };
        let stats = store.stats();
        let total = |outcome, lines| set_total(&metrics.store.lines.with([outcome]), lines);
        total("written", stats.written);
        total("expired", stats.expired);
        total("dropped_in_window", stats.dropped_in_window);
        total("refused", stats.refused);
        total("lost", stats.dead_letter_lost);
        set_total(&metrics.store.dead_letters, stats.refused);
        set_total(&metrics.store.retries, stats.retries);
    });
    Ok(Opened {
        store,
        head: None,
        live: None,
    })
}

async fn open_postgres(settings: &Settings, metrics: &Arc<Metrics>) -> Result<Opened, StoreError> {
    let store = Arc::new(PostgresStore::open(postgres_options(settings)?)?);
    store.check_frame().await?;
    let observed = Arc::downgrade(&store);
    metrics.before_render(move |metrics| {
        let Some(store) = observed.upgrade() else {
            return;
        };
        let stats = store.stats();
        set_total(&metrics.store.retries, stats.retries);
        for (work, used) in [("write", stats.writing), ("read", stats.reading)] {
            metrics.store.connections(work, used.in_use, used.waiting);
        }
    });
    Ok(Opened {
        store,
        head: None,
        live: None,
    })
}

async fn open_redis(settings: &Settings, metrics: &Arc<Metrics>) -> Result<Opened, StoreError> {
    let store = redis_store::open(redis_options(settings)?).await?;
    let observed = Arc::downgrade(&store);
    metrics.before_render(move |metrics| {
        if let Some(survey) = observed.upgrade().and_then(|store| store.survey()) {
            metrics.store.persistence(survey.persistence.name());
        }
    });
    Ok(Opened {
        store,
        head: None,
        live: None,
    })
}

async fn open_embedded(settings: &Settings, metrics: &Arc<Metrics>) -> Result<Opened, StoreError> {
    let options = EmbeddedOptions {
        snapshot_bytes: settings.store.snapshot_after,
        file_bytes: settings.store.data_file_bytes,
        observer: Arc::new(LogMetrics(Arc::clone(metrics))),
        user_key: user_key_digest(settings),
        ..EmbeddedOptions::new(&settings.store.data_dir, settings.frame)
    };
    // Replay may take long and must not block the runtime's threads.
    let opened = tokio::task::spawn_blocking(move || EmbeddedStore::open(options)).await;
    let store = Arc::new(opened.map_err(|error| StoreError::Unavailable(error.to_string()))??);
    let observed = Arc::downgrade(&store);
    metrics.before_render(move |metrics| {
        let Some(store) = observed.upgrade() else {
            return;
        };
        let stats = store.stats();
        metrics.index.segments.set(stats.segments);
        metrics.index.pairs.set(stats.pairs);
        metrics.index.bytes.set(stats.index_bytes);
        metrics.wal.bytes.set(stats.log.bytes);
        set_total(&metrics.wal.snapshot_failures, stats.snapshot_failures);
        if let Some(age) = stats.snapshot_age {
            metrics.wal.snapshot_age.set(age.as_secs_f64());
        }
    });
    Ok(Opened {
        live: None,
        head: Some(store.head()),
        store,
    })
}

/// Updates the metrics from events of the log's writer.
#[derive(Debug)]
struct LogMetrics(Arc<Metrics>);

impl LogObserver for LogMetrics {
    fn synced(&self, records: usize, bytes: usize, took: Duration) {
        self.0.wal.synced(records, bytes, took);
    }

    fn failed(&self, _full: bool) {
        self.0.wal.failed();
    }
}

/// The digest of `user_key`, which a store keeps in order to refuse another key.
fn user_key_digest(settings: &Settings) -> Option<String> {
    let key = settings.ingest.user_key.as_ref();
    key.map(|key| Identity::digest_of(key.reveal()))
}

/// The options of an InfluxDB store from the settings.
pub(super) fn influx_options(settings: &Settings) -> Result<InfluxOptions, StoreError> {
    let Some(influx) = &settings.store.influx else {
        return Err(StoreError::Rejected("influx_url is missing".to_owned()));
    };
    let token = influx.token.reveal();
    let mut options = InfluxOptions::new(
        &influx.url,
        &influx.org,
        &influx.bucket,
        token,
        settings.frame,
    );
    options.trend_bucket.clone_from(&influx.trend_bucket);
    options.user_key = user_key_digest(settings);
    options.linger = settings.ingest.linger;
    options.write_timeout = settings.store.influx_timeouts.write;
    options.query_timeout = settings.store.influx_timeouts.query;
    options.write_deadline = settings.ingest.write_deadline;
    options.batch_pairs = settings.ingest.batch_pairs;
    options.queue_pairs = settings.ingest.queue_pairs;
    // Refused lines stay in the spool's directory until someone inspects them.
    let spool = settings.ingest.spool.as_ref();
    options.trace_headers = telemetry::traces::outgoing;
    options.dead_letter = spool.map(|spool| spool.dir.join("refused.lp"));
    Ok(options)
}

/// The options of a Redis store from the settings.
pub(super) fn redis_options(settings: &Settings) -> Result<RedisStoreOptions, StoreError> {
    let Some(redis) = settings.store.redis.clone() else {
        return Err(StoreError::Rejected("redis_url is missing".to_owned()));
    };
    Ok(RedisStoreOptions {
        user_key: user_key_digest(settings),
        ..RedisStoreOptions::new(redis.server, redis.prefix, settings.frame)
    })
}

/// The options of a Postgres store from the settings.
pub(super) fn postgres_options(settings: &Settings) -> Result<PostgresOptions, StoreError> {
    let Some(postgres) = &settings.store.postgres else {
        return Err(StoreError::Rejected("postgres_url is missing".to_owned()));
    };
    let mut options =
        PostgresOptions::new(postgres.server.clone(), &postgres.schema, settings.frame);
    options.user_key = user_key_digest(settings);
    options.connections = postgres.connections;
    options.statement_timeout = postgres.statement_timeout;
    options.batch_pairs = settings.ingest.batch_pairs;
    Ok(options)
}
