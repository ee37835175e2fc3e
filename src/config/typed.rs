//! From strings to types: `envy` parses flat values, which are checked and become [`Settings`].

use super::ConfigError;
use super::check::Check;
use super::layers::Layers;
use super::settings::{
    CacheSettings, InfluxTimeouts, IngestSettings, LiveSettings, RefreshSettings, Settings,
    StoreKind, StoreSettings,
};
use super::table::{Parsed, Values};
use domain::{Floor, Secret};
use engine::SpoolSettings;
use http::settings::HttpSettings;
use telemetry::TelemetrySettings;

/// Parses and checks the layers. The settings of the configured store and of the `more` stores are required.
pub(super) fn settings(layers: &Layers, more: &[StoreKind]) -> Result<Settings, ConfigError> {
    let values = &parse(layers)?;
    let check = Check {
        layers,
        values,
        more,
    };
    let redis = check.redis()?;
    let frame = check.frame()?;
    let auth = check.auth()?;
    Ok(Settings {
        listen: values.listen,
        public_listen: values.public_listen,
        http: HttpSettings {
            cors: check.cors(&auth)?,
            trusted_proxies: check.trusted_proxies()?,
            pair_names: check.pair_names()?,
            max_body: values.max_body.as_u64(),
            max_connections: values.max_connections,
            max_event_clients: values.max_event_clients,
            max_event_clients_per_token: values.max_event_clients_per_token,
            export: values.export,
            session_key: values.session_key.as_deref().map(Secret::new),
            header_timeout: values.header_timeout.0,
            idle_timeout: values.idle_timeout.0,
            shutdown_delay: values.shutdown_delay.0,
            shutdown_grace: values.shutdown_grace.0,
        },
        auth,
        min_users: Floor::of(values.min_users.into()),
        store: StoreSettings {
            kind: values.store,
            data_dir: values.data_dir.clone(),
            snapshot_after: values.snapshot_after.as_u64(),
            data_file_bytes: values.data_file_bytes.as_u64(),
            influx_timeouts: InfluxTimeouts {
                write: values.influx_write_timeout.0,
                query: values.influx_query_timeout.0,
            },
            influx: check.influx()?,
            redis: redis.clone(),
            postgres: check.postgres()?,
        },
        cache: CacheSettings {
            kind: values.cache,
            ttl: values.cache_ttl.0,
            memory_ttl: values.memory_ttl.0,
            redis,
        },
        live: LiveSettings {
            mode: check.live()?,
            dir: values.live_dir.clone(),
            address: check.live_address()?,
        },
        refresh: RefreshSettings {
            mode: values.refresh_mode,
            interval: values.refresh_interval.0,
            parallelism: values.refresh_parallelism,
            windows: check.windows(&frame)?,
            worker_listen: values.worker_listen,
        },
        ingest: IngestSettings {
            queue_pairs: values.queue_pairs,
            max_segments: values.max_segments,
            write_deadline: values.write_deadline.0,
            linger: values.linger.0,
            batch_pairs: values.batch_pairs,
            spool: (values.spool_dir.as_os_str() != "off").then(|| SpoolSettings {
                dir: values.spool_dir.clone(),
                max_bytes: values.spool_max_bytes.as_u64(),
            }),
            user_key: values.user_key.as_deref().map(Secret::new),
        },
        telemetry: TelemetrySettings {
            log_format: values.log_format,
            log: values.log.clone(),
            traces: check.traces()?,
        },
        frame,
    })
}

fn parse(layers: &Layers) -> Result<Values, ConfigError> {
    let parsed: Parsed = envy::from_iter(owned(layers)).map_err(|error| {
        // The error of a custom type does not name the field. Parsing each value alone over the defaults finds it.
        let culprit = layers.texts().map(|(setting, _)| setting).find(|setting| {
            let mut alone = Layers::defaults();
            alone.replace(setting.name, layers);
            envy::from_iter::<_, Parsed>(owned(&alone)).is_err()
        });
        match culprit {
            Some(setting) => layers.unexpected(setting.name),
            None => ConfigError::Inconsistent(error.to_string()),
        }
    })?;
    parsed.checked().map_err(|name| layers.unexpected(name))
}

fn owned(layers: &Layers) -> impl Iterator<Item = (String, String)> {
    layers
        .texts()
        .map(|(setting, text)| (setting.name.to_owned(), text.to_owned()))
}
