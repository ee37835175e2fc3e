//! Secrets from files, and in messages.

use super::*;

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
