//! Messages for values that are invalid, or valid and probably wrong.

use super::*;

#[test]
fn a_bad_value_is_shown_with_its_place_and_what_is_right() {
    let cases: &[(&str, &str, &str)] = &[
        ("listen", "localhost", "an address and a port"),
        ("max_body", "lots", "a size from 1.0 KiB to 1.0 GiB"),
        ("max_body", "2 GiB", "a size from 1.0 KiB to 1.0 GiB"),
        ("max_connections", "0", "a whole number from 1 to 1000000"),
        ("max_connections", "-1", "a whole number from 1 to 1000000"),
        ("header_timeout", "10", "a duration from 100ms to 1h"),
        ("header_timeout", "1ms", "a duration from 100ms to 1h"),
        ("shutdown_grace", "9999999d", "a duration from 0ms to 1h"),
        ("cache_ttl", "99999999999999999999y", "a duration"),
        ("limit_pairs", "0", "a whole number from 1 to 10000000"),
        ("jwt_max_age", "401d", "a duration from 1s to 400d"),
        (
            "window",
            "90s",
            "a positive multiple of the resolution, which is 60 s",
        ),
        ("window", "400d", "a coarser resolution"),
        ("resolution", "1500ms", "whole seconds from 1s to 1h"),
        ("max_ahead", "25h", "at most 24h"),
        ("store", "mysql", "embedded, influx, postgres or redis"),
        ("postgres_schema", "Head-count", "1 to 63 of a-z"),
        ("postgres_connections", "1", "from 2 to 1000"),
        (
            "influx_url",
            "localhost:8086",
            "a URL such as http://host:8086",
        ),
        ("influx_trend_bucket", "headcount", "another name than"),
        ("batch_pairs", "0", "from 1 to 100000"),
        ("spool_max_bytes", "1 KiB", "a size from 64"),
        ("snapshot_after", "1 KiB", "a size from 64"),
        ("data_file_bytes", "1 KiB", "a size from 64"),
        ("refresh_mode", "Loop", "loop or off"),
        (
            "refresh_windows",
            "1d,,7d",
            "durations, with commas between",
        ),
        ("refresh_windows", "15d", "from 60 s to 1209600 s"),
        ("redis_prefix", "a{b", "1 to 64 printable ASCII characters"),
        ("log_format", "xml", "text or json"),
        (
            "otlp_endpoint",
            "localhost:4318",
            "a base URL such as http://localhost:4318",
        ),
        (
            "otlp_endpoint",
            "http://a:b@localhost",
            "a base URL such as",
        ),
        ("otlp_ratio", "1.5", "a number from 0 to 1"),
        ("otlp_ratio", "NaN", "a number from 0 to 1"),
        ("log", "inof", "a level (error, warn"),
        ("log", "headcount=loud", "a level (error, warn"),
    ];
    for (name, value, right) in cases {
        let message = error(None, &[(&variable_of(name), value)], &[]);
        let begins = format!(
            "setting `{name}` is {value:?} ({}): give",
            variable_of(name)
        );
        assert!(message.starts_with(&begins), "{message}");
        assert!(message.contains(right), "{message}");
    }
}

#[test]
fn a_range_includes_its_ends_as_they_are_shown() {
    for setting in SETTINGS {
        let Some(range) = setting.range() else {
            continue;
        };
        for end in range.split(" to ") {
            // Some ends conflict with the defaults of other settings.
            if let Err(error) = Settings::with([(setting.name, end)]) {
                let error = error.to_string();
                assert!(!error.contains(&setting.expects()), "{error}");
            }
        }
    }
}

#[test]
fn what_is_allowed_and_probably_wrong_is_a_warning() {
    let influx: &[(&str, &str)] = &[
        ("HEADCOUNT_STORE", "influx"),
        ("HEADCOUNT_INFLUX_URL", "http://h"),
        ("HEADCOUNT_INFLUX_TOKEN", "t"),
    ];
    let slow = [influx, &[("HEADCOUNT_CACHE_TTL", "1m")]].concat();
    let unused: &[(&str, &str)] = &[("HEADCOUNT_INFLUX_URL", "http://h")];
    type Given<'a, 'n> = &'a [(&'n str, &'a str)];
    let cases: &[(Given<'_, '_>, Given<'_, 'static>, &str)] = &[
        (
            unused,
            &[],
            "setting `influx_url` (HEADCOUNT_INFLUX_URL) is not used",
        ),
        (&[("HEADCOUNT_REDIS_URL", "redis://h")], &[], "`redis_url`"),
        (
            &[("HEADCOUNT_POSTGRES_URL", "postgres://h")],
            &[],
            "`postgres_url`",
        ),
        (
            &slow,
            &[],
            "`refresh_interval` is not shorter than `cache_ttl`",
        ),
        (
            &[
                ("HEADCOUNT_STORE", "postgres"),
                (
                    "HEADCOUNT_POSTGRES_URL",
                    "postgres://u:hunter2@db.example/d?sslmode=require",
                ),
            ],
            &[],
            "sslmode=verify-full",
        ),
        (
            &[],
            &[("user_key", "hunter2hunter2hunter2")],
            "--user-key shows the secret to every user of this machine in the list of processes: give --user-key-file or \
             HEADCOUNT_USER_KEY instead",
        ),
    ];
    for (variables, flags, part) in cases {
        let warnings = loaded(None, variables, flags).warnings;
        let [warning] = &warnings[..] else {
            panic!("{part}: {warnings:?}")
        };
        assert!(
            warning.contains(part) && !warning.contains("hunter2"),
            "{warning}"
        );
    }
    for (name, value) in [
        ("HEADCOUNT_POSTGRES_URL", "postgres://u@127.0.0.1/d"),
        (
            "HEADCOUNT_POSTGRES_URL",
            "postgres:///d?host=/run/postgresql",
        ),
        (
            "HEADCOUNT_POSTGRES_URL",
            "postgres://db.example/d?sslmode=verify-full",
        ),
    ] {
        let loaded = loaded(None, &[("HEADCOUNT_STORE", "postgres"), (name, value)], &[]);
        assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    }
    assert!(loaded(None, influx, &[]).warnings.is_empty());
    assert!(loaded(None, &[], &[]).warnings.is_empty());
}
