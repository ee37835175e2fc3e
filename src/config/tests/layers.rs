//! Defaults, and which layer wins.

use std::time::Duration;

use super::*;

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

fn known_name(name: &str) -> &'static str {
    names().find(|known| *known == name).unwrap()
}
