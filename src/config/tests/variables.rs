//! Names that are unknown, and variables that are empty or of other programs.

use super::*;

#[test]
fn an_unknown_setting_is_named_with_its_place_and_the_nearest() {
    assert_eq!(
        error(Some("\nwndow = '7d'"), &[], &[]),
        "unknown setting `wndow` (headcount.toml:2): did you mean `window`?"
    );
    assert_eq!(
        error(None, &[("HEADCOUNT_WNDOW", "7d")], &[]),
        "unknown setting `HEADCOUNT_WNDOW` (HEADCOUNT_WNDOW): did you mean `HEADCOUNT_WINDOW`?"
    );
    assert!(error(None, &[("HEADCOUNT_listen", "x")], &[]).starts_with("unknown setting"));
    // Only a variable may belong to another program.
    assert!(error(Some("banana = '7d'"), &[], &[]).starts_with("unknown setting `banana`"));
}

#[test]
fn an_unknown_variable_that_is_no_slip_is_a_warning() {
    for (variable, value, hint) in [
        ("HEADCOUNT_FOO", "7", "check-config"),
        ("HEADCOUNT_BANANA", "7d", "check-config"),
        ("HEADCOUNT_", "x", "check-config"),
        ("HEADCOUNT_PORT", "8080", "check-config"),
        // As after a rollback from a version that has it.
        (
            "HEADCOUNT_REFRESH_WINDOW_MAX",
            "2",
            "`HEADCOUNT_REFRESH_WINDOWS`?",
        ),
    ] {
        let warnings = loaded(None, &[(variable, value)], &[]).warnings;
        let [warning] = &warnings[..] else {
            panic!("{variable}: {warnings:?}")
        };
        assert!(
            warning.starts_with(&format!("{variable} is not a setting of this version"))
                && warning.contains(hint),
            "{warning}"
        );
    }
}

#[test]
fn an_empty_variable_is_unset() {
    for setting in SETTINGS {
        for name in [Some(setting.name), setting.file_twin]
            .into_iter()
            .flatten()
        {
            for empty in ["", " ", "\n"] {
                let loaded = loaded(None, &[(&variable_of(name), empty)], &[]);
                assert_eq!(shown(&loaded, setting.name), (setting.default, "default"));
                // An empty secret is probably a mistake, so it causes a warning.
                assert_eq!(
                    loaded.warnings.len(),
                    usize::from(setting.is_secret()),
                    "{name}"
                );
            }
        }
    }
    let loaded = loaded(Some("window = '7d'"), &[("HEADCOUNT_WINDOW", "")], &[]);
    assert_eq!(shown(&loaded, "window").0, "7d");
}

#[test]
fn variables_of_others_are_left_alone() {
    let loaded = loaded(
        None,
        &[
            ("HEADCOUNT_URL", "http://x"),
            ("HEADCOUNT_TOKEN", "t"),
            ("HEADCOUNT_TEST_INFLUXD", "/x"),
            ("HEADCOUNT_BENCH_PAIRS", "1000"),
            ("HEADCOUNT_SERVICE_HOST", "10.0.0.1"),
            ("HEADCOUNT_SERVICE_PORT", "80"),
            ("HEADCOUNT_SERVICE_PORT_HTTP", "80"),
            ("HEADCOUNT_PORT", "tcp://10.0.0.1:80"),
            ("HEADCOUNT_PORT_80_TCP", "tcp://10.0.0.1:80"),
            ("HEADCOUNT_PORT_80_TCP_PROTO", "tcp"),
            ("HEADCOUNT_PORT_80_TCP_PORT", "80"),
            ("HEADCOUNT_PORT_80_TCP_ADDR", "10.0.0.1"),
            ("HEADCOUNT_REDIS_SERVICE_HOST", "10.0.0.2"),
            ("HEADCOUNT_REDIS_PORT_6379_TCP_ADDR", "10.0.0.2"),
            ("HEADCOUNT_NAME", "/web/headcount"),
            ("HEADCOUNT_ENV_PATH", "/bin"),
            ("HEADCOUNT_ENV_HEADCOUNT_STORE", "influx"),
            ("HEADCOUNT_2_NAME", "/web/headcount-2"),
            ("HEADCOUNT_2_ENV_GOSU_VERSION", "1.17"),
        ],
        &[],
    );
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
}

#[cfg(unix)]
#[test]
fn a_variable_that_is_not_utf8_is_named() {
    use std::os::unix::ffi::OsStringExt;
    let sources = Sources {
        variables: vec![
            ("OTHER".into(), OsString::from_vec(vec![0xff])),
            ("HEADCOUNT_LOG".into(), OsString::from_vec(vec![0xff])),
        ],
        ..Sources::default()
    };
    assert!(
        load(sources)
            .unwrap_err()
            .to_string()
            .contains("HEADCOUNT_LOG is not UTF-8")
    );
}
