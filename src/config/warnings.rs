//! Warnings about settings that are valid but probably unintended.

use super::layers::{Layers, Origin};
use super::settings::{CacheKind, LiveMode, RefreshMode, Settings, StoreKind};
use super::spelling::{flag_of, variable_of};
use super::table::SETTINGS;

/// Secrets that were given as flags.
pub(super) fn secret_flags(layers: &Layers) -> Vec<String> {
    let given = SETTINGS
        .iter()
        .filter_map(|setting| Some((setting.name, setting.file_twin?)))
        .filter(|(name, _)| matches!(layers.get(name).origin, Origin::Flag(_)));
    given
        .map(|(name, twin)| {
            format!(
                "--{} shows the secret to every user of this machine in the list of processes: give --{} or {} instead",
                flag_of(name),
                flag_of(twin),
                variable_of(name)
            )
        })
        .collect()
}

/// Settings that have no effect, are insecure, or conflict. `stores` are opened besides the configured one.
pub(super) fn of(settings: &Settings, layers: &Layers, stores: &[StoreKind]) -> Vec<String> {
    let is_used = |kind| settings.store.kind == kind || stores.contains(&kind);
    let mut warnings = Vec::new();
    let redis_is_used = is_used(StoreKind::Redis)
        || settings.cache.kind == CacheKind::Redis
        || settings.live.mode == LiveMode::Redis;
    for (name, used, remedy) in [
        (
            "influx_url",
            is_used(StoreKind::Influx),
            "`store = \"influx\"`",
        ),
        (
            "postgres_url",
            is_used(StoreKind::Postgres),
            "`store = \"postgres\"`",
        ),
        (
            "redis_url",
            redis_is_used,
            "`cache = \"redis\"`, `live = \"redis\"` or `store = \"redis\"`",
        ),
    ] {
        let origin = &layers.get(name).origin;
        if *origin != Origin::Default && !used {
            warnings.push(format!(
                "setting `{name}` ({origin}) is not used: it takes effect with {remedy}"
            ));
        }
    }
    let postgres = settings.store.postgres.as_ref();
    if let Some(postgres) = postgres.filter(|_| is_used(StoreKind::Postgres))
        && postgres.server.trusts_anybody()
    {
        warnings.push(
            "the certificate of Postgres is not checked, and the connection may be without TLS: an attacker on the network can \
             read the password and the pairs; set sslmode=verify-full in `postgres_url`"
                .to_owned(),
        );
    }
    if settings.live.mode == LiveMode::Here && settings.cache.kind == CacheKind::Redis {
        warnings.push(
            "`live = \"here\"` is for a single service, but `cache = \"redis\"` is for several: the live counts of each one lack the \
             pairs that the others receive; set `live = \"redis\"` for all of them and run `headcount live`"
                .to_owned(),
        );
    }
    if settings.live.mode == LiveMode::Redis && settings.ingest.spool.is_none() {
        warnings.push(
            "`live = \"redis\"` without `spool_dir`: pairs that Redis does not take are only in memory until it does; if the service \
             ends before, counts lack them until the live process has compared them with the store"
                .to_owned(),
        );
    }
    let counts_in_rounds = settings.store.kind != StoreKind::Embedded;
    if counts_in_rounds
        && settings.refresh.mode == RefreshMode::Loop
        && settings.refresh.interval >= settings.cache.ttl
    {
        warnings.push(
            "`refresh_interval` is not shorter than `cache_ttl`: cached counts expire before they are recounted, and reads wait \
             for the store"
                .to_owned(),
        );
    }
    warnings
}
