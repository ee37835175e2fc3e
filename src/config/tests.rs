//! Layers, origins, twins and messages.

use super::*;
use std::time::Duration;

fn dir() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn sources(
    file: Option<&str>,
    variables: &[(&str, &str)],
    flags: &[(&'static str, &str)],
) -> (tempfile::TempDir, Sources) {
    let dir = dir();
    let path = file.map(|text| {
        let path = dir.path().join("headcount.toml");
        std::fs::write(&path, text).unwrap();
        path
    });
    let sources = Sources {
        file: path,
        variables: variables
            .iter()
            .map(|(k, v)| (k.into(), v.into()))
            .collect(),
        flags: flags.iter().map(|(k, v)| (*k, v.to_string())).collect(),
        stores: Vec::new(),
    };
    (dir, sources)
}

fn loaded(
    file: Option<&str>,
    variables: &[(&str, &str)],
    flags: &[(&'static str, &str)],
) -> Loaded {
    let (_dir, sources) = sources(file, variables, flags);
    load(sources).unwrap()
}

fn error(file: Option<&str>, variables: &[(&str, &str)], flags: &[(&'static str, &str)]) -> String {
    let (dir, sources) = sources(file, variables, flags);
    let text = load(sources).unwrap_err().to_string();
    text.replace(&format!("{}/", dir.path().display()), "")
}

fn shown<'a>(loaded: &'a Loaded, name: &str) -> (&'a str, &'a str) {
    let row = loaded.shown.iter().find(|row| row.name == name).unwrap();
    (&row.value, &row.origin)
}

#[test]
fn nothing_need_be_set() {
    let settings = Settings::with([]).unwrap();
    assert_eq!(settings.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(settings.http.max_body, 8 << 20);
    assert_eq!(settings.http.max_connections, 16_384);
    assert_eq!(settings.http.max_event_clients, 2_000);
    assert_eq!(settings.http.header_timeout, Duration::from_secs(10));
    assert_eq!(settings.http.shutdown_grace, Duration::from_secs(10));
    assert_eq!(settings.frame.full_window().seconds(), 1_209_600);
    assert_eq!(settings.frame.resolution().seconds(), 60);
    assert_eq!(settings.store.data_dir, PathBuf::from("./headcount-data"));
    assert_eq!(settings.cache.ttl, Duration::from_mins(15));
    assert_eq!(settings.cache.memory_ttl, Duration::from_secs(1));
    assert_eq!(settings.refresh.mode, RefreshMode::Loop);
    assert_eq!(settings.refresh.interval, Duration::from_mins(1));
    assert_eq!(settings.refresh.parallelism, 2);
    assert_eq!(settings.refresh.windows, [settings.frame.full_window()]);
    assert_eq!(settings.ingest.queue_pairs, 1_000_000);
    assert_eq!(settings.ingest.max_segments, 10_000);
    assert_eq!(settings.ingest.user_key, None);
    assert_eq!(settings.telemetry.log_format, telemetry::LogFormat::Text);
    assert_eq!(settings.telemetry.log, "info");
}

#[test]
fn each_layer_replaces_the_one_below_and_says_so() {
    let file = "# mine\nwindow = \"7d\"\nmax_segments = 0x10\nrefresh_windows = [\"1d\", \"1h\"]\nlog=\"debug\"\n";
    let loaded = loaded(
        Some(file),
        &[
            ("HEADCOUNT_WINDOW", "6d"),
            ("HEADCOUNT_MAX_BODY", " 1 MiB\n"),
            ("PATH", "/bin"),
        ],
        &[("max_body", "2MiB"), ("listen", "[::1]:0")],
    );
    let settings = &loaded.settings;
    assert_eq!(settings.frame.full_window().seconds(), 6 * 86_400);
    assert_eq!(settings.http.max_body, 2 << 20);
    assert_eq!(settings.ingest.max_segments, 16);
    let windows: Vec<_> = settings
        .refresh
        .windows
        .iter()
        .map(|w| w.seconds())
        .collect();
    assert_eq!(windows, [6 * 86_400, 86_400, 3_600]);
    assert_eq!(shown(&loaded, "window"), ("6d", "HEADCOUNT_WINDOW"));
    assert_eq!(shown(&loaded, "max_body"), ("2MiB", "--max-body"));
    assert!(
        shown(&loaded, "max_segments")
            .1
            .ends_with("headcount.toml:3")
    );
    assert_eq!(shown(&loaded, "resolution"), ("1m", "default"));
    assert_eq!(loaded.shown.len(), SETTINGS.len());
}

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
fn what_a_file_or_a_flag_leaves_empty_is_named() {
    for name in ["data_dir", "spool_dir", "log", "window", "influx_bucket"] {
        let message = error(None, &[], &[(known_name(name), "")]);
        let begins = format!("setting `{name}` is empty (--{}): give ", flag_of(name));
        assert!(message.starts_with(&begins), "{message}");
        let message = error(Some(&format!("{name} = ' '")), &[], &[]);
        let begins = format!("setting `{name}` is \" \" (headcount.toml:1): give ");
        assert!(message.starts_with(&begins), "{message}");
    }
}

fn known_name(name: &str) -> &'static str {
    names().find(|known| *known == name).unwrap()
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

#[test]
fn a_url_with_a_password_is_refused_without_it() {
    for url in [
        "http://u:hunter2@h:8086",
        "u:hunter2@h",
        "http://h?token=hunter2",
    ] {
        let message = error(None, &[("HEADCOUNT_INFLUX_URL", url)], &[]);
        assert!(
            message.contains("`influx_url`") && !message.contains("hunter2"),
            "{message}"
        );
    }
}

#[test]
fn a_bad_value_is_shown_with_its_place_and_what_is_right() {
    let cases: &[(&str, &str, &str)] = &[
        ("listen", "localhost", "an address and a port"),
        ("max_body", "lots", "a size such as"),
        ("max_body", "2 GiB", "a size from 1.0 KiB to 1.0 GiB"),
        ("max_connections", "0", "a whole number from 1 to 1000000"),
        ("max_connections", "-1", "a whole number"),
        ("header_timeout", "10", "a duration such as"),
        ("header_timeout", "1ms", "a duration from 100ms to 1h"),
        ("shutdown_grace", "9999999d", "a duration from 0ms to 1h"),
        ("cache_ttl", "99999999999999999999y", "a duration"),
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
fn lists_and_directives_are_taken_as_people_write_them() {
    let settings = Settings::with([
        ("refresh_windows", "1d, 7d ,1d"),
        ("log", "warn,headcount=debug,headcount::http[request]=trace"),
    ])
    .unwrap();
    assert_eq!(settings.refresh.windows.len(), 3);
    assert!(Settings::with([("refresh_windows", "")]).is_ok());
}

#[test]
fn a_file_that_is_no_flat_toml_is_named_with_the_line() {
    assert!(
        error(Some("window = 7d"), &[], &[])
            .starts_with("can't read the settings file headcount.toml: line 1:")
    );
    assert!(error(Some("\n[http]\nlisten = 'x'"), &[], &[]).contains("line 2: `http` is a table"));
    assert!(error(Some("window = '1d'\nwindow = '2d'"), &[], &[]).contains("line 2"));
    let missing = Sources {
        file: Some("/nonexistent/h.toml".into()),
        ..Sources::default()
    };
    assert!(
        load(missing)
            .unwrap_err()
            .to_string()
            .starts_with("can't read the settings file /nonexistent/h.toml: ")
    );
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

#[test]
fn a_secret_may_come_from_a_file_and_shows_nowhere() {
    let dir = dir();
    let path = dir.path().join("key");
    let path_text = path.display().to_string();
    let named = [("HEADCOUNT_USER_KEY_FILE", path_text.as_str())];
    assert!(error(None, &named, &[]).contains("which can't be read"));
    std::fs::write(&path, "\n").unwrap();
    assert!(error(None, &named, &[]).contains("which is empty"));
    std::fs::write(&path, [0xff; 20]).unwrap();
    assert!(error(None, &named, &[]).contains("which is not UTF-8"));
    std::fs::write(&path, "x".repeat(70_000)).unwrap();
    assert!(error(None, &named, &[]).contains("more than 65536 bytes"));

    for line_end in ["", "\n", "\r\n"] {
        std::fs::write(&path, format!(" 0123456789abcdef{line_end}")).unwrap();
        let loaded = loaded(None, &named, &[]);
        let key = loaded.settings.ingest.user_key.as_ref().unwrap();
        assert_eq!(key.reveal(), " 0123456789abcdef");
        let origin = format!("{path_text}, named by HEADCOUNT_USER_KEY_FILE");
        assert_eq!(shown(&loaded, "user_key"), (HIDDEN, origin.as_str()));
        assert!(!format!("{loaded:?}").contains("0123456789abcdef"));
    }
    assert_eq!(
        error(Some("user_key = '0123456789abcdef'"), &named, &[]),
        "settings `user_key` (headcount.toml:1) and `user_key_file` (HEADCOUNT_USER_KEY_FILE) are both given: give one"
    );
    // A later layer can undo the twin.
    assert!(
        loaded(None, &named, &[("user_key_file", "")])
            .settings
            .ingest
            .user_key
            .is_none()
    );
}

#[test]
fn a_short_or_empty_secret_is_refused_without_being_shown() {
    let message = error(None, &[("HEADCOUNT_USER_KEY", "hunter2")], &[]);
    assert_eq!(
        message,
        "setting `user_key` is *** (HEADCOUNT_USER_KEY): give at least 16 characters"
    );
    assert!(error(None, &[], &[("user_key", "")]).starts_with("setting `user_key` is empty"));
    assert!(error(Some("user_key = ''"), &[], &[]).starts_with("setting `user_key` is empty"));
}

/// `HEADCOUNT_TEST_WRITE_DOCS=1` regenerates the table.
#[test]
fn the_page_of_settings_has_each_with_its_default() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/reference/settings.md");
    let page = std::fs::read_to_string(path).unwrap();
    let (head, _) = page.split_once("<!-- settings -->").unwrap();
    let rows: Vec<_> = SETTINGS.iter().map(page_row).collect();
    let rows = rows.join("\n");
    let whole = format!(
        "{head}<!-- settings -->\n| Setting | Default | What it is |\n|---|---|---|\n{rows}\n"
    );
    if std::env::var_os("HEADCOUNT_TEST_WRITE_DOCS").is_some() {
        std::fs::write(path, &whole).unwrap();
    }
    assert_eq!(std::fs::read_to_string(path).unwrap(), whole);
}

#[test]
fn every_sample_file_is_valid() {
    let mut folders = vec![PathBuf::from(env!("CARGO_MANIFEST_DIR"))];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap().flatten() {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            if path.is_dir()
                && !name.starts_with('.')
                && !["target", "src"].contains(&name.as_str())
            {
                folders.push(path);
            } else if name.starts_with("headcount") && name.ends_with(".toml") {
                let file = Some(path);
                load(Sources {
                    file,
                    ..Sources::default()
                })
                .unwrap();
            }
        }
    }
}

/// `HEADCOUNT_TEST_WRITE_DOCS=1` regenerates the file.
#[test]
fn the_example_file_names_each_setting_with_its_default() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/headcount.example.toml");
    let mut whole = String::from(
        "# All settings of headcount with their defaults. Copy this file to headcount.toml, or name your copy with --config,\n\
         # and remove the # where you want another value. HEADCOUNT_* variables and flags override the file.\n",
    );
    let mut group = "";
    for setting in SETTINGS {
        if group_of(setting.name) != group {
            group = group_of(setting.name);
            whole += &format!("\n# --- {group} ---\n");
        }
        whole += &format!("\n{}", example_entry(setting));
    }
    if std::env::var_os("HEADCOUNT_TEST_WRITE_DOCS").is_some() {
        std::fs::write(path, &whole).unwrap();
    }
    let text = std::fs::read_to_string(path).unwrap();
    assert_eq!(text, whole);
    // The commented-out values must be valid as well.
    let all: Vec<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix('#'))
        .filter(|line| !line.starts_with(' ') && !line.ends_with("= \"\""))
        .collect();
    let loaded = loaded(Some(&all.join("\n")), &[], &[]);
    let defaults = Settings::with([]).unwrap();
    assert_eq!(format!("{:?}", loaded.settings), format!("{defaults:?}"));
}

fn example_entry(setting: &Setting) -> String {
    let Setting {
        name,
        default,
        help,
        ..
    } = setting;
    format!("# {help}\n#{name} = \"{default}\"\n")
}
