//! The settings that each store and cache needs.

use super::*;
use crate::config::LiveMode;

#[test]
fn a_redis_cache_needs_a_url_and_the_url_stays_secret() {
    let missing = error(None, &[("HEADCOUNT_CACHE", "redis")], &[]);
    assert!(
        missing.starts_with("setting `redis_url` is empty (default): give the URL of a Redis"),
        "{missing}"
    );
    let bad = error(
        None,
        &[("HEADCOUNT_REDIS_URL", "redis://:hunter2@h/hunter2")],
        &[],
    );
    assert!(
        bad.contains("setting `redis_url` is *** (HEADCOUNT_REDIS_URL)"),
        "{bad}"
    );
    assert!(bad.contains("invalid database number"), "{bad}");
    assert!(!bad.contains("hunter2"), "{bad}");
    let several = error(None, &[("HEADCOUNT_REDIS_URL", "redis://a:1,b:2")], &[]);
    assert!(several.contains("redis+cluster://"), "{several}");

    let settings = Settings::with([
        ("cache", "redis"),
        ("redis_url", "redis+cluster://:hunter2@a:1,b:2"),
        ("redis_prefix", "hc"),
    ]);
    let settings = settings.unwrap();
    assert_eq!(settings.cache.kind, CacheKind::Redis);
    assert_eq!(settings.cache.redis.as_ref().unwrap().prefix.as_str(), "hc");
    assert!(!format!("{settings:?}").contains("hunter2"));
    assert!(Settings::with([]).unwrap().cache.redis.is_none());
}

#[test]
fn an_influx_store_needs_a_url_and_a_token_and_the_token_stays_secret() {
    let influx = ("HEADCOUNT_STORE", "influx");
    let missing = error(None, &[influx], &[]);
    assert!(
        missing.starts_with("setting `influx_url` is empty (default)"),
        "{missing}"
    );
    let url = ("HEADCOUNT_INFLUX_URL", "http://h:8086");
    let missing = error(None, &[influx, url], &[]);
    assert!(
        missing.starts_with("setting `influx_token` is empty (default)"),
        "{missing}"
    );
    let bad = error(
        None,
        &[influx, url, ("HEADCOUNT_INFLUX_TOKEN", "hunter 2")],
        &[],
    );
    assert!(
        !bad.contains("hunter") && bad.contains("without blanks"),
        "{bad}"
    );

    let given = [
        ("store", "influx"),
        ("influx_url", "http://h"),
        ("influx_token", "hunter2"),
    ];
    let settings = Settings::with(given).unwrap();
    let influx = settings.store.influx.as_ref().unwrap();
    assert_eq!(
        (influx.org.as_str(), influx.bucket.as_str()),
        ("headcount", "headcount")
    );
    assert!(!format!("{settings:?}").contains("hunter2"));
    assert!(settings.ingest.spool.is_some());
    let off = Settings::with(given.into_iter().chain([("spool_dir", "off")]));
    assert_eq!(off.unwrap().ingest.spool, None);
}

#[test]
fn a_postgres_store_needs_a_url_and_the_url_stays_secret() {
    let missing = error(None, &[("HEADCOUNT_STORE", "postgres")], &[]);
    assert!(
        missing
            .starts_with("setting `postgres_url` is empty (default): give the URL of a Postgres"),
        "{missing}"
    );
    for url in ["postgres://u:hunter2@h/d?sslmode=hunter2", "hunter2"] {
        let bad = error(None, &[("HEADCOUNT_POSTGRES_URL", url)], &[]);
        assert!(
            bad.starts_with("setting `postgres_url` is *** (HEADCOUNT_POSTGRES_URL)"),
            "{bad}"
        );
        assert!(!bad.contains("hunter2"), "{bad}");
    }
    // For a copy or an audit it may be given beside another store.
    let settings = Settings::with([("postgres_url", "postgres://u:hunter2@h/d")]).unwrap();
    assert_eq!(settings.store.kind, StoreKind::Embedded);
    let postgres = settings.store.postgres.as_ref().unwrap();
    assert_eq!(
        (postgres.schema.as_str(), postgres.connections),
        ("headcount", 10)
    );
    assert!(!format!("{settings:?}").contains("hunter2"));
}

#[test]
fn a_second_store_needs_its_settings_as_well() {
    let (_dir, mut sources) = sources(None, &[("HEADCOUNT_INFLUX_URL", "http://h")], &[]);
    sources.stores = vec![StoreKind::Influx];
    let missing = load(sources).unwrap_err().to_string();
    assert!(
        missing.starts_with("setting `influx_token` is empty (default)")
            && missing.contains("a store of kind `influx`"),
        "{missing}"
    );
}

#[test]
fn live_counts_are_for_a_store_on_the_network() {
    let embedded = error(None, &[("HEADCOUNT_LIVE", "here")], &[]);
    assert!(
        embedded.contains("counts of the embedded store are always live"),
        "{embedded}"
    );
    let postgres = [
        ("store", "postgres"),
        ("postgres_url", "postgres://u@h/d"),
        ("live", "here"),
    ];
    let settings = Settings::with(postgres).unwrap();
    assert_eq!(settings.live.mode, LiveMode::Here);
    let shared = loaded(
        None,
        &[
            ("HEADCOUNT_STORE", "redis"),
            ("HEADCOUNT_CACHE", "redis"),
            ("HEADCOUNT_REDIS_URL", "redis://h"),
            ("HEADCOUNT_LIVE", "here"),
        ],
        &[],
    );
    let warned = shared
        .warnings
        .iter()
        .any(|it| it.contains("a single service"));
    assert!(warned, "{:?}", shared.warnings);

    let through_redis = [postgres[0], postgres[1], ("live", "redis")];
    let missing = Settings::with(through_redis).unwrap_err().to_string();
    assert!(
        missing.contains("`redis_url`") && missing.contains("`live = redis`"),
        "{missing}"
    );
    let with = |more: (&'static str, &'static str)| {
        Settings::with(
            through_redis
                .into_iter()
                .chain([("redis_url", "redis://h"), more]),
        )
    };
    let settings = with(("live_address", "http://10.0.0.7:8080/")).unwrap();
    assert_eq!(settings.live.mode, LiveMode::Redis);
    assert_eq!(
        settings.live.address.as_deref(),
        Some("http://10.0.0.7:8080")
    );
    for wrong in ["10.0.0.7:8080", "http://h/path", "ftp://h", "http://"] {
        let error = with(("live_address", wrong)).unwrap_err().to_string();
        assert!(error.contains("`live_address`"), "{error}");
    }
    let without_spool = loaded(
        None,
        &[
            ("HEADCOUNT_STORE", "redis"),
            ("HEADCOUNT_REDIS_URL", "redis://h"),
            ("HEADCOUNT_LIVE", "redis"),
            ("HEADCOUNT_SPOOL_DIR", "off"),
        ],
        &[],
    );
    let warned = without_spool
        .warnings
        .iter()
        .any(|it| it.contains("only in memory"));
    assert!(warned, "{:?}", without_spool.warnings);
}
