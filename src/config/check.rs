//! Checks that a rule in the table can't express: of combinations of settings, and of values whose error has a reason.

use tracing_subscriber::EnvFilter;

use super::ConfigError;
use super::layers::Layers;
use super::settings::{
    CacheKind, InfluxSettings, LiveMode, PostgresSettings, RedisSettings, StoreKind,
};
use super::table::{REDIS_URL, Values};
use domain::{InvalidTimeFrame, Secret, TimeFrame, Window};
use http::settings::{LineNames, MessageRules, PairNames, SegmentSource};
use stores::influx::{self, INFLUX_URL};
use stores::postgres::{POSTGRES_URL, PostgresServer};
use stores::redis::{Prefix, RedisServer};
use telemetry::traces::TraceSettings;

/// The checks; errors name the layer that gave the value.
pub(super) struct Check<'a> {
    pub(super) layers: &'a Layers,
    pub(super) values: &'a Values,
    /// The stores that are opened besides the configured one.
    pub(super) more: &'a [StoreKind],
}

impl Check<'_> {
    pub(super) fn bad(&self, name: &str, right: impl Into<String>) -> ConfigError {
        self.layers.bad(name, right)
    }

    fn is_needed(&self, kind: StoreKind) -> bool {
        self.values.store == kind || self.more.contains(&kind)
    }

    /// A value that must be given if `is_needed`.
    fn given<'v>(
        &self,
        name: &str,
        value: &'v Option<String>,
        is_needed: bool,
        right: &str,
    ) -> Result<Option<&'v str>, ConfigError> {
        match value.as_deref() {
            None if is_needed => Err(self.bad(name, right)),
            given => Ok(given),
        }
    }

    pub(super) fn live(&self) -> Result<LiveMode, ConfigError> {
        let is_live_anyway = self.values.store == StoreKind::Embedded;
        match self.values.live {
            LiveMode::Here | LiveMode::Redis if is_live_anyway => Err(self.bad(
                "live",
                "off: counts of the embedded store are always live; `here` and `redis` are for a store on the network",
            )),
            mode => Ok(mode),
        }
    }

    pub(super) fn live_address(&self) -> Result<Option<String>, ConfigError> {
        let Some(address) = &self.values.live_address else {
            return Ok(None);
        };
        let url = reqwest::Url::parse(address).ok();
        let is_base = url.is_some_and(|url| {
            matches!(url.scheme(), "http" | "https") && url.has_host() && url.path() == "/"
        });
        match is_base {
            true => Ok(Some(address.trim_end_matches('/').to_owned())),
            false => Err(self.layers.unexpected("live_address")),
        }
    }

    pub(super) fn traces(&self) -> Result<Option<TraceSettings>, ConfigError> {
        let Some(endpoint) = &self.values.otlp_endpoint else {
            return Ok(None);
        };
        // The rules for the URL of InfluxDB: credentials do not belong into it either.
        match influx::parse_url(endpoint) {
            Ok(_) => Ok(Some(TraceSettings {
                endpoint: endpoint.clone(),
                ratio: self.values.otlp_ratio,
            })),
            Err(_) => Err(self.layers.unexpected("otlp_endpoint")),
        }
    }

    pub(super) fn frame(&self) -> Result<TimeFrame, ConfigError> {
        let values = self.values;
        TimeFrame::new(values.window.0, values.resolution.0, values.max_ahead.0).map_err(|error| {
            let (name, right) = match error {
                InvalidTimeFrame::Resolution => ("resolution", "whole seconds from 1s to 1h".into()),
                InvalidTimeFrame::NotAMultiple(seconds) => (
                    "window",
                    format!("a positive multiple of the resolution, which is {seconds} s"),
                ),
                InvalidTimeFrame::TooManySlots(slots) => (
                    "window",
                    format!("less, or a coarser resolution: it makes {slots} slots, at most 32768 are possible"),
                ),
                InvalidTimeFrame::MaxAhead => ("max_ahead", "at most 24h".into()),
            };
            self.bad(name, right)
        })
    }

    pub(super) fn windows(&self, frame: &TimeFrame) -> Result<Vec<Window>, ConfigError> {
        let mut windows = vec![frame.full_window()];
        for length in self.values.refresh_windows.iter().flatten() {
            let window = frame.window(length.0).map_err(|error| {
                self.bad(
                    "refresh_windows",
                    format!("windows that can be counted: {error}"),
                )
            })?;
            windows.push(window);
        }
        windows.sort_unstable_by(|a, b| b.cmp(a));
        windows.dedup();
        Ok(windows)
    }

    pub(super) fn pair_names(&self) -> Result<PairNames, ConfigError> {
        let values = self.values;
        let given = values.event_segment.iter().flatten();
        let sources = given.map(|name| {
            let known = SegmentSource::ALL.iter();
            let mut known = known.filter(|(known, _)| *known == name.trim());
            known.next().map(|(_, source)| *source)
        });
        let sources: Option<Vec<_>> = sources.collect();
        Ok(PairNames {
            lines: LineNames {
                measurement: values.line_protocol_measurement.clone(),
                segment: values.line_protocol_segment_tag.clone(),
                user: values.line_protocol_user_field.clone(),
            },
            messages: MessageRules {
                segment: sources.ok_or_else(|| self.layers.unexpected("event_segment"))?,
                merges: values.event_merges,
            },
        })
    }

    pub(super) fn influx(&self) -> Result<Option<InfluxSettings>, ConfigError> {
        let values = self.values;
        if let Some(Err(what)) = values.influx_url.as_deref().map(influx::parse_url) {
            return Err(self.bad("influx_url", format!("{INFLUX_URL}: {what}")));
        }
        if values.influx_bucket == values.influx_trend_bucket {
            return Err(self.bad("influx_trend_bucket", "another name than `influx_bucket`"));
        }
        let is_needed = self.is_needed(StoreKind::Influx);
        let url = self.given(
            "influx_url",
            &values.influx_url,
            is_needed,
            "the URL of an InfluxDB, which a store of kind `influx` needs",
        )?;
        let token = self.given(
            "influx_token",
            &values.influx_token,
            is_needed,
            "a token of InfluxDB, which a store of kind `influx` needs",
        )?;
        Ok(url.zip(token).map(|(url, token)| InfluxSettings {
            url: url.to_owned(),
            org: values.influx_org.clone(),
            bucket: values.influx_bucket.clone(),
            trend_bucket: values.influx_trend_bucket.clone(),
            token: Secret::new(token),
        }))
    }

    pub(super) fn postgres(&self) -> Result<Option<PostgresSettings>, ConfigError> {
        let values = self.values;
        let url = self.given(
            "postgres_url",
            &values.postgres_url,
            self.is_needed(StoreKind::Postgres),
            "the URL of a Postgres, which a store of kind `postgres` needs",
        )?;
        let Some(url) = url else { return Ok(None) };
        let server = PostgresServer::parse(&Secret::new(url))
            .map_err(|what| self.bad("postgres_url", format!("{POSTGRES_URL}: {what}")))?;
        Ok(Some(PostgresSettings {
            server,
            schema: values.postgres_schema.clone(),
            connections: values.postgres_connections,
            statement_timeout: values.postgres_statement_timeout.0,
        }))
    }

    pub(super) fn redis(&self) -> Result<Option<RedisSettings>, ConfigError> {
        let values = self.values;
        let prefix = Prefix::new(&values.redis_prefix)
            .map_err(|_| self.layers.unexpected("redis_prefix"))?;
        let url = self.given(
            "redis_url",
            &values.redis_url,
            values.cache == CacheKind::Redis
                || values.live == LiveMode::Redis
                || self.is_needed(StoreKind::Redis),
            "the URL of a Redis, which `store = redis`, `cache = redis` and `live = redis` need",
        )?;
        let Some(url) = url else { return Ok(None) };
        let server = RedisServer::parse(&Secret::new(url))
            .map_err(|error| self.bad("redis_url", format!("{REDIS_URL}: {error}")))?;
        Ok(Some(RedisSettings { server, prefix }))
    }
}

/// Whether `text` is a filter of log lines. EnvFilter accepts any bare word as a target, so a mistyped level would silence
/// everything.
pub(super) fn is_filter(text: &str) -> bool {
    let is_level = |word: &str| word.parse::<tracing::level_filters::LevelFilter>().is_ok();
    let mut words = text.split(',').map(str::trim);
    words.all(|word| word.contains(['=', '[']) || is_level(word))
        && EnvFilter::builder().parse(text).is_ok()
}
