//! From texts to types: one flat struct that `envy` fills, then checks of what serde can't know.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use serde::Deserialize;
use tracing_subscriber::EnvFilter;

use super::layers::Layers;
use super::settings::{
    CacheKind, CacheSettings, HttpSettings, IngestSettings, LogFormat, RedisSettings, RefreshMode,
    RefreshSettings, Settings, StoreKind, StoreSettings, TelemetrySettings,
};
use super::table::{REDIS_URL, SETTINGS};
use super::{ConfigError, Secret};
use crate::cache::{Prefix, RedisServer};
use crate::domain::{InvalidTimeFrame, TimeFrame, Window};

/// The settings by name, parsed one by one. `envy` knows no nested structs, so it is flat.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    listen: SocketAddr,
    max_body: ByteSize,
    max_connections: usize,
    header_timeout: Time,
    shutdown_grace: Time,
    window: Time,
    resolution: Time,
    max_ahead: Time,
    store: StoreKind,
    data_dir: PathBuf,
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
    queue_pairs: usize,
    max_segments: usize,
    user_key: Option<String>,
    log_format: LogFormat,
    log: String,
}

type Time = humantime_serde::Serde<Duration>;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);

/// Parses and checks what the layers hold.
pub(super) fn settings(layers: &Layers) -> Result<Settings, ConfigError> {
    let raw = parse(layers)?;
    let check = Check { layers };
    let frame = check.frame(&raw)?;
    Ok(Settings {
        listen: raw.listen,
        http: HttpSettings {
            max_body: check.size(
                "max_body",
                raw.max_body,
                ByteSize::kib(1)..=ByteSize::gib(1),
            )?,
            max_connections: check.count("max_connections", raw.max_connections, 1..=1_000_000)?,
            header_timeout: check.time(
                "header_timeout",
                raw.header_timeout,
                Duration::from_millis(100)..=HOUR,
            )?,
            shutdown_grace: check.time(
                "shutdown_grace",
                raw.shutdown_grace,
                Duration::ZERO..=HOUR,
            )?,
        },
        store: StoreSettings {
            kind: raw.store,
            data_dir: raw.data_dir,
        },
        cache: CacheSettings {
            kind: raw.cache,
            ttl: check.time("cache_ttl", raw.cache_ttl, SECOND..=DAY * 400)?,
            memory_ttl: check.time("memory_ttl", raw.memory_ttl, Duration::ZERO..=HOUR)?,
            redis: check.redis(
                raw.redis_url,
                &raw.redis_prefix,
                raw.cache == CacheKind::Redis,
            )?,
        },
        refresh: RefreshSettings {
            mode: raw.refresh_mode,
            interval: check.time("refresh_interval", raw.refresh_interval, SECOND..=DAY)?,
            parallelism: check.count("refresh_parallelism", raw.refresh_parallelism, 1..=256)?,
            windows: check.windows(&frame, &raw.refresh_windows)?,
        },
        ingest: IngestSettings {
            queue_pairs: check.count("queue_pairs", raw.queue_pairs, 1..=1_000_000_000)?,
            max_segments: check.count("max_segments", raw.max_segments, 1..=10_000_000)?,
            user_key: check.user_key(raw.user_key)?,
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
        // The error of a custom type does not say which field it was about. Each value alone on top of the
        // defaults does.
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

/// Checks of values that parsed.
struct Check<'a> {
    layers: &'a Layers,
}

impl Check<'_> {
    fn bad(&self, name: &str, right: impl Into<String>) -> ConfigError {
        match SETTINGS.iter().find(|setting| setting.name == name) {
            Some(setting) => self.layers.bad(setting, right),
            None => ConfigError::Inconsistent(format!("no setting is named {name}")),
        }
    }

    fn count(
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

    fn size(
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

    /// Bounds keep `Instant + duration` far from overflow, which panics.
    fn time(
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

    fn frame(&self, raw: &Raw) -> Result<TimeFrame, ConfigError> {
        TimeFrame::new(*raw.window, *raw.resolution, *raw.max_ahead).map_err(|error| {
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

    fn windows(&self, frame: &TimeFrame, given: &[Time]) -> Result<Vec<Window>, ConfigError> {
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

    fn user_key(&self, given: Option<String>) -> Result<Option<Secret>, ConfigError> {
        // With a key that can be guessed, so can the users: ids are few and regular.
        const SHORTEST: usize = 16;
        match given {
            Some(key) if key.len() < SHORTEST => {
                Err(self.bad("user_key", format!("at least {SHORTEST} characters")))
            }
            given => Ok(given.map(Secret::new)),
        }
    }

    fn redis(
        &self,
        url: Option<String>,
        prefix: &str,
        is_needed: bool,
    ) -> Result<Option<RedisSettings>, ConfigError> {
        let prefix = Prefix::new(prefix).map_err(|error| {
            // The error says what must be; the message goes on from "give".
            self.bad(
                "redis_prefix",
                error.to_string().replace("the prefix must be ", ""),
            )
        })?;
        let Some(url) = url else {
            return match is_needed {
                true => Err(self.bad(
                    "redis_url",
                    "the URL of a Redis, which `cache = redis` needs",
                )),
                false => Ok(None),
            };
        };
        let server = RedisServer::parse(&Secret::new(url))
            .map_err(|error| self.bad("redis_url", format!("{REDIS_URL}: {error}")))?;
        Ok(Some(RedisSettings { server, prefix }))
    }

    fn log(&self, given: String) -> Result<String, ConfigError> {
        // EnvFilter takes any bare word for a target, so a mistyped level would silence everything.
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
