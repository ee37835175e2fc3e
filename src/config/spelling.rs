//! The names of settings: how each layer spells them, and which one a misspelt name probably means.

use super::row::Setting;
use super::table::SETTINGS;
use domain::text;

/// The variable of a setting or twin.
pub fn variable_of(name: &str) -> String {
    format!("{PREFIX}{}", name.to_ascii_uppercase())
}

/// The flag of a setting or twin, without the leading dashes.
pub fn flag_of(name: &str) -> String {
    name.replace('_', "-")
}

/// The prefix of the variable of a setting.
pub const PREFIX: &str = "HEADCOUNT_";

/// The names that a layer may give: settings, and the file twins of secrets.
pub fn names() -> impl Iterator<Item = &'static str> {
    SETTINGS
        .iter()
        .flat_map(|setting| std::iter::once(setting.name).chain(setting.file_twin))
}

/// The setting `name`.
pub(super) fn find(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.name == name)
}

/// `name` as the table has it, if the table has it.
pub(super) fn known(name: &str) -> Option<&'static str> {
    names().find(|known| *known == name)
}

/// Whether `name` is a secret or the file twin of one.
pub(super) fn is_secret(name: &str) -> bool {
    let is_it = |setting: &Setting| setting.name == name || setting.file_twin == Some(name);
    SETTINGS
        .iter()
        .any(|setting| setting.is_secret() && is_it(setting))
}

/// The known name that `name`, in lower case, misspells by a letter or two. Similarity is not enough here, since
/// `window_days` may belong to another program.
pub(super) fn mistyped(name: &str) -> Option<&'static str> {
    names()
        .filter(|known| is_slip_of(known, name))
        .min_by_key(|known| strsim::damerau_levenshtein(known, name))
}

/// Whether `name` differs from `known` by a letter or two.
pub(super) fn is_slip_of(known: &str, name: &str) -> bool {
    let allowed = if known.len() < 8 { 1 } else { 2 };
    strsim::damerau_levenshtein(known, name) <= allowed
}

/// The known name most similar to `name`, if any is similar enough.
pub(super) fn nearest(name: &str) -> Option<&'static str> {
    // Below this similarity two names share at most a word, and a suggestion does not help.
    const ALIKE: f64 = 0.75;
    text::nearest(name, names(), ALIKE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn no_twin_has_the_name_of_a_setting() {
        let unique: BTreeSet<_> = names().collect();
        assert_eq!(unique.len(), names().count());
    }

    #[test]
    fn suggests_what_was_meant_and_nothing_else() {
        assert_eq!(nearest("wndow"), Some("window"));
        assert_eq!(nearest("refresh-intervall"), Some("refresh_interval"));
        assert_eq!(nearest("user_keyfile"), Some("user_key_file"));
        assert_eq!(nearest("banana"), None);
    }

    #[test]
    fn a_slip_of_the_finger_is_told_from_another_name() {
        for (name, meant) in [
            ("wndow", "window"),
            ("windwo", "window"),
            ("logs", "log"),
            ("influxdb_url", "influx_url"),
            ("redis_uri", "redis_url"),
            ("datadir", "data_dir"),
            ("window", "window"),
        ] {
            assert_eq!(mistyped(name), Some(meant), "{name}");
        }
        for name in ["", "foo", "port", "home", "image", "window_days", "version"] {
            assert_eq!(mistyped(name), None, "{name}");
        }
    }
}
