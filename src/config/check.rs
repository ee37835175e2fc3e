//! Checks of parsed values: ranges, and combinations of settings.

use std::ops::RangeInclusive;
use std::time::Duration;

use bytesize::ByteSize;
use tracing_subscriber::EnvFilter;

use super::ConfigError;
use super::layers::Layers;
use super::raw::Time;
use super::settings::{InfluxSettings, PostgresSettings, RedisSettings};
use super::table::{INFLUX_URL, POSTGRES_URL, REDIS_URL, SETTINGS};
use domain::{InvalidTimeFrame, Secret, TimeFrame, Window};
use stores::postgres::PostgresServer;
use stores::redis::{Prefix, RedisServer};
use stores::{influx, postgres};

/// The checks; errors name the layer that gave the value.
pub(super) struct Check<'a> {
    pub(super) layers: &'a Layers,
}

impl Check<'_> {
    pub(super) fn bad(&self, name: &str, right: impl Into<String>) -> ConfigError {
        match SETTINGS.iter().find(|setting| setting.name == name) {
            Some(setting) => self.layers.bad(setting, right),
            None => ConfigError::Inconsistent(format!("no setting is named {name}")),
        }
    }

    pub(super) fn count(
        &self,
        name: &str,
        given: usize,
        range: RangeInclusive<usize>,
    ) -> Result<usize, ConfigError> {
        match range.contains(&given) {
            true => Ok(given),
            false => Err(self.bad(
                name,
                format!("a whole number from {} to {}", range.start(), range.end()),
            )),
        }
    }

    pub(super) fn size(
        &self,
        name: &str,
        given: ByteSize,
        range: RangeInclusive<ByteSize>,
    ) -> Result<u64, ConfigError> {
        match range.contains(&given) {
            true => Ok(given.as_u64()),
            false => Err(self.bad(
                name,
                format!("a size from {} to {}", range.start(), range.end()),
            )),
        }
    }

    /// The bounds keep `Instant + duration` far from overflow, which would panic.
    pub(super) fn time(
        &self,
        name: &str,
        given: Time,
        range: RangeInclusive<Duration>,
    ) -> Result<Duration, ConfigError> {
        let given = given.into_inner();
        match range.contains(&given) {
            true => Ok(given),
            false => Err(self.bad(
                name,
                format!(
                    "a duration from {} to {}",
                    humantime(*range.start()),
                    humantime(*range.end())
                ),
            )),
        }
    }

    pub(super) fn frame(
        &self,
        window: Time,
        resolution: Time,
        max_ahead: Time,
    ) -> Result<TimeFrame, ConfigError> {
        TimeFrame::new(*window, *resolution, *max_ahead).map_err(|error| {
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

    pub(super) fn windows(
        &self,
        frame: &TimeFrame,
        given: &[Time],
    ) -> Result<Vec<Window>, ConfigError> {
        let mut windows = vec![frame.full_window()];
        for length in given {
            let window = frame.window(**length).map_err(|error| {
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

    /// A key that must not be guessable: the values that it protects, such as user ids, are often few and regular.
    pub(super) fn key(
        &self,
        name: &str,
        given: Option<String>,
    ) -> Result<Option<Secret>, ConfigError> {
        const SHORTEST: usize = 16;
        match given {
            Some(key) if key.len() < SHORTEST => {
                Err(self.bad(name, format!("at least {SHORTEST} characters")))
            }
            given => Ok(given.map(Secret::new)),
        }
    }

    pub(super) fn influx(
        &self,
        url: Option<String>,
        token: Option<String>,
        [org, bucket, trend_bucket]: [String; 3],
        is_needed: bool,
    ) -> Result<Option<InfluxSettings>, ConfigError> {
        if let Some(Err(what)) = url.as_deref().map(influx::parse_url) {
            return Err(self.bad("influx_url", format!("{INFLUX_URL}: {what}")));
        }
        let printable = |token: &str| token.bytes().all(|byte| byte.is_ascii_graphic());
        if token
            .as_deref()
            .is_some_and(|token| token.is_empty() || !printable(token))
        {
            return Err(self.bad("influx_token", "printable ASCII characters without blanks"));
        }
        if bucket == trend_bucket {
            return Err(self.bad("influx_trend_bucket", "another name than `influx_bucket`"));
        }
        match (url, token, is_needed) {
            (Some(url), Some(token), _) => Ok(Some(InfluxSettings {
                url,
                org,
                bucket,
                trend_bucket,
                token: Secret::new(token),
            })),
            (None, _, true) => Err(self.bad(
                "influx_url",
                "the URL of an InfluxDB, which a store of kind `influx` needs",
            )),
            (_, None, true) => Err(self.bad(
                "influx_token",
                "a token of InfluxDB, which a store of kind `influx` needs",
            )),
            (_, _, false) => Ok(None),
        }
    }

    pub(super) fn postgres(
        &self,
        url: Option<String>,
        schema: String,
        connections: usize,
        statement_timeout: Duration,
        is_needed: bool,
    ) -> Result<Option<PostgresSettings>, ConfigError> {
        if !postgres::is_schema(&schema) {
            return Err(self.bad("postgres_schema", postgres::SCHEMA));
        }
        let Some(url) = url else {
            return match is_needed {
                true => Err(self.bad(
                    "postgres_url",
                    "the URL of a Postgres, which a store of kind `postgres` needs",
                )),
                false => Ok(None),
            };
        };
        let server = PostgresServer::parse(&Secret::new(url))
            .map_err(|what| self.bad("postgres_url", format!("{POSTGRES_URL}: {what}")))?;
        Ok(Some(PostgresSettings {
            server,
            schema,
            connections,
            statement_timeout,
        }))
    }

    pub(super) fn redis(
        &self,
        url: Option<String>,
        prefix: &str,
        is_needed: bool,
    ) -> Result<Option<RedisSettings>, ConfigError> {
        let prefix = Prefix::new(prefix).map_err(|error| {
            // The error states the rule; `bad` prefixes it with "give".
            self.bad(
                "redis_prefix",
                error.to_string().replace("the prefix must be ", ""),
            )
        })?;
        let Some(url) = url else {
            return match is_needed {
                true => Err(self.bad(
                    "redis_url",
                    "the URL of a Redis, which `store = redis` and `cache = redis` need",
                )),
                false => Ok(None),
            };
        };
        let server = RedisServer::parse(&Secret::new(url))
            .map_err(|error| self.bad("redis_url", format!("{REDIS_URL}: {error}")))?;
        Ok(Some(RedisSettings { server, prefix }))
    }

    pub(super) fn log(&self, given: String) -> Result<String, ConfigError> {
        // EnvFilter accepts any bare word as a target, so a mistyped level would silence everything.
        let is_level = |word: &str| word.parse::<tracing::level_filters::LevelFilter>().is_ok();
        let mistyped = given
            .split(',')
            .map(str::trim)
            .any(|word| !word.contains(['=', '[']) && !is_level(word));
        if mistyped || EnvFilter::builder().parse(&given).is_err() {
            let expects = SETTINGS.iter().find(|s| s.name == "log").map(|s| s.expects);
            return Err(self.bad("log", expects.unwrap_or_default()));
        }
        Ok(given)
    }
}

fn humantime(duration: Duration) -> String {
    match duration.as_secs() {
        0 => format!("{}ms", duration.as_millis()),
        seconds if seconds % 86_400 == 0 => format!("{}d", seconds / 86_400),
        seconds if seconds % 3_600 == 0 => format!("{}h", seconds / 3_600),
        seconds => format!("{seconds}s"),
    }
}
