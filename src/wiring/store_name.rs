//! Names that identify a store, without secrets.

use crate::config::{Settings, StoreKind};

/// The name of the store of this kind under these settings, which identifies it in messages and checkpoint files.
pub fn store_name(settings: &Settings, kind: StoreKind) -> String {
    let store = &settings.store;
    match kind {
        StoreKind::Embedded => {
            let dir = std::path::absolute(&store.data_dir);
            let dir = dir.unwrap_or_else(|_| store.data_dir.clone());
            format!("embedded in {}", dir.display())
        }
        StoreKind::Influx => match &store.influx {
            Some(influx) => format!(
                "influx at {}, organisation {:?}, bucket {:?}",
                influx.url, influx.org, influx.bucket
            ),
            None => "influx".to_owned(),
        },
        StoreKind::Postgres => match &store.postgres {
            Some(postgres) => format!("{}, schema {:?}", postgres.server.name(), postgres.schema),
            None => "postgres".to_owned(),
        },
        StoreKind::Redis => match &store.redis {
            Some(redis) => format!(
                "{}, prefix {:?}",
                redis.server.name(),
                redis.prefix.as_str()
            ),
            None => "redis".to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_told_without_its_secret() {
        let settings = Settings::with([
            ("influx_url", "http://h:8086"),
            ("influx_token", "hunter2"),
            ("redis_url", "redis://:hunter2@h/0"),
            ("postgres_url", "postgres://u:hunter2@a,b:7/d"),
            ("data_dir", "/var/lib/headcount"),
        ]);
        let settings = settings.unwrap();
        assert_eq!(
            store_name(&settings, StoreKind::Influx),
            "influx at http://h:8086, organisation \"headcount\", bucket \"headcount\""
        );
        assert_eq!(
            store_name(&settings, StoreKind::Postgres),
            "postgres at a:5432,b:7, database \"d\", schema \"headcount\""
        );
        assert_eq!(
            store_name(&settings, StoreKind::Redis),
            "redis at h:6379, prefix \"headcount\""
        );
        assert_eq!(
            store_name(&settings, StoreKind::Embedded),
            "embedded in /var/lib/headcount"
        );
    }
}
